"""Chapter 10: the peak memory of training steps of every kind, each measured in a process of its own.

Predictions are not recorded: the chapter makes them anew and compares, so that it fails if the memory model
becomes worse.
"""

from typing import Any

from minimind_edu.config import ModelConfig
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.hardware import Workload
from minimind_edu.hardware.memory import memory
from minimind_edu.hardware.peak import measure_memory

PLAIN = {
    "preset": "edu", "stage": "pretrain", "batch_size": 16, "seq_len": 256, "dtype": "float32",
    "optimizer": "adamw", "gradient_checkpointing": False,
}  # fmt: skip
SHORT = {"batch_size": 2, "seq_len": 128}
STAGES = ("sft", "lora", "dpo", "distill", "reason", "grpo")
CHECKPOINTED = PLAIN | {"batch_size": 64, "gradient_checkpointing": True}

CELLS = [
    PLAIN,
    PLAIN | {"dtype": "bfloat16"},
    PLAIN | {"optimizer": "muon"},
    PLAIN | {"gradient_checkpointing": True},
    PLAIN | {"batch_size": 64},
    CHECKPOINTED,
    PLAIN | {"batch_size": 4, "seq_len": 1024},
    PLAIN | {"batch_size": 1, "seq_len": 1024, "dtype": "bfloat16"},
    *(PLAIN | {"stage": stage} for stage in STAGES),
    PLAIN | {"preset": "edu-moe"},
    PLAIN | {"preset": "qwen3-small", "dtype": "bfloat16"},
    PLAIN | {"preset": "qwen3-medium", "batch_size": 8},
    PLAIN | {"preset": "minimind2-small", "batch_size": 4},
    PLAIN | {"preset": "minimind2-small", "batch_size": 8, "dtype": "bfloat16"},
    PLAIN | {"preset": "minimind2-small", "batch_size": 8, "gradient_checkpointing": True},
    PLAIN | {"preset": "minimind2-small", "stage": "lora"} | SHORT,
    PLAIN | {"preset": "minimind2-small", "stage": "dpo"} | SHORT,
    PLAIN | {"preset": "minimind-3", "optimizer": "muon"} | SHORT,
    PLAIN | {"preset": "minimind2"} | SHORT,
]


def run_cell(**settings: Any) -> dict[str, Any]:
    """Bytes of a fresh process that takes three steps on one thread: at its peak, and before the model.

    Where a step is checkpointed, the holes between tensors differ from run to run: three processes, of which
    the middle one counts as the peak.
    """
    runs = [
        measure_memory(workload(**settings)) for _ in range(3 if settings["gradient_checkpointing"] else 1)
    ]
    peaks = sorted(run.peak for run in runs)
    return {"peak": peaks[len(peaks) // 2], "peaks": peaks, "before": runs[0].before}


def workload(preset: str, **settings: Any) -> Workload:
    """The step that a cell describes."""
    return Workload(ModelConfig.preset(preset), **settings)


def predicted(settings: dict[str, Any], before: int) -> int:
    """The memory model's peak for a cell, in bytes, given what the process had before."""
    return memory(workload(**settings), framework=before).total


def pairs(record: SweepRecord) -> dict[str, list[tuple[float, float]]]:
    """(measured, predicted) peaks in MB of every process of all cells, by what a cell is about."""
    found: dict[str, list[tuple[float, float]]] = {}
    for settings, numbers in record.cells:
        kind = "other stages" if settings["stage"] != "pretrain" else "pretraining"
        kind = "checkpointed" if settings["gradient_checkpointing"] else kind
        expected = predicted(settings, numbers["before"]) / 1e6
        found.setdefault(kind, []).extend((peak / 1e6, expected) for peak in numbers["peaks"])
    return found
