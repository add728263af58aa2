"""Grids of long runs: recorded cell by cell, gone on with, and looked up."""

import json
import sys
from types import SimpleNamespace

import pytest

from minimind_edu.course import sweeps
from minimind_edu.course.sweeps import SweepConfig, SweepRecord, load, run_cell, sweep

CELLS = [{"size": size, "seed": seed} for size in ("small", "large") for seed in (1, 2)]


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """A chapter 98 whose cells are quick; `ran` lists those that were run."""
    monkeypatch.setattr(sweeps, "ROOT", tmp_path)
    monkeypatch.setattr(sweeps, "RECORDS", tmp_path / "records")
    ran = []

    def run(size, seed):
        ran.append((size, seed))
        return {"loss": len(size) + seed, "name": f"{size} 猫"}

    module = SimpleNamespace(CELLS=CELLS, run_cell=run)
    monkeypatch.setitem(sys.modules, f"{sweeps.__name__}.ch98", module)
    return SimpleNamespace(module=module, ran=ran, path=tmp_path / "records" / "sweep-98.json")


EVERY = [("small", 1), ("small", 2), ("large", 1), ("large", 2)]


def test_the_grid_is_run_and_recorded(grid, capsys):
    sweep(SweepConfig("98"))
    assert grid.ran == EVERY
    assert "4 cells are in records" in capsys.readouterr().out
    saved = json.loads(grid.path.read_text(encoding="utf-8"))
    assert saved["command"] == "minimind-edu course sweep 98" and saved["environment"]["torch"]
    assert saved["cells"][2] == {"settings": CELLS[2], "numbers": {"loss": 6, "name": "large 猫"}}
    assert "猫" in grid.path.read_text(encoding="utf-8")
    assert [path.name for path in grid.path.parent.iterdir()] == ["sweep-98.json"]
    record = load("98")
    assert record.cells == [(settings, {"loss": grid_loss(settings), "name": f"{settings['size']} 猫"})
                            for settings in CELLS]  # fmt: skip


def grid_loss(settings):
    return len(settings["size"]) + settings["seed"]


def test_a_stopped_sweep_keeps_its_cells_and_goes_on(grid):
    run = grid.module.run_cell

    def stopped(size, seed):
        if (size, seed) == ("large", 1):
            raise KeyboardInterrupt
        return run(size, seed)

    grid.module.run_cell = stopped
    with pytest.raises(KeyboardInterrupt):
        sweep(SweepConfig("98"))
    assert [settings for settings, _ in load("98").cells] == CELLS[:2]
    grid.module.run_cell = run
    sweep(SweepConfig("98"))
    assert grid.ran == EVERY, "no cell twice"
    assert [settings for settings, _ in load("98").cells] == CELLS
    before = grid.path.read_bytes()
    sweep(SweepConfig("98"))
    assert grid.ran == EVERY and grid.path.read_bytes() == before


def test_overwrite_runs_every_cell_anew(grid):
    sweep(SweepConfig("98"))
    sweep(SweepConfig("98", overwrite=1))
    assert grid.ran == EVERY * 2


def test_a_changed_grid_keeps_its_order_and_drops_old_cells(grid):
    grid.module.CELLS = CELLS[1:3]
    sweep(SweepConfig("98"))
    grid.module.CELLS = CELLS[:2]
    sweep(SweepConfig("98"))
    assert grid.ran == [("small", 2), ("large", 1), ("small", 1)]
    assert [settings for settings, _ in load("98").cells] == CELLS[:2]


def test_one_cell_is_run_without_a_record(grid):
    assert run_cell("98", size="large", seed=2) == {"loss": 7, "name": "large 猫"}
    assert grid.ran == [("large", 2)] and not grid.path.exists()


@pytest.mark.parametrize("settings", [{}, {"size": "large"}, {"size": "huge", "seed": 1}])
def test_a_cell_that_the_grid_does_not_have(grid, settings):
    with pytest.raises(ValueError, match="the sweep of chapter 98 has no cell"):
        run_cell("98", **settings)
    assert grid.ran == []


@pytest.mark.parametrize("call", [lambda: sweep(SweepConfig("97")), lambda: run_cell("97", seed=1)])
def test_a_chapter_without_a_sweep(call):
    with pytest.raises(ValueError, match="chapter 97 has no sweep"):
        call()


def test_a_sweep_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "ch97.py").write_text("import nothing_of_this_name")
    monkeypatch.setattr(sweeps, "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        run_cell("97")


def test_a_record_that_is_not_there_names_the_command(grid):
    with pytest.raises(FileNotFoundError, match="minimind-edu course sweep 98 makes it"):
        load("98")


RECORD = SweepRecord(
    "minimind-edu course sweep 98",
    {"date": "2026-01-02", "threads": 2, "cpu": "a CPU", "torch": "2.13.0"},
    [(settings, {"loss": grid_loss(settings)}) for settings in CELLS],
)


def test_cells_are_found_by_their_settings():
    assert RECORD.find(size="small", seed=2) == {"loss": 7}
    assert RECORD.select(size="large") == RECORD.cells[2:] and RECORD.select() == RECORD.cells
    assert RECORD.select(size="none") == [] == RECORD.select(colour="red")


@pytest.mark.parametrize(
    ("settings", "count"), [({"size": "small"}, 2), ({"seed": 3}, 0), ({"colour": 1}, 0)]
)
def test_find_wants_exactly_one(settings, count):
    with pytest.raises(KeyError, match=f"{count} cells have .*course sweep 98 runs the grid"):
        RECORD.find(**settings)


def test_the_caption_says_when_and_on_what():
    assert RECORD.caption == (
        "Recorded on 2026-01-02 by `minimind-edu course sweep 98` (2 threads of a CPU, torch 2.13.0)."
    )


def committed():
    """The chapters whose records are committed."""
    return sorted(path.stem.removeprefix("sweep-") for path in sweeps.RECORDS.glob("sweep-*.json"))


@pytest.mark.parametrize("chapter", committed())
def test_committed_records_have_the_cells_of_their_grids(chapter):
    cells = sweeps._module(chapter).CELLS
    assert [settings for settings, _ in load(chapter).cells] == cells
    assert json.loads(json.dumps(cells)) == cells, "settings that JSON keeps as they are"
    assert "Recorded on 20" in load(chapter).caption
