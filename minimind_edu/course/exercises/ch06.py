"""Exercises of chapter 6: the layer, the size of an adapter, targets by name, and the rank of an update."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.ch06_targets import EXERCISES as TARGET_EXERCISES
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ---------------------------------------------------------------------------------------------- lora_linear


def lora_linear(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """x (…, in) through weight (out, in) and beside it through a (rank, in) and b (out, rank): (…, out)."""
    return x @ weight.T + (x @ a.T) @ b.T * (alpha / a.shape[0])


def _layers(generator: torch.Generator) -> list[tuple]:
    cases = []
    for inputs, outputs, rank, batch in (
        (5, 3, 2, (4,)),
        (4, 4, 3, (2, 3)),
        (3, 6, 1, (5,)),
        (6, 6, 4, (3,)),
        (7, 2, 2, (2, 2)),
    ):
        shapes = ((*batch, inputs), (outputs, inputs), (rank, inputs), (outputs, rank))
        tensors = [torch.randn(shape, generator=generator) for shape in shapes]
        cases.append((*tensors, float(_integer(generator, 5, 30))))
    return cases


def _base(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return F.linear(x, weight)


def _scaled_by(factor: Callable[[Tensor, Tensor, float], float]) -> Callable:
    """The right update, times something else than alpha / rank."""

    def attempt(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        return F.linear(x, weight) + x @ a.T @ b.T * factor(a, b, alpha)

    return attempt


def _all_scaled(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return F.linear(x, weight + b @ a) * (alpha / a.shape[0])


def _update_alone(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return lora_linear(x, weight, a, b, alpha) - F.linear(x, weight)


def _subtracted(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return lora_linear(x, weight, a, b, -alpha)


def _has_shape(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(torch.ones(2, 7, 4), torch.ones(3, 4), torch.ones(2, 4), torch.ones(3, 2), 1.0)
    return tuple(given.shape) == (2, 7, 3)


def _is_the_base_at_first(attempt: Callable, generator: torch.Generator) -> bool:
    x, weight, a = (torch.randn(shape, generator=generator) for shape in ((4, 5), (3, 5), (2, 5)))
    return torch.allclose(attempt(x, weight, a, torch.zeros(3, 2), 9.0), F.linear(x, weight), atol=1e-5)


def _grows_with_alpha(attempt: Callable, generator: torch.Generator) -> bool:
    x, a, b = torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 1)
    given = [float(attempt(x, torch.zeros(1, 2), a, b, alpha)) for alpha in (1.0, 3.0)]
    return abs(given[1] - 3 * given[0]) < 1e-4


def _is_divided_by_the_rank(attempt: Callable, generator: torch.Generator) -> bool:
    one, weight = torch.ones(1, 1), torch.zeros(1, 1)
    given = [float(attempt(one, weight, torch.ones(r, 1), torch.ones(1, r), 2.0)) for r in (1, 4)]
    return abs(given[0] - given[1]) < 1e-4  # r equal parts, each divided by r


LORA_LINEAR = Exercise(
    "ch06.lora_linear",
    lora_linear,
    _layers,
    (
        Mistake("this is the base alone: A and B add something to it", _base),
        Mistake("the base is missing: what A and B give is added to x W^T", _update_alone),
        Mistake("the update is added, not subtracted", _subtracted),
        Mistake("the scale is missing: alpha divided by the rank", _scaled_by(lambda a, b, alpha: 1.0)),
        Mistake("alpha is there, but not divided by the rank", _scaled_by(lambda a, b, alpha: alpha)),
        Mistake(
            "it is divided by the rank, but not multiplied by alpha",
            _scaled_by(lambda a, b, alpha: 1 / a.shape[0]),
        ),
        Mistake("the scale is the wrong way up", _scaled_by(lambda a, b, alpha: a.shape[0] / alpha)),
        Mistake(
            "the scale is alpha / rank, without a square root (that is another method, rsLoRA)",
            _scaled_by(lambda a, b, alpha: alpha / a.shape[0] ** 0.5),
        ),
        Mistake(
            "alpha is divided by the number of inputs; the rank is the other dimension of A",
            _scaled_by(lambda a, b, alpha: alpha / a.shape[1]),
        ),
        Mistake(
            "alpha is divided by the number of outputs; the rank is the other dimension of B",
            _scaled_by(lambda a, b, alpha: alpha / b.shape[0]),
        ),
        Mistake("the base is scaled too; only the update should be", _all_scaled),
    ),
    properties=(
        Property("x (2, 7, in) should give (2, 7, out): only the last dimension changes", _has_shape),
        Property("with B = 0 the result should be that of the base alone", _is_the_base_at_first),
        Property("three times alpha should give three times the update", _grows_with_alpha),
        Property(
            "r equal parts should add up to one part of rank 1: look at the scale", _is_divided_by_the_rank
        ),
    ),
)


# ---------------------------------------------------------------------------------------------- rank_needed


def rank_needed(update: Tensor, share: float) -> int:
    """The smallest rank whose best approximation of update (out, in) keeps this share of its squared norm."""
    energy = torch.linalg.svdvals(update).square().cumsum(dim=0)
    return int((energy < share * energy[-1]).sum()) + 1


def _updates(generator: torch.Generator) -> list[tuple]:
    cases = []
    shapes = ((16, 16, 0.9), (12, 20, 0.6), (18, 14, 0.8), (15, 15, 0.5), (13, 17, 0.95), (16, 12, 0.7))
    for outputs, inputs, share in shapes:
        size = min(outputs, inputs)
        left, right = (torch.randn(n, n, generator=generator).svd().U[:, :size] for n in (outputs, inputs))
        values = 0.87 ** torch.arange(size) * (1 + 0.1 * torch.rand(size, generator=generator))
        cases.append((left * values @ right.T * _integer(generator, 1, 9), share))
    cases.append((torch.diag(torch.tensor([3.0, 4.0])), 0.6))
    return cases


def _counted(update: Tensor, share: float, power: int = 2, extra: int = 1) -> int:
    energy = torch.linalg.svdvals(update).pow(power).cumsum(dim=0)
    return int((energy < share * energy[-1]).sum()) + extra


def _share_of_the_rank(update: Tensor, share: float) -> int:
    return round(share * min(update.shape))


def _threshold(update: Tensor, share: float) -> int:
    values = torch.linalg.svdvals(update)
    return int((values > (1 - share) * values[0]).sum())


def _from_the_smallest(update: Tensor, share: float) -> int:
    energy = torch.linalg.svdvals(update).square().flip(0).cumsum(dim=0)
    return int((energy < share * energy[-1]).sum()) + 1


def _the_rest(update: Tensor, share: float) -> int:
    return rank_needed(update, 1 - share)


def _is_whole(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(torch.randn(4, 4, generator=generator), 0.9)
    return float(given) == int(given) and not isinstance(given, float)


def _needs_one_of_one(attempt: Callable, generator: torch.Generator) -> bool:
    column, row = torch.randn(5, 1, generator=generator), torch.randn(1, 7, generator=generator)
    return attempt(column @ row, 0.99) == 1


def _needs_half_of_equals(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(torch.eye(10), 0.45) == 5


def _has_no_unit(attempt: Callable, generator: torch.Generator) -> bool:
    update = torch.randn(6, 8, generator=generator)
    return attempt(update, 0.8) == attempt(100 * update, 0.8)


RANK_NEEDED = Exercise(
    "ch06.rank_needed",
    rank_needed,
    _updates,
    (
        Mistake(
            "the singular values themselves are added up; the squared norm is the sum of their squares",
            lambda u, s: _counted(u, s, power=1),
        ),
        Mistake(
            "one too small: the component that reaches the share is needed too",
            lambda u, s: _counted(u, s, extra=0),
        ),
        Mistake(
            "one too large: stop at the component that reaches the share",
            lambda u, s: _counted(u, s, extra=2),
        ),
        Mistake("take the largest singular values first", _from_the_smallest),
        Mistake("the share is what is kept; here it is what is left out", _the_rest),
        Mistake(
            "this does not look at the values: a share of the rank is not a share of the norm",
            _share_of_the_rank,
        ),
        Mistake("a threshold on single values says nothing about their sum", _threshold),
        Mistake("this is the full rank: fewer components can hold the share", lambda u, s: min(u.shape)),
    ),
    properties=(
        Property("a rank is a whole number (int)", _is_whole),
        Property("a column times a row has rank 1", _needs_one_of_one),
        Property("ten equal values: a share of 0.45 needs five of them", _needs_half_of_equals),
        Property("a hundred times the update should need the same rank", _has_no_unit),
    ),
)

EXERCISES = (LORA_LINEAR, RANK_NEEDED, *TARGET_EXERCISES)
