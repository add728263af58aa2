"""Exercises of chapter 4, continued: gradients of a window of batches, and top-p."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ------------------------------------------------------------------------------------------ window_gradient


def window_gradient(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    """The gradient of the mean over all tokens, from those of the batches' means (tensors of one shape)."""
    weighted = [gradient * count for gradient, count in zip(gradients, tokens, strict=True) if count > 0]
    return sum(weighted) / sum(tokens)


def _windows(generator: torch.Generator) -> list[tuple]:
    cases = [([torch.tensor([1.0, 0.0]), torch.tensor([4.0, 8.0])], [3, 1])]
    for empty in (False, False, True, True):
        batches = _integer(generator, 2, 5)
        gradients = [torch.randn(3, generator=generator) for _ in range(batches)]
        tokens = [_integer(generator, 1, 30) for _ in range(batches)]
        tokens[-1] = tokens[0] + _integer(generator, 3, 9)  # never all equal
        if empty:  # the mean over no token is NaN, and so is its gradient
            at = _integer(generator, 1, batches - 1)
            gradients.insert(at, torch.full((3,), math.nan))
            tokens.insert(at, 0)
        cases.append((gradients, tokens))
    return cases


def _kept(gradients: list[Tensor], tokens: list[int]) -> list[tuple[Tensor, int]]:
    return [(g, n) for g, n in zip(gradients, tokens, strict=True) if n > 0]


