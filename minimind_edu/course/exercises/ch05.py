"""Exercises of chapter 5: labels of a packed row, who may see whom in it, and rows of two kinds in one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minimind_edu.course.exercises.ch05_mix import MIX
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

IGNORED = -100


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _documents(generator: torch.Generator, count: int, padding: int) -> Tensor:
    """Document ids of a row: `count` documents of 2 to 5 tokens, then padding."""
    lengths = [_integer(generator, 2, 5) for _ in range(count)]
    parts = [torch.full((length,), number) for number, length in enumerate(lengths)]
    return torch.cat([*parts, torch.full((padding,), -1)])


def _begins(documents: Tensor) -> Tensor:
    """Where a document, or the padding, begins."""
    return torch.cat([torch.tensor([True]), documents[1:] != documents[:-1]])


# ------------------------------------------------------------------------------------------------- labels


def labels(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    """Labels (T,) of a packed row: the id itself where it is to be predicted, else -100."""
    begins = torch.ones_like(learned)
    begins[1:] = documents[1:] != documents[:-1]
    return torch.where(learned & ~begins & (documents >= 0), ids, -100)


def _rows(generator: torch.Generator) -> list[tuple]:
    fixed = (
        torch.tensor([7, 8, 9, 5, 6, 0]),
        torch.tensor([False, True, True, True, True, True]),
        torch.tensor([0, 0, 0, 1, 1, -1]),
    )
    cases = [fixed]
    for count, padding in ((1, 2), (2, 0), (3, 3), (4, 1), (3, 2)):
        documents = _documents(generator, count, padding)
        ids = torch.randint(5, 90, documents.shape, generator=generator)
        learned = torch.rand(documents.shape, generator=generator) < 0.6
        learned[_begins(documents)] = True  # so that it matters who leaves these out
        learned[-1] = learned[1] = True
        learned[int((documents == count - 1).nonzero()[-1])] = False
        cases.append((ids, learned, documents))
    return cases


def _keeps_padding(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return torch.where(learned & ~_begins(documents), ids, IGNORED)


def _keeps_first(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return torch.where(learned & (documents >= 0), ids, IGNORED)


def _only_the_rows_first(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    kept = learned & (documents >= 0)
    kept[0] = False
    return torch.where(kept, ids, IGNORED)


def _only_mask(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return torch.where(learned, ids, IGNORED)


def _all_tokens(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return torch.where(~_begins(documents) & (documents >= 0), ids, IGNORED)


def _inverted(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return labels(ids, ~learned, documents)


def _shifted(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return torch.cat([labels(ids, learned, documents)[1:], torch.tensor([IGNORED])])


def _zeros(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return torch.where(labels(ids, learned, documents) == IGNORED, 0, ids)


def _mask_of_labels(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    return labels(ids, learned, documents) != IGNORED


def _learned_ids(ids: Tensor, learned: Tensor, documents: Tensor) -> Tensor:
    kept = labels(ids, learned, documents)
    return kept[kept != IGNORED]


def _given_labels(attempt: Callable, documents: list[int], learned: list[bool]) -> list[int]:
    ids = torch.arange(11, 11 + len(documents))
    return attempt(ids, torch.tensor(learned), torch.tensor(documents)).tolist()


def _labels_have_the_length(attempt: Callable, generator: torch.Generator) -> bool:
    return len(_given_labels(attempt, [0, 0, 0, 1, 1], [True] * 5)) == 5


def _labels_are_ids(attempt: Callable, generator: torch.Generator) -> bool:
    return set(_given_labels(attempt, [0, 0, 0], [True] * 3)) <= {IGNORED, 11, 12, 13}


def _questions_are_ignored(attempt: Callable, generator: torch.Generator) -> bool:
    return _given_labels(attempt, [0, 0, 0, 0], [False, False, False, True])[1:3] == [IGNORED, IGNORED]


def _answers_stay_in_place(attempt: Callable, generator: torch.Generator) -> bool:
    return _given_labels(attempt, [0, 0, 0, 0], [False, False, True, True])[2:] == [13, 14]


def _starts_are_ignored(attempt: Callable, generator: torch.Generator) -> bool:
    given = _given_labels(attempt, [0, 0, 1, 1, 2, 2], [True] * 6)
    return [given[place] for place in (0, 2, 4)] == [IGNORED] * 3


def _padding_is_ignored(attempt: Callable, generator: torch.Generator) -> bool:
    return _given_labels(attempt, [0, 0, 0, -1, -1], [True] * 5)[3:] == [IGNORED, IGNORED]


# ---------------------------------------------------------------------------------------------- may_attend


def may_attend(documents: Tensor) -> Tensor:
    """(T, T) True where query i may see key j: the same document, and not after it; never padding."""
    places = torch.arange(len(documents))
    same = documents[:, None] == documents[None, :]
    return same & (places[None, :] <= places[:, None]) & (documents[:, None] >= 0)


def _attention_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(torch.tensor([0, 0, 1, 1, -1, -1]),)]
    for count, padding in ((2, 2), (3, 3), (4, 2), (2, 0)):
        cases.append((_documents(generator, count, padding),))
    return cases


def _same(documents: Tensor) -> Tensor:
    return (documents[:, None] == documents[None, :]) & (documents[:, None] >= 0)


def _causal(documents: Tensor) -> Tensor:
    return torch.ones(len(documents), len(documents), dtype=torch.bool).tril()


def _not_causal(documents: Tensor) -> Tensor:
    return _same(documents)


def _across(documents: Tensor) -> Tensor:
    real = documents >= 0
    return _causal(documents) & real[:, None] & real[None, :]


def _across_with_padding(documents: Tensor) -> Tensor:
    return _causal(documents)


def _earlier_documents(documents: Tensor) -> Tensor:
    return (documents[:, None] >= documents[None, :]) & (documents[None, :] >= 0) & (documents[:, None] >= 0)


def _transposed(documents: Tensor) -> Tensor:
    return may_attend(documents).T


def _not_itself(documents: Tensor) -> Tensor:
    return may_attend(documents) & ~torch.eye(len(documents), dtype=torch.bool)


def _padding_sees_padding(documents: Tensor) -> Tensor:
    return (documents[:, None] == documents[None, :]) & _causal(documents)


def _inverted_mask(documents: Tensor) -> Tensor:
    return ~may_attend(documents)


def _as_bias(documents: Tensor) -> Tensor:
    return torch.where(may_attend(documents), 0.0, -math.inf)


def _is_square(attempt: Callable, generator: torch.Generator) -> bool:
    return tuple(attempt(torch.tensor([0, 0, 1])).shape) == (3, 3)


def _is_boolean(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt(torch.tensor([0, 0, 1])).dtype == torch.bool


def _sees_itself(attempt: Callable, generator: torch.Generator) -> bool:
    return bool(attempt(torch.tensor([0, 0, 1])).diagonal().all())


def _sees_no_later(attempt: Callable, generator: torch.Generator) -> bool:
    return not bool(attempt(torch.tensor([0, 0, 0])).triu(1).any())


def _sees_all_earlier(attempt: Callable, generator: torch.Generator) -> bool:
    return bool(attempt(torch.tensor([0, 0, 0]))[2].all())


def _sees_no_neighbour(attempt: Callable, generator: torch.Generator) -> bool:
    return not bool(attempt(torch.tensor([0, 0, 1, 1]))[2:, :2].any())


def _leaves_padding_alone(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(torch.tensor([0, 0, -1, -1]))
    return not bool(given[2:].any()) and not bool(given[:, 2:].any())


EXERCISES = (
    Exercise(
        name="ch05.labels",
        solution=labels,
        cases=_rows,
        mistakes=(
            Mistake(
                "padding has labels: its document id is -1, whatever the mask says there", _keeps_padding
            ),
            Mistake(
                "the first token of a document has nothing before it that could predict it", _keeps_first
            ),
            Mistake(
                "the first token of the row is left out, those of the other documents are not",
                _only_the_rows_first,
            ),
            Mistake("the mask alone is not enough: look at the document ids too", _only_mask),
            Mistake("the loss mask was forgotten: the questions have labels", _all_tokens),
            Mistake("this is the other way round: the answers are left out, the questions kept", _inverted),
            Mistake("the labels are one place too early; shifting is the loss's business", _shifted),
            Mistake("0 is a token like any other: what is not learned is -100", _zeros),
            Mistake("these are True and False; labels are the ids themselves, or -100", _mask_of_labels),
            Mistake("these are the learned ids only; a label is needed for every place", _learned_ids),
        ),
        properties=(
            Property("there should be as many labels as ids", _labels_have_the_length),
            Property("a label is the id at its own place, or -100", _labels_are_ids),
            Property("what the mask leaves out should be -100", _questions_are_ignored),
            Property("a learned token should keep its id, at its own place", _answers_stay_in_place),
            Property("the first token of every document should be -100", _starts_are_ignored),
            Property("padding (document -1) should be -100", _padding_is_ignored),
        ),
    ),
    Exercise(
        name="ch05.may_attend",
        solution=may_attend,
        cases=_attention_cases,
        mistakes=(
            Mistake("tokens see what comes after them: attention must be causal", _not_causal),
            Mistake("documents see those before them: their ids must be equal, not only in order", _across),
            Mistake(
                "this is plain causal attention: documents see their neighbours, and padding is seen too",
                _across_with_padding,
            ),
            Mistake("comparing document ids by size lets a document see those before it", _earlier_documents),
            Mistake("rows are queries and columns are keys: this is transposed", _transposed),
            Mistake("a token should see itself too", _not_itself),
            Mistake("padding has equal ids (-1), but it is no document", _padding_sees_padding),
            Mistake("this is the other way round: True is for what may be seen", _inverted_mask),
            Mistake("this is a bias for the scores; return True and False", _as_bias),
        ),
        properties=(
            Property("the result should have shape (T, T)", _is_square),
            Property("the result should be of dtype torch.bool", _is_boolean),
            Property("no token should see a later one", _sees_no_later),
            Property("every token of a document should see itself", _sees_itself),
            Property("a token should see all earlier ones of its document", _sees_all_earlier),
            Property("a token should not see another document of the row", _sees_no_neighbour),
            Property("padding should see nothing and be seen by nothing", _leaves_padding_alone),
        ),
    ),
    MIX,
)
