"""The third exercise of chapter 1: which tokens of a conversation are learned."""

from collections.abc import Callable

import torch

from minimind_edu.course.exercises.ch01_counts import Pair, random_integer
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def assistant_mask(ids: list[int], header: list[int], end: int) -> list[bool]:
    """True at the T ids that an assistant wrote: what follows `header`, up to and with the next `end`."""
    mask, i = [False] * len(ids), 0
    while i < len(ids):
        if ids[i : i + len(header)] == header:
            start = i + len(header)
            if end not in ids[start:]:
                break  # a prompt: nothing has been said yet
            stop = ids.index(end, start)
            mask[start : stop + 1] = [True] * (stop + 1 - start)
            i = stop
        i += 1
    return mask


_BEGIN, _END = 1, 2


def _conversations(generator: torch.Generator) -> list[tuple]:
    def turn(header: list[int]) -> list[int]:
        return (
            header
            + [random_integer(generator, 10, 15) for _ in range(random_integer(generator, 1, 5))]
            + [_END, 3]
        )

    def conversation(turns: int, prompt: bool, header: list[int]) -> tuple[list[int], list[int], int]:
        user = [*header[:-1], header[-1] + 1]  # begins like the assistant's
        ids = [id for _ in range(turns) for id in turn(user) + turn(header)]
        return ids + turn(user) + header + ([12, 13] if prompt and turns % 2 else []) * prompt, header, _END

    cases = [
        ([1, 5, 2, 1, 8, 6, 7, 2], [1, 8], 2),
        ([1, 5, 2, 3], [1, 8], 2),
        ([1, 8, 6, 2, 1, 8, 7, 7, 2], [1, 8], 2),  # no user: the first id opens a turn, one follows the other
        ([1, 5, 2, 1, 8, 2], [1, 8], 2),  # an empty answer: only its end is learned
        ([9, 5, 2, 8, 6, 2], [8], 2),  # a header of one id
        ([1, 5, 2, 1, 8, 6, 2, 1, 8], [1, 8], 2),  # ends with a header
    ]
    for header in ([_BEGIN, 8], [_BEGIN, 7, 8, 3], [_BEGIN, 8, 3]):
        for turns in (1, 2, 3):
            ids, _, end = conversation(turns, prompt=False, header=header)
            cases.append((ids[: -len(header)], header, end))  # all turns complete
            cases.append(conversation(turns, prompt=True, header=header))
    return cases


def _spans(ids: list[int], header: list[int], end: int) -> list[Pair]:
    """(first place after the header, place of the end token) of each complete turn."""
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i:start] == header and end in ids[start:]:
            spans.append((start, ids.index(end, start)))
    return spans


def _fill(ids: list[int], spans: list[Pair]) -> list[bool]:
    return [any(start <= i < stop for start, stop in spans) for i in range(len(ids))]


def _without_end(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, _spans(ids, header, end))


def _with_header(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start - len(header), stop + 1) for start, stop in _spans(ids, header, end)])


def _late(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start + 1, stop + 1) for start, stop in _spans(ids, header, end)])


def _early(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start - 1, stop + 1) for start, stop in _spans(ids, header, end)])


def _too_far(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, stop + 2) for start, stop in _spans(ids, header, end)])


def _first_turn(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, stop + 1) for start, stop in _spans(ids, header, end)[:1]])


def _last_turn(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, stop + 1) for start, stop in _spans(ids, header, end)[-1:]])


def _to_the_last_end(ids: list[int], header: list[int], end: int) -> list:
    spans = _spans(ids, header, end)
    last = max((i for i, id in enumerate(ids) if id == end), default=-1)
    return _fill(ids, [(start, last + 1) for start, _ in spans[:1]])


def _to_the_close(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, len(ids)) for start, _ in _spans(ids, header, end)[:1]])


def _open_prompt(ids: list[int], header: list[int], end: int) -> list:
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i:start] == header:
            spans.append((start, ids.index(end, start) + 1 if end in ids[start:] else len(ids)))
    return _fill(ids, spans)


def _any_turn(ids: list[int], header: list[int], end: int) -> list:
    """Looks at the first token of the header only, which every turn has."""
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i] == header[0] and end in ids[start:]:
            spans.append((start, ids.index(end, start) + 1))
    return _fill(ids, spans)


def _last_of_header(ids: list[int], header: list[int], end: int) -> list:
    spans = []
    for i in range(len(ids)):
        if ids[i] == header[-1] and end in ids[i + 1 :]:
            spans.append((i + 1, ids.index(end, i + 1) + 1))
    return _fill(ids, spans)


def _from_the_header(ids: list[int], header: list[int], end: int) -> list:
    spans = []
    for i in range(len(ids)):
        if ids[i : i + len(header)] == header:
            spans.append((i, ids.index(end, i) + 1 if end in ids[i:] else len(ids)))
    return _fill(ids, spans)


def _first_end(ids: list[int], header: list[int], end: int) -> list:
    """Looks for the end token from the beginning of the text, not from the header."""
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i:start] == header and end in ids:
            spans.append((start, ids.index(end) + 1))
    return _fill(ids, spans)


def _inverted(ids: list[int], header: list[int], end: int) -> list:
    return [not learned for learned in assistant_mask(ids, header, end)]


def _shifted(ids: list[int], header: list[int], end: int) -> list:
    return [*assistant_mask(ids, header, end)[1:], False]


