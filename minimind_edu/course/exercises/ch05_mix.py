"""The third exercise of chapter 5: rows of two kinds in one epoch, the one evenly among the other."""

from collections.abc import Callable

import torch

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def mix(chats: list[int], texts: list[int], share: float) -> list[int]:
    """All chats in their order, and among them the first texts, so that they are `share` of the result."""
    replayed = round(len(chats) * share / (1 - share))
    rows, taken = len(chats) + replayed, 0
    mixed = []
    for row in range(rows):
        if (row + 1) * replayed // rows > taken:  # so many of the first row + 1 rows are texts
            mixed.append(texts[taken])
            taken += 1
        else:
            mixed.append(chats[row - taken])
    return mixed


def _epochs(generator: torch.Generator) -> list[tuple]:
    cases = [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], [*range(91, 125)], 0.25),
        ([1, 2, 3], [91, 92, 93, 94], 0.5),
        ([1, 2, 3, 4], [*range(90, 110)], 0.8),  # more texts than chats
        ([*range(1, 31)], [*range(90, 390)], 0.1),
    ]
    for share in (0.2, 0.3, 0.4, 0.6, 0.7):
        counts = [n for n in range(6, 15) if abs(n * share / (1 - share) % 1 - 0.5) > 0.05]  # no ties
        count = counts[int(torch.randint(len(counts), (), generator=generator))]
        chats = (1 + torch.randperm(80, generator=generator)[:count]).tolist()
        cases.append((chats, (90 + torch.randperm(60, generator=generator)).tolist(), share))
    return cases


def _count(chats: list[int], share: float) -> int:
    return round(len(chats) * share / (1 - share))


def _evenly(chats: list[int], texts: list[int]) -> list[int]:
    """All of both, evenly."""
    rows = len(chats) + len(texts)
    taken, mixed = 0, []
    for row in range(rows):
        if (row + 1) * len(texts) // rows > taken:
            mixed.append(texts[taken])
            taken += 1
        else:
            mixed.append(chats[row - taken])
    return mixed


def _share_of_chats(chats: list[int], texts: list[int], share: float) -> list[int]:
    return _evenly(chats, texts[: round(len(chats) * share)])


def _share_of_texts(chats: list[int], texts: list[int], share: float) -> list[int]:
    return _evenly(chats, texts[: round(len(texts) * share)])


def _rounded_down(chats: list[int], texts: list[int], share: float) -> list[int]:
    return _evenly(chats, texts[: int(len(chats) * share / (1 - share))])


def _at_the_end(chats: list[int], texts: list[int], share: float) -> list[int]:
    return chats + texts[: _count(chats, share)]


def _at_the_start(chats: list[int], texts: list[int], share: float) -> list[int]:
    return texts[: _count(chats, share)] + chats


def _replaced(chats: list[int], texts: list[int], share: float) -> list[int]:
    taken, mixed = 0, []
    for row, chat in enumerate(chats):
        is_text = int((row + 1) * share + 1e-9) > taken
        mixed.append(texts[taken] if is_text else chat)
        taken += is_text
    return mixed


def _all_texts(chats: list[int], texts: list[int], share: float) -> list[int]:
    return _evenly(chats, texts)


def _text_first(chats: list[int], texts: list[int], share: float) -> list[int]:
    return _evenly(chats[::-1], texts[: _count(chats, share)][::-1])[::-1]


def _other_way(chats: list[int], texts: list[int], share: float) -> list[int]:
    return mix(chats, texts, 1 - share)


def _in_turn(chats: list[int], texts: list[int], share: float) -> list[int]:
    replayed = texts[: _count(chats, share)]
    both = min(len(chats), len(replayed))
    pairs = [row for pair in zip(chats, replayed, strict=False) for row in pair]
    return pairs + chats[both:] + replayed[both:]


def _is_a_list(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 2, 3], [91, 92, 93, 94], 0.5)
    return isinstance(given, list | tuple) and set(given) <= {1, 2, 3, 91, 92, 93, 94}


def _keeps_all_chats(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 2, 3, 4], [*range(91, 99)], 0.5)
    return sorted(row for row in given if row < 90) == [1, 2, 3, 4]


def _has_the_share(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([*range(1, 10)], [*range(91, 120)], 0.25)
    return len(given) == 12 and sum(row > 90 for row in given) == 3


def _rounds_to_the_nearest(attempt: Callable, generator: torch.Generator) -> bool:
    return [len(attempt([*range(7)], [*range(91, 120)], share)) for share in (0.2, 0.25)] == [9, 9]


def _takes_the_first_texts(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 2, 3], [97, 93, 91, 95, 92], 0.5)
    return sorted(row for row in given if row > 90) == [91, 93, 97]


def _keeps_the_order(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([3, 1, 2, 5], [95, 91, 99, 93], 0.5)
    return [row for row in given if row < 90] == [3, 1, 2, 5] and [row for row in given if row > 90] == [
        95,
        91,
        99,
        93,
    ]


def _is_even(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([*range(1, 31)], [*range(91, 120)], 0.25)
    return all(1 <= sum(row > 90 for row in given[start : start + 8]) <= 3 for start in range(33))


def _text_comes_last(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 2, 3], [91, 92], 0.25) == [1, 2, 3, 91]


MIX = Exercise(
    name="ch05.mix",
    solution=mix,
    cases=_epochs,
    mistakes=(
        Mistake(
            "this is the share of the chats; of the whole it is less: n · share / (1 - share) texts",
            _share_of_chats,
        ),
        Mistake("the share is of the result, not of the texts that there are", _share_of_texts),
        Mistake("the number of texts should be rounded to the nearest whole number, not down", _rounded_down),
        Mistake("the texts all come at the end: most batches would have none", _at_the_end),
        Mistake("the texts all come at the start: most batches would have none", _at_the_start),
        Mistake("texts take the place of chats here; all chats should stay", _replaced),
        Mistake("all texts are in the result; only as many as the share takes should be", _all_texts),
        Mistake(
            "a stretch begins with its text here; it should end with it: of r rows, r · share are texts",
            _text_first,
        ),
        Mistake("the share is that of the texts, not of the chats", _other_way),
        Mistake("taking them in turn uses the texts up early; spread them over the whole epoch", _in_turn),
    ),
    properties=(
        Property("the result should be a list of chats and texts", _is_a_list),
        Property("every chat should be in the result once", _keeps_all_chats),
        Property("9 chats at a share of 0.25 should get 3 texts", _has_the_share),
        Property("the number of texts should be rounded to the nearest whole number", _rounds_to_the_nearest),
        Property("the texts should be the first ones of their list", _takes_the_first_texts),
        Property("chats and texts should each keep their order", _keeps_the_order),
        Property("the texts should be spread evenly", _is_even),
        Property("3 chats at a share of 0.25 should give the chats and then one text", _text_comes_last),
    ),
)
