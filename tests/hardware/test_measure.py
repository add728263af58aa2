"""Measuring: real steps in a process of their own, rows that can be fitted, a calibration that is kept."""

import json
from dataclasses import replace

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.hardware import measure
from minimind_edu.hardware.calibration_set import calibration_works
from minimind_edu.hardware.measure import (
    Calibration,
    Timed,
    calibrate,
    load_calibration,
    machine_peak,
    measure_step,
    row_for,
    save_calibration,
    time_steps,
)
from minimind_edu.hardware.products import products
from minimind_edu.hardware.rows import row_of
from minimind_edu.hardware.timing import amounts, fit_speed, predict
from minimind_edu.hardware.workload import STAGES, Workload

TINY = ModelConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, max_position_embeddings=64)
SMALL = Workload(TINY, batch_size=2, seq_len=16)


def fake_times(works, rounds=1, threads=0, fraction=None, progress=None):
    """Seconds that follow from the amounts of work, so that a fit can be exact."""
    total = [sum(1e-9 * amount for amount in amounts(work).values()) for work in works]
    return [
        Timed(work, (2 * seconds, seconds, 3 * seconds)) for work, seconds in zip(works, total, strict=True)
    ]


def test_workloads_take_turns_in_one_process():
    moves = []
    works = [SMALL, SMALL.replace(stage="dpo", labelled=0.5), SMALL.replace(stage="grpo", seq_len=8)]
    found = time_steps(works, rounds=2, threads=1, progress=lambda done, total: moves.append((done, total)))
    assert [one.work for one in found] == works
    assert all(len(one.steps) == 2 * measure.STEPS and one.least > 0 for one in found)
    assert moves == [(done, 9) for done in range(1, 10)]
    assert all(one.least <= one.median for one in found)


def test_a_row_says_all_that_is_needed_to_repeat_it():
    row = measure_step(SMALL, rounds=1, threads=1)
    assert row.workload == SMALL and row.threads == 1 and row.torch == torch.__version__
    assert 0 < row.seconds < 60 and row.memory > 50e6  # a process with PyTorch is not smaller
    assert row_of(json.loads(row.to_json())) == replace(row, seconds=float(f"{row.seconds:.4g}"))


def test_a_failure_in_the_process_is_told():
    too_long = SMALL.replace(seq_len=100)
    with pytest.raises(ValueError, match="seq_len is 100, but the model reads 64"):
        time_steps([too_long], threads=1)
    with pytest.raises(ValueError, match="rounds must be 1"):
        time_steps([SMALL], rounds=0)


def test_the_set_spans_all_kinds_of_work():
    """A kind that no workload has could not be fitted; one that all have in like measure neither."""
    for device, dtypes in (("cpu", ("float32", "bfloat16")), ("cuda", ("float32", "float16"))):
        works = calibration_works(device, dtypes)
        assert len(works) == len(set(works)) and {work.dtype for work in works} == set(dtypes)
        found = [amounts(work) for work in works]
        kinds = set().union(*found)
        for stage in STAGES:
            for config in (ModelConfig.preset("minimind2-small"), ModelConfig.preset("minimind2-moe")):
                for length in (64, 1024):
                    for optimizer in ("adamw", "muon"):
                        work = Workload(config, stage, seq_len=length, dtype=dtypes[-1], device=device,
                                        optimizer=optimizer)  # fmt: skip
                        assert amounts(work).keys() <= kinds
        assert len(found) > len(kinds) + 8
    assert any(work.config.use_moe for work in works) and any(work.gradient_checkpointing for work in works)


def test_steps_of_the_set_are_short():
    """A minute has to be enough: about a TFLOP in all, in steps of comparable size."""
    sizes = [sum(one.flops * one.runs for one in products(work)) for work in calibration_works()]
    assert sum(sizes) < 4e11 and max(sizes) < 5e10


def test_a_calibration_is_fitted_on_the_median_steps(monkeypatch):
    monkeypatch.setattr(measure, "time_steps", fake_times)
    found = calibrate(dtypes=("float32",), threads=1)
    assert len(found.rows) == len(calibration_works(dtypes=("float32",)))
    for row, timed in zip(found.rows, fake_times([row.workload for row in found.rows]), strict=True):
        assert row.seconds == timed.median and row.memory == 0
        assert predict(row.workload, found.speed).mid == pytest.approx(timed.median, rel=0.01)
    assert found.threads == 1 and found.machine == found.speed.name and found.date in found.speed.source


def test_a_calibration_is_kept_for_its_machine_and_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path))
    assert load_calibration() is None
    rows = tuple(
        row_for(one, one.least, 3, machine="My CPU @ 3 GHz") for one in fake_times(calibration_works())
    )
    found = Calibration(rows, fit_speed(rows, "My CPU @ 3 GHz"))
    path = save_calibration(found)
    assert path.parent == tmp_path / "calibration" and [path] == list(path.parent.iterdir())
    kept = load_calibration("My CPU @ 3 GHz", 3)
    assert kept.speed == found.speed and len(kept.rows) == len(rows)
    assert load_calibration("My CPU @ 3 GHz", 2) is None and load_calibration("Another", 3) is None
    for damage in ("", "{}", '{"speed": 1, "rows": []}', path.read_text(encoding="utf-8")[:500]):
        path.write_text(damage, encoding="utf-8")
        assert load_calibration("My CPU @ 3 GHz", 3) is None


def test_what_the_machine_can_do_at_best():
    found = machine_peak(seconds=0.02)
    assert set(found) == {"float32", "bfloat16", "bandwidth"}
    assert all(value > 1e8 for value in found.values())
    # No matrix product is faster than the best of large ones by much.
    left = torch.randn(512, 512)
    import time

    started = time.perf_counter()
    left @ left
    assert 2 * 512**3 / (time.perf_counter() - started) < 3 * found["float32"]


def test_on_a_gpu_the_card_is_waited_for_and_asked(monkeypatch):
    """No GPU here: the calls that such a run makes are watched."""
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("wait"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share: calls.append(share))
    work = SMALL.replace(device="cuda")
    measure._wait(work)
    measure._wait(SMALL)
    assert calls == ["wait"] and measure._peak_memory(work) == 7
    assert row_for(Timed(work, (1.0,)), 1.0, threads=8).threads == 1

    class Pipe:
        """Asks for one turn of the only workload, then for the memory."""

        asked, answers = [0, None], []

        def send(self, answer):
            self.answers.append(answer)

        def recv(self):
            return self.asked.pop(0)

    calls.clear()
    # The step itself runs on the CPU, since the model is built there; the rest goes the way of a card.
    from minimind_edu.hardware import steps

    built = steps.real_step(SMALL)
    monkeypatch.setattr(steps, "real_step", lambda work: built)
    measure._work([work], 1, 0.25, Pipe())
    assert calls == [0.25] + ["wait"] * 2 * measure.STEPS
    assert Pipe.answers[0] == 0 and len(Pipe.answers[1]) == measure.STEPS and Pipe.answers[2] == 7
