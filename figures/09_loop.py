"""One step of GRPO: a group of answers, their rewards, their advantages, and the update."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, save_figure

figure, axes = canvas(7.5, 2.6)
box(axes, 0.1, 1.05, 1.15, 0.6, "a question\nfrom a file", GREY, size=8.5)
box(axes, 1.6, 1.05, 0.95, 0.6, "policy", BLUE, weight="bold")
arrow(axes, (1.27, 1.35), (1.58, 1.35))
REWARDS, ADVANTAGES = (1, 0, 0, 1), ("+0.87", "-0.87", "-0.87", "+0.87")
for place, (reward, advantage) in enumerate(zip(REWARDS, ADVANTAGES, strict=True)):
    y, colour = 1.95 - 0.5 * place, GREEN if reward else RED
    box(axes, 2.95, y, 1.2, 0.36, f"answer {place + 1}", GREY, size=8.5)
    arrow(axes, (2.57, 1.35), (2.93, y + 0.18), GREY)
    box(axes, 4.65, y, 0.5, 0.36, str(reward), colour, size=9)
    arrow(axes, (4.17, y + 0.18), (4.63, y + 0.18), colour)
    box(axes, 5.65, y, 0.75, 0.36, advantage, ORANGE, size=9)
    arrow(axes, (5.17, y + 0.18), (5.63, y + 0.18), colour)
box(axes, 6.7, 1.05, 0.72, 0.6, "loss", PURPLE)
for place in range(4):
    arrow(axes, (6.42, 2.13 - 0.5 * place), (6.68, 1.35), GREY)
for x, text in ((2.95, "sampled"), (4.3, "verified"), (5.5, "minus the mean,\nby the deviation")):
    write(axes, x + 0.6, 2.43 if x < 5 else 2.46, text, size=7.5)
arrow(axes, (7.06, 1.03), (7.06, 0.12), PURPLE)
axes.plot([7.06, 2.07], [0.12, 0.12], color=PURPLE, linewidth=1.2)
arrow(axes, (2.07, 0.12), (2.07, 1.03), PURPLE)
write(axes, 1.0, 0.28, "its gradient makes answers\nwith + likelier, with - less likely", size=7.5)
save_figure(figure, Path(__file__).with_suffix(".svg"))
