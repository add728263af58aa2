"""Chapter 1's exercises: right answers in other styles pass; other people's mistakes get fitting hints."""

import numpy as np
import pytest

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch01 import bytes_per_token
from minimind_edu.course.exercises.ch01_counts import count_changes
from minimind_edu.course.exercises.ch01_mask import assistant_mask
from minimind_edu.course.exercises.checking import PASSED, examine

EXAMPLE = ([1, 5, 2, 1, 8, 6, 7, 2], [1, 8], 2)


def verdict(name, answer):
    return examine(exercise(f"ch01.{name}"), answer, seed=3)


def test_the_examples_of_the_chapter():
    assert bytes_per_token(["ab", "猫"], [[7], [1, 2, 3]]) == 1.25
    assert count_changes([1, 2, 3], (1, 2), 9, 5) == {(1, 2): -5, (2, 3): -5, (9, 3): 5}
    assert assistant_mask(*EXAMPLE) == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("bytes_per_token", lambda texts, ids: np.float64(len("".join(texts).encode()) / sum(map(len, ids)))),
        ("count_changes", lambda *a: {tuple(map(np.int64, k)): v for k, v in count_changes(*a).items()}),
        ("assistant_mask", lambda *a: np.array(assistant_mask(*a))),
        ("assistant_mask", lambda *a: tuple(map(int, assistant_mask(*a)))),
    ],
)
def test_right_answers_in_other_types_pass(name, answer):
    assert verdict(name, answer) == PASSED


def merge_that_wants_a_tuple(word, pair, new_id, count):
    """The chapter's merge on a list: a slice of a list equals no tuple, so nothing is found."""
    return {} if word[:2] != pair else count_changes(word, pair, new_id, count)


def empty_answers_overlooked(ids, header, end):
    mask = assistant_mask(ids, header, end)
    return [
        learned and not (token == end and ids[i - len(header) : i] == header)
        for i, (token, learned) in enumerate(zip(ids, mask, strict=True))
    ]


def never_at_the_first_id(ids, header, end):
    return assistant_mask([end, *ids[1:]], header, end)


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        (
            "bytes_per_token",
            lambda texts, ids: len("\n".join(texts).encode()) / sum(map(len, ids)),
            "between",
        ),
        ("bytes_per_token", lambda texts, ids: round(bytes_per_token(texts, ids), 1), "round"),
        ("count_changes", merge_that_wants_a_tuple, "list"),
        ("assistant_mask", empty_answers_overlooked, "end"),
        ("assistant_mask", never_at_the_first_id, "first|begin"),
        ("assistant_mask", lambda ids, header, end: assistant_mask(ids, header[-1:], end), "header"),
    ],
)
def test_wrong_answers_get_a_fitting_hint(name, answer, said):
    hint = verdict(name, answer)
    assert hint.startswith("hint: ")
    assert any(word in hint for word in said.split("|")), hint
