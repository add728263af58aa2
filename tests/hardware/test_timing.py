"""The model of time: costs that are found again, ranges that hold, shares of a card's peak."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.calibration_set import calibration_works
from minimind_edu.hardware.fitting import fit_costs, left_out, nonnegative
from minimind_edu.hardware.rows import measured_rows
from minimind_edu.hardware.shares import BYTES, CALLS, FLOPS, fit_shares
from minimind_edu.hardware.timing import (
    COVERED,
    Speed,
    amounts,
    fit_speed,
    predict,
    predicted_parts,
    spread,
)
from minimind_edu.hardware.workload import Workload

EDU = ModelConfig.preset("edu")


@dataclass(frozen=True)
class Row:
    workload: Workload
    seconds: float


def invented(noise: float = 0.0, seed: int = 0) -> tuple[dict[str, float], list[Row]]:
    """A machine whose costs are known, and its rows."""
    works = calibration_works()
    kinds = sorted(set().union(*(amounts(work) for work in works)))
    generator = np.random.default_rng(seed)
    # Every kind of work takes about the same part of the time.
    usual = {kind: np.median([amounts(w)[kind] for w in works if kind in amounts(w)]) for kind in kinds}
    costs = {kind: generator.uniform(0.02, 0.1) / usual[kind] for kind in kinds}
    rows = []
    for work in works:
        seconds = sum(amount * costs[kind] for kind, amount in amounts(work).items())
        rows.append(Row(work, seconds * math.exp(noise * generator.standard_normal())))
    return costs, rows


def test_nonnegative_least_squares_is_the_best_there_is():
    """At the optimum no used column's error can be lowered, and no unused one would help (Kuhn, Tucker)."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        matrix = generator.uniform(0, 1, (12, 7)) * generator.uniform(0.01, 10, 7)
        target = matrix @ generator.normal(0, 1, 7) + generator.normal(0, 0.1, 12)
        found = nonnegative(matrix, target)
        gradient = matrix.T @ (target - matrix @ found)
        assert (found >= 0).all()
        scale = np.abs(matrix.T @ target).max()
        assert np.abs(gradient[found > 0]).max(initial=0) < 1e-8 * scale
        assert gradient[found == 0].max(initial=0) < 1e-8 * scale
    assert nonnegative(np.ones((3, 1)), -np.ones(3)) == [0]


def test_costs_are_found_again():
    costs, rows = invented()
    speed = fit_speed(rows, "invented")
    assert set(speed.costs) == set(costs) and speed.rows == len(rows)
    for row in rows:
        assert predict(row.workload, speed).mid == pytest.approx(row.seconds, rel=1e-4)
    other = Workload(ModelConfig.preset("minimind2-small"), "dpo", batch_size=3, seq_len=130)
    true = sum(amount * costs[kind] for kind, amount in amounts(other).items())
    assert predict(other, speed).mid == pytest.approx(true, rel=0.01)
    assert sum(predicted_parts(other, speed).values()) == predict(other, speed).mid


def test_one_disturbed_row_spoils_little():
    _, rows = invented()
    slow = [Row(row.workload, row.seconds * (3 if number == 4 else 1)) for number, row in enumerate(rows)]
    speed = fit_speed(slow)
    others = [row for number, row in enumerate(rows) if number != 4]
    missed = [abs(predict(row.workload, speed).mid / row.seconds - 1) for row in others]
    assert np.median(missed) < 0.05


def test_costs_do_not_fall_below_the_least():
    table = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    assert fit_costs(table, table @ [0.5, 3.0]) == pytest.approx([0.5, 3.0])
    bounded = fit_costs(table, table @ [0.5, 3.0], np.array([1.0, 1.0]))
    assert bounded[0] == 1.0 and 2 < bounded[1] < 3


def test_leaving_a_row_out_predicts_it_from_the_others():
    table = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    seconds = table @ [1.0, 2.0]
    assert left_out(table, seconds) == pytest.approx([1, 1, 1, 1])
    seconds[2] *= 2  # predicted by the rows that it does not agree with
    assert left_out(table, seconds)[2] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3])
def test_the_range_holds_for_rows_that_come_later(noise):
    """Rows scattered around the prediction: further ones are in the range at least as often as promised."""
    generator = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        low, high, _ = spread(np.exp(noise * generator.standard_normal(20)))
        inside.append(low <= math.exp(noise * generator.standard_normal()) <= high)
    assert np.mean(inside) > COVERED - 0.04
    assert noise < 0.1 or np.mean(inside) < 0.95  # and it is no wider than it needs to be


def test_what_a_step_consists_of():
    plain = amounts(Workload(EDU, batch_size=4, seq_len=128))
    assert "attention float32" in plain and "scores float32" in plain and plain["steps"] == 1
    fused = amounts(Workload(EDU, batch_size=4, seq_len=512))
    assert "fused attention float32" in fused and "scores float32" not in fused
    assert set(amounts(Workload(EDU, dtype="bfloat16"))).isdisjoint({"products float32"})
    # Answers are written in float32 on a CPU, and Muon multiplies in bfloat16.
    assert "products float32" in amounts(Workload(EDU, "grpo", dtype="bfloat16"))
    assert "products bfloat16" in amounts(Workload(EDU, optimizer="muon"))
    twice = amounts(Workload(EDU, batch_size=4, seq_len=128, accumulation_steps=2))
    assert twice["products float32"] == 2 * plain["products float32"]


