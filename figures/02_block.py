"""One block of the transformer: a residual stream that two sublayers read and add to."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, save_figure

figure, axes = canvas(7.5, 2.75)
STREAM, HIGH = 0.62, 1.45
box(axes, 0.1, STREAM - 0.22, 0.95, 0.44, "embedding", GREY, size=8.5)
box(axes, 6.45, STREAM - 0.22, 0.95, 0.44, "norm, head", GREY, size=8.5)
arrow(axes, (1.05, STREAM), (6.45, STREAM), INK, width=2.2)
write(axes, 3.75, STREAM - 0.2, "residual stream: T tokens, C numbers each", size=8.5)
parts = (
    (1.3, 1.62, (("RMSNorm", GREEN), ("attention\nRoPE, groups", ORANGE)), "mixes tokens"),
    (3.78, 4.08, (("RMSNorm", GREEN), ("feed-forward\nSwiGLU", PURPLE)), "works on each token"),
)
for leaves, left, boxes, note in parts:
    arrow(axes, (leaves, STREAM), (leaves + 0.32, HIGH), BLUE, bend=-0.25)
    x = left
    for name, colour in boxes:
        width = 0.72 if name == "RMSNorm" else 0.98
        box(axes, x, HIGH - 0.04, width, 0.5, name, colour, size=8)
        if name != "RMSNorm":
            arrow(axes, (x - 0.1, HIGH + 0.21), (x, HIGH + 0.21), BLUE)
        x += width + 0.1
    back = x + 0.12
    arrow(axes, (x - 0.12, HIGH), (back, STREAM + 0.12), BLUE, bend=0.25)
    axes.plot(back, STREAM, "o", color="white", markeredgecolor=INK, markersize=11, zorder=5)
    write(axes, back, STREAM, "+", size=10, zorder=6)
    write(axes, (left + x - 0.1) / 2, HIGH + 0.64, note, size=8.5, style="italic")
axes.plot((1.2, 1.2, 6.3, 6.3, 1.2), (0.22, 2.35, 2.35, 0.22, 0.22), color=GREY, linestyle="--", linewidth=1)
write(axes, 3.75, 2.54, "one block; the next one continues on the same stream", size=9)
save_figure(figure, Path(__file__).with_suffix(".svg"))
