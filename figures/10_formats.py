"""How four number formats spend their bits: `10_formats.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, ORANGE, save_figure

FORMATS = (  # name, exponent bits, fraction bits, note
    ("float32", 8, 23, "every card"),
    ("TF32", 8, 10, "inside products, from compute capability 8.0"),
    ("bfloat16", 8, 7, "from compute capability 8.0"),
    ("float16", 5, 10, "ends at 6e-8: training needs a loss scaler"),
)
BIT = 0.115  # inches

figure, axes = canvas(7.5, 2.1)
y = 1.62
for name, exponent, fraction, note in FORMATS:
    write(axes, 0.95, y + 0.15, name, size=9.5, ha="right", weight="bold")
    x = 1.05
    for bits, colour in ((1, ORANGE), (exponent, BLUE), (fraction, GREEN)):
        box(axes, x, y, bits * BIT, 0.3, str(bits) if bits > 1 else "", colour, size=8.5)
        x += bits * BIT
    write(axes, max(x + 0.12, 3.1) if bits < 20 else x + 0.12, y + 0.15, note, size=8.5, ha="left")
    y -= 0.42
write(axes, 1.05, 0.14, "sign", size=8.5, ha="left", color=ORANGE)
write(axes, 1.5, 0.14, "exponent: how far it reaches", size=8.5, ha="left", color=BLUE)
write(axes, 3.6, 0.14, "fraction: how fine it is", size=8.5, ha="left", color=GREEN)
save_figure(figure, Path(__file__).with_suffix(".svg"))
