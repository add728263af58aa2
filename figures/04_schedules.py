"""The three schedules of the learning rate, as `pretrain` follows them."""

from pathlib import Path

from minimind_edu.course.figures import new_figure, save_figure
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import learning_rate_at

STEPS = 300

figure, axes = new_figure(7.5, 2.9)
for name, style in (("cosine", "-"), ("wsd", "--"), ("constant", ":")):
    config = TrainConfig(learning_rate=1.0, warmup_iters=20, lr_schedule=name, min_lr_ratio=0.1)
    rates = [learning_rate_at(step, STEPS, config) for step in range(STEPS)]
    axes.plot(range(STEPS), rates, style, linewidth=2, label=name)
axes.axvspan(0, 20, color="#e69f00", alpha=0.15, label="warm-up")
axes.axhline(0.1, color="#888888", linewidth=0.8)
axes.annotate("min_lr_ratio", (8, 0.12), fontsize=9)
axes.set(xlabel="step", ylabel="learning rate / peak", ylim=(0, 1.08), xlim=(0, STEPS))
axes.legend(loc="center", bbox_to_anchor=(0.32, 0.45))
save_figure(figure, Path(__file__).with_suffix(".svg"))
