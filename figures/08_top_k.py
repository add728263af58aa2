"""Eight probabilities become the two largest and a lump of the rest."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.0)
values = (1 / 16, 1 / 2, 1 / 32, 1 / 32, 1 / 4, 1 / 16, 1 / 32, 1 / 32)
names = ("1/16", "1/2", "1/32", "1/32", "1/4", "1/16", "1/32", "1/32")
write(axes, 1.9, 1.8, "the teacher's distribution, V = 8", size=9.5)
for place, (value, name) in enumerate(zip(values, names, strict=True)):
    colour = ORANGE if value >= 1 / 4 else GREY
    box(axes, 0.1 + 0.46 * place, 0.55, 0.4, 1.9 * value + 0.04, "", colour, filled=0.6)
    write(axes, 0.3 + 0.46 * place, 0.38, name, size=8)
    write(axes, 0.3 + 0.46 * place, 0.15, f"{place}", size=8, color=GREY)
arrow(axes, (4.0, 0.9), (4.6, 0.9), BLUE)
write(axes, 6.0, 1.8, "on the disk, k = 2", size=9.5)
for row, (left, right, colour) in enumerate(
    (("token 1", "ln 1/2", ORANGE), ("token 4", "ln 1/4", ORANGE), ("any other", "ln 1/4", GREY))
):
    box(axes, 4.75, 1.15 - 0.45 * row, 1.2, 0.36, left, colour)
    box(axes, 6.05, 1.15 - 0.45 * row, 1.2, 0.36, right, colour)
save_figure(figure, Path(__file__).with_suffix(".svg"))
