"""Chapters: from `chapters/source/NN_name.py`, which people edit, to `chapters/NN_name.ipynb`, executed.

A rebuild with nothing changed changes nothing, although timings and trained losses differ from run to run:
a stored notebook is kept as it is if the course's code, the data and the source are the same as when it was
built, and every output that nbval compares came out equal.
"""

import configparser
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimind_edu.course.claims import RECORDS_VARIABLE
from minimind_edu.course.results import ROOT, environment

if TYPE_CHECKING:
    from nbformat import NotebookNode

CHAPTERS = ROOT / "chapters"
SANITIZE = ROOT / "tests" / "nbval.cfg"
IGNORED = "nbval-ignore-output"
WIDGET = "application/vnd.jupyter.widget-view+json"
NOT_COMPARED = {WIDGET, "image/png", "image/jpeg"}
CELL_SECONDS = 600
PROGRESS_BAR = re.compile(r"\d+%\||\dit \[|\?it/s")


class ChapterError(ValueError):
    """A chapter that cannot be built; the message names the cell."""


@dataclass
class BuildConfig:
    """Build the notebooks of the chapters from their sources, executed.

    Args:
        chapter: a chapter's number, such as 02; all means every chapter.
        fresh: 1 stores the new outputs even where nothing changed.
    """

    chapter: str = "all"
    fresh: int = 0


def sources(chapter: str = "all") -> list[Path]:
    """The source files of one chapter, or of all.

    Raises:
        ValueError: there is no such chapter.
    """
    every = sorted((CHAPTERS / "source").glob("[0-9][0-9]_*.py"))
    chosen = [path for path in every if chapter == "all" or path.name.startswith(f"{chapter}_")]
    if not chosen:
        numbers = ", ".join(path.name[:2] for path in every)
        raise ValueError(f"there is no chapter {chapter!r}; there are: {numbers or 'none'}")
    return chosen


def notebook_path(source: Path) -> Path:
    """Where the notebook of a source lies."""
    return CHAPTERS / f"{source.stem}.ipynb"


def build(config: BuildConfig) -> None:
    """Execute the chosen chapters from clean kernels and store them; prints a line for each.

    Raises:
        ValueError: no such chapter; ChapterError: a cell fails, or writes to standard error.
    """
    for source in sources(config.chapter):
        started = time.perf_counter()
        notebook, claims = execute(source)
        changed = store(source, notebook, claims, fresh=bool(config.fresh))
        state = "stored" if changed else "unchanged"
        print(f"{source.stem}: {state}, {time.perf_counter() - started:.0f} s", flush=True)


def read_source(source: Path) -> "NotebookNode":
    """The notebook of a source, without outputs, its metadata and cell names reduced to what we mean."""
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem[:2]}-{number:03d}"
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
    return notebook


