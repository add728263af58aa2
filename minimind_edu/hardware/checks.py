"""Do reported timings agree with each other, with arithmetic, and with the memory that a card has?

Two rows on the same card should differ in time as they do in work, or by less: larger matrices reach a larger
share of the peak. Where they do not, one of them hides something, and no estimate can be better than that.
"""

import bisect
from dataclasses import dataclass

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.cards import Card, find_card, in_words
from minimind_edu.hardware.estimate import largest_batch, needed
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.reported import (
    DEFAULT_BATCH,
    FILES,
    REPORTED,
    Reported,
    ReportedRun,
    as_run,
    count_parameters,
    family_shapes,
    known_runs,
    runs,
    shape_of,
)
from minimind_edu.hardware.speeds import step_time
from minimind_edu.hardware.workload import Workload

NOISE = 1.25  # reported hours are rounded, and called estimates


def row_of(card: str, params: str, file: str) -> Reported:
    """The reported row of a card, a size and a file.

    Raises:
        ValueError: there is none.
    """
    for row in REPORTED:
        if (find_card(card).name, params, file) == (row.card, row.params, row.file):
            return row
    raise ValueError(f"nothing is reported for {params}M on {card} with {file or 'unknown data'}")


def share_of_peak(run: ReportedRun) -> tuple[float, float, float]:
    """What share of the card's peak a run reached: at the fewest tokens, in the middle, at the most.

    A share above 1 cannot have been: there the bound on the tokens is too loose, or the time is wrong.
    """
    share = flops(run.work).total * run.steps / run.seconds / run.peak
    return share * run.stretch[0], share, share * run.stretch[1]


def longest_rows(run: ReportedRun) -> float:
    """Tokens in a row that the card could have processed at its peak, where the number of rows is known."""
    rows = FILES[run.row.file].rows
    if rows is None:
        raise ValueError(f"{run.row.file}: the number of rows is not known")
    return run.seconds / run.row.epochs * run.peak / flops(run.work).per_token / rows


@dataclass(frozen=True)
class Held:
    """A report whose tokens are known, beside the estimate of it from other reports.

    Attributes:
        hours: of one epoch: low, middle, high.
        source: what the estimate rests on; no report with known tokens is among it.
    """

    row: Reported
    hours: tuple[float, float, float]
    source: str

    @property
    def ratio(self) -> float:
        """Estimated over reported hours."""
        return self.hours[1] / self.row.hours


def held_out() -> list[Held]:
    """Estimates of the reports with known tokens, none of which is in the fit that predicts them."""
    known, found = known_runs(), []
    for run in known:
        seconds, speed = step_time(run.work, find_card(run.card), leave_out=lambda one: one in known)
        steps = run.steps / run.row.epochs
        hours = tuple(value * steps / 3600 for value in (seconds.low, seconds.mid, seconds.high))
        found.append(Held(run.row, hours, speed.text))
    return found


@dataclass(frozen=True)
class Comparison:
    """Two rows side by side.

    Attributes:
        time: hours of an epoch of the second over those of the first.
        work: the same of the FLOPs of a token, or of the parameters where a shape is unknown.
        peak: the peak of the second card over that of the first.
        says: what follows.
    """

    first: Reported
    second: Reported
    time: float
    work: float
    peak: float
    says: str

    @property
    def gap(self) -> float:
        """How many times longer the second took than work and peak explain; below 1: less long."""
        return self.time / self.work * self.peak

    @property
    def agrees(self) -> bool:
        """Whether the rows agree up to their rounding and a better use of the card by the larger model."""
        return 1 / NOISE / 1.5 <= self.gap <= NOISE

    def __str__(self) -> str:
        verdict = "agree" if self.agrees else "do not agree"
        return (
            f"{self.first.name} and {self.second.name} {verdict}: {self.time:.2f} times the hours an epoch "
            f"for {self.work:.2f} times the work on {self.peak:.2f} times the peak. {self.says}"
        )


def _compare(first: Reported, second: Reported, says: str) -> Comparison:
    shapes = shape_of(first), shape_of(second)
    work = float(second.params) / float(first.params)
    if all(shapes):
        one, other = (flops(as_run(row).work).per_token for row in (first, second))
        work = other / one
    peaks = [find_card(row.card).peak["bfloat16"] for row in (first, second)]
    return Comparison(first, second, second.hours / first.hours, work, peaks[1] / peaks[0], says)


