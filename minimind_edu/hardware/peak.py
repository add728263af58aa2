"""The memory that a step really needed, measured in a process of its own."""

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.cache import cached_folder
from minimind_edu.hardware.workload import Workload

CUDA_CONTEXT = 500 << 20
"""Bytes that a process takes on a GPU before its first tensor: the driver's context and the loaded kernels.
Reported values run from about 300 to 800 MB, by card, driver and libraries; not measured by us. A run of
`measure_memory` on a GPU gives it: what `nvidia-smi` shows less `reserved`."""


USUAL_FRAMEWORK = 420 << 20  # bytes, where it cannot be measured: as on Linux with torch 2.13 for CPUs
FRAMEWORK_VERSION = 1  # raise it when our own imports change


@dataclass(frozen=True)
class MeasuredMemory:
    """Bytes of a process that took a few steps.

    Attributes:
        peak: the most that was resident (CPU: VmHWM), or reserved on the GPU.
        before: the most that was resident before the model was built, when a tiny step had been taken.
        allocated: GPU: the most bytes in tensors; 0 on a CPU.
        steps: how many were taken.
    """

    peak: int
    before: int
    allocated: int
    steps: int


def measure_memory(
    work: Workload, steps: int = 3, threads: int = 1, fraction: float | None = None
) -> MeasuredMemory:
    """Run a workload in a fresh process.

    Args:
        threads: of PyTorch, on a CPU.
        fraction: GPU: share of its memory that the process may use, to try what a smaller card would do.

    Raises:
        RuntimeError: the process failed; the message holds the end of what it said.
        ValueError: not on Linux, which tells a process its peak.
    """
    if work.device == "cpu" and not Path("/proc/self/status").exists():
        raise ValueError("the peak of a process is read from /proc, which only Linux has")
    values = dataclasses.asdict(work)
    request = {"work": values, "steps": steps, "threads": threads, "fraction": fraction}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _SCRIPT, json.dumps(request), folder]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"the measured process failed: {done.stderr.strip()[-2000:]}")
    return MeasuredMemory(**json.loads(done.stdout.splitlines()[-1]))


_SCRIPT = "from minimind_edu.hardware.peak import run_measured; run_measured()"


def run_measured() -> None:
    """What the fresh process does: the request is its first argument, the run's folder the second."""
    request, folder = json.loads(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(request["threads"])
    # Imported first, so that `before` has all the libraries and none of the tensors.
    from minimind_edu.hardware.steps import real_step
    from minimind_edu.training.memory import keep_freed_memory

    work = workload_of(request["work"])
    keep_freed_memory()
    if work.device == "cuda" and request["fraction"]:
        torch.cuda.set_per_process_memory_fraction(request["fraction"])
    # A tiny step first: it loads what a step needs of the libraries, and leaves no tensors worth counting.
    real_step(tiny(work), folder).take()
    before = resident("VmHWM")
    step = real_step(work, folder)
    for _ in range(request["steps"]):
        step.take()
    peak, allocated = resident("VmHWM"), 0
    if work.device == "cuda":
        peak, allocated = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    found = MeasuredMemory(peak, before, allocated, request["steps"])
    sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")


def workload_of(values: dict) -> Workload:
    """A workload from what `dataclasses.asdict` and JSON made of it."""
    values = dict(values)
    for name in ("config", "teacher"):
        if values[name] is not None:
            values[name] = ModelConfig.from_dict(values[name])
    return Workload(**values | {"targets": tuple(values["targets"])})


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}")


def tiny(work: Workload) -> Workload:
    """The smallest step of the same kind."""
    config = ModelConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        max_position_embeddings=64,
        use_moe=work.config.use_moe,
    )
    teacher = config if work.teacher else None
    small = {"batch_size": 2, "seq_len": 16, "accumulation_steps": 1, "new_tokens": 0, "rollout_rows": 0}
    return work.replace(config=config, teacher=teacher, labelled=0.5, **small)


def measured_framework(work: Workload) -> int:
    """Bytes that a process of ours takes on this machine before its model: interpreter and libraries.

    A tiny step in a fresh process tells (about five seconds), once for every set of versions: the user's
    cache keeps it. A loop without our stages, which import `datasets`, needs about 100 MB less. For a GPU it
    is `CUDA_CONTEXT`.
    """
    if work.device == "cuda":
        return CUDA_CONTEXT
    return _framework(work.dtype)


@lru_cache(maxsize=4)
def _framework(dtype: str) -> int:
    if not Path("/proc/self/status").exists():
        return USUAL_FRAMEWORK
    versions = (
        torch.__version__,
        platform.python_version(),
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
    )
    key = hashlib.sha256(repr((FRAMEWORK_VERSION, dtype, *versions)).encode()).hexdigest()[:16]

    def build(folder: Path) -> dict:
        work = tiny(Workload(ModelConfig(), dtype=dtype))
        return {"bytes": measure_memory(work, steps=1).before}

    return int(cached_folder(None, f"framework-{key}", build)[1]["bytes"])
