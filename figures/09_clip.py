"""The surrogate of one token by its ratio: clipped (GRPO), and CISPO's gradient weight."""

from pathlib import Path

import torch

from minimind_edu.course.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure, style
from minimind_edu.stages.policy import policy_loss

ratio = torch.linspace(0.2, 6.5, 631)[:, None]
figure, axes = new_figure(7.5, 2.7, columns=2)
for variant, colour in (("grpo", BLUE), ("dapo", ORANGE), ("cispo", RED)):
    for advantage, axis in zip((1.0, -1.0), axes, strict=True):
        pull = []
        for one in ratio:
            logprob = one.log()[None].requires_grad_()
            loss, _ = policy_loss(
                logprob, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1), variant=variant
            )
            pull.append(-float(torch.autograd.grad(loss, logprob)[0]))
        axis.plot(
            ratio, pull, color=colour, label=variant, linewidth=3 if variant == "cispo" else 1.8, alpha=0.8
        )
for axis, title in zip(axes, ("better than the group (A = 1)", "worse than the group (A = -1)"), strict=True):
    axis.axvline(1, color=GREY, linestyle=":")
    axis.set(title=title, xlabel="ratio of new to old probability")
axes[0].set_ylabel("pull on ln p")
with style():
    axes[0].legend(loc="upper left")
save_figure(figure, Path(__file__).with_suffix(".svg"))