def _mean_of_means(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    kept = _kept(gradients, tokens)
    return sum(g for g, _ in kept) / len(kept)


def _mean_of_means_of_all(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    return sum(gradients) / len(gradients)


def _keeps_empty(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    return sum(g * n for g, n in zip(gradients, tokens, strict=True)) / sum(tokens)


def _just_added(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    return sum(g for g, _ in _kept(gradients, tokens))


def _not_divided(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    return sum(g * n for g, n in _kept(gradients, tokens))


def _divided_by_batches(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    kept = _kept(gradients, tokens)
    return sum(g * n for g, n in kept) / len(kept)


def _drops_the_last(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    return window_gradient(gradients[:-1], tokens[:-1])


def _divides_by_tokens_each(gradients: list[Tensor], tokens: list[int]) -> Tensor:
    return sum(g / n for g, n in _kept(gradients, tokens)) / sum(tokens)


def _has_shape(attempt: Callable, generator: torch.Generator) -> bool:
    return tuple(attempt([torch.ones(2, 3), torch.ones(2, 3)], [1, 2]).shape) == (2, 3)


def _keeps_equal(attempt: Callable, generator: torch.Generator) -> bool:
    gradient = torch.randn(4, generator=generator)
    return torch.allclose(attempt([gradient] * 3, [2, 5, 9]), gradient, atol=1e-5)


def _is_heavier_where_longer(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([torch.zeros(1), torch.ones(1)], [1, 9])
    return bool(given > 0.6)


def _leaves_empty_out(attempt: Callable, generator: torch.Generator) -> bool:
    return bool(torch.isfinite(attempt([torch.ones(2), torch.full((2,), math.nan)], [3, 0])).all())


# ---------------------------------------------------------------------------------------------- top_p


def top_p(probabilities: Tensor, p: float) -> Tensor:
    """Of probabilities (V,) keep the fewest likeliest that reach p; (V,), with sum 1."""
    ordered, order = probabilities.sort(descending=True)
    before = ordered.cumsum(dim=0) - ordered  # what the likelier tokens have together
    ordered = torch.where(before < p, ordered, 0.0)
    kept = torch.zeros_like(probabilities)
    kept[order] = ordered
    return kept / kept.sum()


def _distributions(generator: torch.Generator) -> list[tuple]:
    cases = [(torch.tensor([0.125, 0.5, 0.0625, 0.3125]), 0.7), (torch.tensor([0.1, 0.7, 0.2]), 0.5)]
    while len(cases) < 9:
        size, p = _integer(generator, 5, 12), _integer(generator, 40, 90) / 100
        probabilities = torch.randn(size, generator=generator).softmax(dim=0)
        sums = probabilities.sort(descending=True).values.cumsum(dim=0)
        # No sum so close to p that rounding decides, and several tokens on either side.
        if (sums - p).abs().min() > 1e-3 and 2 <= int((sums < p).sum()) <= size - 3:
            cases.append((probabilities, p))
    return cases


def _kept_places(probabilities: Tensor, p: float, extra: int) -> Tensor:
    """The likeliest tokens, `extra` more than those whose sum stays below p."""
    ordered, order = probabilities.sort(descending=True)
    count = max(1, int((ordered.cumsum(dim=0) < p).sum()) + extra)
    kept = torch.zeros_like(probabilities)
    kept[order[:count]] = probabilities[order[:count]]
    return kept


def _without_crossing(probabilities: Tensor, p: float) -> Tensor:
    kept = _kept_places(probabilities, p, 0)
    return kept / kept.sum()


def _one_too_many(probabilities: Tensor, p: float) -> Tensor:
    kept = _kept_places(probabilities, p, 2)
    return kept / kept.sum()


def _not_renormalised(probabilities: Tensor, p: float) -> Tensor:
    return _kept_places(probabilities, p, 1)


def _divided_by_p(probabilities: Tensor, p: float) -> Tensor:
    return _kept_places(probabilities, p, 1) / p


def _left_sorted(probabilities: Tensor, p: float) -> Tensor:
    return top_p(probabilities, p).sort(descending=True).values


def _unsorted(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where(probabilities.cumsum(dim=0) - probabilities < p, probabilities, 0.0)
    return kept / kept.sum()


def _above_p(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where(probabilities >= p, probabilities, 0.0)
    return kept / kept.sum()


def _least_likely(probabilities: Tensor, p: float) -> Tensor:
    ordered, order = probabilities.sort()
    kept = torch.zeros_like(probabilities)
    kept[order] = torch.where(ordered.cumsum(dim=0) - ordered < p, ordered, 0.0)
    return kept / kept.sum()


def _share_of_largest(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where(probabilities >= p * probabilities.max(), probabilities, 0.0)
    return kept / kept.sum()


def _softmax_again(probabilities: Tensor, p: float) -> Tensor:
    kept = _kept_places(probabilities, p, 1)
    return kept.masked_fill(kept == 0, -math.inf).softmax(dim=0)


def _is_distribution(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(float(attempt(torch.tensor([0.6, 0.3, 0.1]), 0.8).sum()) - 1) < 1e-5


def _keeps_places(attempt: Callable, generator: torch.Generator) -> bool:
    return (attempt(torch.tensor([0.1, 0.6, 0.3]), 0.8) > 0).tolist() == [False, True, True]


def _keeps_one(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(torch.tensor([0.1, 0.7, 0.2]), 0.5).tolist() == [0.0, 1.0, 0.0]


def _just_reaches(attempt: Callable, generator: torch.Generator) -> bool:
    for probabilities, p in _distributions(generator):
        kept = probabilities[attempt(probabilities.clone(), p) > 0]
        if kept.sum() < p or kept.sum() - kept.min() >= p:
            return False
    return True


def _keeps_ratios(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(torch.tensor([0.4, 0.2, 0.3, 0.1]), 0.65)
    return abs(float(given[0] / given[2]) - 4 / 3) < 1e-4


WINDOW_EXERCISES = (
    Exercise(
        name="ch04.window_gradient",
        solution=window_gradient,
        cases=_windows,
        mistakes=(
            Mistake(
                "a mean of means: a token in a short batch then counts more than one in a long batch",
                _mean_of_means,
            ),
            Mistake(
                "a mean of means, batches without any token included: weigh each batch by its tokens",
                _mean_of_means_of_all,
            ),
            Mistake("0 times NaN is NaN: a batch without labelled tokens must be left out", _keeps_empty),
            Mistake("adding is not enough: this grows with the number of batches", _just_added),
            Mistake("the weighted sum still has to be divided by the number of all tokens", _not_divided),
            Mistake("divide the weighted sum by the number of tokens, not of batches", _divided_by_batches),
            Mistake("the last batch is missing", _drops_the_last),
            Mistake(
                "multiply each gradient by its number of tokens instead of dividing by it",
                _divides_by_tokens_each,
            ),
        ),
        properties=(
            Property("the result should have the shape of one gradient", _has_shape),
            Property("if all batches have the same gradient, that gradient is the answer", _keeps_equal),
            Property("a batch with nine times the tokens should pull harder", _is_heavier_where_longer),
            Property("a batch without labelled tokens has a NaN gradient; leave it out", _leaves_empty_out),
        ),
    ),
    Exercise(
        name="ch04.top_p",
        solution=top_p,
        cases=_distributions,
        mistakes=(
            Mistake("the token with which the sum reaches p belongs to those kept", _without_crossing),
            Mistake("one token too many is kept: stop as soon as the sum reaches p", _one_too_many),
            Mistake("the kept probabilities should sum to 1 again", _not_renormalised),
            Mistake("divide by what the kept tokens sum to, not by p", _divided_by_p),
            Mistake("the result is in sorted order; put each token back in its place", _left_sorted),
            Mistake("sort first: the likeliest tokens are kept, wherever they stand", _unsorted),
            Mistake("p bounds the sum of the kept probabilities, not each of them", _above_p),
            Mistake("these are the least likely tokens; sort in descending order", _least_likely),
            Mistake(
                "this compares with the largest probability (min-p); top-p adds them up", _share_of_largest
            ),
            Mistake(
                "softmax on probabilities changes their ratios; divide them by their sum", _softmax_again
            ),
        ),
        properties=(
            Property("the result should be a distribution: it sums to 1", _is_distribution),
            Property("the wrong tokens are kept: try [0.1, 0.6, 0.3] with p = 0.8", _keeps_places),
            Property("where one token alone reaches p, it should get probability 1", _keeps_one),
            Property(
                "the probabilities of the kept tokens should just reach p: without the least of them they "
                "should not",
                _just_reaches,
            ),
            Property("the kept tokens should keep the ratios of their probabilities", _keeps_ratios),
        ),
    ),
)
