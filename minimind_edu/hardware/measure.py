"""Measuring steps: one workload, or in a minute a set of them that says what a machine costs.

Workloads run in a process of their own and take turns there, a few steps each: what disturbs a shared machine
for a while then disturbs all of them a little instead of one of them much. A workload's time is the median of
its steps.
"""

import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from minimind_edu.data.cache import default_cache_dir
from minimind_edu.hardware.calibration_set import calibration_works
from minimind_edu.hardware.cards import this_machine
from minimind_edu.hardware.rows import MeasuredRow, row_of
from minimind_edu.hardware.timing import Speed, fit_speed
from minimind_edu.hardware.workload import Workload

WARM_UP = 2  # steps before the first that counts: memory is asked for, caches fill
STEPS = 2  # in a turn
Progress = Callable[[int, int], None]  # called with (done, total)


@dataclass(frozen=True)
class Timed:
    """Steps of one workload: seconds of each, and the process's peak memory in bytes (0 if unknown)."""

    work: Workload
    steps: tuple[float, ...]
    memory: int = 0

    @property
    def least(self) -> float:
        """The shortest step."""
        return min(self.steps)

    @property
    def median(self) -> float:
        """The middle step."""
        return statistics.median(self.steps)


def time_steps(
    works: Sequence[Workload],
    rounds: int = 3,
    threads: int = 0,
    fraction: float | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Timed]:
    """Let workloads take turns in one fresh process.

    Args:
        rounds: how many turns each has, of `STEPS` steps.
        threads: of PyTorch, on a CPU; 0 means as here.
        fraction: of a GPU's memory that the process may use, to try what a smaller card would do.

    Returns:
        In the same order. The memory is that of the whole process, so it is a workload's own only where
        there is one.

    Raises:
        ValueError: the process failed, for example for lack of memory; the message says why.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, not {rounds}")
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    arguments = (list(works), threads or torch.get_num_threads(), fraction, theirs)
    process = context.Process(target=_work, args=arguments, daemon=True)
    process.start()
    theirs.close()
    found: list[list[float]] = [[] for _ in works]
    total = len(works) * (1 + rounds)
    try:
        for done, _ in enumerate(works, start=1):
            _receive(pipe)
            progress(done, total)
        for done, place in enumerate(list(range(len(works))) * rounds, start=len(works) + 1):
            pipe.send(place)
            found[place] += _receive(pipe)
            progress(done, total)
        pipe.send(None)
        memory = _receive(pipe)
    finally:
        process.terminate()
        process.join()
    return [Timed(work, tuple(steps), memory) for work, steps in zip(works, found, strict=True)]


def _receive(pipe: Connection) -> object:
    try:
        answer = pipe.recv()
    except EOFError:
        raise ValueError("the measuring process ended early; is there enough memory?") from None
    if isinstance(answer, str):
        raise ValueError(answer)
    return answer


def _work(works: list[Workload], threads: int, fraction: float | None, pipe: Connection) -> None:
    """What the process does: build all, then take steps of the one that is asked for."""
    from minimind_edu.hardware.steps import real_step
    from minimind_edu.training.memory import keep_freed_memory

    try:
        torch.set_num_threads(threads)
        keep_freed_memory()  # as ``fit`` does
        if fraction is not None:
            torch.cuda.set_per_process_memory_fraction(fraction)
        taken = []
        for work in works:
            taken.append(real_step(work))
            for _ in range(WARM_UP):
                taken[-1].take()
            pipe.send(0)
        while (place := pipe.recv()) is not None:
            step, seconds = taken[place], []
            for _ in range(STEPS):
                _wait(works[place])
                started = time.perf_counter()
                step.take()
                _wait(works[place])
                seconds.append(time.perf_counter() - started)
            pipe.send(seconds)
        pipe.send(_peak_memory(works[0]))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")


def _wait(work: Workload) -> None:
    """A GPU works on after its call returns."""
    if work.device == "cuda":
        torch.cuda.synchronize()


def _peak_memory(work: Workload) -> int:
    """Bytes: on a GPU the most that tensors had, on Linux the most that the process had, else 0."""
    if work.device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = [line.split() for line in status.read_text().splitlines()]
    return next((int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:"), 0)


def measure_step(
    work: Workload,
    rounds: int = 5,
    threads: int = 0,
    fraction: float | None = None,
    progress: Progress = lambda done, total: None,
) -> MeasuredRow:
    """A row for one workload: the median of its steps, and the peak memory of a process that does only this.

    Raises:
        ValueError: see ``time_steps``.
    """
    (timed,) = time_steps([work], rounds, threads, fraction, progress)
    return row_for(timed, timed.median, threads)


def row_for(timed: Timed, seconds: float, threads: int = 0, **changes: object) -> MeasuredRow:
    """What was measured, with date, versions and machine."""
    gpu = timed.work.device == "cuda"
    values = {
        "workload": timed.work,
        "seconds": seconds,
        "memory": timed.memory,
        "date": date.today().isoformat(),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "machine": this_machine().name,
        "threads": 1 if gpu else threads or torch.get_num_threads(),
        "command": shlex.join(["minimind-edu", *sys.argv[1:]]),
    }
    return MeasuredRow(**values | changes)


@dataclass(frozen=True)
class Calibration:
    """What a minute of measuring found out about a machine.

    Attributes:
        rows: one for each workload.
        speed: the costs fitted on them.
        date, machine, threads: as in the rows.
    """

    rows: tuple[MeasuredRow, ...]
    speed: Speed

    @property
    def date(self) -> str:
        """When its steps were measured."""
        return self.rows[0].date

    @property
    def machine(self) -> str:
        """Which machine it was."""
        return self.rows[0].machine

    @property
    def threads(self) -> int:
        """How many threads it had."""
        return self.rows[0].threads


def calibrate(
    device: str = "cpu",
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    rounds: int = 3,
    threads: int = 0,
    progress: Progress = lambda done, total: None,
) -> Calibration:
    """Measure this machine at the workloads of ``calibration_set``, and fit its costs. Nothing is saved.

    Raises:
        ValueError: see ``time_steps``.
    """
    works = calibration_works(device, dtypes)
    timed = time_steps(works, rounds, threads, None, progress)
    rows = tuple(row_for(replace(one, memory=0), one.median, threads) for one in timed)
    source = f"{len(rows)} workloads measured on {rows[0].date}"
    return Calibration(rows, fit_speed(rows, rows[0].machine, source))


def _file(machine: str, threads: int) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{machine} {threads}").lower()
    return default_cache_dir() / "calibration" / f"{name}.json"


def save_calibration(calibration: Calibration) -> Path:
    """Keep a calibration in the user's cache, in the place of an earlier one of this machine."""
    path = _file(calibration.machine, calibration.threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    values = {
        "speed": calibration.speed.to_dict(),
        "rows": [json.loads(row.to_json()) for row in calibration.rows],
    }
    temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)
    return path


