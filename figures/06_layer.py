"""A frozen matrix with two thin ones beside it: `06_layer.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 3.3)
box(axes, 3.0, 0.1, 1.5, 0.36, "x   (in)", BLUE)
box(axes, 0.9, 0.95, 2.2, 1.45, "W   (out, in)\nfrozen", GREY, size=11)
box(axes, 4.4, 0.95, 2.2, 0.36, "A   (rank, in)", ORANGE)
box(axes, 5.15, 1.45, 0.7, 0.34, "rank", BLUE, size=8.5)
box(axes, 5.3, 1.93, 0.4, 1.0, "", ORANGE)
write(axes, 5.8, 2.43, "B   (out, rank),\nzero at first", ha="left", size=9)
write(axes, 5.15, 2.43, "× α / rank", ha="right", size=9)
box(axes, 3.45, 2.68, 0.6, 0.42, "+", BLUE, size=13)
arrow(axes, (3.4, 0.46), (2.0, 0.95))
arrow(axes, (4.1, 0.46), (5.5, 0.95))
arrow(axes, (5.5, 1.31), (5.5, 1.45))
arrow(axes, (5.5, 1.79), (5.5, 1.93))
arrow(axes, (2.0, 2.4), (3.45, 2.85))
arrow(axes, (5.3, 2.88), (4.05, 2.9))
arrow(axes, (3.75, 3.1), (3.75, 3.29))
save_figure(figure, Path(__file__).with_suffix(".svg"))
