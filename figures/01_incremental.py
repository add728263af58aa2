"""One round of the trainer that keeps its counts."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.7)
box(axes, 0.15, 1.55, 1.75, 0.85, "heap\nthe most frequent\npair comes up", ORANGE)
box(axes, 2.65, 1.55, 1.85, 0.85, "words_with\n{pair: the words\nthat contain it}", GREEN)
box(axes, 5.25, 1.55, 2.05, 0.85, "only these words:\npairs out, merge,\nnew pairs in", BLUE)
box(axes, 2.65, 0.25, 1.85, 0.75, "pair_counts\nkept up to date", GREY)
arrow(axes, (1.9, 2.06), (2.65, 2.06))
write(axes, 2.28, 2.2, "pair", size=8)
arrow(axes, (4.5, 2.06), (5.25, 2.06))
write(axes, 4.88, 2.2, "words", size=8)
arrow(axes, (6.0, 1.55), (4.5, 0.75), bend=-0.15)
write(axes, 5.5, 0.8, "counts go down and up", size=8, ha="left")
arrow(axes, (2.65, 0.62), (1.0, 1.55), bend=-0.15)
write(axes, 1.45, 0.8, "pairs with the\nnew token", size=8, ha="right")
arrow(axes, (5.25, 1.7), (4.5, 1.7), GREY)
write(axes, 4.88, 1.54, "new pairs", size=8)
save_figure(figure, Path(__file__).with_suffix(".svg"))
