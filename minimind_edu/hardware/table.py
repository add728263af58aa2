"""The timing table: measured, reported and estimated rows, never mixed. It makes ``records/hardware.csv``."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.advice import command_line, ways
from minimind_edu.hardware.cards import GIB, THE_FOUR, Card, find_card
from minimind_edu.hardware.estimate import estimate_work, largest_batch, needed, rows_of_step, workload
from minimind_edu.hardware.reported import (
    BYTES_PER_ROW,
    FILES,
    REPORTED,
    DataFile,
    Reported,
    count_parameters,
)
from minimind_edu.hardware.rows import measured_rows
from minimind_edu.hardware.workload import STAGES, Workload

if TYPE_CHECKING:
    import pandas

MEASURED, REPORTED_KIND, ESTIMATED = "measured", "reported", "estimated"
COLUMNS = (
    "kind", "card", "preset", "params_millions", "stage", "data", "rows", "rows_are", "seq_len", "epochs",
    "dtype", "batch", "fits", "memory_gb", "largest_batch", "step_seconds", "hours_low", "hours",
    "hours_high", "change", "command", "source", "holes",
)  # fmt: skip
KNOWN, BOUNDED, CHOSEN = "known", "bounded by the size of the file", "chosen by us"
ROUND_NUMBER = 10_000  # records, for stages of which no file is known: others follow by proportion


@dataclass(frozen=True)
class Dataset:
    """Data of a stage, in rows of one length.

    Attributes:
        rows: fewest, middle and most rows of an epoch; the same three times where they are known.
        rows_are: known, bounded, or chosen.
        seq_len: tokens of a row, padding included.
    """

    name: str
    stage: str
    rows: tuple[int, int, int]
    rows_are: str
    seq_len: int


def _of_file(name: str, stage: str, seq_len: int) -> Dataset:
    file: DataFile = FILES[name]
    if file.rows is not None:
        return Dataset(name, stage, (file.rows,) * 3, KNOWN, seq_len)
    fewest, most = (round(tokens / file.lengths[0]) for tokens in file.padded_tokens())
    return Dataset(name, stage, (fewest, round(math.sqrt(fewest * most)), most), BOUNDED, seq_len)


def _rlaif() -> Dataset:
    """Prompts: each at least as long as half a row of pretrain_mini, and at most two."""
    size = FILES["rlaif"].size
    rows = (round(size / BYTES_PER_ROW / 2), round(size / BYTES_PER_ROW), round(size / BYTES_PER_ROW * 2))
    return Dataset("rlaif", "grpo", rows, BOUNDED, 512)


DATASETS: tuple[Dataset, ...] = (
    _of_file("pretrain_mini", "pretrain", 340),
    _of_file("pretrain_hq", "pretrain", 512),
    _of_file("sft_mini", "sft", 512),
    _of_file("sft_mini_512", "sft", 512),
    *(
        Dataset(f"{ROUND_NUMBER:,} records", stage, (ROUND_NUMBER,) * 3, CHOSEN, 512)
        for stage in ("lora", "dpo", "distill", "reason")
    ),
    _rlaif(),
)


def table(
    cards: Sequence[str] = THE_FOUR,
    presets: Sequence[str] = (),
    stages: Sequence[str] = STAGES,
    datasets: Sequence[Dataset] = DATASETS,
) -> "pandas.DataFrame":
    """All rows: measured and reported ones, and an estimate for every card, preset, and data of the stages.

    Args:
        presets: none means all.
    """
    import pandas

    rows = [*measured(), *reported(), *estimated(cards, presets, stages, datasets)]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def _row(kind: str, source: str, **cells: object) -> dict[str, object]:
    unknown = set(cells) - set(COLUMNS)
    if unknown:
        raise ValueError(f"the table has no column {', '.join(sorted(unknown))}")
    return {name: cells.get(name, "") for name in COLUMNS} | {"kind": kind, "source": source}


# -- reported ----------------------------------------------------------------------------------------------


def reported(rows: Iterable[Reported] = REPORTED) -> list[dict[str, object]]:
    """The reported rows: what they say and nothing that we work out, but for their holes."""
    found = []
    for row in rows:
        memory = "" if row.memory is None else "-".join(f"{size / 1e9:g}" for size in row.memory)
        found.append(
            _row(
                REPORTED_KIND, row.source, card=row.card, preset=row.preset, params_millions=row.params,
                stage=row.stage, data=row.file or "unknown", epochs=1, batch=row.batch or "",
                fits="does not run" if row.seconds is None else "runs", memory_gb=memory,
                hours="" if row.hours is None else rounded(row.hours), holes="; ".join(row.holes),
            )
        )  # fmt: skip
    return found


# -- measured ----------------------------------------------------------------------------------------------


def measured() -> list[dict[str, object]]:
    """The measured steps that are committed with the package (see ``rows``)."""
    found = []
    for row in measured_rows():
        work = row.workload
        found.append(
            _row(
                MEASURED, f"{row.command}, on {row.date}, torch {row.torch}, {row.threads} threads",
                card=row.machine, preset=_name(work.config), params_millions=_millions(work.config),
                stage=work.stage, data="random tokens", seq_len=work.seq_len, dtype=work.dtype,
                batch=work.batch_size, fits="runs", memory_gb=rounded(row.memory / GIB) if row.memory else "",
                step_seconds=rounded(row.seconds),
            )
        )  # fmt: skip
    return found


# -- estimated ---------------------------------------------------------------------------------------------


def estimated(
    cards: Sequence[str] = THE_FOUR,
    presets: Sequence[str] = (),
    stages: Sequence[str] = STAGES,
    datasets: Sequence[Dataset] = DATASETS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, object]]:
    """An estimate for every card, preset and data set of the stages, for one epoch.

    Where a step does not fit, the hours are those of the first advice that makes it fit.

    Args:
        progress: called with (done, total).
    """
    wanted = [
        (name, preset, dataset)
        for preset in presets or ModelConfig.presets()
        for dataset in datasets
        for name in cards
        if dataset.stage in stages
    ]
    found = []
    for number, (name, preset, dataset) in enumerate(wanted):
        found.append(_estimated_row(find_card(name), preset, dataset))
        progress(number + 1, len(wanted))
    return sorted(found, key=lambda row: cards.index(row["card"]) if row["card"] in cards else 0)


def _estimated_row(card: Card, preset: str, dataset: Dataset) -> dict[str, object]:
    asked = workload(preset, dataset.stage, card, seq_len=dataset.seq_len)
    need = needed(asked).total
    fits = need <= card.usable
    way = next(ways(asked, card), None)
    work = asked if fits else way.work if way else None
    cells: dict[str, object] = {
        "card": card.name, "preset": preset, "params_millions": _millions(asked.config),
        "stage": dataset.stage, "data": dataset.name, "rows_are": dataset.rows_are,
        "rows": "-".join(str(rows) for rows in sorted({dataset.rows[0], dataset.rows[2]})),
        "seq_len": dataset.seq_len, "epochs": 1, "dtype": asked.dtype, "batch": asked.batch_size,
        "fits": "yes" if fits else "no", "memory_gb": rounded(need / GIB),
        "largest_batch": largest_batch(asked, card), "holes": _holes(dataset, card),
    }  # fmt: skip
    if work is None:
        return _row(ESTIMATED, "memory model", **cells, change="none of ours makes it fit")
    step = estimate_work(work, card)
    if step.step_seconds is None:
        return _row(ESTIMATED, "memory model; time unknown", **cells)
    steps = [math.ceil(_rows(dataset, work, rows) / rows_of_step(work)) for rows in dataset.rows]
    hours = [rounded(count * value / 3600) for count, value in zip(steps, step.step_seconds, strict=True)]
    cells |= {
        "step_seconds": rounded(step.step_seconds[1]), "hours_low": hours[0], "hours": hours[1],
        "hours_high": hours[2], "change": "" if fits else way.change, "command": command_line(work),
    }  # fmt: skip
    return _row(ESTIMATED, f"memory model; time {step.source}", **cells)


def _rows(dataset: Dataset, work: Workload, rows: int) -> float:
    """Rows of an epoch where the advice has changed their length: as many tokens."""
    return rows * dataset.seq_len / work.seq_len


def _holes(dataset: Dataset, card: Card) -> str:
    found = [] if dataset.rows_are == KNOWN else [f"number of rows {dataset.rows_are}"]
    if card.name == "A40":
        found.append("reports from the A40 reach a far smaller share of the peak than those from other cards")
    return "; ".join(found)


# -- cells -------------------------------------------------------------------------------------------------


def rounded(value: float) -> float:
    """Three significant digits: no estimate has more."""
    return float(f"{value:.3g}")


def _millions(config: ModelConfig) -> str:
    return f"{count_parameters(config) / 1e6:.1f}"


def _name(config: ModelConfig) -> str:
    return next((name for name, one in ModelConfig.presets().items() if one == config), "")


def as_csv(rows: Iterable[dict[str, object]]) -> str:
    """The rows as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def from_csv(text: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    return csv.DictReader(io.StringIO(text))
