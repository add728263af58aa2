"""Long experiments: grids of runs that take longer than a chapter should, recorded with what they ran on.

`minimind-edu course sweep 03` runs the grid of chapter 3 and writes `records/sweep-03.json`. The chapter
plots that record and runs one cell of the grid again, asserting that it agrees.

A chapter's grid is a module beside this one (`ch03.py`): `CELLS`, a list of settings, and `run_cell`, which
turns one cell's settings into numbers.
"""

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from minimind_edu.course.results import ROOT, environment

RECORDS = ROOT / "records"

Settings = Mapping[str, Any]
Numbers = dict[str, Any]


@dataclass
class SweepConfig:
    """Run the long experiments of a chapter and record them.

    Args:
        chapter: the chapter's number, such as 03.
        overwrite: 1 runs every cell anew; 0 keeps the cells that the record has.
    """

    chapter: str
    overwrite: int = 0


@dataclass(frozen=True)
class SweepRecord:
    """A recorded grid.

    Attributes:
        command: what makes it again.
        environment: date, versions and machine of the newest cell.
        cells: (settings, numbers) of each run.
    """

    command: str
    environment: dict[str, Any]
    cells: list[tuple[Settings, Numbers]]

    def find(self, **settings: Any) -> Numbers:
        """The numbers of the one cell with these settings (others of its settings are free).

        Raises:
            KeyError: no cell, or several cells, have them.
        """
        found = self.select(**settings)
        if len(found) != 1:
            raise KeyError(f"{len(found)} cells have {settings}; {self.command} runs the grid")
        return found[0][1]

    def select(self, **settings: Any) -> list[tuple[Settings, Numbers]]:
        """All cells with these settings."""
        return [cell for cell in self.cells if all(cell[0].get(k) == v for k, v in settings.items())]

    @property
    def caption(self) -> str:
        """When and on what it was measured, in one line."""
        where = self.environment
        machine = f"{where['threads']} threads of {where['cpu']}, torch {where['torch']}"
        return f"Recorded on {where['date']} by `{self.command}` ({machine})."


def load(chapter: str) -> SweepRecord:
    """The committed record of a chapter's sweep.

    Raises:
        FileNotFoundError: there is none; the message says which command makes it.
    """
    path = _path(chapter)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; {_command(chapter)} makes it")
    record = json.loads(path.read_text(encoding="utf-8"))
    cells = [(cell["settings"], cell["numbers"]) for cell in record["cells"]]
    return SweepRecord(record["command"], record["environment"], cells)


def run_cell(chapter: str, **settings: Any) -> Numbers:
    """Run one cell of a chapter's grid now.

    Raises:
        ValueError: the grid has no such cell, or no such chapter has a sweep.
    """
    module = _module(chapter)
    if settings not in module.CELLS:
        raise ValueError(f"the sweep of chapter {chapter} has no cell {settings}")
    return module.run_cell(**settings)


def sweep(config: SweepConfig) -> None:
    """Run what is missing of a chapter's grid; the record is written after every cell.

    Raises:
        ValueError: no such chapter has a sweep.
    """
    module = _module(config.chapter)
    path = _path(config.chapter)
    done = [] if config.overwrite or not path.is_file() else load(config.chapter).cells
    done = [(settings, numbers) for settings, numbers in done if settings in module.CELLS]
    known = [settings for settings, _ in done]
    for settings in tqdm([cell for cell in module.CELLS if cell not in known], desc="cells", unit="cell"):
        tqdm.write(", ".join(f"{name} {value}" for name, value in settings.items()))
        done.append((settings, module.run_cell(**settings)))
        done.sort(key=lambda cell: module.CELLS.index(cell[0]))
        record = {
            "command": _command(config.chapter),
            "environment": environment(),
            "cells": [{"settings": settings, "numbers": numbers} for settings, numbers in done],
        }
        beside = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(exist_ok=True)
        beside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(beside, path)
    print(f"{len(done)} cells are in {path.relative_to(ROOT)}")


def _command(chapter: str) -> str:
    return f"minimind-edu course sweep {chapter}"


def _path(chapter: str) -> Path:
    return RECORDS / f"sweep-{chapter}.json"


def _module(chapter: str) -> Any:
    try:
        return importlib.import_module(f"{__name__}.ch{chapter}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.ch{chapter}":
            raise
        raise ValueError(f"chapter {chapter} has no sweep") from None
