"""Every exercise: its solution passes, its stub does not, and each known mistake fails with its own hint."""

import pytest

from minimind_edu.course import exercises
from minimind_edu.course.exercises.checking import NOT_ATTEMPTED, PASSED, examine

ALL = [exercises.exercise(name) for name in exercises.names()]
EACH = pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.name)
SEEDS = range(5)


@EACH
def test_the_solution_passes(exercise):
    assert {examine(exercise, exercise.solution, seed) for seed in SEEDS} == {PASSED}


@EACH
def test_the_stub_is_not_attempted(exercise):
    def stub(*arguments):
        raise NotImplementedError

    assert examine(exercise, stub) == NOT_ATTEMPTED


@EACH
def test_each_mistake_fails_with_its_own_hint(exercise):
    assert len(exercise.mistakes) >= 3
    hints = {mistake.hint for mistake in exercise.mistakes}
    assert len(hints) == len(exercise.mistakes)
    for mistake in exercise.mistakes:
        for seed in SEEDS:
            assert examine(exercise, mistake.function, seed) == f"hint: {mistake.hint}"


@EACH
def test_the_solution_has_every_property(exercise):
    import torch

    for property in exercise.properties:
        for seed in SEEDS:
            assert property.holds(exercise.solution, torch.Generator().manual_seed(seed)), property.hint


@EACH
def test_nonsense_fails(exercise):
    answers = [lambda *a: None, lambda *a: 0, lambda *a: a[0], lambda *a: a[-1], lambda *a: 1 / 0, lambda: 1]
    for answer in answers:
        verdict = examine(exercise, answer, 0)
        assert verdict.startswith("hint: ") and len(verdict) > 20


@EACH
def test_the_solution_can_be_shown(exercise, capsys):
    exercises.show_solution(exercise.name)
    shown = capsys.readouterr().out
    assert shown.startswith("def ") and "return" in shown


def test_an_unknown_exercise_names_the_others():
    with pytest.raises(ValueError, match="no exercise is called"):
        exercises.check("ch02.nothing", len)
