"""Exercises of chapter 10: the FLOPs of a layer, the roof over them, what fits, and what a ring sends."""

from collections.abc import Callable

import torch

from minimind_edu.course.exercises.ch10_cards import EXERCISES as CARD_EXERCISES
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ---------------------------------------------------------------------------------------------- layer_flops


def layer_flops(
    rows: int, tokens: int, hidden: int, heads: int, kv_heads: int, head_dim: int, intermediate: int
) -> int:
    """FLOPs of one layer's forward pass over rows of tokens: 2 for each multiply-add of a matrix product."""
    queries, keys = heads * head_dim, kv_heads * head_dim
    weights = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * intermediate
    attention = 2 * rows * tokens * tokens * queries  # scores, and the mix of the values
    return 2 * (rows * tokens * weights + attention)


def _layer_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(1, 3, 4, 2, 1, 2, 8), (2, 256, 128, 2, 1, 64, 384)]
    for heads, kv_heads in ((2, 1), (6, 2), (4, 4), (8, 2), (3, 1)):
        sizes = [
            _integer(generator, low, high) for low, high in ((2, 9), (5, 90), (10, 70), (3, 40), (20, 99))
        ]
        rows, tokens, hidden, half, intermediate = sizes
        cases.append((rows, tokens, hidden, heads, kv_heads, 2 * half, intermediate))
    return cases


def _counted(
    factor: int = 2,
    matrices: int = 3,
    scores: int = 2,
    out: int = 1,
    kv: Callable[[int, int], int] = lambda heads, kv_heads: 2 * kv_heads,
    seen: Callable[[int, int], int] = lambda rows, tokens: rows * tokens * tokens,
    attending: Callable[[int, int], int] = lambda heads, kv_heads: heads,
    positions: Callable[[int, int], int] = lambda rows, tokens: rows * tokens,
    width: Callable[[int, int, int], int] = lambda hidden, heads, head_dim: heads * head_dim,
) -> Callable:
    """The right count with one part of it changed."""

    def attempt(
        rows: int, tokens: int, hidden: int, heads: int, kv_heads: int, head_dim: int, intermediate: int
    ) -> int:
        queries = width(hidden, heads, head_dim)
        weights = hidden * (queries + kv(heads, kv_heads) * head_dim) + out * queries * hidden
        weights += matrices * hidden * intermediate
        attention = scores * seen(rows, tokens) * attending(heads, kv_heads) * head_dim
        return factor * (positions(rows, tokens) * weights + attention)

    return attempt


def _is_whole(attempt: Callable, generator: torch.Generator) -> bool:
    return isinstance(attempt(1, 3, 4, 2, 1, 2, 8), int)


