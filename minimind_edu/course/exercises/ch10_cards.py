"""Exercises of chapter 10: the largest batch that fits a card, and what a ring of cards sends."""

from collections.abc import Callable

import torch

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# -------------------------------------------------------------------------------------------- largest_batch


def largest_batch(memory: int, parameters: int, trained: int, row: int) -> int:
    """How many rows fit beside the model; 0 where it does not fit even alone.

    Args:
        memory: bytes that there are.
        parameters: of the model; a float32 weight each.
        trained: how many of them are trained by AdamW, so that they have a gradient and two moments.
        row: bytes that one row of the batch needs.
    """
    return max(0, (memory - 4 * parameters - 12 * trained) // row)


def _batch_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(1_000, 40, 10, 100), (900, 100, 60, 50), (16_030, 1_000, 1_000, 10)]
    for rows, share in ((3, 1.0), (9, 0.02), (17, 0.3), (30, 0.7), (5, 0.4), (6, 1.0)):
        parameters = _integer(generator, 20_000, 90_000)
        trained, row = int(share * parameters), _integer(generator, 300_000, 900_000)
        # Between two numbers of rows: rounding up and down differ, and rounding to the nearest is either.
        left = int((rows + (0.3 if rows % 2 else 0.7)) * row)
        cases.append((4 * parameters + 12 * trained + left, parameters, trained, row))
    return cases


