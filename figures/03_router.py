"""A router and its experts, with the chapter's first toy token: `03_router.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

SCORES = ("4/8", "3/8", "1/8")
WEIGHTS = ("4/7", "3/7", "")

figure, axes = canvas(7.5, 3.1)
box(axes, 0.15, 1.25, 0.95, 0.6, "token\nx = 7", BLUE)
box(axes, 1.75, 2.35, 1.1, 0.55, "router", ORANGE, weight="bold")
arrow(axes, (0.8, 1.85), (1.75, 2.6), GREY)
write(axes, 3.45, 2.85, "softmax", size=8)
for row, weight in enumerate(WEIGHTS):
    y = 1.75 - row * 0.75
    chosen = bool(weight)
    colour = GREEN if chosen else GREY
    box(axes, 3.0, y, 1.35, 0.55, f"expert {row}\nx × {10**row}", colour, filled=0.3 if chosen else 0.08)
    if chosen:
        arrow(axes, (1.1, 1.55), (3.0, y + 0.27), BLUE)
        arrow(axes, (4.35, y + 0.27), (6.3, 1.55), GREEN)
        write(axes, 5.1, y + (0.36 if row == 0 else 0.52), f"× {weight}", size=9.5)
    else:
        write(axes, 4.45, y + 0.27, "not run for this token", size=8.5, ha="left")
for place, score in enumerate(SCORES):
    box(axes, 2.98 + place * 0.46, 2.4, 0.4, 0.3, score, GREEN if place < 2 else GREY, size=8, filled=0.2)
arrow(axes, (2.85, 2.6), (2.98, 2.6), GREY)
arrow(axes, (4.32, 2.55), (4.95, 2.55), GREY)
write(axes, 5.0, 2.62, "top 2, divided by their sum 7/8:", size=8.5, ha="left")
write(axes, 5.0, 2.4, "weights 4/7 and 3/7", size=8.5, ha="left")
box(axes, 6.3, 1.22, 1.05, 0.66, "sum\n4 + 30 = 34", BLUE, size=9)
save_figure(figure, Path(__file__).with_suffix(".svg"))
