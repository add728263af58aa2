"""The exercises of chapter 9 agree with the package, and unforeseen wrong answers get a fitting hint."""

import math

import torch

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch09 import clipped_loss, group_advantages, k3
from minimind_edu.course.exercises.checking import examine
from minimind_edu.stages import policy


def test_they_are_the_packages():
    torch.manual_seed(0)
    rewards = torch.rand(4, 8)
    for scale in (True, False):
        ours = group_advantages(rewards, scale)
        torch.testing.assert_close(ours, policy.group_advantages(rewards, scale))
    old, advantages = -torch.rand(6, 9), torch.randn(6)
    new = old + 0.4 * torch.randn(6, 9)
    mask = (torch.arange(9) < torch.randint(1, 10, (6, 1))).float()
    theirs, means = policy.policy_loss(new, old, advantages, mask, variant="grpo", ref_logprobs=old)
    torch.testing.assert_close(clipped_loss(new, old, advantages, mask, 0.2), theirs)
    torch.testing.assert_close((k3(new, old) * mask).sum() / mask.sum(), means["kl"])


def test_by_hand():
    assert group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), False).tolist() == [[0.5, -0.5, -0.5, 0.5]]
    assert float(k3(torch.tensor(0.0), torch.tensor(math.log(2)))) == 1 - float(torch.tensor(2.0).log())
    one = torch.tensor([[math.log(2)]])
    loss = clipped_loss(one, torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1), 0.2)
    assert abs(float(loss) + 1.2) < 1e-6


def test_unforeseen_answers_get_a_hint_that_fits():
    advantages, kl, loss = (exercise(f"ch09.{name}") for name in ("group_advantages", "k3", "clipped_loss"))
    assert "shape" in examine(advantages, lambda rewards, scale: rewards.mean(dim=1), 0)
    assert "sum to 0" in examine(advantages, lambda rewards, scale: rewards.softmax(dim=1), 0)
    assert "negative" in examine(kl, lambda p, r: 3 * (p - r), 0)
    assert "one number" in examine(loss, lambda p, o, a, m, e: (p - o) * a[:, None], 0)
    doubled = lambda p, o, a, m, e: 2 * clipped_loss(p, o, a, m, e)  # noqa: E731
    assert "mean advantage" in examine(loss, doubled, 0)


def test_a_loss_without_a_gradient_does_not_pass():
    loss = exercise("ch09.clipped_loss")
    for attempt in (
        lambda p, o, a, m, e: clipped_loss(p.detach(), o, a, m, e),
        lambda p, o, a, m, e: clipped_loss(p, o, a, m, e).item(),
        lambda p, o, a, m, e: 2 * clipped_loss(p, o, a, m, e).detach() - clipped_loss(p, o, a, m, e),
    ):
        assert examine(loss, attempt, 0).startswith("hint")
