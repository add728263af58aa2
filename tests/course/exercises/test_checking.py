"""How answers are judged: every verdict, and the hint for every kind of wrong answer."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from minimind_edu.course import exercises
from minimind_edu.course.exercises.checking import NOT_ATTEMPTED, PASSED, Exercise, Mistake, Property, examine


def of_values(right, *arguments, **options):
    """An exercise with one case: arguments, and the right result for them."""
    options = {"mistakes": (), **options}
    return Exercise("ch99.values", lambda *given: right, lambda generator: [arguments], **options)


def verdict(right, given, *arguments, **options):
    """What an answer that returns `given` hears where `right` is right."""
    return examine(of_values(right, *arguments, **options), lambda *inputs: given, seed=0)


def normalise(x, eps):
    """The exercise of most tests below: (x - mean) / (standard deviation + eps)."""
    return (x - x.mean()) / (x.std() + eps)


NORMALISE = Exercise(
    "ch99.normalise",
    normalise,
    lambda generator: [
        (torch.randn(n, generator=generator) * 3 + 1, eps) for n in (2, 7) for eps in (0.1, 0)
    ],
    mistakes=(
        Mistake("the mean is not subtracted", lambda x, eps: x / (x.std() + eps)),
        Mistake("eps is left out", lambda x, eps: (x - x.mean()) / x.std()),
        Mistake(
            "it raises an error for short inputs", lambda x, eps: normalise(x, eps) if len(x) > 2 else 1 / 0
        ),
    ),
    properties=(
        Property(
            "the mean of the result should be 0", lambda f, g: bool(f(torch.arange(3.0), 0.0).mean() == 0)
        ),
        Property(
            "a longer input should work too", lambda f, g: f(torch.rand(99, generator=g), 1.0).shape == (99,)
        ),
    ),
)


def judge(attempt, exercise=NORMALISE, seed=0):
    return examine(exercise, attempt, seed)


# -- verdicts ----------------------------------------------------------------------------------------------


def test_a_right_answer_passes_on_all_inputs():
    assert {judge(normalise, seed=seed) for seed in (None, 0, 1, 2)} == {PASSED}
    assert judge(lambda x, eps: x.sub(x.mean()).div(x.std(unbiased=True) + eps)) == PASSED


def test_a_stub_is_not_attempted():
    def stub(x, eps):
        raise NotImplementedError("your turn")

    assert judge(stub) == NOT_ATTEMPTED


def test_an_exception_is_told_with_the_call():
    assert judge(lambda x, eps: [][3], of_values(1, 2, "a")) == (
        "hint: IndexError on f(2, 'a'): list index out of range"
    )
    assert judge(lambda x: x, of_values(1, 2, "a")).startswith("hint: TypeError on f(2, 'a'): ")


def test_none_points_to_the_missing_return():
    assert "returned None; is its last line a return?" in judge(lambda x, eps: None)
    assert verdict(None, None) == PASSED


@pytest.mark.parametrize("not_a_function", [3, torch.zeros(2), "normalise", None])
def test_something_else_than_a_function(not_a_function):
    assert judge(not_a_function).startswith("hint: give check the function itself, not ")


def test_an_answer_that_changes_its_arguments():
    def in_place(x, eps):
        return x.sub_(x.mean()).div_(x.std() + eps)

    def append(items):
        items.append(1)
        return 7

    said = "hint: the values are right, but the function changed its arguments; work on a copy"
    assert judge(in_place) == said
    assert judge(append, of_values(7, [5])) == said
    assert judge(lambda x, eps: x.mul_(2)) != said, "a wrong value comes first"


def test_arguments_are_each_answers_own():
    """What one answer does to its arguments is not seen by the reference, or by a mistake."""
    seen = []

    def spoil(x, eps):
        seen.append(x.clone())
        return x.fill_(5.0)

    judge(spoil)
    assert all((x != 5.0).any() for x in seen)


def test_objects_without_equality_are_not_taken_for_changed():
    class Shape:
        def __init__(self):
            self.sizes = torch.tensor([1, 2])

    def grow(shape, n):
        shape.sizes += 1
        return 4

    assert judge(lambda shape, n: 4, of_values(4, Shape(), 1)) == PASSED
    assert "changed its arguments" in judge(grow, of_values(4, Shape(), 1))


# -- mistakes and properties -------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", NORMALISE.mistakes[:2], ids=lambda mistake: mistake.hint)
def test_a_known_mistake_has_its_hint(mistake):
    assert {judge(mistake.function, seed=seed) for seed in range(5)} == {f"hint: {mistake.hint}"}


def test_a_mistake_written_in_another_way_has_the_same_hint():
    assert judge(lambda x, eps: x * (1 / (x.std() + eps))) == "hint: the mean is not subtracted"


def test_the_most_telling_mistake_comes_first():
    wrong = lambda x: 0  # noqa: E731
    exercise = of_values(1, 2, mistakes=(Mistake("first", wrong), Mistake("second", wrong)))
    assert judge(wrong, exercise) == "hint: first"


def test_an_unknown_mistake_is_told_by_the_property_that_it_lacks():
    assert judge(lambda x, eps: normalise(x, eps) + 1) == "hint: the mean of the result should be 0"
    only_short = lambda x, eps: normalise(x, eps) * (2 if len(x) < 9 else 1 / 0)  # noqa: E731
    assert judge(only_short) == "hint: a longer input should work too"


def test_without_either_the_plain_difference_is_told():
    assert "every value is 3 times the right one" in judge(lambda x, eps: normalise(x, eps) * 3)


# -- plain differences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "given", "said"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "f(5) should have shape (2, 3), not (3, 2)"),
        (torch.ones(2), torch.tensor([1, math.nan]), "f(5) has values that are not finite (NaN or infinity)"),
        (torch.ones(2), torch.tensor([1, math.inf]), "f(5) has values that are not finite (NaN or infinity)"),
        (torch.tensor([1.0, 2]), torch.tensor([0.5, 1.0]), "every value is 0.5 times the right one, on f(5)"),
        (torch.tensor([1.0, 2]), torch.tensor([-1.0, -2]), "every value is -1 times the right one, on f(5)"),
        (torch.arange(4).view(2, 2), torch.tensor([[0, 1], [8, 3]]), "at [1, 0] of f(5): expected 2, got 8"),
        ([1, 2, 3], [1, 2, 4], "at [2] of f(5): expected 3, got 4"),
        (4.0, 5.0, "f(5): expected 4, got 5"),
        (4.0, 0.0, "f(5): expected 4, got 0"),
        ("abc", "abd", "f(5) should be 'abc', not 'abd'"),
        ({"a": 1}, {"a": 2}, "f(5) should be {'a': 1}, not {'a': 2}"),
        (torch.ones(7), "ones", "f(5) should be tensor of shape (7,), not 'ones'"),
        (1.0, "x" * 200, f"f(5) should be 1.0, not '{'x' * 76}..."),
    ],
)  # fmt: skip
def test_plain_differences(right, given, said):
    assert verdict(right, given, 5) == f"hint: {said}"


# -- what counts as equal ----------------------------------------------------------------------------------

WHOLE = np.array([1, 2])


@pytest.mark.parametrize(
    ("right", "given"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.00001, 2.0])),
        (torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 2.0])),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]), (torch.tensor([1.0, 2.0]), np.array([1.0, 2.0])),
        (0.1 + 0.2, 0.3), (2, 2.0), (2, np.int64(2)), (True, 1), (WHOLE, [1, 2]), ([1, 2], (1, 2)),
        (torch.tensor([math.nan, 1]), torch.tensor([math.nan, 1])), (math.inf, math.inf),
        (torch.tensor([1e9, 1e-3]), torch.tensor([1e9, 2e-3])),  # relative to the largest
        ([], []), ([[1], [2, 3]], [[1], (2, 3)]), ({"a": [1.0], "b": "x"}, {"b": "x", "a": [1.0 + 1e-7]}),
        (["a", "b"], ("a", "b")), (b"ab", b"ab"), ("", ""), ({1, 2}, {2, 1}),
        (torch.empty(0, 3), torch.empty(0, 3)),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 2j])), (10**18, 10**18), ([("a", 1.0)], [("a", 1.0)]),
    ],
)  # fmt: skip
def test_equal_results_pass(right, given):
    assert verdict(right, given) == PASSED


@dataclass
class Pair:
    left: int
    right: int


@pytest.mark.parametrize(
    ("right", "given"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.001, 2.0])), (1e-6, 2e-3), (1.0, math.nan),
        (1.0, math.inf),
        (math.inf, 1.0), (math.inf, -math.inf),
        (100_000, 100_001), (torch.tensor([100_000]), torch.tensor([100_001])),
        (WHOLE * 10**6, WHOLE * 10**6 + 1),
        ([100_000, 5], [100_001, 5]), (10**18, 10**18 + 1), (2, 2.5), (True, False), (True, 2),
        (torch.zeros(1, 2), torch.zeros(2)), (1.0, torch.zeros(1) + 1), ([1], 1), ([1, 2], [1, 2, 3]),
        ([], [1]),
        ("1", 1), (1, "1"), ("a", b"a"), ("ab", ["a", "b"]), (["a", "b"], "ab"), ([1, "a"], [1, "b"]),
        ({"a": 1}, {"a": 1, "b": 2}), ({"a": 1}, {"b": 1}), ({"a": 1}, [("a", 1)]), ({"a": 1}, ["a"]),
        ([[1], [2, 3]], [[1], [2, 4]]), ({1, 2}, {1, 3}), (torch.empty(0, 3), torch.empty(0, 2)),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 3j])), (Pair(1, 2), Pair(1, 3)), (Pair(1, 2), (1, 2)),
        ([("a", 1.0)], [("a", 2.0)]), (1, object()), (object(), object()),
    ],
)  # fmt: skip
def test_different_results_fail(right, given):
    assert verdict(right, given).startswith("hint: ")


def test_objects_are_compared_by_what_they_say_or_hold():
    assert verdict(Pair(1, 2), Pair(1, 2)) == PASSED
    one = object()
    assert verdict(one, one) == PASSED


def test_the_tolerance_is_the_exercises():
    assert verdict(1.0, 1.01, tolerance=0.1) == PASSED
    assert verdict(1.0, 1.01, tolerance=0.001).startswith("hint: ")


# -- random numbers ----------------------------------------------------------------------------------------


def test_the_seed_decides_the_inputs():
    drawn = []
    exercise = Exercise(
        "ch99.drawn",
        lambda x: x,
        lambda generator: [(drawn.append(torch.rand(1, generator=generator)) or drawn[-1],)],
        mistakes=(),
    )
    for seed in (1, 1, 2, None, None):
        judge(lambda x: x, exercise, seed)
    one, same, other, random, another = (float(x) for x in drawn)
    assert one == same and len({one, other, random, another}) == 4


@pytest.mark.parametrize("seed", [None, 3])
def test_a_check_does_not_change_what_the_chapter_draws_next(seed):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    judge(lambda x, eps: normalise(x + 0 * torch.rand(1), eps), seed=seed)
    assert torch.equal(torch.rand(3), expected)


# -- check and show_solution -------------------------------------------------------------------------------


@pytest.fixture
def only_normalise(monkeypatch):
    monkeypatch.setattr(exercises, "_all", lambda: {NORMALISE.name: NORMALISE})


def test_check_prints_the_name_and_the_verdict(only_normalise, capsys):
    exercises.check("ch99.normalise", normalise)
    exercises.check("ch99.normalise", lambda x, eps: None)
    assert capsys.readouterr().out.splitlines() == [
        "ch99.normalise: passed",
        "ch99.normalise: hint: the function returned None; is its last line a return?",
    ]


def test_the_solution_is_shown_as_source(only_normalise, capsys):
    exercises.show_solution("ch99.normalise")
    shown = capsys.readouterr().out
    assert shown.startswith("def normalise(x, eps):\n") and shown.endswith(
        "return (x - x.mean()) / (x.std() + eps)\n"
    )


def test_unknown_names_list_those_of_the_chapter(only_normalise, capsys):
    for call in (
        lambda: exercises.check("ch99.nothing", len),
        lambda: exercises.show_solution("ch98.nothing"),
    ):
        with pytest.raises(ValueError, match="there are: ch99.normalise$"):
            call()
    assert capsys.readouterr().out == ""
