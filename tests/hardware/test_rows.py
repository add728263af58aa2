"""Rows: written and read without loss; what is wrong is told with file and line."""

import json

import pytest

from minimind_edu.config import ModelConfig, RopeScaling
from minimind_edu.hardware.rows import (
    MeasuredRow,
    measured_rows,
    read_rows,
    row_of,
    workload_from_dict,
    workload_to_dict,
)
from minimind_edu.hardware.workload import Workload

WORKS = [
    Workload(ModelConfig()),
    Workload(ModelConfig.preset("minimind2-moe"), "sft", batch_size=3, dtype="bfloat16"),
    Workload(ModelConfig(rope_scaling=RopeScaling()), "lora", rank=8, targets=("q_proj",)),
    Workload(ModelConfig.preset("edu"), "distill", teacher=ModelConfig.preset("minimind-3")),
    Workload(ModelConfig.preset("qwen3-tiny"), "grpo", new_tokens=10, rollout_rows=32, optimizer="muon"),
    Workload(ModelConfig(), "dpo", gradient_checkpointing=True, labelled=0.25, device="cuda", packed=False),
]


def a_row(**changes) -> MeasuredRow:
    values = {
        "workload": WORKS[0], "seconds": 0.125, "memory": 10**9, "date": "2026-01-31", "torch": "2.10.0",
        "python": "3.12.1", "machine": "a machine", "threads": 2, "command": "minimind-edu bench",
    }  # fmt: skip
    return MeasuredRow(**values | changes)


@pytest.mark.parametrize("work", WORKS)
def test_a_workload_survives_json(work):
    assert workload_from_dict(json.loads(json.dumps(workload_to_dict(work)))) == work


def test_a_row_survives_json_and_is_one_line():
    row = a_row(workload=WORKS[3], purpose="held-out")
    line = row.to_json()
    assert "\n" not in line and row_of(json.loads(line)) == row
    assert row_of(json.loads(a_row(seconds=1 / 3).to_json())).seconds == 0.3333


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 0}, "seconds must be a positive number"),
        ({"seconds": "fast"}, "seconds must be a positive number"),
        ({"seconds": float("nan")}, "seconds must be a positive number"),
        ({"memory": -1}, "memory must be a whole number of 0"),
        ({"threads": 0}, "threads must be a whole number of 1"),
        ({"machine": " "}, "machine must be a text"),
        ({"purpose": "fun"}, "purpose must be"),
        ({"workload": []}, "workload must be an object"),
        ({"workload": {}}, "needs a config"),
        ({"workload": {"config": {}, "speed": 1}}, "a workload has no speed"),
        ({"workload": {"config": {"hidden": 1}}}, "no field called hidden"),
        ({"colour": "red"}, "unknown: colour"),
        ({"date": None}, "date must be a text"),
    ],
)
def test_a_wrong_row_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        row_of(json.loads(a_row().to_json()) | changes)


def test_a_missing_value_is_named(tmp_path):
    values = json.loads(a_row().to_json())
    del values["threads"]
    with pytest.raises(ValueError, match="missing: threads"):
        row_of(values)
    path = tmp_path / "rows.jsonl"
    path.write_text(a_row().to_json() + "\n\n" + json.dumps(values) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 3: missing: threads"):
        read_rows(path)
    path.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: not an object"):
        read_rows(path)


def test_all_files_of_a_folder_are_read_in_order(tmp_path):
    for name, seconds in (("b.jsonl", 2.0), ("a.jsonl", 1.0)):
        (tmp_path / name).write_text(a_row(seconds=seconds).to_json() + "\n", encoding="utf-8")
    assert [row.seconds for row in measured_rows(tmp_path)] == [1.0, 2.0]
    assert measured_rows(tmp_path / "nothing") == []


def test_the_committed_rows_are_sound():
    rows = measured_rows()
    assert all(row.machine and row.date and "bench" in row.command for row in rows)
    kept = [(row.machine, row.threads, row.workload) for row in rows if row.purpose == "held-out"]
    fitted = {(row.machine, row.threads, row.workload) for row in rows if row.purpose == "fit"}
    assert not fitted.intersection(kept)
