"""The table: kinds are never mixed, every row has a source, and the committed file is what the code makes."""

import csv
import shlex
from pathlib import Path

import pytest

from minimind_edu import ModelConfig
from minimind_edu.cli import parse
from minimind_edu.commands import COMMANDS
from minimind_edu.hardware import table as tables
from minimind_edu.hardware.cards import THE_FOUR, find_card
from minimind_edu.hardware.reported import FILES, REPORTED
from minimind_edu.hardware.rows import MeasuredRow
from minimind_edu.hardware.table import (
    COLUMNS,
    DATASETS,
    as_csv,
    estimated,
    from_csv,
    measured,
    reported,
    rounded,
    table,
)
from minimind_edu.hardware.workload import STAGES, Workload

COMMITTED = Path(__file__).parents[2] / "records" / "hardware.csv"
ESTIMATES = ("hours_low", "hours_high", "largest_batch", "command", "change")  # we alone fill these


@pytest.fixture(scope="module")
def committed():
    return list(from_csv(COMMITTED.read_text(encoding="utf-8")))


def as_text(rows):
    return list(from_csv(as_csv(rows)))


def test_every_stage_has_data():
    assert {dataset.stage for dataset in DATASETS} == set(STAGES)
    for dataset in DATASETS:
        low, mid, high = dataset.rows
        assert low <= mid <= high and (low == high) == (not dataset.rows_are.startswith("bounded"))
    mini = DATASETS[0]
    assert (mini.name, mini.rows, mini.seq_len) == ("pretrain_mini", (1_270_238,) * 3, 340)


def test_bounded_rows_hold_the_bounded_tokens():
    for dataset in DATASETS:
        if dataset.name in FILES and dataset.rows_are.startswith("bounded") and dataset.stage != "grpo":
            fewest, most = FILES[dataset.name].padded_tokens()
            assert dataset.rows[0] * dataset.seq_len == pytest.approx(fewest, rel=1e-3)
            assert dataset.rows[2] * dataset.seq_len == pytest.approx(most, rel=1e-3)


def test_reported_rows_hold_nothing_of_ours():
    rows = reported()
    assert len(rows) == len(REPORTED)
    for row in rows:
        assert row["kind"] == "reported" and row["source"].startswith("reported")
        assert all(row[name] == "" for name in ESTIMATES) and row["fits"] in ("runs", "does not run")
        assert (row["hours"] == "") == (row["fits"] == "does not run")


def test_measured_rows_hold_what_was_measured(monkeypatch):
    work = Workload(ModelConfig.preset("edu"), "sft", 4, 64)
    row = MeasuredRow(work, 0.1234, 2**29, "2026-01-01", "2.13", "3.13", "Some CPU", 2, "minimind-edu bench")
    monkeypatch.setattr(tables, "measured_rows", lambda: [row])
    (found,) = measured()
    assert found["kind"] == "measured" and found["card"] == "Some CPU" and found["preset"] == "edu"
    assert (found["step_seconds"], found["memory_gb"], found["stage"]) == (0.123, 0.5, "sft")
    assert "minimind-edu bench" in found["source"] and "2026-01-01" in found["source"]
    assert all(found[name] == "" for name in ESTIMATES)


@pytest.fixture(scope="module")
def small():
    return estimated(("GeForce GTX 1650", "A40"), ("edu", "qwen3-tiny"), ("pretrain", "lora", "grpo"))


def test_there_is_a_row_for_every_card_preset_and_data(small):
    found = [(row["card"], row["preset"], row["data"]) for row in small]
    datasets = [one.name for one in DATASETS if one.stage in ("pretrain", "lora", "grpo")]
    wanted = [
        (card, preset, data)
        for card in ("GeForce GTX 1650", "A40")
        for preset in ("edu", "qwen3-tiny")
        for data in datasets
    ]
    assert sorted(found) == sorted(wanted)


def test_estimated_rows_say_what_they_rest_on(small):
    for row in small:
        assert row["kind"] == "estimated" and "reported runs" in row["source"]
        assert 0 < row["hours_low"] <= row["hours"] <= row["hours_high"]
        assert row["fits"] == "yes" and row["largest_batch"] >= row["batch"] and row["change"] == ""
        assert (row["holes"] != "") == (row["rows_are"] != "known" or row["card"] == "A40")


def test_hours_of_bounded_data_have_a_wider_range(small):
    edu = {row["data"]: row for row in small if row["card"] == "A40" and row["preset"] == "edu"}
    spread = {data: row["hours_high"] / row["hours_low"] for data, row in edu.items()}
    assert spread["pretrain_hq"] > 2.5 * spread["pretrain_mini"]