def _token_ids(ids: list[int], header: list[int], end: int) -> list:
    return [
        id if learned else -100 for id, learned in zip(ids, assistant_mask(ids, header, end), strict=True)
    ]


def _learned_ids(ids: list[int], header: list[int], end: int) -> list:
    return [id for id, learned in zip(ids, assistant_mask(ids, header, end), strict=True) if learned]


_EXAMPLE = ([1, 5, 2, 1, 8, 6, 7, 2, 3], [1, 8], 2)


def _has_the_length(attempt: Callable, generator: torch.Generator) -> bool:
    return len(attempt(*_EXAMPLE)) == len(_EXAMPLE[0])


def _is_boolean(attempt: Callable, generator: torch.Generator) -> bool:
    return {int(value) for value in attempt(*_EXAMPLE)} <= {0, 1}


def _skips_the_user(attempt: Callable, generator: torch.Generator) -> bool:
    return not any(attempt(*_EXAMPLE)[:3])


def _skips_the_header(attempt: Callable, generator: torch.Generator) -> bool:
    return not any(attempt(*_EXAMPLE)[3:5])


def _learns_the_words(attempt: Callable, generator: torch.Generator) -> bool:
    return all(attempt(*_EXAMPLE)[5:7])


def _learns_the_end(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(*_EXAMPLE)
    return bool(given[7]) and not given[8]


def _finds_every_turn(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 8, 6, 2, 1, 5, 2, 1, 8, 7, 2], [1, 8], 2)
    return [bool(value) for value in given] == [False] * 2 + [True] * 2 + [False] * 5 + [True] * 2


def _keeps_turns_before_a_prompt(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 5, 2, 1, 8, 6, 2, 1, 8, 7], [1, 8], 2)
    return [bool(value) for value in given] == [False] * 5 + [True] * 2 + [False] * 3


def _compares_the_whole_header(attempt: Callable, generator: torch.Generator) -> bool:
    # the user's header shares all but one id, each in turn; and the same ids in another order
    others = ([1, 7, 9], [1, 9, 8], [9, 7, 8], [1, 8, 7])
    return not any(any(attempt([*other, 6, 2], [1, 7, 8], 2)) for other in others)


def _learns_an_empty_answer(attempt: Callable, generator: torch.Generator) -> bool:
    return [bool(v) for v in attempt([1, 5, 2, 1, 8, 2], [1, 8], 2)] == [False] * 5 + [True]


def _starts_at_the_first_id(attempt: Callable, generator: torch.Generator) -> bool:
    return [bool(v) for v in attempt([1, 8, 6, 2], [1, 8], 2)] == [False, False, True, True]


def _finds_neighbouring_turns(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 8, 6, 2, 1, 8, 7, 2], [1, 8], 2)
    return [bool(v) for v in given] == [False, False, True, True] * 2


def _leaves_prompts(attempt: Callable, generator: torch.Generator) -> bool:
    return not any(attempt([1, 5, 2, 1, 8, 6, 7], [1, 8], 2))


ASSISTANT_MASK = Exercise(
    name="ch01.assistant_mask",
    solution=assistant_mask,
    cases=_conversations,
    mistakes=(
        Mistake("the end token is missing: without it a model never learns to stop", _without_end),
        Mistake("the header is marked too; the template writes it, not the model", _with_header),
        Mistake("the first token after the header is missing", _late),
        Mistake("the last token of the header is marked too", _early),
        Mistake("one token too many: the turn is over with its end token", _too_far),
        Mistake("only the first assistant turn is marked", _first_turn),
        Mistake("only the last assistant turn is marked", _last_turn),
        Mistake("this runs on to the last end token, over the user's turns between", _to_the_last_end),
        Mistake("this marks everything after the first header, the user's next words too", _to_the_close),
        Mistake("a turn without its end token is a prompt, and is not learned", _open_prompt),
        Mistake("other turns are marked too: compare the whole header, not only its first token", _any_turn),
        Mistake("only the header's last token is looked at, which may stand elsewhere too", _last_of_header),
        Mistake("the header is marked, and so is a turn without its end token", _from_the_header),
        Mistake("this looks for the end token from the beginning of the text: index(end, start)", _first_end),
        Mistake("the mask is turned around: True is for what is learned", _inverted),
        Mistake(
            "the mask is one place too early; shifting for the next token is the loss's business",
            _shifted,
        ),
        Mistake("these are labels; return True or False for each token", _token_ids),
        Mistake("these are the learned tokens; return a mask over all of them", _learned_ids),
    ),
    properties=(
        Property("the mask should be as long as the ids", _has_the_length),
        Property("the mask should hold True and False only", _is_boolean),
        Property("the user's turn should not be marked", _skips_the_user),
        Property("the header should not be marked", _skips_the_header),
        Property("every token after the header should be marked, up to the end token", _learns_the_words),
        Property("the end token should be marked, and what follows it not", _learns_the_end),
        Property("only the whole header opens a turn: all of its ids, in order", _compares_the_whole_header),
        Property("a header may stand at the very first id", _starts_at_the_first_id),
        Property("of an empty answer the end token should be marked", _learns_an_empty_answer),
        Property("a header may follow the end token of the turn before at once", _finds_neighbouring_turns),
        Property("complete turns before an open last one should stay marked", _keeps_turns_before_a_prompt),
        Property("every assistant turn should be marked, and nothing between them", _finds_every_turn),
        Property("a last turn without an end token should not be marked", _leaves_prompts),
    ),
)
