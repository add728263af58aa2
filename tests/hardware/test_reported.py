"""What others reported: shapes that fit, shapes that do not, and how much work a row can have been."""

import pytest
import torch

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.reported import (
    _NEAREST,
    FILES,
    REPORTED,
    as_run,
    count_parameters,
    family_shapes,
    has_digits,
    is_laptop,
    known_runs,
    nearest,
    runs,
    shape_of,
)

WITHOUT_SHAPE = ("20.07", "28.07", "380")


@pytest.mark.parametrize("name", ModelConfig.presets())
def test_parameters_are_those_of_the_model(name):
    config = ModelConfig.preset(name)
    with torch.device("meta"):
        assert MiniMind(config).num_parameters() == count_parameters(config)


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"tie_word_embeddings": False}])
def test_parameters_of_variants(changes):
    config = ModelConfig(**changes)
    with torch.device("meta"):
        assert MiniMind(config).num_parameters() == count_parameters(config)


@pytest.mark.parametrize("row", [row for row in REPORTED if row.preset], ids=lambda row: row.name)
def test_the_shape_of_a_row_has_the_parameters_it_prints(row):
    assert has_digits(shape_of(row), row.params)


@pytest.mark.parametrize("params", WITHOUT_SHAPE)
def test_no_shape_of_the_families_has_these_parameters(params):
    """Neither a preset, nor any of 4,464 shapes by the families' rules, rounds to what is printed."""
    assert [name for name, config in ModelConfig.presets().items() if has_digits(config, params)] == []
    assert [config for _, config in family_shapes() if has_digits(config, params)] == []
    rows = [row for row in REPORTED if row.params == params]
    assert rows and all(shape_of(row) is None and "no shape has" in row.holes[0] for row in rows)


@pytest.mark.parametrize("params", ["183.797", "272.418", "25.830", "104.031", "63.912"])
def test_the_search_finds_shapes_where_there_are_some(params):
    found = [count_parameters(config) for _, config in family_shapes() if has_digits(config, params)]
    assert 1 <= len(found) <= 2 and max(found) == pytest.approx(float(params) * 1e6, rel=1e-5)


def test_digits_are_compared_as_printed():
    config = ModelConfig.preset("minimind2-272m")  # 272,417,792
    assert has_digits(config, "272.418") and has_digits(config, "272.4") and has_digits(config, "272")
    assert not has_digits(config, "272.417") and not has_digits(config, "272.5")


@pytest.mark.parametrize("params", WITHOUT_SHAPE)
def test_the_closest_shape_that_a_hole_names(params):
    family, config = nearest(params)
    printed = f"{count_parameters(config) / 1e6:.{len(_NEAREST[params][3].partition('.')[2])}f}"
    found = (family, config.hidden_size, config.num_hidden_layers, printed)
    assert found == _NEAREST[params]
    assert abs(count_parameters(config) / float(params) / 1e6 - 1) < 0.003


def test_the_table_of_the_design_is_complete():
    """Hours for one epoch; the rows that do not run have none."""
    hours = sorted((row.card, row.params, row.stage, row.hours) for row in REPORTED if row.hours)
    assert len(REPORTED) == 17 and len(hours) == 15
    assert ("A40", "183.797", "pretrain", 10.0) in hours and ("A40", "272.418", "pretrain", 16.0) in hours
    assert ("GeForce RTX 3090", "63.9", "pretrain", pytest.approx(1.21)) in hours
    assert sum(row.hours for row in REPORTED if row.params == "198.4") == pytest.approx(1.69 + 2 * 1.54)
    assert [row.params for row in REPORTED if row.hours is None] == ["20.07", "380"]


@pytest.mark.parametrize("row", REPORTED, ids=lambda row: row.name)
def test_every_row_has_a_source_and_says_its_holes(row):
    assert row.source.startswith("reported")
    file = FILES.get(row.file)
    assert any("tokens unknown" in hole for hole in row.holes) == bool(file and not file.is_exact)
    assert any("batch" in hole for hole in row.holes) == (row.batch is None)
    assert any("laptop" in hole for hole in row.holes) == is_laptop(row)


def test_laptop_processors():
    laptops = {row.cpu for row in REPORTED if is_laptop(row)}
    assert laptops == {"i7-9750H", "Ryzen 9 8945HX"}


def test_tokens_are_known_or_bounded():
    mini, old = FILES["pretrain_mini"], FILES["pretrain_hq"]
    assert mini.is_exact and mini.padded_tokens() == (1_270_238 * 340,) * 2
    fewest, most = old.padded_tokens()
    assert not old.is_exact and 0.3e9 < fewest < 0.45e9 < 0.8e9 < most < 0.9e9
    # A file of known size and rows lies within the bounds of the rule.
    tokens = mini.tokens / mini.size * old.size
    assert fewest < tokens < most


def test_runs_are_the_rows_that_say_enough():
    assert len(runs()) == 11
    assert [run.row.params for run in known_runs()] == ["63.9", "198.4"]
    for row in REPORTED:
        if row.stage in ("grpo", "lora") or not row.preset or row.hours is None:
            assert as_run(row) is None


@pytest.mark.parametrize("run", runs(), ids=lambda run: run.row.name)
def test_a_run_processes_the_tokens_of_its_epochs(run):
    fewest, most = FILES[run.row.file].padded_tokens()
    tokens = run.steps * run.work.tokens * run.work.accumulation_steps / run.row.epochs
    assert tokens * run.stretch[0] == pytest.approx(fewest) and tokens * run.stretch[1] == pytest.approx(most)
    assert fewest <= tokens <= most and run.seconds == run.row.seconds
    assert run.work.dtype == "bfloat16" and not run.work.packed and run.work.labelled == 1.0
    assert run.work.batch_size == (run.row.batch or 32)


@pytest.mark.parametrize("run", runs(), ids=lambda run: run.row.name)
def test_no_run_needs_more_than_the_peak_at_its_fewest_tokens(run):
    share = flops(run.work).total * run.steps / run.seconds / run.peak
    assert 0.05 < share * run.stretch[0] < 0.75