def _grows_with_rows(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(6, 5, 4, 2, 1, 2, 8) == 6 * attempt(1, 5, 4, 2, 1, 2, 8)


def _grows_with_the_square(attempt: Callable, generator: torch.Generator) -> bool:
    one, two, four = (attempt(1, tokens, 4, 2, 1, 2, 8) for tokens in (10, 20, 40))
    return four - 2 * two == 4 * (two - 2 * one) > 0


def _grows_with_the_inner_width(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(1, 3, 4, 2, 1, 2, 9) - attempt(1, 3, 4, 2, 1, 2, 8) == 2 * 3 * 3 * 4


LAYER_FLOPS = Exercise(
    "ch10.layer_flops",
    layer_flops,
    _layer_cases,
    (
        Mistake("these are multiply-adds: each is two operations, a product and a sum", _counted(factor=1)),
        Mistake("this is forward and backward together; only the forward pass is asked for", _counted(6)),
        Mistake(
            "SwiGLU's feed-forward has three matrices; count how many are in it here", _counted(matrices=2)
        ),
        Mistake(
            "the scores are counted, but not the product of the weights with the values", _counted(scores=1)
        ),
        Mistake(
            "attention's own products, which grow with the square of the row, are missing", _counted(scores=0)
        ),
        Mistake("one matrix of attention is missing: the one that its result goes through", _counted(out=0)),
        Mistake(
            "a row attends to itself only: the square is of one row's tokens, not of the whole batch's",
            _counted(seen=lambda rows, tokens: (rows * tokens) ** 2),
        ),
        Mistake(
            "every row has scores of its own: their number grows with the rows too",
            _counted(seen=lambda rows, tokens: tokens * tokens),
        ),
        Mistake(
            "keys and values have fewer heads than the queries: look at how many theirs are",
            _counted(kv=lambda heads, kv_heads: 2 * heads),
        ),
        Mistake(
            "there are keys and values: two matrices of that size",
            _counted(kv=lambda heads, kv_heads: kv_heads),
        ),
        Mistake(
            "a key/value head is shared, but each query head has scores of its own",
            _counted(attending=lambda heads, kv_heads: kv_heads),
        ),
        Mistake(
            "the matrices work on every position of every row",
            _counted(positions=lambda rows, tokens: tokens),
        ),
        Mistake(
            "the heads together may be wider or narrower than the hidden size",
            _counted(width=lambda hidden, heads, head_dim: hidden),
        ),
        Mistake(
            "a token cannot see later ones, but the product is computed for all pairs, and counted so",
            lambda rows, tokens, *shape: (
                layer_flops(rows, tokens, *shape) - 2 * rows * tokens * (tokens - 1) * shape[1] * shape[3]
            ),
        ),
    ),
    properties=(
        Property("a number of operations is a whole number (int)", _is_whole),
        Property("six rows should take six times the work of one", _grows_with_rows),
        Property(
            "one part of the work should grow with the square of the tokens of a row", _grows_with_the_square
        ),
        Property(
            "one more inner unit should cost three products with each of the hidden units of a token",
            _grows_with_the_inner_width,
        ),
    ),
)


# ----------------------------------------------------------------------------------------------- attainable


def attainable(flops: float, moved: float, peak: float, bandwidth: float) -> float:
    """The FLOP/s that the roofline allows (Williams et al., 2009): peak, or what the memory can feed.

    Args:
        flops: operations of the work.
        moved: bytes that it reads and writes.
        peak: operations a second that the machine can do.
        bandwidth: bytes a second that its memory can move.
    """
    return min(peak, flops / moved * bandwidth)


def _roof_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(100.0, 50.0, 10.0, 3.0), (1.0, 12.0, 1e12, 1e11)]
    for intensity in (0.1, 0.5, 2.0, 20.0, 300.0, 3.0):
        moved, bandwidth = (float(torch.rand((), generator=generator)) * 90 + 10 for _ in range(2))
        peak = bandwidth * (3.0 + float(torch.rand((), generator=generator)) * 5)
        noise = 1 + 0.1 * float(torch.rand((), generator=generator))
        cases.append((moved * intensity * noise, moved, peak, bandwidth))
    return cases


def _is_a_number(attempt: Callable, generator: torch.Generator) -> bool:
    return isinstance(attempt(100.0, 50.0, 10.0, 3.0), float | int)


def _never_above_the_peak(attempt: Callable, generator: torch.Generator) -> bool:
    return all(attempt(flops, 1.0, 7.0, 2.0) <= 7.0 for flops in (0.5, 3.0, 90.0))


def _reaches_the_peak(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(1e6, 1.0, 7.0, 2.0) - 7.0) < 1e-6


def _grows_with_the_bandwidth(attempt: Callable, generator: torch.Generator) -> bool:
    one, two = (attempt(1.0, 10.0, 1e9, bandwidth) for bandwidth in (5.0, 10.0))
    return abs(two - 2 * one) < 1e-6 * two


ATTAINABLE = Exercise(
    "ch10.attainable",
    attainable,
    _roof_cases,
    (
        Mistake(
            "both limits hold at once: the work is no faster than the slower of the two allows",
            lambda flops, moved, peak, bandwidth: max(peak, flops / moved * bandwidth),
        ),
        Mistake(
            "the intensity is operations for each byte; here it is upside down",
            lambda flops, moved, peak, bandwidth: min(peak, moved / flops * bandwidth),
        ),
        Mistake(
            "the limit of the memory is operations a byte times bytes a second; the second factor is missing",
            lambda flops, moved, peak, bandwidth: min(peak, flops / moved),
        ),
        Mistake(
            "operations a byte times bytes a second: here the two are divided",
            lambda flops, moved, peak, bandwidth: min(peak, flops / moved / bandwidth),
        ),
        Mistake("this is the memory's limit; the peak is one too", lambda f, m, peak, width: f / m * width),
        Mistake("this is the peak; work that moves many bytes does not reach it", lambda f, m, peak, w: peak),
        Mistake(
            "this is the time that the work takes; what is asked for is operations a second",
            lambda flops, moved, peak, bandwidth: max(flops / peak, moved / bandwidth),
        ),
        Mistake(
            "the two times are added here; a roofline lets moving and computing overlap",
            lambda flops, moved, peak, bandwidth: flops / (flops / peak + moved / bandwidth),
        ),
    ),
    properties=(
        Property("the result should be one number", _is_a_number),
        Property("no work is faster than the peak", _never_above_the_peak),
        Property("work with very many operations a byte should reach the peak", _reaches_the_peak),
        Property(
            "below the peak, twice the bandwidth should give twice the speed", _grows_with_the_bandwidth
        ),
    ),
)

EXERCISES = (LAYER_FLOPS, ATTAINABLE, *CARD_EXERCISES)
