"""A small table at the end of a training chapter: how long the stage takes on real cards.

hours_table("pretrain")     # in a notebook: reported and estimated hours, in rows of their own
"""

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from minimind_edu.course.results import ROOT
from minimind_edu.hardware.cards import THE_FOUR
from minimind_edu.hardware.table import DATASETS, estimated, from_csv, reported

if TYPE_CHECKING:
    from IPython.display import HTML

TABLE = ROOT / "records" / "hardware.csv"
PRESETS = ("minimind2-small", "minimind2", "minimind-3", "minimind-3-moe")
_STYLE = "background:#ffffff;color:#1f2328;border:1px solid #d0d7de;padding:3px 8px;text-align:left"


def stage_rows(stage: str) -> list[dict[str, str]]:
    """The rows of a stage for the four cards: what was reported, and estimates for four presets.

    They are those of the committed table, or worked out anew where there is none.

    Raises:
        ValueError: no data are known for such a stage.
    """
    if stage not in {dataset.stage for dataset in DATASETS}:
        known = ", ".join(dict.fromkeys(dataset.stage for dataset in DATASETS))
        raise ValueError(f"no data are known for the stage {stage!r}: use {known}")
    if TABLE.is_file():
        rows: Iterable[dict] = from_csv(TABLE.read_text(encoding="utf-8"))
    else:
        rows = [*reported(), *estimated(THE_FOUR, PRESETS, (stage,))]
    rows = [{name: str(value) for name, value in row.items()} for row in rows]
    return [
        row
        for row in rows
        if row["stage"] == stage
        and row["card"] in THE_FOUR
        and (row["kind"] == "reported" or row["kind"] == "estimated" and row["preset"] in PRESETS)
    ]


def hours_table(stage: str) -> "HTML":
    """A table of hours for one epoch. Every row says whether it was reported or is estimated.

    Raises:
        ValueError: see ``stage_rows``.
    """
    from IPython.display import HTML  # only notebooks need it

    heads = ("", "card", "model", "data", "fits", "hours an epoch", "what to change")
    lines = ["".join(f'<th style="{_STYLE};font-weight:600">{head}</th>' for head in heads)]
    for row in stage_rows(stage):
        cells = (
            row["kind"], row["card"].removeprefix("GeForce "),
            row["preset"] or f"{row['params_millions']}M, shape unknown",
            f"{row['data']}{_bounded(row)}", row["fits"], _hours(row), row["change"],
        )  # fmt: skip
        lines.append("".join(f'<td style="{_STYLE}">{html.escape(cell)}</td>' for cell in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    note = (
        "Reported: by others, for MiniMind's own code. Estimated: by our memory and time model, for the "
        "batch that fits; the range is as wide as reports scatter. "
        "<code>minimind-edu hardware</code> answers for your card."
    )
    return HTML(
        f'<table style="border-collapse:collapse;font-size:90%">{body}</table>'
        f'<p style="{_STYLE};display:inline-block;font-size:85%">{note}</p>'
    )


def _bounded(row: dict[str, str]) -> str:
    return " (rows unknown)" if row["rows_are"].startswith("bounded") else ""


def _hours(row: dict[str, str]) -> str:
    if not row["hours"]:
        return "–"
    middle = _short(float(row["hours"]))
    if not row["hours_low"]:
        return middle
    return f"{middle} ({_short(float(row['hours_low']))} to {_short(float(row['hours_high']))})"


def _short(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 20 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