def test_what_does_not_fit_is_changed():
    (row,) = estimated(("GeForce GTX 1650",), ("minimind2",), ("pretrain",), DATASETS[:1])
    assert row["fits"] == "no" and 0 < row["largest_batch"] < row["batch"] and row["memory_gb"] > 3.3
    name, settings = parse(shlex.split(row["command"])[1:], COMMANDS)
    assert name == "pretrain" and settings.batch_size <= row["largest_batch"] and row["change"]
    (hopeless,) = estimated(("GeForce GTX 1650",), ("minimind2-272m",), ("pretrain",), DATASETS[:1])
    assert hopeless["fits"] == "no" and hopeless["hours"] == "" and "none of ours" in hopeless["change"]


def test_the_table_is_a_data_frame():
    frame = table(("A40",), ("edu",), ("lora",))
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["kind"]) >= {"reported", "estimated"} and (frame["source"].str.len() > 5).all()


def test_unknown_columns_are_refused():
    with pytest.raises(ValueError, match="no column colour"):
        tables._row("measured", "x", colour=1)


@pytest.mark.parametrize(("value", "text"), [(1234.5, 1230.0), (0.0123456, 0.0123), (9.999, 10.0), (0, 0)])
def test_three_digits(value, text):
    assert rounded(value) == text


# -- the committed file ------------------------------------------------------------------------------------


def test_every_row_says_what_it_is_and_from_what(committed):
    assert list(csv.reader([COMMITTED.read_text(encoding="utf-8").splitlines()[0]]))[0] == list(COLUMNS)
    for row in committed:
        assert row["kind"] in ("measured", "reported", "estimated") and len(row["source"]) > 10
        if row["kind"] != "estimated":
            assert all(row[name] == "" for name in ESTIMATES)
        elif row["hours"]:
            assert float(row["hours_low"]) <= float(row["hours"]) <= float(row["hours_high"])


def test_the_four_cards_have_every_preset_stage_and_data(committed):
    found = {(row["card"], row["preset"], row["data"]) for row in committed if row["kind"] == "estimated"}
    assert len(found) == len(THE_FOUR) * len(ModelConfig.presets()) * len({(one.name) for one in DATASETS})
    assert {card for card, _, _ in found} == set(THE_FOUR)
    stages = {row["stage"] for row in committed if row["kind"] == "estimated"}
    assert stages == set(STAGES)


def test_the_committed_reports_and_measurements_are_those_of_the_code(committed):
    assert [row for row in committed if row["kind"] == "reported"] == as_text(reported())
    assert [row for row in committed if row["kind"] == "measured"] == as_text(measured())


@pytest.mark.parametrize("card", THE_FOUR)
@pytest.mark.parametrize(
    ("preset", "stage"),
    [("edu", "pretrain"), ("minimind2-small", "sft"), ("minimind2", "dpo"), ("qwen3-small", "grpo")],
)
def test_committed_estimates_are_what_the_code_makes(committed, card, preset, stage):
    """Numbers agree within 3%: what a process takes before its model differs between versions."""
    made = as_text(estimated((card,), (preset,), (stage,)))
    kept = [
        row
        for row in committed
        if (row["kind"], row["card"], row["preset"], row["stage"]) == ("estimated", card, preset, stage)
    ]
    assert len(made) == len(kept)
    for one, other in zip(made, kept, strict=True):
        for name in COLUMNS:
            if name in ("memory_gb", "step_seconds", "hours_low", "hours", "hours_high", "largest_batch"):
                assert (one[name] == "") == (other[name] == "")
                assert not one[name] or float(one[name]) == pytest.approx(float(other[name]), rel=0.03), name
            else:
                assert one[name] == other[name], name


def test_committed_commands_can_be_parsed(committed):
    commands = {row["command"] for row in committed if row["command"]}
    assert len(commands) > 20
    for command in commands:
        name, settings = parse(shlex.split(command)[1:], COMMANDS)
        settings.validate()
        assert name in STAGES


def test_the_largest_batch_agrees_with_what_fits(committed):
    for row in committed:
        if row["kind"] == "estimated":
            assert (row["fits"] == "yes") == (int(row["largest_batch"]) >= int(row["batch"]))
            assert (row["fits"] == "yes") == (
                float(row["memory_gb"]) <= find_card(row["card"]).usable / 2**30 * 1.005
            )
