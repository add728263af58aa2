"""Exercises of chapter 7: the loss of a pair, and the best policy (more in `ch07_answers`)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.ch07_answers import ANSWER_EXERCISES
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A random number from low to high."""
    return low + (high - low) * float(torch.rand((), generator=generator))


# ----------------------------------------------------------------------------------------------- best_policy


def best_policy(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Of probabilities (K,) and rewards (K,), the policy with the most reward minus beta times KL; (K,)."""
    return (reference.log() + rewards / beta).softmax(dim=0)


def _bandits(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(5):
        size = int(torch.randint(3, 6, (), generator=generator))
        reference = torch.rand(size, generator=generator) + 0.1
        rewards = torch.randn(size, generator=generator)
        cases.append((reference / reference.sum(), rewards, _uniform(generator, 0.4, 0.8)))
    few = torch.tensor([0.5, 0.3, 0.2])
    # Rewards far too large for exp, of which the second case's best two differ by little.
    cases += [(few, torch.tensor(rewards), 0.5) for rewards in ([300.0, 0.0, -300.0], [99.5, 100.0, 0.0])]
    return cases


def _without_reference(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return (rewards / beta).softmax(dim=0)


def _times_beta(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return (reference.log() + rewards * beta).softmax(dim=0)


def _without_beta(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return (reference.log() + rewards).softmax(dim=0)


def _not_normalised(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return reference * (rewards / beta).exp()


def _overflows(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    weights = reference * (rewards / beta).exp()
    return weights / weights.sum()


def _capped(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    weights = reference * (rewards / beta).clamp(max=80).exp()
    return weights / weights.sum()


def _reference_added(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return (reference + rewards / beta).softmax(dim=0)


def _takes_the_best(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return F.one_hot(rewards.argmax(), len(rewards)).float()


def _flipped(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return (reference.log() - rewards / beta).softmax(dim=0)


def _logarithms(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return (reference.log() + rewards / beta).log_softmax(dim=0)


def _is_a_distribution(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(*_bandits(generator)[0])
    return abs(float(given.sum()) - 1) < 1e-4 and bool((given >= 0).all())


def _equal_rewards_change_nothing(attempt: Callable, generator: torch.Generator) -> bool:
    reference = torch.tensor([0.5, 0.3, 0.2])
    return torch.allclose(attempt(reference, torch.ones(3), 0.7), reference, atol=1e-4)


def _follows_the_reward(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(torch.tensor([0.5, 0.5]), torch.tensor([math.log(3), 0.0]), 1.0)
    return abs(float(given[0]) - 0.75) < 1e-4


def _small_beta_goes_further(attempt: Callable, generator: torch.Generator) -> bool:
    reference, rewards = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    return bool(attempt(reference, rewards, 0.25)[0] > attempt(reference, rewards, 1.0)[0] + 0.05)


# -------------------------------------------------------------------------------------------------- dpo_loss


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """-ln sigma(beta h) of pairs (B, 2) of log-probabilities, the chosen answer first; (B,)."""
    rewards = beta * (policy - reference)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1])


def _pairs(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(5):
        size = int(torch.randint(3, 7, (), generator=generator))
        policy = -30 * torch.rand(size, 2, generator=generator)
        reference = policy + 4 * torch.randn(size, 2, generator=generator)
        cases.append((policy, reference, _uniform(generator, 0.2, 0.6)))
    far = torch.tensor([[-900.0, 0.0], [0.0, -900.0]])
    cases.append((far, torch.zeros(2, 2), 0.5))
    return cases


def _advantage(policy: Tensor, reference: Tensor) -> Tensor:
    return (policy - reference)[:, 0] - (policy - reference)[:, 1]


def _no_reference(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(beta * (policy[:, 0] - policy[:, 1]))


def _no_beta(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(_advantage(policy, reference))


def _rejected_first(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(-beta * _advantage(policy, reference))


def _reference_minus_policy(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(beta * ((policy[:, 0] - policy[:, 1]) + (reference[:, 0] - reference[:, 1])))


def _log_of_sigmoid(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return -torch.sigmoid(beta * _advantage(policy, reference)).log()


def _gain(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return F.logsigmoid(beta * _advantage(policy, reference))


def _only_chosen(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(beta * (policy - reference)[:, 0])


def _mean_of_pairs(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return dpo_loss(policy, reference, beta).mean()


def _sigmoid_only(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    return 1 - torch.sigmoid(beta * _advantage(policy, reference))


def _one_a_pair(attempt: Callable, generator: torch.Generator) -> bool:
    policy, reference, beta = _pairs(generator)[0]
    return tuple(attempt(policy, reference, beta).shape) == (len(policy),)


def _is_ln_2_at_the_start(attempt: Callable, generator: torch.Generator) -> bool:
    policy = _pairs(generator)[0][0]
    return bool((attempt(policy, policy.clone(), 0.3) - math.log(2)).abs().max() < 1e-4)


def _stays_finite(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(torch.tensor([[-2000.0, 0.0]]), torch.zeros(1, 2), 0.5)
    return bool(torch.isfinite(given).all()) and abs(float(given[0]) - 1000) < 1


def _pulls(attempt: Callable, generator: torch.Generator) -> bool:
    """Where policy and reference agree: the chosen answer is pulled up by beta / 2, the rejected one down."""
    policy = _pairs(generator)[0][0].requires_grad_()
    loss = attempt(policy, policy.detach().clone(), 0.3).sum()
    pull = torch.autograd.grad(loss, policy)[0]
    return bool((pull - 0.15 * torch.tensor([-1.0, 1.0])).abs().max() < 1e-4)


def _only_differences_matter(attempt: Callable, generator: torch.Generator) -> bool:
    policy, reference, beta = _pairs(generator)[0]
    moved = attempt(policy - 7, reference, beta)
    return torch.allclose(moved, attempt(policy, reference, beta), atol=1e-3)


EXERCISES = (
    Exercise(
        name="ch07.best_policy",
        solution=best_policy,
        cases=_bandits,
        mistakes=(
            Mistake("the reference is missing: KL holds the policy to it", _without_reference),
            Mistake("a large beta should hold the policy back: divide by it", _times_beta),
            Mistake("beta is missing", _without_beta),
            Mistake("the weights still have to be divided by their sum", _not_normalised),
            Mistake(
                "right where rewards are small; large ones overflow, so stay with logarithms", _overflows
            ),
            Mistake(
                "a limit makes large rewards equal; instead use that only differences of rewards count",
                _capped,
            ),
            Mistake("take the logarithm of the reference before you add the reward to it", _reference_added),
            Mistake("this forgets KL: all probability went to the best answer", _takes_the_best),
            Mistake("answers with more reward became less probable: look at the sign", _flipped),
            Mistake("probabilities are wanted, not their logarithms", _logarithms),
        ),
        properties=(
            Property("the result should be a distribution: not negative, with sum 1", _is_a_distribution),
            Property(
                "where all rewards are equal, the reference is the best policy", _equal_rewards_change_nothing
            ),
            Property("try reference (1/2, 1/2), rewards (ln 3, 0), beta 1: (3/4, 1/4)", _follows_the_reward),
            Property("a smaller beta should go further from the reference", _small_beta_goes_further),
        ),
    ),
    Exercise(
        name="ch07.dpo_loss",
        solution=dpo_loss,
        cases=_pairs,
        mistakes=(
            Mistake("the reference is missing", _no_reference),
            Mistake("beta is missing", _no_beta),
            Mistake("chosen and rejected are the wrong way round", _rejected_first),
            Mistake("the reference's difference belongs with a minus sign", _reference_minus_policy),
            Mistake(
                "right for small margins; far on the wrong side the sigmoid is 0 and its logarithm infinite",
                _log_of_sigmoid,
            ),
            Mistake("a loss should fall as the margin grows: look at the sign", _gain),
            Mistake("the rejected answer is missing", _only_chosen),
            Mistake("one loss for each pair is wanted, without a mean", _mean_of_pairs),
            Mistake("the logarithm is missing", _sigmoid_only),
        ),
        properties=(
            Property("the result should have one loss for each pair: shape (B,)", _one_a_pair),
            Property("where policy and reference agree, every loss is ln 2", _is_ln_2_at_the_start),
            Property("a pair far on the wrong side should have a large, finite loss", _stays_finite),
            Property(
                "adding a constant to both log-probabilities should change nothing", _only_differences_matter
            ),
            Property(
                "nothing is learned from this loss: the policy gets no gradient, or a wrong one",
                _pulls,
                always=True,
            ),
        ),
    ),
    *ANSWER_EXERCISES,
)
