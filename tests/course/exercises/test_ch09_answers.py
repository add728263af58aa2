"""The exercise on answer blocks agrees with the package where both speak, and its hints fit."""

import itertools

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch09_answers import extract_answer
from minimind_edu.course.exercises.checking import examine
from minimind_edu.stages import verify

PIECES = ("<think>", "</think>", "<answer>", "</answer>", "46", "\n")


def test_it_is_the_packages():
    """All texts of up to five pieces."""
    for length in range(6):
        for pieces in itertools.product(PIECES, repeat=length):
            text = "".join(pieces)
            assert extract_answer(text) == verify.extract_answer(text), text


def test_by_hand():
    assert extract_answer("<think>\n3 + 43\n</think>\n<answer>\n46\n</answer>") == "46"
    assert extract_answer("<answer>46</answer>.") is None


def test_unforeseen_answers_get_a_hint_that_fits():
    one = exercise("ch09.extract_answer")
    assert "that number" in examine(one, lambda text: len(text), 0)
    middle = lambda text: "".join(extract_answer(text[:n]) or "" for n in range(len(text) + 1)) or None  # noqa: E731
    assert "None" in examine(one, middle, 0)