def execute(source: Path) -> tuple["NotebookNode", list[dict[str, Any]]]:
    """Run a chapter from a clean kernel, in the folder of the notebooks.

    Returns:
        The notebook with its outputs, and the claims that it recorded.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read_source(source)
    with tempfile.TemporaryDirectory() as folder:
        claims = Path(folder) / "claims.json"
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(CHAPTERS)}},
        )
        try:
            client.execute(env=os.environ | {RECORDS_VARIABLE: str(claims)})
        except CellExecutionError as error:
            what = f"{error.ename}: {error.evalue}\n{error}"
            raise ChapterError(f"{source.name}, cell {_last_run(notebook)}: {what}") from None
        except (CellTimeoutError, DeadKernelError) as error:
            raise ChapterError(f"{source.name}, cell {_last_run(notebook)}: {error}") from None
        recorded = json.loads(claims.read_text(encoding="utf-8")) if claims.exists() else []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)  # times of day
            cell.outputs = [kept for output in cell.outputs if (kept := _tidy(output, cell, source))]
    return notebook, recorded


def _last_run(notebook: "NotebookNode") -> str:
    """The id of the cell that was started last."""
    return next((cell["id"] for cell in notebook.cells[::-1] if "execution" in cell.metadata), "?")


def store(source: Path, notebook: "NotebookNode", claims: list[dict[str, Any]], fresh: bool = False) -> bool:
    """Write a chapter and its claims, unless what is stored already says the same.

    Returns:
        Whether anything was written.
    """
    import nbformat

    path, fingerprint = notebook_path(source), course_fingerprint(source)
    record_path = ROOT / "records" / f"claims-{source.name[:2]}.json"
    notebook.metadata["minimind_edu"] = {"fingerprint": fingerprint}
    if path.is_file() and record_path.is_file() and not fresh:
        stored = nbformat.read(path, as_version=4)
        same = stored.metadata.get("minimind_edu", {}).get("fingerprint") == fingerprint
        if same and compared(stored) == compared(notebook):
            return False
    nbformat.validate(notebook)
    beside = path.with_name(f".{path.name}.tmp")
    nbformat.write(notebook, beside)
    os.replace(beside, path)
    record = {
        "command": f"minimind-edu course build {source.name[:2]}",
        "environment": environment(),
        "claims": claims,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    record_path.write_text(text, encoding="utf-8")
    return True


def compared(notebook: "NotebookNode") -> list[tuple[str, str, Any]]:
    """What nbval would compare: type, source and (where not ignored) outputs of every cell."""
    patterns = sanitizers()
    cells = []
    for cell in notebook.cells:
        outputs = None
        if cell.cell_type == "code" and IGNORED not in cell.metadata.get("tags", ()):
            outputs = [_compared_output(output, patterns) for output in cell.outputs]
        cells.append((cell.cell_type, cell.source, outputs))
    return cells


def sanitizers() -> list[tuple[re.Pattern[str], str]]:
    """The replacements of `tests/nbval.cfg`, which nbval makes before it compares."""
    parser = configparser.RawConfigParser()
    parser.read(SANITIZE, encoding="utf-8")
    return [(re.compile(parser[name]["regex"]), parser[name]["replace"]) for name in parser.sections()]


def _compared_output(output: Mapping[str, Any], patterns: list[tuple[re.Pattern[str], str]]) -> Any:
    texts = output.get("data") or {"text": output.get("text", "")}
    kept = {}
    for kind, text in texts.items():
        if kind not in NOT_COMPARED:
            for pattern, replacement in patterns:
                text = pattern.sub(replacement, text) if isinstance(text, str) else text
            kept[kind] = text
    return output["output_type"], kept


def _tidy(output: Mapping[str, Any], cell: Mapping[str, Any], source: Path) -> Mapping[str, Any] | None:
    """An output as it is stored, or None: no progress bars, and no handles of widgets that are gone."""
    data = output.get("data", {})
    data.pop(WIDGET, None)
    output.get("metadata", {}).pop(WIDGET, None)
    is_bar = PROGRESS_BAR.search(data.get("text/plain", "")) is not None
    is_noise = (
        is_bar or output.get("name") == "stderr" or (output["output_type"] == "display_data" and not data)
    )
    if is_noise and IGNORED not in cell["metadata"].get("tags", ()):
        shown = output.get("text") or data.get("text/plain") or "a widget without a text"
        raise ChapterError(
            f"{source.name}, cell {cell['id']}: {shown!r} would be compared; tag the cell {IGNORED!r}"
        )
    return None if is_noise else output


def course_fingerprint(source: Path) -> str:
    """What a chapter's outputs follow from: its source, the package, the data, the records, and Python."""
    files = [
        source,
        *sorted((ROOT / "minimind_edu").rglob("*.py")),
        *sorted((ROOT / "minimind_edu").rglob("*.jsonl")),
        *sorted((ROOT / "datasets").glob("*.jsonl")),
        *sorted((ROOT / "records").glob("sweep-*.json")),
        *sorted((ROOT / "records").glob("hardware.csv")),
    ]
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in files:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]
