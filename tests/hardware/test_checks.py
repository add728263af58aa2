"""What can be checked about reports: shares of the peak, pairs of rows, and memory."""

import pytest

from minimind_edu import ModelConfig
from minimind_edu.hardware import checks
from minimind_edu.hardware.cards import find_card
from minimind_edu.hardware.checks import (
    comparisons,
    held_out,
    longest_rows,
    row_of,
    shapes_about,
    share_of_peak,
    those_that_ran,
    why_not,
)
from minimind_edu.hardware.reported import REPORTED, as_run, count_parameters, known_runs, runs


def test_estimates_of_reports_with_known_tokens_rest_on_none_of_them():
    """The ratios are what the course states: 0.5 to 2."""
    found = held_out()
    assert [one.row.hours for one in found] == [pytest.approx(1.21), pytest.approx(1.69)]
    for one in found:
        assert 0.5 < one.ratio < 2 and one.hours[0] < one.row.hours < one.hours[2]
        used = len([run for run in runs() if run.card == one.row.card and run not in known_runs()])
        assert f"{used} reported runs on RTX 3090" in one.source


def test_rows_are_found():
    assert row_of("3090", "63.9", "pretrain_mini").hours == pytest.approx(1.21)
    with pytest.raises(ValueError, match="nothing is reported for 1M"):
        row_of("3090", "1", "pretrain_mini")


def test_a_share_of_the_peak_by_hand():
    """63.9M parameters: 0.43 billion tokens x about 0.41 GFLOP in 1.21 h, of 71 TFLOP/s."""
    low, mid, high = share_of_peak(as_run(row_of("3090", "63.9", "pretrain_mini")))
    assert low == mid == high == pytest.approx(1_270_238 * 340 * 0.41e9 / (1.21 * 3600) / 71.2e12, rel=0.02)
    low, mid, high = share_of_peak(as_run(row_of("A40", "272.418", "pretrain_hq")))
    assert low < mid < high < 0.25


def test_rows_of_768_tokens_would_need_more_than_the_peak():
    """sft_mini in 1.10 h: MiniMind's default length would leave no room for anything but FLOPs."""
    assert 700 < longest_rows(as_run(row_of("3090", "63.9", "sft_mini"))) < 768
    with pytest.raises(ValueError, match="number of rows is not known"):
        longest_rows(as_run(row_of("A40", "183.797", "pretrain_hq")))


def test_pairs_that_agree_and_pairs_that_do_not():
    agree = {(one.first.params, one.second.params, one.second.card): one.agrees for one in comparisons()}
    assert agree == {
        ("25.8", "104", "GeForce RTX 3090"): True,
        ("183.797", "272.418", "A40"): True,
        ("28.07", "183.797", "A40"): False,
        ("272.418", "272.418", "GeForce RTX 5060"): False,
        ("63.9", "198.4", "GeForce RTX 3090"): False,
    }
    for one in comparisons():
        assert ("do not agree" in str(one)) == (not one.agrees)


def test_the_figures_of_the_pairs():
    small, a40, strange, cards, experts = comparisons()
    assert small.time == pytest.approx(3.9 / 1.1) and 3.5 < small.work < 4.1
    assert a40.time == pytest.approx(1.6) and 1.4 < a40.work < 1.55
    assert strange.time == pytest.approx(20) and strange.work == pytest.approx(183.797 / 28.07)
    assert cards.time == pytest.approx(18 / 16) and cards.peak == pytest.approx(0.256, abs=0.01)
    assert experts.work == pytest.approx(1.0, abs=0.01) and experts.time == pytest.approx(1.69 / 1.21)


def test_shapes_about_a_size():
    shapes = shapes_about("20.07")
    assert 5 <= len(shapes) <= 30
    assert all(abs(count_parameters(shape) / 20.07e6 - 1) <= 0.005 for shape in shapes)


@pytest.fixture
def few_shapes(monkeypatch):
    """One small and one wide shape, for speed."""
    shapes = [ModelConfig.preset("edu"), ModelConfig.preset("qwen3-small")]
    monkeypatch.setattr(checks, "shapes_about", lambda params: shapes)


def test_a_verdict_depends_on_what_the_shapes_need(few_shapes, monkeypatch):
    row = next(row for row in REPORTED if row.params == "20.07")
    verdict = why_not(row, length=64)
    assert verdict.explains is False and verdict.yet is None
    assert "memory does not explain it" in str(verdict) and "bfloat16" in str(verdict)
    assert verdict.need[0] < verdict.need[1] and verdict.largest[0] >= verdict.largest[1] > 16
    long = why_not(row, length=2048)
    assert long.need[0] > verdict.need[0] and long.explains is not False
    with pytest.raises(ValueError, match="ran"):
        why_not(row_of("A40", "183.797", "pretrain_hq"))


def test_rows_that_ran_have_to_fit():
    """All do, but the one of the RTX 5060, which leaves something out."""
    by_fit = {True: [], False: []}
    for ran in those_that_ran():
        by_fit[ran.agrees].append(ran)
    assert len(by_fit[True]) == 10
    (strange,) = by_fit[False]
    assert (strange.row.card, strange.row.params) == ("GeForce RTX 5060", "272.418")
    assert strange.need > 1.5 * find_card("5060").usable and 32 <= strange.longest < 256
    assert "ran nevertheless" in str(strange)


def test_the_row_of_380_million_parameters(few_shapes):
    """Whatever its shape, the card is said to have run a step that needs more than a card of 8 GB has."""
    row = next(row for row in REPORTED if row.params == "380")
    assert why_not(row).yet.row.params == "272.418" and "leaves something out" in str(why_not(row))
