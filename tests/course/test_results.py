"""The README shows what the committed records say, and nothing else."""

import json

import pytest

from minimind_edu.course.results import (
    BEGIN,
    CLAIMS_BEGIN,
    CLAIMS_END,
    END,
    ROOT,
    claim_records,
    claims_tables,
    environment,
    table,
    tour_records,
    with_results,
)

RECORD = {
    "seed": 7,
    "command": "minimind-edu tour --seed 7",
    "loss": 0.5,
    "floor": 0.4,
    "tokens": {"pretraining": 12345, "fine-tuning": 6},
    "seconds": {"data": 1.0, "pretraining": 2.0},
    "exact_match": {
        "English": {"taught": 1.0, "not taught": 0.9},
        "Chinese": {"taught": 0.8, "not taught": 0.7},
    },
    "environment": {
        "date": "2026-01-02",
        "python": "3.12.1",
        "torch": "2.13.0",
        "threads": 2,
        "cpu": "a CPU",
    },
}
CLAIMS = {
    "command": "minimind-edu course build 03",
    "environment": RECORD["environment"],
    "claims": [
        {"name": "ch03.a", "value": 2.5, "at_least": 2.0, "at_most": None, "source": "here"},
        {"name": "ch03.b", "value": 7.0, "at_least": 7.0, "at_most": 7.0, "source": "there"},
    ],
}


def test_readme_equals_the_records():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == with_results(readme, tour_records(), claim_records()), "run `make results`"


def test_claims_tables_show_every_number_and_where_it_comes_from():
    text = claims_tables({"03": CLAIMS})
    for shown in (
        "Chapter 3: 2 claims, measured on 2026-01-02",
        "| `ch03.a` | 2.5 | at least 2 | here |",
        "| `ch03.b` | 7 | exactly 7 | there |",
        "`minimind-edu course build 03`",
        "2 threads of a CPU, torch 2.13.0",
    ):
        assert shown in text


def test_three_seeds_are_recorded_and_reach_the_bounds():
    records = tour_records()
    assert len({record["seed"] for record in records}) >= 3
    for record in records:
        assert 1 <= record["loss"] / record["floor"] <= 1.05
        for scores in record["exact_match"].values():
            assert scores["not taught"] >= 0.8


def test_table_shows_every_number():
    text = table([RECORD])
    for shown in (
        "| 7 | 0.5000 | 0.4000 | 1.250 | 12,345 | 3 | 1.000 / 0.800 | 0.900 / 0.700 |",
        "2026-01-02",
    ):
        assert shown in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_with_results_replaces_what_stood_there():
    claims = {"03": CLAIMS}
    readme = f"before\n{BEGIN}\nold\n{END}\nbetween\n{CLAIMS_BEGIN}\n{CLAIMS_END}\nafter\n"
    assert with_results(readme, [RECORD], claims) == (
        f"before\n{BEGIN}\n{table([RECORD])}\n{END}\nbetween\n"
        f"{CLAIMS_BEGIN}\n{claims_tables(claims)}\n{CLAIMS_END}\nafter\n"
    )
    with pytest.raises(ValueError, match="results"):
        with_results("no markers", [RECORD], claims)
    with pytest.raises(ValueError, match="no record"):
        with_results(readme, [RECORD], {})


def test_environment_can_be_stored():
    assert json.loads(json.dumps(environment()))["torch"]
