"""How long a step takes: amounts of work, each times what it costs on a machine.

A step multiplies matrices, moves bytes and calls kernels. ``amounts`` counts all of it, `Speed` holds what a
unit of each costs: on a machine that was measured, the costs with the least relative error over its rows.
Nothing is guessed: that small matrices reach a lower share of the peak comes out of the fit, since their
operands, calls and elementwise work cost more beside fewer FLOPs. For a card without rows the costs follow
from its peak and its bandwidth, times shares of them that were reached elsewhere (see ``shares``).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minimind_edu.hardware.fitting import fit_costs, left_out
from minimind_edu.hardware.products import Product, products
from minimind_edu.hardware.traffic import is_plain, kernels_by_kind, new_shapes, traffic
from minimind_edu.hardware.workload import Workload

COVERED = 0.85  # share of rows, each left out of the fit, that the range is to hold
LEAST_RANGE = 0.05  # two runs of the same step differ by that much


@dataclass(frozen=True)
class Seconds:
    """A time with its range, in seconds."""

    low: float
    mid: float
    high: float


def amounts(work: Workload) -> dict[str, float]:
    """What a step consists of, by kind.

    Returns:
        FLOPs of ``products`` (linear layers), ``attention`` and ``fused attention``, each by dtype;
        ``operands``: bytes of the matrices that go into products and come out of them, and ``operands in
        writing``, where one token a row meets whole matrices; bytes of ``elementwise`` work, of ``scores`` by
        dtype and of ``logits`` (softmaxes), of ``weights`` (their update and conversion); ``calls in
        training`` and ``calls in writing``, of kernels; ``new shapes`` of experts' products in 16 bits on a
        CPU; ``steps``: 1, for what every step does once.
    """
    found: Counter[str] = Counter()
    plain = is_plain(work)
    for one in products(work):
        dtype = _dtype(work, one)
        operands = one.batch * (one.m * one.k + one.k * one.n + one.m * one.n) * one.runs
        fused = one.part == "attention" and one.phase != "rollout" and not plain
        kind = "fused attention" if fused else "attention" if one.part == "attention" else "products"
        found[f"{kind} {dtype}"] += one.flops * one.runs
        if not fused:
            written = "operands in writing" if one.phase == "rollout" and one.times > 1 else "operands"
            found[written] += operands * (4 if dtype == "float32" else 2)
    moved = traffic(work)
    found["elementwise"] += moved["activations"]
    found[f"scores {work.dtype}"] += moved["scores"]
    found["logits"] += moved["logits"]
    found["weights"] += moved["weights"] + moved["optimizer"]
    for kind, calls in kernels_by_kind(work).items():
        found[f"calls in {kind}"] += calls
    found["new shapes"] += new_shapes(work)
    found["steps"] += 1
    return {kind: amount for kind, amount in found.items() if amount}


def _dtype(work: Workload, product: Product) -> str:
    """The dtype a product runs in: Muon's are bfloat16 everywhere, rollouts on a CPU float32."""
    if product.phase == "optimizer":
        return "bfloat16"
    return "float32" if product.phase == "rollout" and work.device == "cpu" else work.dtype


@dataclass(frozen=True)
class Speed:
    """What each kind of work costs on a machine.

    Attributes:
        name: of the machine.
        costs: seconds for a unit of each kind of ``amounts``.
        low, high: a step took between ``low`` and ``high`` times the prediction, in `COVERED` of the rows,
            each predicted without itself.
        error: the median relative error of those predictions.
        rows: how many there were.
        source: a few words.
    """

    name: str
    costs: Mapping[str, float]
    low: float
    high: float
    error: float
    rows: int
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Speed":
        """The inverse of ``to_dict``.

        Raises:
            ValueError: something is missing or no number.
        """
        try:
            costs = {str(kind): float(cost) for kind, cost in values["costs"].items()}
            numbers = {name: float(values[name]) for name in ("low", "high", "error")}
            return cls(
                str(values["name"]), costs, rows=int(values["rows"]), source=str(values["source"]), **numbers
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"these values describe no speed: {error}") from None

    def rate(self, kind: str) -> float:
        """Units a second: FLOP/s, bytes a second, calls a second; infinite where a kind costs nothing."""
        cost = self.costs.get(kind, 0.0)
        return 1 / cost if cost else math.inf


def predict(work: Workload, speed: Speed) -> Seconds:
    """Seconds of one optimizer step.

    Raises:
        ValueError: the machine was never measured at work of this kind, such as this dtype.
    """
    parts = predicted_parts(work, speed)
    mid = sum(parts.values())
    return Seconds(mid * speed.low, mid, mid * speed.high)


def predicted_parts(work: Workload, speed: Speed) -> dict[str, float]:
    """Seconds of a step by kind of work.

    Raises:
        ValueError: see ``predict``.
    """
    found = amounts(work)
    if unknown := sorted(found.keys() - speed.costs.keys()):
        raise ValueError(
            f"{speed.name} was not measured at {', '.join(unknown)}: run `minimind-edu bench` on it"
        )
    return {kind: amount * speed.costs[kind] for kind, amount in found.items()}


class Measured(Protocol):
    """What the fit needs of a row (see ``rows.MeasuredRow``)."""

    workload: Workload
    seconds: float


def fit_speed(rows: Sequence[Measured], name: str = "this machine", source: str = "") -> Speed:
    """The costs that explain measured rows best.

    Raises:
        ValueError: fewer than four rows.
    """
    if len(rows) < 4:
        raise ValueError(f"a machine's costs need four rows or more, not {len(rows)}")
    kinds, table = _table([row.workload for row in rows])
    seconds = np.array([row.seconds for row in rows])
    costs = fit_costs(table, seconds)
    low, high, error = spread(left_out(table, seconds))
    known = dict(zip(kinds, costs.tolist(), strict=True))
    return Speed(name, known, low, high, error, len(rows), source)


def _table(works: Sequence[Workload]) -> tuple[list[str], np.ndarray]:
    """All kinds of work there are, and the amounts (rows, kinds)."""
    found = [amounts(work) for work in works]
    kinds = sorted(set().union(*found))
    return kinds, np.array([[one.get(kind, 0.0) for kind in kinds] for one in found])


def spread(ratios: np.ndarray) -> tuple[float, float, float]:
    """Range and median error of predictions from measured / predicted, each row left out in turn.

    The range is as wide as it must be for a further row to lie in it with probability `COVERED` (the
    conformal rule: the (n + 1) p-th smallest distance of n), and the same factor up and down.
    """
    finite = ratios[np.isfinite(ratios)]
    distances = np.sort(np.abs(np.log(finite)))
    place = min(len(distances), math.ceil((len(distances) + 1) * COVERED)) - 1
    factor = math.exp(max(float(distances[place]), math.log1p(LEAST_RANGE)))
    return 1 / factor, factor, float(np.median(np.abs(1 / finite - 1)))
