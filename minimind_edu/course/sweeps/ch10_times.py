"""The committed rows of measured steps, for chapter 10: costs fitted on some, compared with the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minimind_edu.hardware.measure import time_steps
from minimind_edu.hardware.rows import MeasuredRow, measured_rows
from minimind_edu.hardware.timing import Speed, fit_speed, predict

STAGES = {"pretrain": "pretraining"}


@dataclass(frozen=True)
class HeldOut:
    """A machine's costs, and steps that they were not fitted on.

    Attributes:
        speed: fitted on the machine's rows for fitting.
        rows: the others.
    """

    speed: Speed
    rows: tuple[MeasuredRow, ...]

    @property
    def text(self) -> str:
        """What was measured, when and where, in one line."""
        row = self.rows[0]
        machine = f"{row.threads} threads of {row.machine}, torch {row.torch}"
        counts = f"{self.speed.rows} steps to fit on, {len(self.rows)} held out"
        return f"Measured on {row.date} ({machine}), each by a command like `{row.command}`: {counts}."

    @property
    def pairs(self) -> dict[str, list[tuple[float, float]]]:
        """(measured, predicted) seconds of the held-out rows, by kind."""
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            kind = STAGES.get(row.workload.stage, "other stages")
            pair = row.seconds, predict(row.workload, self.speed).mid
            found.setdefault(f"{kind}, {row.workload.dtype}", []).append(pair)
        return found

    @property
    def errors(self) -> list[float]:
        """Relative errors of the predictions."""
        return [abs(expected / measured - 1) for found in self.pairs.values() for measured, expected in found]

    @property
    def covered(self) -> float:
        """Share of the held-out rows that lie in the range that was predicted."""
        ranges = [predict(row.workload, self.speed) for row in self.rows]
        inside = [one.low <= row.seconds <= one.high for one, row in zip(ranges, self.rows, strict=True)]
        return sum(inside) / len(inside)


def held_out(rows: Sequence[MeasuredRow] | None = None) -> HeldOut:
    """The machine with most held-out rows.

    Args:
        rows: measured ones; default those that are committed with the package.

    Raises:
        ValueError: no machine has rows of both kinds.
    """
    rows = measured_rows() if rows is None else rows
    for (machine, threads), _ in Counter(
        (row.machine, row.threads) for row in rows if row.purpose == "held-out"
    ).most_common():
        own = [row for row in rows if (row.machine, row.threads) == (machine, threads)]
        fit = [row for row in own if row.purpose == "fit"]
        if fit:
            return HeldOut(fit_speed(fit, machine), tuple(row for row in own if row.purpose == "held-out"))
    raise ValueError("no machine has rows to fit on and rows held out")


def ratio_now(machine: HeldOut, rounds: int = 3) -> tuple[float, float]:
    """How many times longer the longest step takes than the shortest: measured now, and predicted.

    Of the held-out steps of pretraining in float32 that took less than a second. Both take turns in one fresh
    process, so that a busy machine slows both.
    """
    plain = [
        row for row in machine.rows if (row.workload.stage, row.workload.dtype) == ("pretrain", "float32")
    ]
    short = [row for row in plain if row.seconds < 1.0]
    ends = [
        min(short, key=lambda row: row.seconds).workload,
        max(short, key=lambda row: row.seconds).workload,
    ]
    quick, long = time_steps(ends, rounds)
    expected = [predict(work, machine.speed).mid for work in ends]
    return long.least / quick.least, expected[1] / expected[0]
