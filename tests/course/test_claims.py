"""Claims are checked where they are made, and listed as they were measured."""

import json
import math

import pytest
import torch

from minimind_edu.course import claims


@pytest.fixture(autouse=True)
def no_claims_yet(monkeypatch):
    monkeypatch.setattr(claims, "_claims", {})
    monkeypatch.delenv(claims.RECORDS_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (2.0, {"at_least": 2.0}), (3, {"at_least": 2}), (2.0, {"at_most": 2.0}), (-1, {"at_most": 0}),
        (1.5, {"at_least": 1, "at_most": 2}), (7, {"equals": 7}), (True, {"equals": True}),
        (torch.tensor(0.5), {"at_least": 0.4}), (torch.tensor([2]), {"equals": 2}),
        (1e-9, {"at_most": torch.tensor(1e-8)}),
    ],
)  # fmt: skip
def test_a_number_within_its_bounds_is_remembered(value, bounds):
    claims.record("ch04.number", value, **bounds, source="here")
    (claim,) = claims.recorded()
    assert (claim.name, claim.value, claim.source) == ("ch04.number", float(value), "here")
    assert type(claim.value) is float


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (1.9, {"at_least": 2}, "is 1.9, but should be at least 2"),
        (2.1, {"at_most": 2}, "is 2.1, but should be at most 2"),
        (3, {"at_least": 1, "at_most": 2}, "is 3, but should be at least 1, at most 2"),
        (6, {"equals": 7}, "is 6, but should be exactly 7"),
        (False, {"equals": True}, "is 0, but should be exactly 1"),
        (math.nan, {"at_least": 0}, "is nan, but should be at least 0"),
        (math.nan, {"at_most": 0}, "is nan"),
        (math.inf, {"at_least": 0}, "is inf"),
        (-math.inf, {"at_most": 0}, "is -inf"),
    ],
)
def test_a_number_out_of_bounds_is_an_error(value, bounds, said):
    with pytest.raises(AssertionError) as error:
        claims.record("ch04.number", value, **bounds, source="section 4")
    assert said in str(error.value)
    assert "ch04.number" in str(error.value) and "section 4" in str(error.value)
    assert claims.recorded() == []


def test_a_claim_without_a_bound_could_not_fail():
    with pytest.raises(ValueError, match="needs at_least, at_most or equals"):
        claims.record("ch04.number", 1.0, source="here")


@pytest.mark.parametrize(
    "name", ["", "loss", "ch04", "ch04.", "04.loss", "chapter4.loss", "ch.loss", "ch4.loss"]
)
def test_names_say_their_chapter(name):
    with pytest.raises(ValueError, match=r"a claim's name is like 'ch04\.loss_over_floor'"):
        claims.record(name, 1.0, equals=1.0, source="here")


def test_a_cell_that_runs_again_replaces_its_claim():
    for value in (1.0, 2.0):
        claims.record("ch04.first", value, at_least=0, source="here")
        claims.record("ch04.second", 5.0, at_least=0, source="here")
    assert [(claim.name, claim.value) for claim in claims.recorded()] == [
        ("ch04.first", 2),
        ("ch04.second", 5),
    ]


def test_a_claim_that_fails_when_repeated_is_not_listed_with_its_new_value():
    claims.record("ch04.number", 1.0, at_least=0, source="here")
    with pytest.raises(AssertionError):
        claims.record("ch04.number", -1.0, at_least=0, source="here")
    assert [claim.value for claim in claims.recorded()] == [1.0]


def test_the_table_shows_every_claim():
    claims.record("ch04.ratio", 1.01449, at_most=1.1, source="the notebook")
    claims.record("ch04.tokens", 4_971_864, equals=4_971_864, source="counted")
    claims.record("ch04.difference", 2.5e-7, at_least=0, at_most=1e-5, source="float32")
    assert claims.table().data.splitlines() == [
        "| claim | measured | bound | source |",
        "| --- | --- | --- | --- |",
        "| `ch04.ratio` | 1.014 | at most 1.1 | the notebook |",
        "| `ch04.tokens` | 4,971,864 | exactly 4,971,864 | counted |",
        "| `ch04.difference` | 2.5e-07 | at least 0, at most 1e-05 | float32 |",
    ]


def test_the_table_leaves_the_claims_where_the_builder_wants_them(tmp_path, monkeypatch):
    path = tmp_path / "claims.json"
    claims.record("ch04.ratio", 1.01449, at_most=1.1, source="猫")
    claims.table()
    assert not path.exists()
    monkeypatch.setenv(claims.RECORDS_VARIABLE, str(path))
    claims.table()
    expected = {"name": "ch04.ratio", "value": 1.01449, "at_least": None, "at_most": 1.1, "source": "猫"}
    assert json.loads(path.read_text(encoding="utf-8")) == [expected]
    assert "猫" in path.read_text(encoding="utf-8")


def test_there_is_no_table_of_nothing():
    with pytest.raises(ValueError, match="no claims yet"):
        claims.table()
