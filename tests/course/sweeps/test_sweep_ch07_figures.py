"""What chapter 7 shows of its record: the right runs, in tables with a column for every number."""

import pytest

from minimind_edu.course import sweeps
from minimind_edu.course.sweeps import SweepRecord, ch07
from minimind_edu.course.sweeps import ch07_figures as drawn


@pytest.fixture(scope="module")
def grid():
    return sweeps.load("07")


def test_runs_are_those_with_just_these_settings():
    cells = [
        ({"recipe": "plain", "seed": 1}, {"kl": 1}),
        ({"recipe": "plain", "seed": 2}, {"kl": 2}),
        ({"recipe": "plain", "learning_rate": 1e-4, "seed": 1}, {"kl": 3}),
    ]
    record = SweepRecord("", {}, cells)
    assert drawn.runs(record, "plain") == [{"kl": 1}, {"kl": 2}]
    assert drawn.runs(record, "plain", learning_rate=1e-4) == [{"kl": 3}]


def test_every_group_has_three_seeds(grid):
    assert [len(found) for found in drawn.recipes(grid).values()] == [len(ch07.SEEDS)] * 3
    assert len(drawn.runs(grid, "again")) == len(ch07.SEEDS)


def test_the_late_part_of_a_curve_is_its_last_quarter():
    assert drawn.late({"curve": {"margin": [9.0] * 6 + [1.0, 3.0]}}, "margin") == 2.0


def test_the_mean_of_both_languages():
    assert drawn.both({"exact": {"en": 1.0, "zh": 0.5}}, "exact") == 0.75


def test_betas_are_in_order_and_the_default_is_among_them(grid):
    assert list(drawn.beta_runs(grid)) == [0.01, 0.1, 1.0]


def test_the_heavier_runs_are_all_different(grid):
    curves = [str(numbers["curve"]) for numbers in drawn.heavier(grid).values()]
    assert len(set(curves)) == len(curves) == 6


def test_a_table_has_a_column_for_every_number():
    numbers = {"win_rate": {"en": 0.5, "zh": 0.25}, "kl": 132.64}
    shown = drawn.table([("one", numbers), ("two", numbers)], "win_rate", "kl").data.splitlines()
    assert shown[0] == "|  | win rate en | win rate zh | KL |" and shown[1] == "| --- | --- | --- | --- |"
    assert shown[2:] == ["| one | 0.500 | 0.250 | 132.6 |", "| two | 0.500 | 0.250 | 132.6 |"]


@pytest.mark.parametrize("draw", [drawn.recipe_figure, drawn.curve_figure, drawn.beta_figure])
def test_figures_draw_the_record(grid, draw):
    figure = draw(grid)
    assert all(axes.lines for axes in figure.axes)
