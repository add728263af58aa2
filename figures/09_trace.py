"""A sum answered at once, and worked out digit by digit: what each written token has to find out."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import GREEN, GREY, ORANGE, RED, save_figure

figure, axes = canvas(7.5, 2.75)
write(
    axes,
    0.15,
    2.55,
    "at once: the first digit needs every carry, in one pass through the layers",
    size=8.5,
    ha="left",
)
box(axes, 0.15, 1.95, 1.75, 0.42, "Work out 458 + 676.", GREY, size=8.5)
box(axes, 2.25, 1.95, 0.42, 0.42, "1", RED, size=9.5, filled=0.5)
arrow(axes, (1.92, 2.16), (2.23, 2.16), RED)
for place, digit in enumerate("134"):
    box(axes, 2.75 + 0.5 * place, 1.95, 0.42, 0.42, digit, GREY)
write(
    axes,
    0.15,
    1.62,
    "thinking first: each line needs two digits and the carry that the last line wrote",
    size=8.5,
    ha="left",
)
box(axes, 0.15, 1.02, 1.75, 0.42, "Work out 458 + 676.", GREY, size=8.5)
LINES = (
    "8 + 6 + carry 0 = 14:\nwrite 4, carry 1.",
    "5 + 7 + carry 1 = 13:\nwrite 3, carry 1.",
    "4 + 6 + carry 1 = 11:\nwrite 1, carry 1.",
)
for place, line in enumerate(LINES):
    x = 2.2 + 1.8 * place
    box(axes, x, 0.9, 1.62, 0.6, line, ORANGE, size=8)
    if place:
        arrow(axes, (x - 0.19, 1.2), (x - 0.01, 1.2), ORANGE)
arrow(axes, (1.92, 1.22), (2.18, 1.22), ORANGE)
box(
    axes,
    2.2,
    0.15,
    5.22,
    0.42,
    "<answer>  1134  </answer>      copied from what is written above",
    GREEN,
    size=8.5,
)
arrow(axes, (4.8, 0.88), (4.8, 0.59), GREEN)
save_figure(figure, Path(__file__).with_suffix(".svg"))
