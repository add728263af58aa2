"""`minimind-edu bench`: what it runs, what it says, and what it refuses before it starts."""

import json

import pytest

from minimind_edu import cli
from minimind_edu.commands import bench as command
from minimind_edu.commands.bench import BenchCommandConfig, calibration_report, comparison, rates, run_bench
from minimind_edu.config import ModelConfig
from minimind_edu.hardware import measure
from minimind_edu.hardware.measure import Timed, calibrate, load_calibration, row_for
from minimind_edu.hardware.rows import row_of
from minimind_edu.hardware.speed import BenchResult
from minimind_edu.hardware.timing import Speed, amounts
from minimind_edu.hardware.workload import Workload

TINY = [
    "--preset",
    "qwen3-tiny",
    "--batch_size",
    "1",
    "--max_seq_len",
    "16",
    "--rounds",
    "1",
    "--device",
    "cpu",
]


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Times that follow from the amounts of work, at once; the machine can be slowed down by a factor."""
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path / "cache"))
    pace = {"factor": 1.0}

    def times(works, rounds=1, threads=0, fraction=None, progress=lambda done, total: None):
        progress(len(works), len(works))
        total = [pace["factor"] * sum(1e-9 * one for one in amounts(work).values()) for work in works]
        return [Timed(work, (seconds,), 10**9) for work, seconds in zip(works, total, strict=True)]

    monkeypatch.setattr(measure, "time_steps", times)
    return pace


def printed_rows(text: str):
    return [row_of(json.loads(line)) for line in text.splitlines() if line.startswith("{")]


def test_one_workload_is_really_measured_and_compared(capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    assert cli.main(["bench", *TINY, "--rows_path", str(path), "--held_out"]) == 0
    out = capsys.readouterr().out
    (row,) = printed_rows(out)
    assert row.workload.seq_len == 16 and row.workload.config == ModelConfig.preset("qwen3-tiny")
    assert row.purpose == "held-out" and path.read_text(encoding="utf-8").strip() in out
    assert "measured" in out and "tokens/s" in out and "memory" in out


def test_alone_it_measures_the_machine_and_corrects_the_estimates(quick, capsys):
    assert load_calibration() is None
    run_bench(BenchCommandConfig(dtype="float32", device="cpu"))
    out = capsys.readouterr().out
    kept = load_calibration()
    assert len(printed_rows(out)) == len(kept.rows) and {row.workload.dtype for row in kept.rows} == {
        "float32"
    }
    assert "products float32" in out and "1.0 GFLOP/s" in out
    quick["factor"] = 2.0  # the same machine, slowed down: the estimates so far are half of the truth
    run_bench(BenchCommandConfig(dtype="float32", device="cpu"))
    out = capsys.readouterr().out
    assert "a calibration of this machine" in out and "missed these rows by 50%" in out
    assert load_calibration().speed.costs["products float32"] == pytest.approx(2e-9, rel=0.01)
    work = Workload(ModelConfig(), batch_size=4, seq_len=64)
    row = row_for(Timed(work, (0.25,), 2 * 1024**3), 0.25)
    lines = comparison(row)
    assert "250 ms" in lines[1] and "calibration" in lines[1]
    assert f"{4 * 64 / 0.25:,.0f}" in lines[2] and "2.0 GB" in lines[3]


def test_rates_are_in_units_of_data_sheets():
    costs = {"products float32": 2e-11, "elementwise": 1e-10, "calls in training": 12e-6, "steps": 0.0}
    assert rates(Speed("x", costs, 0.9, 1.1, 0.05, 8)) == {
        "calls in training": "12.0 microseconds each",
        "elementwise": "10.0 GB/s",
        "products float32": "50.0 GFLOP/s",
    }


def test_the_report_tells_how_good_the_fit_is(quick):
    found = calibrate(dtypes=("float32",), threads=1)
    lines = calibration_report(found, "and before")
    assert "1 thread," in lines[0] and "missed by 0% (median)" in lines[-2] and lines[-1] == "and before"


def test_the_contest_gets_its_settings(monkeypatch, capsys):
    asked = []

    def contest(config, report):
        asked.append(config)
        return BenchResult(config, {})

    monkeypatch.setattr(command, "bench", contest)
    assert cli.main(["bench", "--vs", "transformers", "--batch_size", "3", "--device", "cpu"]) == 0
    (config,) = asked
    assert (config.preset, config.batch_size, config.max_seq_len, config.rounds) == ("edu", 3, 256, 5)
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "gpt-5"], "no preset is called 'gpt-5'"),
        (["--batch_size", "4"], "batch_size is of use only with a --preset"),
        (["--stage", "dpo"], "stage is of use only with a --preset"),
        (["--preset", "edu", "--batch_size", "-1"], "batch_size must be 1 or more"),
        (["--preset", "edu", "--max_seq_len", "1"], "max_seq_len must be 2 or more"),
        (["--preset", "edu", "--accumulation_steps", "0"], "accumulation_steps must be 1 or more"),
        (["--preset", "edu", "--gradient_checkpointing", "2"], "gradient_checkpointing must be 0 or 1"),
        (["--preset", "edu", "--fraction", "0"], "fraction is a share"),
        (["--preset", "edu", "--dtype", "float16", "--device", "cpu"], "float16 trains on a GPU only"),
        (["--rounds", "-3"], "rounds must be 1 or more"),
        (["--rows_path", "/nowhere/at/all.jsonl"], "there is no such folder"),
        (["--vs", "transformers", "--steps", "0"], "steps must be 1 or more"),
    ],
)
def test_senseless_settings_are_refused_before_a_process_starts(options, message, monkeypatch, capsys):
    for name in ("measure_step", "calibrate", "bench"):
        monkeypatch.setattr(command, name, lambda *_, **__: pytest.fail("work was begun"))
    assert cli.main(["bench", *options]) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_the_measuring_process_and_keeps_the_old_calibration(quick, monkeypatch, capsys):
    run_bench(BenchCommandConfig(dtype="float32", device="cpu"))
    before = load_calibration()
    monkeypatch.setattr(measure, "time_steps", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["bench", "--dtype", "float32", "--device", "cpu"]) == 130
    assert load_calibration() == before and "interrupted" in capsys.readouterr().err