def load_calibration(machine: str | None = None, threads: int = 0) -> Calibration | None:
    """What ``minimind-edu bench`` last found out about this machine; None if it was never run, or its file is
    damaged or of another version.

    Args:
        machine: its name; default this one's.
        threads: of PyTorch; 0 means as here. A GPU has 1.
    """
    card = this_machine()
    threads = threads or (1 if card.device == "cuda" else torch.get_num_threads())
    try:
        values = json.loads(_file(machine or card.name, threads).read_text(encoding="utf-8"))
        rows = tuple(row_of(row) for row in values["rows"])
        return Calibration(rows, Speed.from_dict(values["speed"])) if rows else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- what the machine can do at best -----------------------------------------------------------------------


def machine_peak(device: str = "cpu", seconds: float = 0.5) -> dict[str, float]:
    """The roof of the roofline: FLOP/s of large matrix products by dtype, and ``bandwidth`` in bytes/s.

    Both are the best of many tries, with as many threads as PyTorch has here. A copy reads and writes.

    Args:
        seconds: spent on each number.
    """
    size, length = (1024, 1 << 26) if device == "cpu" else (8192, 1 << 30)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        fastest = _fastest(lambda left=left, right=right: left @ right, device, seconds)
        found[str(dtype).removeprefix("torch.")] = 2 * size**3 / fastest
    source = torch.zeros(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found["bandwidth"] = 2 * length / _fastest(lambda: target.copy_(source), device, seconds)
    return found


def _fastest(call: Callable[[], object], device: str, seconds: float) -> float:
    call()
    best, ends = float("inf"), time.perf_counter() + seconds
    for number in itertools.count():
        if number >= 3 and time.perf_counter() > ends:
            return best
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