def _bytes_each(weight: int, of_trained: int, of_all: int = 0) -> Callable:
    """The right count with other bytes for a weight, for what training adds, and for that on all weights."""

    def attempt(memory: int, parameters: int, trained: int, row: int) -> int:
        return max(0, (memory - (weight + of_all) * parameters - of_trained * trained) // row)

    return attempt


def _rounded(memory: int, parameters: int, trained: int, row: int) -> int:
    return max(0, round((memory - 4 * parameters - 12 * trained) / row))


def _not_rounded(memory: int, parameters: int, trained: int, row: int) -> float:
    return max(0, (memory - 4 * parameters - 12 * trained) / row)


def _one_more(memory: int, parameters: int, trained: int, row: int) -> int:
    return largest_batch(memory, parameters, trained, row) + 1


def _negative(memory: int, parameters: int, trained: int, row: int) -> int:
    return (memory - 4 * parameters - 12 * trained) // row


def _power_of_two(memory: int, parameters: int, trained: int, row: int) -> int:
    rows = largest_batch(memory, parameters, trained, row)
    return 1 << (rows.bit_length() - 1) if rows else 0


def _is_whole(attempt: Callable, generator: torch.Generator) -> bool:
    return isinstance(attempt(1_000, 40, 10, 100), int)


def _is_never_negative(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(100, 1_000, 1_000, 10) == 0


def _fits(attempt: Callable, generator: torch.Generator) -> bool:
    return all(attempt(memory, 40, 10, 100) * 100 + 280 <= memory for memory in (500, 777, 1_279, 2_000))


def _is_the_largest(attempt: Callable, generator: torch.Generator) -> bool:
    return all((attempt(memory, 40, 10, 100) + 1) * 100 + 280 > memory for memory in (500, 777, 1_279, 2_000))


LARGEST_BATCH = Exercise(
    "ch10.largest_batch",
    largest_batch,
    _batch_cases,
    (
        Mistake("a weight that is not trained has no gradient and no moments", _bytes_each(4, 0, 12)),
        Mistake("a frozen weight still takes its four bytes", _bytes_each(0, 16)),
        Mistake("only the weights are counted; training adds to each trained one", _bytes_each(4, 0)),
        Mistake(
            "one number too few for a trained weight: a gradient, and two moments (m and v)",
            _bytes_each(4, 8),
        ),
        Mistake("training adds a gradient *and* AdamW's moments to each trained weight", _bytes_each(4, 4)),
        Mistake("a trained weight's own four bytes are counted twice", _bytes_each(4, 16)),
        Mistake("a number of float32 takes four bytes, not two", _bytes_each(2, 6)),
        Mistake("rounded to the nearest, the batch may be larger than what fits", _rounded),
        Mistake("half a row cannot be trained on: the result is a whole number", _not_rounded),
        Mistake("one row more than fits", _one_more),
        Mistake("where not even the model fits, the answer is 0, not less", _negative),
        Mistake("a batch need not be a power of two", _power_of_two),
    ),
    properties=(
        Property("a number of rows is a whole number (int)", _is_whole),
        Property("where not even the model fits, the answer should be 0", _is_never_negative),
        Property("the model and the rows together should not need more than there is", _fits),
        Property("one row more would still fit", _is_the_largest),
    ),
)


# ----------------------------------------------------------------------------------------------- ring_bytes


def ring_bytes(values: int, cards: int) -> int:
    """Bytes that each card sends in a ring all-reduce of float32 values (Patarasuk and Yuan, 2009).

    The values are cut into as many equal chunks as there are cards, the last one filled up. In each of two
    rounds, of cards - 1 steps, every card sends one chunk a step.
    """
    chunk = -(-values // cards)
    return 2 * (cards - 1) * chunk * 4


def _ring_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(10, 4), (1_000, 1), (64, 8)]
    for cards in (2, 3, 4, 7, 8, 100):
        # Not a multiple: the last chunk has to be filled up.
        cases.append((cards * _integer(generator, 20, 900) + _integer(generator, 1, cards - 1), cards))
    return cases


def _sent(chunks: Callable[[int, int], float], size: int = 4) -> Callable:
    """Other numbers of values that each card sends."""
    return lambda values, cards: size * chunks(values, cards)


def _of_chunks(count: Callable[[int], int]) -> Callable:
    return _sent(lambda values, cards: count(cards) * -(-values // cards))


def _is_an_int(attempt: Callable, generator: torch.Generator) -> bool:
    return isinstance(attempt(10, 4), int)


def _one_card_sends_nothing(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(1_000, 1) == 0


def _never_more_than_twice(attempt: Callable, generator: torch.Generator) -> bool:
    return all(attempt(64 * cards, cards) < 2 * 4 * 64 * cards for cards in (2, 3, 10, 100))


def _two_cards_send_all(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(64, 2) == 4 * 64


RING_BYTES = Exercise(
    "ch10.ring_bytes",
    ring_bytes,
    _ring_cases,
    (
        Mistake(
            "half of it: there are two rounds (adding up, passing on), and a value takes four bytes",
            _of_chunks(lambda n: n - 1),
        ),
        Mistake("a round has one step fewer than there are cards", _of_chunks(lambda n: 2 * n)),
        Mistake(
            "this is what all cards send together; each one is asked for",
            _of_chunks(lambda n: 2 * (n - 1) * n),
        ),
        Mistake(
            "a step sends one chunk, not all the values",
            _sent(lambda values, cards: 2 * (cards - 1) * values),
        ),
        Mistake("these are values; each takes four bytes", _sent(lambda v, n: ring_bytes(v, n) // 4, 1)),
        Mistake(
            "values that do not divide evenly need a last chunk that is filled up: round up",
            _sent(lambda values, cards: 2 * (cards - 1) * (values // cards)),
        ),
        Mistake(
            "a chunk has a whole number of values: round up, before anything else",
            _sent(lambda values, cards: 2 * (cards - 1) * values / cards),
        ),
        Mistake(
            "each card sends to its neighbour only, not to every other card",
            _sent(lambda values, cards: (cards - 1) * values),
        ),
    ),
    properties=(
        Property("a number of bytes is a whole number (int)", _is_an_int),
        Property("a card that is alone sends nothing", _one_card_sends_nothing),
        Property(
            "a card should send less than twice the values, however many cards there are",
            _never_more_than_twice,
        ),
        Property("each of two cards should send as many bytes as the values have", _two_cards_send_all),
    ),
)

EXERCISES = (LARGEST_BATCH, RING_BYTES)
