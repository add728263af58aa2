"""The speed of a card that nobody measured for us: its peak and bandwidth, times shares reached elsewhere.

A card that is sold with a peak of 71 TFLOP/s does not train at 71 TFLOP/s. The share that it reaches is no
constant of nature, so it is taken from runs that others reported, each of which is predicted from the others
to see how far such an estimate can be trusted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minimind_edu.hardware.timing import Speed, amounts, spread
from minimind_edu.hardware.workload import Workload

SINGLE = math.log(2.0)  # range of an estimate from one run, whose scatter nobody knows: a factor of two

_DTYPES = ("float32", "bfloat16", "float16")
FLOPS = tuple(f"{kind} {dtype}" for kind in ("products", "attention", "fused attention") for dtype in _DTYPES)
BYTES = (
    "elementwise",
    "logits",
    "weights",
    "operands",
    "operands in writing",
    *(f"scores {dtype}" for dtype in _DTYPES),
)
CALLS = ("calls in training", "calls in writing", "new shapes", "steps")


@dataclass(frozen=True)
class CardRow:
    """A run on a card, for fitting what share of its peak the card reaches.

    Attributes:
        work: one step.
        steps: of the whole run; where the tokens are bounded, from the geometric mean of the bounds.
        seconds: of the whole run.
        peak: FLOP/s of the card in the dtype of the work.
        bandwidth: bytes a second.
        card: its name.
        stretch: factors from the number of steps to the fewest and the most that there may have been.
    """

    work: Workload
    steps: float
    seconds: float
    peak: float
    bandwidth: float
    card: str
    stretch: tuple[float, float]


@dataclass(frozen=True)
class Shares:
    """What training reached of the peak and the bandwidth of cards.

    Attributes:
        compute: share of the peak, in matrix products.
        bandwidth: share of the bandwidth, in everything that moves bytes; infinite where bytes are left out,
            because the rows are predicted better without.
        low, high: range of measured over predicted seconds, each row predicted by the others.
        error: median relative error of those predictions; nan for a single row.
        rows: how many.
        cards: on which cards.
    """

    compute: float
    bandwidth: float
    low: float
    high: float
    error: float
    rows: int
    cards: tuple[str, ...]

    def speed(self, peak: float, bandwidth: float, name: str) -> Speed:
        """The costs of a card with this peak (FLOP/s) and bandwidth (bytes/s)."""
        costs = dict.fromkeys(FLOPS, 1 / (peak * self.compute))
        costs |= dict.fromkeys(BYTES, 1 / (bandwidth * self.bandwidth)) | dict.fromkeys(CALLS, 0.0)
        source = f"shares of the peak that {self.rows} runs reached on {', '.join(self.cards)}"
        return Speed(name, costs, self.low, self.high, self.error, self.rows, source)


def fit_shares(rows: Sequence[CardRow]) -> Shares:
    """Shares common to all rows, whatever their cards.

    There are two ways to read a row, and the one that predicts rows from other rows better is taken: all time
    goes to FLOPs; or bytes go at the whole bandwidth, and FLOPs have the rest. A share is at most 1.

    Raises:
        ValueError: no row, or one whose card has no known peak or bandwidth.
    """
    if not rows or any(row.peak <= 0 or row.bandwidth <= 0 for row in rows):
        raise ValueError("shares need rows whose cards have a known peak and bandwidth")
    ideal = np.array([_ideal(row) for row in rows])  # seconds at the peak, and at the bandwidth
    seconds = np.array([row.seconds / row.steps for row in rows])
    cards = tuple(dict.fromkeys(row.card for row in rows))
    if len(rows) == 1:
        cost = _cost(ideal, seconds, 0.0)
        low, high = math.exp(-SINGLE), math.exp(SINGLE)
        return Shares(1 / cost, math.inf, low, high, math.nan, 1, cards)
    ratios = {bytes_cost: _left_out(ideal, seconds, bytes_cost) for bytes_cost in (0.0, 1.0)}
    bytes_cost = min(ratios, key=lambda cost: float(np.median(np.abs(np.log(ratios[cost])))))
    found = ratios[bytes_cost]
    # What is uncertain about a row's tokens is uncertain about its seconds a step.
    unsure = np.array([max(0.0, math.log(high), -math.log(low)) for low, high in (r.stretch for r in rows)])
    low, high, _ = spread(np.exp(np.abs(np.log(found)) + unsure))
    error = float(np.median(np.abs(1 / found - 1)))
    compute = 1 / _cost(ideal, seconds, bytes_cost)
    return Shares(compute, 1.0 if bytes_cost else math.inf, low, high, error, len(rows), cards)


def _ideal(row: CardRow) -> tuple[float, float]:
    found = amounts(row.work)
    flops = sum(amount for kind, amount in found.items() if kind in FLOPS)
    moved = sum(amount for kind, amount in found.items() if kind in BYTES)
    return flops / row.peak, moved / row.bandwidth


def _cost(ideal: np.ndarray, seconds: np.ndarray, bytes_cost: float) -> float:
    """How many times longer than at the peak FLOPs take: the (geometric) middle of what the rows say."""
    left = np.maximum(seconds - bytes_cost * ideal[:, 1], 0.0) / ideal[:, 0]
    return float(np.exp(np.median(np.log(np.maximum(left, 1.0)))))


def _left_out(ideal: np.ndarray, seconds: np.ndarray, bytes_cost: float) -> np.ndarray:
    """Measured over predicted seconds, each row predicted by the others."""
    found = np.ones(len(seconds))
    for row in range(len(seconds)):
        others = np.arange(len(seconds)) != row
        cost = _cost(ideal[others], seconds[others], bytes_cost)
        found[row] = seconds[row] / (cost * ideal[row, 0] + bytes_cost * ideal[row, 1])
    return found
