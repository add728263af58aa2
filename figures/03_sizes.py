"""Feed-forward parameters that are stored, and those that one token uses: `03_sizes.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

UNIT = 0.29  # inches for 16 hidden units of a feed-forward
ROWS = (
    ("dense, active", [(64, True)], BLUE),
    ("4 experts, top-1", [(64, True), (64, False), (64, False), (64, False)], ORANGE),
    ("8 experts, top-2", [(32, True), (32, False)] * 2 + [(32, False)] * 4, ORANGE),
    ("7 experts, top-1,\n1 shared", [(32, True), (32, False), (32, True)] + [(32, False)] * 5, ORANGE),
    ("dense, total", [(256, True)], GREEN),
)

figure, axes = canvas(7.5, 3.1)
for row, (name, parts, colour) in enumerate(ROWS):
    y, x = 2.3 - row * 0.5, 1.65
    write(axes, 0.1, y + 0.17, name, size=9, ha="left")
    for place, (width, active) in enumerate(parts):
        shared = row == 3 and place == 0
        inches = width / 16 * UNIT
        text = f"{width}" + (" shared" if shared else "")
        box(
            axes, x, y, inches - 0.04, 0.34, text, colour if active else GREY,
            size=7 if shared else 8.5, filled=0.5 if active else 0.08,
        )  # fmt: skip
        x += inches
    used = sum(width for width, active in parts if active)
    total = sum(width for width, _ in parts)
    write(axes, 7.4, y + 0.17, f"{used} of {total}", size=9, ha="right")
write(
    axes,
    1.65,
    2.9,
    "hidden units of one feed-forward layer; filled: those that one token uses",
    size=9,
    ha="left",
)
save_figure(figure, Path(__file__).with_suffix(".svg"))