def test_a_machine_that_was_not_measured_at_a_dtype_says_so():
    _, rows = invented()
    speed = fit_speed([row for row in rows if row.workload.dtype == "float32"], "old laptop")
    assert predict(Workload(EDU), speed).mid > 0
    with pytest.raises(
        ValueError, match="old laptop was not measured at .*bfloat16: run `minimind-edu bench`"
    ):
        predict(Workload(EDU, dtype="bfloat16"), speed)
    with pytest.raises(ValueError, match="four rows"):
        fit_speed(rows[:3])


def test_a_speed_survives_json():
    _, rows = invented(0.05)
    speed = fit_speed(rows, "here", "30 rows")
    assert Speed.from_dict(speed.to_dict()) == speed
    assert speed.low < 1 < speed.high and 0 < speed.error < 0.3
    assert speed.rate("products float32") == 1 / speed.costs["products float32"]
    assert Speed("x", {"steps": 0.0}, 1, 1, 0, 1).rate("steps") == math.inf
    for broken in ({}, {"costs": 3}, speed.to_dict() | {"costs": {"steps": None}}):
        with pytest.raises(ValueError, match="describe no speed"):
            Speed.from_dict(broken)


# -- shares ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    work: Workload
    seconds: float
    steps: float = 10
    peak: float = 70e12
    bandwidth: float = 900e9
    card: str = "a card"
    stretch: tuple[float, float] = (1.0, 1.0)


def run_at(share: float, bytes_too: bool, **changes) -> Run:
    """A run that reaches this share of the peak, its bytes moved at the whole bandwidth or for nothing."""
    shape = ModelConfig.preset("minimind2-small", num_hidden_layers=changes.pop("layers", 8))
    work = Workload(shape, device="cuda", dtype="bfloat16", batch_size=changes.pop("batch", 16), seq_len=512)
    run = Run(work, 1.0, **changes)
    found = amounts(work)
    seconds = sum(found.get(kind, 0) for kind in FLOPS) / run.peak / share
    seconds += bytes_too * sum(found.get(kind, 0) for kind in BYTES) / run.bandwidth
    return Run(work, seconds * run.steps, **changes)


@pytest.mark.parametrize("bytes_too", [True, False])
def test_shares_are_found_again_and_carry_over_to_another_card(bytes_too):
    runs = [run_at(0.4, bytes_too, layers=4), run_at(0.4, bytes_too, peak=150e12, bandwidth=700e9, card="b"),
            run_at(0.4, bytes_too, batch=4)]  # fmt: skip
    shares = fit_shares(runs)
    assert shares.compute == pytest.approx(0.4) and (shares.bandwidth == 1) == bytes_too
    assert shares.error == pytest.approx(0, abs=1e-9) and shares.cards == ("a card", "b") and shares.rows == 3
    other = run_at(0.4, bytes_too, peak=30e12, bandwidth=300e9)
    seconds = predict(other.work, shares.speed(30e12, 300e9, "c"))
    assert seconds.mid == pytest.approx(other.seconds / other.steps)
    assert seconds.low == pytest.approx(seconds.mid / 1.05)


def test_the_range_of_shares_is_the_scatter_of_the_rows_and_of_their_tokens():
    runs = [run_at(share, False) for share in (0.2, 0.3, 0.4)]
    shares = fit_shares(runs)
    assert 1.2 < shares.high < 2.5 and shares.low == pytest.approx(1 / shares.high)
    unsure = [Run(**{**vars(run), "stretch": (0.5, 2.0)}) for run in runs]
    assert fit_shares(unsure).high == pytest.approx(2 * shares.high)
    alone = fit_shares(runs[:1])
    assert alone.compute == pytest.approx(0.2) and alone.high == pytest.approx(2) and math.isnan(alone.error)


def test_no_card_beats_its_peak():
    impossible = [Run(**{**vars(run_at(0.9, False)), "seconds": 1e-6}) for _ in range(2)]
    assert fit_shares(impossible).compute == 1


def test_shares_need_rows_with_a_peak():
    for rows in ([], [run_at(0.3, False, bandwidth=1.0), Run(Workload(EDU), 1.0, peak=0.0)]):
        with pytest.raises(ValueError, match="known peak"):
            fit_shares(rows)


def test_shares_know_every_kind_of_work_there_is():
    works = [*calibration_works("cuda", ("float32", "bfloat16", "float16")), *calibration_works()]
    assert set().union(*(amounts(work) for work in works)) <= {*FLOPS, *BYTES, *CALLS}


# -- measured rows -----------------------------------------------------------------------------------------


def test_the_committed_held_out_rows_are_predicted():
    """Shapes, stages and lengths that the fit never saw, up to 200M parameters, on the same machine."""
    rows = measured_rows()
    found, inside = [], []
    for machine, threads in {(row.machine, row.threads) for row in rows if row.purpose == "held-out"}:
        same = [row for row in rows if (row.machine, row.threads) == (machine, threads)]
        speed = fit_speed([row for row in same if row.purpose == "fit"], machine)
        for row in same:
            if row.purpose == "held-out":
                seconds = predict(row.workload, speed)
                found.append(abs(seconds.mid / row.seconds - 1))
                inside.append(seconds.low <= row.seconds <= seconds.high)
    assert len(found) >= 25
    assert np.median(found) < 0.12 and np.mean(np.array(found) < 0.25) > 0.9
    assert np.mean(inside) > 0.8
