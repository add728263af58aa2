"""Measured steps as data: one JSON object a line, with all that is needed to measure it again.

`minimind-edu bench` prints such lines. Those committed with the package are in the folder ``rows`` beside
this file. A model of time is only as good as the rows that it rests on: each names its machine and command.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.workload import Workload

ROWS_FOLDER = Path(__file__).with_name("rows")
_TEXTS = ("date", "torch", "python", "machine", "command")


@dataclass(frozen=True)
class MeasuredRow:
    """One workload, measured.

    Attributes:
        workload: the step.
        seconds: of one optimizer step, the median over rounds.
        memory: peak of the process (CPU) or of the card, in bytes; 0 where it was not measured.
        date: year-month-day.
        torch, python: versions.
        machine: the processor's or the card's name.
        threads: of PyTorch; 1 for a card.
        command: what measured it.
        purpose: whether predictions may be fitted on it (fit) or are only compared with it (held-out).
    """

    workload: Workload
    seconds: float
    memory: int
    date: str
    torch: str
    python: str
    machine: str
    threads: int
    command: str
    purpose: Literal["fit", "held-out"] = "fit"

    def to_json(self) -> str:
        """One line of a file of rows."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["seconds"] = float(f"{self.seconds:.4g}")
        return json.dumps({**values, "workload": workload_to_dict(self.workload)}, ensure_ascii=False)


def workload_to_dict(work: Workload) -> dict[str, Any]:
    """What is not as by default, in plain values; the inverse of ``workload_from_dict``."""
    values = _changed(work, Workload(work.config, work.stage))
    values |= {"stage": work.stage, "config": _changed(work.config, ModelConfig())}
    if work.teacher is not None:
        values["teacher"] = _changed(work.teacher, ModelConfig())
    return values


def _changed(value: Workload | ModelConfig, usual: Workload | ModelConfig) -> dict[str, Any]:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    fields = {name: one for name, one in fields.items() if one != getattr(usual, name)}
    if isinstance(value, ModelConfig) and value.rope_scaling is not None:
        fields["rope_scaling"] = dataclasses.asdict(value.rope_scaling)
    return fields


def workload_from_dict(values: Mapping[str, Any]) -> Workload:
    """A workload from plain values.

    Raises:
        ValueError: a name is unknown or a value makes no sense.
    """
    values = dict(values)
    known = {field.name for field in dataclasses.fields(Workload)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"a workload has no {', '.join(unknown)}")
    for name in ("config", "teacher"):
        if values.get(name) is not None:
            values[name] = ModelConfig.from_dict(values[name])
    if not isinstance(values.get("config"), ModelConfig):
        raise ValueError("a workload needs a config")
    return Workload(**values | {"targets": tuple(values.get("targets", ()))})


def row_of(values: Mapping[str, Any]) -> MeasuredRow:
    """Check and convert what JSON gave.

    Raises:
        ValueError: something is missing, unknown or impossible; the message says what.
    """
    names = {field.name for field in dataclasses.fields(MeasuredRow)}
    missing = sorted(names - {"purpose"} - values.keys())
    if missing or (unknown := sorted(values.keys() - names)):
        raise ValueError(f"missing: {', '.join(missing)}" if missing else f"unknown: {', '.join(unknown)}")
    for name in _TEXTS:
        if not isinstance(values[name], str) or not values[name].strip():
            raise ValueError(f"{name} must be a text, not {values[name]!r}")
    seconds, memory, threads = (values[name] for name in ("seconds", "memory", "threads"))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be a positive number, not {seconds!r}")
    for name, value, least in (("memory", memory, 0), ("threads", threads, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of {least} or more, not {value!r}")
    if values.get("purpose", "fit") not in ("fit", "held-out"):
        raise ValueError(f"purpose must be 'fit' or 'held-out', not {values['purpose']!r}")
    if not isinstance(values["workload"], Mapping):
        raise ValueError("workload must be an object")
    return MeasuredRow(**dict(values) | {"workload": workload_from_dict(values["workload"])})


def read_rows(path: Path) -> list[MeasuredRow]:
    """The rows of a file.

    Raises:
        ValueError: a line is no row; the message names file and line.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("not an object")
            found.append(row_of(values))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def measured_rows(folder: Path = ROWS_FOLDER) -> list[MeasuredRow]:
    """All rows of steps that are committed with the package, in the order of the files' names.

    `memory.jsonl` holds peaks of memory alone, which `memory` was compared with.
    """
    files = [path for path in sorted(folder.glob("*.jsonl")) if path.name != "memory.jsonl"]
    return [row for path in files for row in read_rows(path)]
