"""Exercises of chapter 9: advantages in a group, the estimate k3, the clipped loss (see `ch09_answers`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from minimind_edu.course.exercises.ch09_answers import ANSWER_EXERCISES
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ------------------------------------------------------------------------------------------ group_advantages


def group_advantages(rewards: Tensor, scale: bool) -> Tensor:
    """How much better each answer is than its group's mean, in deviations with ``scale``; (P, G)."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not scale:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-4)


def _groups(generator: torch.Generator) -> list[tuple]:
    cases = []
    for scale in (True, False) * 3:
        prompts, size = _integer(generator, 2, 5), _integer(generator, 6, 9)
        rewards = torch.randn(prompts, size, generator=generator) + torch.arange(prompts)[:, None]
        cases.append((rewards, scale))
    equal = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    return [*cases, (equal, True), (equal, False)]


def _mean_of_all(rewards: Tensor, scale: bool) -> Tensor:
    centred = rewards - rewards.mean()
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-4) if scale else centred


def _across_prompts(rewards: Tensor, scale: bool) -> Tensor:
    centred = rewards - rewards.mean(dim=0, keepdim=True)
    return centred / (rewards.std(dim=0, keepdim=True) + 1e-4) if scale else centred


def _never_scaled(rewards: Tensor, scale: bool) -> Tensor:
    return group_advantages(rewards, False)


def _always_scaled(rewards: Tensor, scale: bool) -> Tensor:
    return group_advantages(rewards, True)


def _divided_by_zero(rewards: Tensor, scale: bool) -> Tensor:
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / rewards.std(dim=1, keepdim=True) if scale else centred


def _by_the_variance(rewards: Tensor, scale: bool) -> Tensor:
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.var(dim=1, keepdim=True) + 1e-4) if scale else centred


def _biased(rewards: Tensor, scale: bool) -> Tensor:
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True, correction=0) + 1e-4) if scale else centred


def _not_centred(rewards: Tensor, scale: bool) -> Tensor:
    return rewards / (rewards.std(dim=1, keepdim=True) + 1e-4) if scale else rewards


def _minus(rewards: Tensor, scale: bool) -> Tensor:
    return -group_advantages(rewards, scale)


def _has_the_shape_of_rewards(attempt: Callable, generator: torch.Generator) -> bool:
    rewards, scale = _groups(generator)[0]
    return attempt(rewards, scale).shape == rewards.shape


def _sums_to_zero(attempt: Callable, generator: torch.Generator) -> bool:
    return all(
        bool(attempt(*case).sum(dim=1).abs().max() < 1e-3 * case[0].shape[1]) for case in _groups(generator)
    )


def _ignores_a_bonus_for_all(attempt: Callable, generator: torch.Generator) -> bool:
    rewards, scale = _groups(generator)[0]
    return torch.allclose(attempt(rewards + 5, scale), attempt(rewards, scale), atol=1e-3)


def _has_deviation_one(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(_groups(generator)[0][0], True)
    return bool((given.std(dim=1) - 1).abs().max() < 1e-2)


# -------------------------------------------------------------------------------------------------------- k3


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Token by token, exp(d) - d - 1 with d = reference - logprobs: never negative, its mean is the KL."""
    difference = reference - logprobs
    return difference.exp() - difference - 1


def _two_policies(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(5):
        shape = (_integer(generator, 2, 4), _integer(generator, 3, 6))
        logprobs = -3 * torch.rand(shape, generator=generator)
        cases.append((logprobs, logprobs + torch.randn(shape, generator=generator)))
    return cases


def _k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    return logprobs - reference


def _k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    return (logprobs - reference) ** 2 / 2


def _turned_round(logprobs: Tensor, reference: Tensor) -> Tensor:
    return k3(reference, logprobs)


def _without_one(logprobs: Tensor, reference: Tensor) -> Tensor:
    return k3(logprobs, reference) + 1


def _without_difference(logprobs: Tensor, reference: Tensor) -> Tensor:
    return (reference - logprobs).exp() - 1


def _probabilities(logprobs: Tensor, reference: Tensor) -> Tensor:
    difference = reference.exp() - logprobs.exp()
    return difference.exp() - difference - 1


def _summed(logprobs: Tensor, reference: Tensor) -> Tensor:
    return k3(logprobs, reference).sum(dim=1)


def _one_for_each_token(attempt: Callable, generator: torch.Generator) -> bool:
    logprobs, reference = _two_policies(generator)[0]
    return attempt(logprobs, reference).shape == logprobs.shape


def _is_zero_where_both_agree(attempt: Callable, generator: torch.Generator) -> bool:
    logprobs, _ = _two_policies(generator)[0]
    return bool(attempt(logprobs, logprobs.clone()).abs().max() < 1e-5)


def _is_never_negative(attempt: Callable, generator: torch.Generator) -> bool:
    return all(bool((attempt(*case) >= -1e-6).all()) for case in _two_policies(generator))


def _its_mean_is_the_kl(attempt: Callable, generator: torch.Generator) -> bool:
    """Over all tokens, weighted by how often each is drawn."""
    ours, theirs = torch.randn(2, 1, 9, generator=generator).log_softmax(dim=-1)
    exact = (ours.exp() * (ours - theirs)).sum()
    return bool(((ours.exp() * attempt(ours, theirs)).sum() - exact).abs() < 1e-4)


# ---------------------------------------------------------------------------------------------- clipped_loss


def clipped_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    """-min(r A, clip(r) A), a mean over each answer's tokens, then over answers; a scalar."""
    ratio, advantage = (logprobs - old).exp(), advantages[:, None]
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - eps, 1 + eps) * advantage)
    return ((loss * mask).sum(dim=1) / mask.sum(dim=1)).mean()


