"""Processes killed at random moments and resumed end with the weights of one that was never killed.

The few kills here are a sample; ``MINIMIND_EDU_KILLS=20 pytest tests/training/test_killed.py`` makes 20.
"""

import json
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from minimind_edu.cli import main

KILLS = int(os.environ.get("MINIMIND_EDU_KILLS", "2"))
KILLS_A_RUN = 4  # then the run may finish; the next kills are another run's
SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 1, "max_seq_len": 32, "vocab_size": 300, "dropout": 0.1,
    "batch_size": 4, "accumulation_steps": 2, "max_steps": 60, "save_interval": 3, "eval_interval": 10,
    "log_interval": 1, "dtype": "float32", "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def data_path(tmp_path_factory):
    """Short documents of a few words, enough to make checking and tokenizing take a moment."""
    words = "the cat sat on a mat and 猫 saw 7 birds in the old tree by river".split()
    chosen = random.Random(1)
    path = tmp_path_factory.mktemp("data") / "small.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(800):
            text = " ".join(chosen.choices(words, k=chosen.randint(4, 30)))
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path


def command(data_path, folder):
    """A pretraining run into ``folder/run`` with a cache of its own: filling it is interrupted too."""
    options = SHAPE | {"data_path": data_path, "out_dir": folder / "run", "cache_dir": folder / "cache"}
    return ["pretrain", *(f"--{name}={value}" for name, value in options.items())]


def start(words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "minimind_edu.cli", *words],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def final_weights(folder):
    return (folder / "run" / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unkilled(data_path, tmp_path_factory):
    """The weights of a run that nothing happened to, and the seconds it took."""
    folder, started = tmp_path_factory.mktemp("unkilled"), time.perf_counter()
    process = start(command(data_path, folder))
    assert process.wait(timeout=200) == 0, process.stderr.read()
    return final_weights(folder), time.perf_counter() - started


@pytest.mark.parametrize("number", range(math.ceil(KILLS / KILLS_A_RUN)))
def test_killed_at_random_moments(data_path, unkilled, tmp_path, number):
    expected, seconds = unkilled
    words = [*command(data_path, tmp_path), "--from_resume=1"]
    moments = random.Random(number)
    killed = 0
    while killed < min(KILLS_A_RUN, KILLS - number * KILLS_A_RUN):
        process = start(words)
        try:
            code = process.wait(timeout=moments.triangular(0.05, 1.0, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            continue
        assert code == 0, process.stderr.read()
        assert final_weights(tmp_path) == expected
        shutil.rmtree(tmp_path / "run")  # it finished before the kill: once more from the start
    assert main(words) == 0
    assert final_weights(tmp_path) == expected
    run = tmp_path / "run"
    assert not list(run.rglob("*.tmp"))
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 61)) and steps == sorted(steps)


def wait_for_steps(folder, count, process):
    metrics = folder / "run" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.skipif(os.name == "nt", reason="signals to process groups are a Unix thing")
@pytest.mark.parametrize(("kind", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_interrupted_and_resumed_as_the_message_says(data_path, unkilled, tmp_path, kind, workers):
    """The signal goes to the whole group, data workers included, as a terminal's Ctrl-C does."""
    process = start([*command(data_path, tmp_path), f"--num_workers={workers}"], start_new_session=True)
    wait_for_steps(tmp_path, 8, process)
    os.killpg(process.pid, kind)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors, errors
    message = errors.strip().splitlines()[-1]
    assert "stopped after step" in message and "of 60; the state is saved" in message
    _, _, advice = message.partition("To go on: minimind-edu ")
    assert main(shlex.split(advice)) == 0
    assert final_weights(tmp_path) == unkilled[0]
