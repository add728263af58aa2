"""The parameters of one layer's matrices and of their adapters of rank 1, to scale: `06_sizes.svg`."""

from pathlib import Path

from matplotlib.patches import Rectangle

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, ORANGE, save_figure

UNIT = 0.0034  # inches for one row or column
MATRICES = (
    ("q_proj", 128, 128), ("k_proj", 64, 128), ("v_proj", 64, 128), ("o_proj", 128, 128),
    ("gate_proj", 384, 128), ("up_proj", 384, 128), ("down_proj", 128, 384),
)  # fmt: skip

figure, axes = canvas(7.5, 2.5)
x = 0.3
for name, outputs, inputs in MATRICES:
    width, height = inputs * UNIT, outputs * UNIT
    box(axes, x, 0.75, width, height, "", BLUE, filled=0.35)
    for corner, size in (((x, 0.8 + height), (width, 0.04)), ((x + width + 0.05, 0.75), (0.04, height))):
        axes.add_patch(Rectangle(corner, *size, color=ORANGE))
    centre = x + width / 2
    write(axes, centre, 0.58, name, size=8)
    write(axes, centre, 0.38, f"{outputs} × {inputs}", size=8)
    write(axes, centre, 0.18, f"{outputs} + {inputs}", size=8, color=ORANGE, weight="bold")
    x += max(width, 0.62) + 0.33
save_figure(figure, Path(__file__).with_suffix(".svg"))