def _batches(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(5):
        answers, length = _integer(generator, 3, 5), _integer(generator, 6, 9)
        old = -2 * torch.rand(answers, length, generator=generator)
        new = old + 0.5 * torch.randn(answers, length, generator=generator)
        advantages = torch.randn(answers, generator=generator)
        ends = torch.randint(1, length, (answers,), generator=generator)
        ends[0], ends[1] = length, 2
        mask = (torch.arange(length) < ends[:, None]).float()
        cases.append((new, old, advantages, mask, 0.1 + 0.2 * float(torch.rand((), generator=generator))))
    return cases


def _parts(logprobs: Tensor, old: Tensor, advantages: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    ratio, advantage = (logprobs - old).exp(), advantages[:, None]
    return ratio * advantage, ratio.clamp(1 - eps, 1 + eps) * advantage


def _mean_by_answer(loss: Tensor, mask: Tensor) -> Tensor:
    return ((loss * mask).sum(dim=1) / mask.sum(dim=1)).mean()


def _only_clipped(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    return _mean_by_answer(-_parts(logprobs, old, advantages, eps)[1], mask)


def _never_clipped(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    return _mean_by_answer(-_parts(logprobs, old, advantages, eps)[0], mask)


def _maximum(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    return _mean_by_answer(-torch.maximum(*_parts(logprobs, old, advantages, eps)), mask)


def _smaller_ratio(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    ratio = (logprobs - old).exp()
    return _mean_by_answer(-torch.minimum(ratio, ratio.clamp(1 - eps, 1 + eps)) * advantages[:, None], mask)


def _a_gain(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    return -clipped_loss(logprobs, old, advantages, mask, eps)


def _inverted(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    return clipped_loss(old, logprobs, advantages, mask, eps)


def _mean_over_tokens(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    loss = -torch.minimum(*_parts(logprobs, old, advantages, eps))
    return (loss * mask).sum() / mask.sum()


def _with_padding(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float) -> Tensor:
    return -torch.minimum(*_parts(logprobs, old, advantages, eps)).mean()


def _divided_by_padding(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, eps: float
) -> Tensor:
    return -(torch.minimum(*_parts(logprobs, old, advantages, eps)) * mask).mean()


def _is_one_number(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(*_batches(generator)[0]).dim() == 0


def _starts_at_the_mean_advantage(attempt: Callable, generator: torch.Generator) -> bool:
    new, _, advantages, mask, eps = _batches(generator)[0]
    return bool((attempt(new, new.clone(), advantages, mask, eps) + advantages.mean()).abs() < 1e-4)


def _padding_does_not_count(attempt: Callable, generator: torch.Generator) -> bool:
    new, old, advantages, mask, eps = _batches(generator)[0]
    changed = torch.where(mask.bool(), new, new + 1)
    given = [attempt(one, old, advantages, mask, eps) for one in (new, changed)]
    return bool((given[0] - given[1]).abs() < 1e-5)


def _lets_go_of_what_went_far(attempt: Callable, generator: torch.Generator) -> bool:
    new = torch.ones(1, 1, requires_grad=True)  # a ratio of e, and an answer that was good
    loss = attempt(new, torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1), 0.2)
    return float(torch.autograd.grad(loss, new)[0]) == 0


def _pulls_at_first(attempt: Callable, generator: torch.Generator) -> bool:
    """At a ratio of 1, against the advantage: the loss falls where a good answer becomes likelier."""
    for advantage in (1.0, -1.0):
        new = torch.zeros(1, 1, requires_grad=True)
        loss = attempt(new, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1), 0.2)
        if float(torch.autograd.grad(loss, new)[0]) * advantage >= 0:
            return False
    return True


EXERCISES = (
    Exercise(
        name="ch09.group_advantages",
        solution=group_advantages,
        cases=_groups,
        tolerance=1e-3,
        mistakes=(
            Mistake("each group has a mean of its own: an easy prompt must not count as good", _mean_of_all),
            Mistake("answers to the same prompt are a row; the mean went over columns", _across_prompts),
            Mistake("`scale` was ignored: with it, divide by the deviation", _never_scaled),
            Mistake("without `scale`, nothing is divided", _always_scaled),
            Mistake("a group of equal rewards has deviation 0: add 1e-4 to it", _divided_by_zero),
            Mistake("divide by the deviation, not by the variance", _by_the_variance),
            Mistake("the deviation has G - 1 below, as torch's default does", _biased),
            Mistake("the mean of the group was not subtracted", _not_centred),
            Mistake("better than the mean should be positive: look at the sign", _minus),
        ),
        properties=(
            Property("the result has the shape of the rewards, (P, G)", _has_the_shape_of_rewards),
            Property("the advantages of a group sum to 0", _sums_to_zero),
            Property("a bonus that all answers get should change nothing", _ignores_a_bonus_for_all),
            Property("with `scale`, each group's advantages have deviation 1", _has_deviation_one),
        ),
    ),
    Exercise(
        name="ch09.k3",
        solution=k3,
        cases=_two_policies,
        mistakes=(
            Mistake("this is k1: right in the mean, but negative for many tokens", _k1),
            Mistake("this is k2, half the square: never negative, but its mean is not the KL", _k2),
            Mistake("d is the reference's minus the policy's, not the other way", _turned_round),
            Mistake("where both agree the result should be 0, not 1", _without_one),
            Mistake("the middle term, minus d, is missing", _without_difference),
            Mistake("d is a difference of log-probabilities, not of probabilities", _probabilities),
            Mistake("one number for each token is wanted, without a sum", _summed),
        ),
        properties=(
            Property("the result should have one number for each token", _one_for_each_token),
            Property("where both agree the result should be 0", _is_zero_where_both_agree),
            Property("no token's estimate should be negative", _is_never_negative),
            Property("in the mean over what the policy draws it should be the KL", _its_mean_is_the_kl),
        ),
    ),
    Exercise(
        name="ch09.clipped_loss",
        solution=clipped_loss,
        cases=_batches,
        mistakes=(
            Mistake("the smaller of the clipped and the unclipped term counts, not always the clipped one",
                    _only_clipped),
            Mistake("nothing is clipped", _never_clipped),
            Mistake("the smaller of both terms counts, not the larger", _maximum),
            Mistake("of two *products* the smaller counts: of a bad answer, that of the larger ratio",
                    _smaller_ratio),
            Mistake("a loss should fall where good answers become likelier: look at the sign", _a_gain),
            Mistake("the ratio is new over old, not old over new", _inverted),
            Mistake("take a mean over each answer's tokens first, then over answers", _mean_over_tokens),
            Mistake("padding counts: the mask is missing", _with_padding),
            Mistake("divide by the tokens of each answer; padding is none", _divided_by_padding),
        ),
        properties=(
            Property("the result should be one number", _is_one_number),
            Property("where old and new agree, the loss is minus the mean advantage",
                     _starts_at_the_mean_advantage),
            Property("what the mask leaves out should have no influence", _padding_does_not_count),
            Property("a good token whose ratio is beyond 1 + eps should get no gradient",
                     _lets_go_of_what_went_far, always=True),
            Property("nothing is learned from this loss: it has no gradient, or the wrong one, at ratio 1",
                     _pulls_at_first, always=True),
        ),
    ),
    *ANSWER_EXERCISES,
)  # fmt: skip
