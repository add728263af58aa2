"""What the time of a step rests on: measurements of the machine itself, or what others reported.

In this order: the calibration that ``minimind-edu bench`` left on this machine; committed rows measured on
the same kind of machine; for CPUs, rows of another one, as a rough guide; for cards, reported rows, of the
same card where there are two or more, else of all cards. These give a share of the peak that was reached,
which is applied to the peak of the card in question.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from minimind_edu.hardware.cards import Card, cpu_name, find_card, this_machine
from minimind_edu.hardware.measure import load_calibration
from minimind_edu.hardware.reported import ReportedRun, runs
from minimind_edu.hardware.rows import MeasuredRow, measured_rows
from minimind_edu.hardware.shares import fit_shares
from minimind_edu.hardware.timing import Seconds, Speed, fit_speed, predict
from minimind_edu.hardware.workload import Workload

ANOTHER = 2.0  # factor by which a range is widened where the rows are of another machine
LEAST_ROWS = 4  # what a fit of measured rows needs


@dataclass(frozen=True)
class KnownSpeed:
    """The speed of a machine, and where it is from.

    Attributes:
        kind: calibrated (here), measured (rows of such a machine), another (rows of another CPU), reported.
        text: a few words for "estimated from …".
    """

    speed: Speed
    kind: str
    text: str


def step_time(
    work: Workload, card: Card, leave_out: Callable[[ReportedRun], bool] | None = None
) -> tuple[Seconds, KnownSpeed] | None:
    """The time of a step and what it rests on; None where nothing is known of such a machine.

    Args:
        leave_out: reported rows that are not to be used; default those of the same card, shape and stage, so
            that no report is ever predicted from itself.
    """
    leave_out = leave_out or (lambda run: _is_same(run, work, card))
    for known in _known_speeds(work, card, leave_out):
        try:
            return predict(work, known.speed), known
        except ValueError:  # measured, but not in this dtype or stage
            continue
    return None


def _is_same(run: ReportedRun, work: Workload, card: Card) -> bool:
    return (run.card, run.work.config, run.work.stage) == (card.name, work.config, work.stage)


def _known_speeds(
    work: Workload, card: Card, leave_out: Callable[[ReportedRun], bool]
) -> Iterator[KnownSpeed]:
    calibration = _calibration(card)
    if calibration:
        yield calibration
    yield from _measured(card)
    if card.device == "cuda" and card.peak.get(work.dtype):
        kept = tuple(run for run in _runs() if not leave_out(run))
        own = tuple(run for run in kept if run.card == card.name)
        used = own if len(own) >= 2 else kept
        if used:
            yield _reported(card.name, card.peak[work.dtype], card.bandwidth, used)


def _calibration(card: Card) -> KnownSpeed | None:
    if card.name not in (this_machine().name, cpu_name()):
        return None
    found = load_calibration(card.name, 1 if card.device == "cuda" else torch.get_num_threads())
    if found is None:
        return None
    return KnownSpeed(found.speed, "calibrated", f"a calibration of this machine ({found.date})")


def _measured(card: Card) -> Iterator[KnownSpeed]:
    threads = 1 if card.device == "cuda" else torch.get_num_threads()
    same = [row for row in _rows() if _is_on(row, card)]
    alike = [row for row in same if row.threads == threads]
    if len(alike) >= LEAST_ROWS:
        yield _fitted(tuple(alike), "measured", f"{len(alike)} rows measured on {card.name}")
    if card.device == "cuda":
        return
    # Another number of threads, or another processor: the order of magnitude.
    others = same or [row for row in _rows() if row.workload.device == "cpu"]
    groups = {(row.machine, row.threads) for row in others}
    for machine, count in sorted(groups, key=lambda group: abs(group[1] - threads)):
        rows = tuple(row for row in others if (row.machine, row.threads) == (machine, count))
        if len(rows) >= LEAST_ROWS and (machine, count) != (card.name, threads):
            words = f"{len(rows)} rows measured on {machine} with {count} thread{'s' * (count > 1)}"
            yield _fitted(rows, "another", f"{words}, not on this one: run `minimind-edu bench`")


def _is_on(row: MeasuredRow, card: Card) -> bool:
    if row.workload.device != card.device:
        return False
    if row.machine == card.name or card.device == "cpu":
        return row.machine == card.name
    try:
        return find_card(row.machine).name == card.name
    except ValueError:
        return False


@functools.cache
def _rows() -> tuple[MeasuredRow, ...]:
    return tuple(row for row in measured_rows() if row.purpose == "fit")


@functools.cache
def _runs() -> tuple[ReportedRun, ...]:
    return tuple(runs())


@functools.cache
def _fitted(rows: tuple[MeasuredRow, ...], kind: str, text: str) -> KnownSpeed:
    speed = fit_speed(rows, rows[0].machine, text)
    if kind == "another":
        speed = dataclasses.replace(speed, low=speed.low / ANOTHER, high=speed.high * ANOTHER)
    return KnownSpeed(speed, kind, text)


@functools.lru_cache(maxsize=256)
def _reported(card: str, peak: float, bandwidth: float, used: tuple[ReportedRun, ...]) -> KnownSpeed:
    shares = fit_shares(used)
    names = list(dict.fromkeys(run.card.removeprefix("GeForce ") for run in used))
    # Where moving bytes has a time of its own, the share is that of the products alone.
    apart = " in products, beside moving bytes at full bandwidth" if math.isfinite(shares.bandwidth) else ""
    text = (
        f"{len(used)} reported runs on {' and '.join(names) if len(names) < 3 else ', '.join(names)}, which "
        f"reached {shares.compute:.0%} of the peak{apart}"
    )
    return KnownSpeed(shares.speed(peak, bandwidth, card), "reported", text)
