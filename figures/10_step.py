"""What sits in memory during a training step: `10_step.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import canvas, tint, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, save_figure

# Height over time, in arbitrary units: what is there from the first step on, and what comes and goes.
TIMES = (0.0, 3.0, 3.5, 5.6, 6.3)  # begin of forward, its end, loss done, backward done, step done
ALWAYS = ((BLUE, "weights: 4 bytes a parameter", 0.38), (GREEN, "AdamW's two moments: 8", 0.62))

figure, axes = canvas(7.5, 3.3)
left, bottom = 0.35, 0.55


def area(times: tuple, lower: tuple, upper: tuple, colour: str) -> None:
    """A filled band between two lines over time."""
    xs = [left + t for t in times]
    axes.fill_between(xs, [bottom + v for v in lower], [bottom + v for v in upper],
                      facecolor=tint(colour, 0.35), edgecolor=colour, linewidth=1)  # fmt: skip


base = 0.0
for colour, name, height in ALWAYS:
    area((0, 6.3), (base, base), (base + height, base + height), colour)
    write(axes, left + 0.1, bottom + base + height / 2, name, size=8.5, ha="left")
    base += height
# Gradients grow in the backward pass and are dropped after the step.
area((3.5, 5.6, 6.3), (base,) * 3, (base, base + 0.38, base + 0.38), ORANGE)
write(axes, left + 5.63, bottom + base + 0.2, "gradients: 4", size=8, ha="center")
area((0, 3.0, 3.5, 5.6), (base, base, base, base + 0.38), (base, base + 1.1, base + 1.1, base + 0.38), PURPLE)
write(axes, left + 2.75, bottom + base + 0.34, "activations", size=8.5)
area((3.0, 3.25, 3.5), (base + 1.1,) * 3, (base + 1.1, base + 1.62, base + 1.1), RED)
write(axes, left + 3.4, bottom + base + 1.5, "logits, in the loss", size=8.5, ha="left")
for begin, end, name in ((0, 3.0, "forward"), (3.5, 5.6, "backward"), (5.6, 6.3, "step")):
    write(axes, left + (begin + end) / 2, 0.3, name, size=9)
    axes.plot((left + begin, left + begin), (0.42, bottom), color=GREY, linewidth=0.8)
    axes.plot((left + end, left + end), (0.42, bottom), color=GREY, linewidth=0.8)
write(axes, left + 3.25, 0.3, "loss", size=9)
save_figure(figure, Path(__file__).with_suffix(".svg"))
