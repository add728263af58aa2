"""The small table at the end of a training chapter."""

import re

import pytest

from minimind_edu.course import hours
from minimind_edu.course.hours import PRESETS, hours_table, stage_rows
from minimind_edu.hardware.cards import THE_FOUR
from minimind_edu.hardware.table import DATASETS
from minimind_edu.hardware.workload import STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_four_cards_and_four_presets(stage):
    rows = stage_rows(stage)
    data = {dataset.name for dataset in DATASETS if dataset.stage == stage}
    made = [row for row in rows if row["kind"] == "estimated"]
    assert {(row["card"], row["preset"], row["data"]) for row in made} == {
        (card, preset, name) for card in THE_FOUR for preset in PRESETS for name in data
    }
    assert all(row["stage"] == stage and row["source"] for row in rows)
    assert {row["kind"] for row in rows} <= {"reported", "estimated"}


def test_reports_come_first_and_stay_apart():
    kinds = [row["kind"] for row in stage_rows("pretrain")]
    assert kinds == sorted(kinds, reverse=True) and kinds.count("reported") == 10


def test_the_table_says_what_every_row_is():
    text = hours_table("pretrain").data
    lines = re.findall(r"<tr>.*?</tr>", text)
    assert len(lines) == 1 + len(stage_rows("pretrain"))
    for line in lines[1:]:
        first = re.search(r"<td[^>]*>(.*?)</td>", line)[1]
        assert first in ("reported", "estimated")
        assert (" to " in re.findall(r"<td[^>]*>(.*?)</td>", line)[5]) <= (first == "estimated")
    assert "1.2 (" not in lines[0] and "20.07M, shape unknown" in text and "does not run" in text


def test_colours_are_set_in_pairs():
    """A dark theme must not put white letters on white."""
    text = hours_table("sft").data
    for style in re.findall(r'style="([^"]*)"', text):
        assert ("color:" in style.replace("background-color:", "")) == ("background:" in style) or (
            "background" not in style and "color" not in style
        )
    assert all("background:#ffffff;color:#1f2328" in cell for cell in re.findall(r"<t[dh] [^>]*>", text))


def test_without_the_record_it_is_worked_out(monkeypatch, tmp_path):
    monkeypatch.setattr(hours, "TABLE", tmp_path / "none.csv")
    monkeypatch.setattr(hours, "PRESETS", ("edu",))
    monkeypatch.setattr(hours, "THE_FOUR", ("A40",))
    rows = stage_rows("lora")
    assert [(row["kind"], row["preset"]) for row in rows] == [
        ("reported", "minimind2-272m"),
        ("estimated", "edu"),
    ]


def test_an_unknown_stage():
    with pytest.raises(ValueError, match="no data are known for the stage 'rlhf': use pretrain"):
        hours_table("rlhf")


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.012"), (1.26, "1.3"), (33.4, "33")])
def test_hours_are_short(value, text):
    assert hours._short(value) == text
