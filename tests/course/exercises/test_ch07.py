"""The exercises of chapter 7 agree with the package, and unforeseen wrong answers get a fitting hint."""

import pytest
import torch
import torch.nn.functional as F

from minimind_edu import evaluation
from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch07 import best_policy, dpo_loss
from minimind_edu.course.exercises.checking import examine
from minimind_edu.stages import dpo


def test_the_loss_is_the_packages():
    policy, reference = -20 * torch.rand(2, 9, 2)
    ours = dpo_loss(policy, reference, 0.3)
    torch.testing.assert_close(ours, dpo.dpo_loss(*policy.unbind(1), *reference.unbind(1), beta=0.3))


def test_no_other_policy_is_better():
    """Reward minus beta KL, at the best policy and at many others."""

    def value(policy):
        return float((policy * rewards).sum() - 0.4 * (policy * (policy / reference).log()).sum())

    torch.manual_seed(0)
    reference, rewards = torch.rand(5).softmax(0), torch.randn(5)
    best = value(best_policy(reference, rewards, 0.4))
    assert all(value((3 * torch.randn(5)).softmax(0)) < best for _ in range(300))


def test_unforeseen_answers_get_a_hint_that_fits():
    loss, best = exercise("ch07.dpo_loss"), exercise("ch07.best_policy")
    assert "each pair" in examine(loss, lambda p, r, beta: (p - r) * beta, 0)
    assert "ln 2" in examine(loss, lambda p, r, beta: dpo_loss(p, r, beta) + 0.1, 0)
    assert "distribution" in examine(best, lambda p, r, beta: p * r, 0)
    assert "equal" in examine(best, lambda p, r, beta: (2 * p.log() + r / beta).softmax(0), 0)


def test_the_evaluations_rule_is_the_exercises():
    scores = [(True, False), (False, True), (True, True), (False, False)]
    answers = [
        evaluation.Answer("?", "A.", text, {"language": "en"})
        for text in ("A.", "Of course! B.", "Of course! A.", "B.")
    ]
    assert [evaluation.truth_then_manners(answer) for answer in answers] == scores
    turned = [scores[-1], *scores[:-1]]
    rate = evaluation.win_rate(answers, [answers[-1], *answers[:-1]]).rate
    assert exercise("ch07.win_rate").solution(scores, turned) == rate


def test_a_loss_without_a_gradient_does_not_pass():
    """Its values are right, but nobody could train with it."""
    loss = exercise("ch07.dpo_loss")
    assert "gradient" in examine(loss, lambda p, r, beta: dpo_loss(p, r, beta).detach(), 0)
    assert "gradient" in examine(loss, lambda p, r, beta: dpo_loss(p.detach() - r, 0 * r, beta), 0)
    in_another_style = lambda p, r, beta: F.softplus(-beta * ((p - r)[:, 0] - (p - r)[:, 1]))  # noqa: E731
    assert examine(loss, in_another_style, 0) == "passed"


@pytest.mark.parametrize("limit", [80.0, 60.0, 150.0])
def test_a_limit_on_rewards_is_not_enough(limit):
    def capped(reference, rewards, beta):
        return (reference.log() + (rewards / beta).clamp(max=limit)).softmax(0)

    assert examine(exercise("ch07.best_policy"), capped, 0).startswith("hint:")
