"""A window of two batches: weighed by tokens it is the big batch, as a mean of means it is not."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, ORANGE, RED, save_figure

figure, axes = canvas(7.5, 2.3)
box(axes, 0.2, 1.4, 2.4, 0.55, "3 labelled tokens: 1, 1, 1\nmean 1", BLUE)
box(axes, 0.2, 0.4, 2.4, 0.55, "1 labelled token: 5\nmean 5", ORANGE)
box(axes, 4.1, 1.4, 3.2, 0.55, "weighed by tokens:\n(3·1 + 1·5) / 4 = 2, as in one batch of 4", GREEN)
box(axes, 4.1, 0.4, 3.2, 0.55, "mean of means:\n(1 + 5) / 2 = 3", RED)
for y in (1.67, 0.67):
    arrow(axes, (2.65, 1.67), (4.05, y), BLUE)
    arrow(axes, (2.65, 0.67), (4.05, y), ORANGE)
write(axes, 1.4, 2.13, "losses of two batches", size=9)
write(axes, 5.7, 2.13, "loss of the window", size=9)
save_figure(figure, Path(__file__).with_suffix(".svg"))