def comparisons() -> list[Comparison]:
    """The pairs of rows that trained on the same file."""
    old = "pretrain_hq"
    small, large = row_of("A40", "183.797", old), row_of("A40", "272.418", old)
    return [
        _compare(
            row_of("3090", "25.8", old), row_of("3090", "104", old),
            "The larger model uses the card a little better.",
        ),
        _compare(small, large, "Both reach the same share of the peak."),
        _compare(
            row_of("A40", "28.07", old), small,
            "A larger model should not be slower for each FLOP, so they cannot have had the same data, "
            "length of rows or precision.",
        ),
        _compare(
            large, row_of("5060", "272.418", old),
            "A card with a quarter of the peak took about as long: the A40 waited for something, or did not "
            "use its tensor cores.",
        ),
        _compare(
            row_of("3090", "63.9", "pretrain_mini"), row_of("3090", "198.4", "pretrain_mini"),
            "Experts cost more than their FLOPs: each sees fewer tokens at a time.",
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Whether memory explains that a row does not run.

    Attributes:
        row: the report.
        shapes: how many shapes by the families' rules have about as many parameters (its own is unknown).
        need: bytes of a step as MiniMind's code took it: the least and the most among those shapes.
        card: where it did not run.
        largest: the largest batch that fits there, for the same two shapes.
        yet: a row that did run on the card although its step needs more than the card has, or None.
    """

    row: Reported
    shapes: int
    need: tuple[int, int]
    card: Card
    largest: tuple[int, int]
    yet: "Ran | None"

    @property
    def explains(self) -> bool | None:
        """Whether a step needs more than the card has; None where that depends on the shape."""
        over = [need > self.card.usable for need in self.need]
        return over[0] if over[0] == over[1] else None

    def __str__(self) -> str:
        said = {
            True: "memory explains it",
            False: "memory does not explain it",
            None: "memory may explain it",
        }
        least, most = (in_words(need) for need in self.need)
        text = (
            f"{self.row.name}: {said[self.explains]}. With batch {self.row.batch}, {self.shapes} shapes of "
            f"about that size need {least} to {most}, and the card has {in_words(self.card.usable)}; batch "
            f"{self.largest[1]} fits for the most demanding one and {self.largest[0]} for the least."
        )
        if not self.explains and self.card.capability < (8, 0):
            text += " MiniMind's default is bfloat16, which the card lacks: that may be it."
        if self.yet:
            text += (
                f" But {self.yet.row.params}M with batch {self.yet.row.batch} is reported to run there, and "
                f"needs {in_words(self.yet.need)}: one of the two rows leaves something out."
            )
        return text


def shapes_about(params: str, within: float = 0.005) -> list[ModelConfig]:
    """Shapes by the families' rules with about so many million parameters."""
    wanted = float(params) * 1e6
    return [shape for _, shape in family_shapes() if abs(count_parameters(shape) / wanted - 1) <= within]


def why_not(row: Reported, length: int = 512) -> Verdict:
    """What the memory model says of a row that does not run.

    The step is MiniMind's: AdamW, padded rows of ``length`` tokens, logits everywhere, no checkpointing.

    Raises:
        ValueError: the row ran.
    """
    if row.seconds is not None:
        raise ValueError(f"{row.name} ran")
    card = find_card(row.card)
    steps = [
        Workload(shape, "pretrain", row.batch, length, card.auto_dtype, "cuda", labelled=1.0, packed=False)
        for shape in shapes_about(row.params)
    ]
    ordered = sorted(steps, key=lambda work: needed(work).total)
    need = needed(ordered[0]).total, needed(ordered[-1]).total
    largest = largest_batch(ordered[0], card), largest_batch(ordered[-1], card)
    others = (_ran(run) for run in runs() if run.card == row.card)
    return Verdict(
        row, len(steps), need, card, largest, next((ran for ran in others if not ran.agrees), None)
    )


def verdicts() -> list[Verdict]:
    """All rows that do not run."""
    return [why_not(row) for row in REPORTED if row.seconds is None]


@dataclass(frozen=True)
class Ran:
    """A row that did run, beside the memory that its step needs by our model.

    Attributes:
        need: bytes, with rows of the longest length that the file was padded to.
        longest: the most tokens in a row with which its batch fits.
    """

    row: Reported
    need: int
    card: Card
    longest: int

    @property
    def agrees(self) -> bool:
        """Whether the step fits the card, as it must have."""
        return self.need <= self.card.usable

    def __str__(self) -> str:
        need, have = in_words(self.need), in_words(self.card.usable)
        text = f"{self.row.name}, batch {self.row.batch or DEFAULT_BATCH}: needs {need} of {have}"
        if self.agrees:
            return text
        return (
            f"{text}, and ran nevertheless. Rows of up to {self.longest} tokens would have fitted; or the "
            "driver let it use the computer's main memory, as it does under Windows, which is slow."
        )


def those_that_ran() -> list[Ran]:
    """The memory check of all rows that ran and say enough; where one does not fit, something is not said."""
    return [_ran(run) for run in runs()]


def _ran(run: ReportedRun) -> Ran:
    card, work = find_card(run.row.card), run.work.replace(seq_len=FILES[run.row.file].lengths[1])

    def is_too_long(step: int) -> bool:
        return needed(work.replace(seq_len=32 * step)).total > card.usable

    if needed(work).total <= card.usable:
        return Ran(run.row, needed(work).total, card, work.seq_len)
    longest = 32 * bisect.bisect_left(range(1, work.seq_len // 32 + 1), True, key=is_too_long)
    return Ran(run.row, needed(work).total, card, longest)
