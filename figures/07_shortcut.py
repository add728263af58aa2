"""From preferences to a policy: by a reward model and reinforcement learning, or directly."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.2)
box(axes, 0.15, 0.85, 1.5, 0.6, "preference\npairs", GREY)
box(axes, 2.9, 1.45, 1.5, 0.6, "reward model\nr(x, y)", BLUE)
box(axes, 5.75, 0.85, 1.6, 0.6, "policy\nπ(y | x)", GREEN)
arrow(axes, (1.68, 1.3), (2.87, 1.75), BLUE)
arrow(axes, (4.43, 1.75), (5.72, 1.3), BLUE)
write(axes, 1.95, 1.82, "Bradley-Terry loss", size=8)
write(axes, 5.55, 1.82, "reinforcement learning,\nheld back by β KL", size=8)
arrow(axes, (1.68, 1.0), (5.72, 1.0), ORANGE, bend=-0.1, width=1.8)
write(axes, 3.7, 0.3, "DPO: the same loss, with the reward written by the policy,", size=8.5)
write(axes, 3.7, 0.1, "r = β ln( π / reference ) + a term that is equal for all answers", size=8.5)
save_figure(figure, Path(__file__).with_suffix(".svg"))
