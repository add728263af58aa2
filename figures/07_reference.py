"""One model in memory: the reference's log-probabilities are computed once, before training."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, save_figure

figure, axes = canvas(7.5, 1.6)
box(axes, 0.15, 0.4, 1.35, 0.6, "model before\nthe first step", GREY)
box(axes, 2.35, 0.4, 1.75, 0.6, "log-probabilities of\nall answers, on disk", BLUE, size=8.5)
box(axes, 5.05, 0.4, 2.3, 0.6, "training: policy against\nstored numbers", GREEN)
arrow(axes, (1.53, 0.7), (2.32, 0.7), GREY)
arrow(axes, (4.13, 0.7), (5.02, 0.7), BLUE)
write(axes, 1.93, 0.9, "once", size=8.5)
write(axes, 4.57, 0.9, "read", size=8.5)
write(axes, 6.1, 0.17, "at step 0 both are equal: every loss is ln 2", size=8.5)
write(axes, 3.22, 1.33, "key: weights, pairs, tokenizer, length, number format", size=8.5)
save_figure(figure, Path(__file__).with_suffix(".svg"))
