"""What chapter 10 shows: cells that are what they say, figures of the right numbers, rows that stay apart."""

import dataclasses
import time

import pytest

from minimind_edu import ModelConfig
from minimind_edu.course import sweeps
from minimind_edu.course.sweeps import ch10, ch10_figures, ch10_times
from minimind_edu.hardware import STAGES, Workload
from minimind_edu.hardware.memory import memory
from minimind_edu.hardware.peak import MeasuredMemory
from minimind_edu.hardware.rows import MeasuredRow
from minimind_edu.hardware.timing import amounts

TINY = ModelConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, max_position_embeddings=64)


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("10").cells] == ch10.CELLS


def test_cells_differ_and_cover_stages_formats_and_checkpointing():
    cells = [tuple(cell.items()) for cell in ch10.CELLS]
    assert len(set(cells)) == len(cells) >= 20
    assert {cell["stage"] for cell in ch10.CELLS} == set(STAGES)
    assert {cell["dtype"] for cell in ch10.CELLS} == {"float32", "bfloat16"}
    assert {cell["gradient_checkpointing"] for cell in ch10.CELLS} == {True, False}


def test_a_cell_is_the_workload_that_it_says():
    work = ch10.workload(**ch10.CHECKPOINTED)
    assert work.gradient_checkpointing and work.batch_size == 64 and work.config == ModelConfig.preset("edu")


@pytest.mark.parametrize(("again", "processes"), [(False, 1), (True, 3)])
def test_a_cell_measures_processes(monkeypatch, again, processes):
    peaks = iter([300, 100, 200])
    measured = []

    def measure(work):
        measured.append(work)
        return MeasuredMemory(next(peaks), 50, 0, 3)

    monkeypatch.setattr(ch10, "measure_memory", measure)
    found = ch10.run_cell(**ch10.PLAIN | {"gradient_checkpointing": again})
    assert len(measured) == processes and measured[0].gradient_checkpointing == again
    expected = {"peak": 200, "peaks": [100, 200, 300]} if again else {"peak": 300, "peaks": [300]}
    assert found == expected | {"before": 50}


def test_pairs_are_of_the_record():
    record = sweeps.load("10")
    pairs = ch10.pairs(record)
    found = sorted(measured for kind in pairs.values() for measured, _ in kind)
    every = [peak / 1e6 for _, numbers in record.cells for peak in numbers["peaks"]]
    assert found == pytest.approx(sorted(every))
    assert len(pairs["checkpointed"]) == 3 * sum(cell["gradient_checkpointing"] for cell in ch10.CELLS)
    settings, numbers = record.cells[0]
    assert ch10.predicted(settings, numbers["before"]) / 1e6 in [
        expected for _, expected in pairs["pretraining"]
    ]


def test_seconds_of_a_call_are_a_median_of_three_or_more():
    waits = iter([0.0, 0.2, 0.0, 0.0])  # the first call warms up; one slow call does not count
    assert ch10_figures.seconds_of(lambda: time.sleep(next(waits)), budget=0.0) < 0.1
    assert next(waits, "all used") == "all used"


def test_intensities_are_those_by_hand():
    assert ch10_figures.product_point(12)[0] == 2
    assert ch10_figures.addition_point(1000)[0] == 1 / 12
    work = Workload(TINY, batch_size=2, seq_len=16)
    intensity, speed = ch10_figures.step_point(work)
    moved = sum(amount for kind, amount in amounts(work).items() if kind in ch10_figures.MOVED)
    products = sum(amount for kind, amount in amounts(work).items() if kind.startswith(("products", "atten")))
    assert intensity == pytest.approx(products / moved) and speed > 0


def test_every_kind_of_bytes_counts_as_moved():
    for dtype in ("float32", "bfloat16"):
        kinds = amounts(Workload(TINY, batch_size=2, seq_len=16, dtype=dtype)).keys()
        other = {kind for kind in kinds if kind not in ch10_figures.MOVED}
        assert all(kind.startswith(("products", "attention", "calls", "steps")) for kind in other)


def test_the_roof_bends_where_peak_and_bandwidth_meet():
    figure = ch10_figures.roof_figure(100.0, 10.0, {"4 × 4": (0.7, 5.0), "addition": (0.1, 0.9)})
    axes = figure.axes[0]
    roof = axes.lines[0]
    assert 10.0 in roof.get_xdata() and max(roof.get_ydata()) == 100
    assert {text.get_text() for text in axes.texts} == {"4 × 4", "addition"}


def test_a_stack_is_as_high_as_the_memory():
    work = Workload(TINY, batch_size=2, seq_len=16)
    figure = ch10_figures.stack_figure(work, (1, 2, 4), (16, 32))
    tops = [max(path.vertices[:, 1].max() for path in one.get_paths()) for one in figure.axes[0].collections]
    parts = memory(work.replace(batch_size=4)).parts
    assert max(tops) == pytest.approx(sum(parts.get(part, 0) for part in ch10_figures.PARTS) / 1e6)


def test_every_part_of_pretraining_is_in_the_stack():
    assert set(memory(Workload(TINY, batch_size=2, seq_len=16)).parts) <= set(ch10_figures.PARTS)


def test_the_band_is_where_it_should_be():
    figure = ch10_figures.agreement_figure({"a": [(1.0, 1.1), (2.0, 1.9)]}, 0.15, "MB")
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(1.25 * 2.0 * 1.15)


def rows(purpose, scale, machine="a", count=6):
    made = []
    for number in range(count):
        work = Workload(TINY.replace(hidden_size=16 * (1 + number % 3)), batch_size=1 + number, seq_len=32)
        seconds = scale * sum(amounts(work).values()) / 1e9
        made.append(MeasuredRow(work, seconds, 0, "2026-01-02", "2.13", "3.11", machine, 1, "bench", purpose))
    return made


def test_held_out_rows_are_not_fitted_on():
    found = ch10_times.held_out([*rows("fit", 1.0), *rows("held-out", 2.0)])
    assert found.speed.rows == 6 and len(found.rows) == 6
    assert found.errors == pytest.approx([0.5] * 6, abs=0.05)
    assert found.covered < 0.5 and "6 steps to fit on, 6 held out" in found.text


def test_machines_are_not_mixed():
    other = [dataclasses.replace(row, seconds=9 * row.seconds) for row in rows("fit", 1.0, "b")]
    found = ch10_times.held_out([*rows("fit", 1.0), *rows("held-out", 1.0), *other])
    assert found.speed.name == "a" and max(found.errors) < 0.02 and found.covered == 1
    with pytest.raises(ValueError, match="no machine"):
        ch10_times.held_out([*rows("fit", 1.0, "b"), *rows("held-out", 1.0, "a")])
