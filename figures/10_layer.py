"""The matrix products of a toy layer, with the multiply-adds of each: `10_layer.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 3.5)
TITLE = "one row of 3 tokens, hidden size 4, two query heads of 2, one key/value head, inner size 8"
write(axes, 0.1, 3.32, TITLE, size=8.5, ha="left")
ROWS = (  # name, product, multiply-adds, colour
    ("q", "(3×4) (4×4)", "3·4·4 = 48", BLUE),
    ("k and v", "(3×4) (4×2), twice", "2·3·4·2 = 48", BLUE),
    ("scores, mixing", "(3×2) (2×3) and (3×3) (3×2), for each head", "2·2·3·2·3 = 72", ORANGE),
    ("o", "(3×4) (4×4)", "3·4·4 = 48", BLUE),
    ("gate and up", "(3×4) (4×8), twice", "2·3·4·8 = 192", GREEN),
    ("down", "(3×8) (8×4)", "3·8·4 = 96", GREEN),
)
y = 2.78
for index, (name, product, count, colour) in enumerate(ROWS):
    box(axes, 0.1, y, 1.35, 0.34, name, colour, size=9)
    write(axes, 1.65, y + 0.17, product, size=9, ha="left")
    write(axes, 5.0, y + 0.17, count, size=9, ha="left")
    if index:
        arrow(axes, (0.78, y + 0.46), (0.78, y + 0.34), GREY)
    y -= 0.46
axes.plot((4.95, 7.2), (0.33, 0.33), color=GREY, linewidth=1)
write(axes, 1.65, 0.16, "multiply-adds, and FLOPs (two for each)", size=9, ha="left")
write(axes, 5.0, 0.16, "504, so 1,008 FLOPs", size=9.5, ha="left", weight="bold")
save_figure(figure, Path(__file__).with_suffix(".svg"))
