"""``minimind-edu bench``: measure this machine, one workload on it, or the contest with transformers."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.cards import in_words, this_machine
from minimind_edu.hardware.measure import (
    Calibration,
    calibrate,
    measure_step,
    save_calibration,
)
from minimind_edu.hardware.memory import memory
from minimind_edu.hardware.rows import MeasuredRow
from minimind_edu.hardware.speed import BenchConfig, bench
from minimind_edu.hardware.speeds import step_time
from minimind_edu.hardware.timing import Speed
from minimind_edu.hardware.workload import Workload
from minimind_edu.stages.pretrain import PretrainConfig
from minimind_edu.training.precision import resolve_device, resolve_precision

CONTEST = "edu"  # preset of the contest, where none is named


@dataclass
class BenchCommandConfig:
    """Measure this machine. Alone: in about a minute, what it costs to train on it, which corrects all
    estimates. With a preset: one step of that shape, beside its estimate. With vs: against another library.

    Args:
        preset: shape of the model; empty measures the machine with a set of small ones.
        stage: what is trained.
        vs: train the same shape in another library, alternating with ours.
        batch_size: rows in a batch; 0 takes 32.
        max_seq_len: tokens in a row; 0 takes 256.
        accumulation_steps: forward passes in a step.
        optimizer: adamw or muon.
        gradient_checkpointing: 1 computes activations anew in the backward pass.
        steps: steps in a round of the contest.
        rounds: rounds; in each, every workload or contestant has its turn. 0 takes 5, for the machine 4.
        dtype: number format; auto as in training. The machine is measured in float32 and in what auto takes.
        device: auto, cpu, cuda, cuda:1, mps.
        fraction: share of a GPU's memory that may be used, to try what a smaller card would do.
        rows_path: a file that the measured rows are added to, besides being printed.
        held_out: mark the rows as ones that no estimate may be fitted on.
    """

    preset: str = ""
    stage: Literal["pretrain", "sft", "lora", "dpo", "distill", "reason", "grpo"] = "pretrain"
    vs: Literal["none", "transformers"] = "none"
    batch_size: int = 0
    max_seq_len: int = 0
    accumulation_steps: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    gradient_checkpointing: int = 0
    steps: int = 8
    rounds: int = 0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    fraction: float = 1.0
    rows_path: str = ""
    held_out: bool = False

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        for name in ("batch_size", "max_seq_len", "rounds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 1 or more (0 for the default), not {getattr(self, name)}")
        for name in ("accumulation_steps", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.max_seq_len == 1:
            raise ValueError("max_seq_len must be 2 or more, not 1")
        if self.gradient_checkpointing not in (0, 1):
            raise ValueError(f"gradient_checkpointing must be 0 or 1, not {self.gradient_checkpointing}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is a share of the memory, above 0 and at most 1, not {self.fraction}")
        if self.preset:
            ModelConfig.preset(self.preset)
        elif self.vs == "none":
            alone = BenchCommandConfig()
            for name in ("batch_size", "max_seq_len", "stage", "accumulation_steps", "optimizer",
                         "gradient_checkpointing", "fraction"):  # fmt: skip
                if getattr(self, name) != getattr(alone, name):
                    raise ValueError(
                        f"{name} is of use only with a --preset: without, the machine is measured"
                    )
        if self.rows_path and not Path(self.rows_path).absolute().parent.is_dir():
            raise ValueError(f"{self.rows_path}: there is no such folder")


def run_bench(config: BenchCommandConfig) -> None:
    config.validate()
    device = resolve_device(config.device)
    precision = resolve_precision(config.dtype, device)
    if config.vs != "none":
        _contest(config)
        return
    if device.type == "mps":
        raise ValueError("on mps only the contest runs: add --vs transformers, or --device cpu")
    if device.type == "cuda" and device.index:
        raise ValueError("only the first card is measured: set CUDA_VISIBLE_DEVICES to choose another")
    dtype = str(precision.dtype).removeprefix("torch.")
    if config.preset:
        _one(config, device.type, dtype)
    else:
        _machine(config, device.type, dtype)


def _contest(config: BenchCommandConfig) -> None:
    settings = BenchConfig(
        preset=config.preset or CONTEST,
        vs=config.vs,
        batch_size=config.batch_size or PretrainConfig.batch_size,
        max_seq_len=config.max_seq_len or PretrainConfig.max_seq_len,
        steps=config.steps,
        rounds=config.rounds or BenchConfig.rounds,
        dtype=config.dtype,
        device=config.device,
    )
    result = bench(settings, report=lambda line: print(line, flush=True))
    print(result.summary())


class _Bar:
    """A progress bar that is moved to (done, total)."""

    def __init__(self, description: str) -> None:
        self.bar = tqdm(desc=description, unit="turn")

    def __call__(self, done: int, total: int) -> None:
        self.bar.total = total
        self.bar.update(done - self.bar.n)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


# -- one workload ------------------------------------------------------------------------------------------


def _one(config: BenchCommandConfig, device: str, dtype: str) -> None:
    shape = ModelConfig.preset(config.preset)
    length = config.max_seq_len or PretrainConfig.max_seq_len
    if length > shape.max_position_embeddings:
        shape = shape.replace(max_position_embeddings=length)  # as the training commands do
    work = Workload(
        shape,
        config.stage,
        batch_size=config.batch_size or PretrainConfig.batch_size,
        seq_len=length,
        dtype=dtype,
        device=device,
        optimizer=config.optimizer,
        gradient_checkpointing=bool(config.gradient_checkpointing),
        accumulation_steps=config.accumulation_steps,
    )
    fraction = config.fraction if device == "cuda" and config.fraction < 1 else None
    with _Bar("measuring") as bar:
        row = measure_step(work, config.rounds or 5, 0, fraction, bar)
    print("\n".join(comparison(row)))
    _give([row], config)


def comparison(row: MeasuredRow) -> list[str]:
    """A table of what was measured and what was expected."""
    work = row.workload
    lines = [
        f"{'':10}{'measured':>16}{'estimated':>16}",
        f"{'step':10}{_time(row.seconds):>16}",
        f"{'tokens/s':10}{work.tokens * work.accumulation_steps / row.seconds:>16,.0f}",
    ]
    known = step_time(work, this_machine())
    if known is None:
        lines.append("for an estimate of the time run `minimind-edu bench` once without a preset")
    else:
        seconds, source = known
        lines[1] += f"{_time(seconds.mid):>16}   {_time(seconds.low)} to {_time(seconds.high)}, {source.text}"
        lines[2] += f"{work.tokens * work.accumulation_steps / seconds.mid:>16,.0f}"
    if row.memory:
        expected = memory(work).total
        lines.append(f"{'memory':10}{in_words(row.memory):>16}{in_words(expected):>16}")
    return lines


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


# -- the machine -------------------------------------------------------------------------------------------


def _machine(config: BenchCommandConfig, device: str, dtype: str) -> None:
    with _Bar("measuring this machine") as bar:
        found = calibrate(device, sorted({"float32", dtype}), config.rounds or 4, 0, bar)
    print("\n".join(calibration_report(found, before_this(found))))
    path = save_calibration(found)
    print(f"Estimates for this machine now rest on these rows ({path}). The rows, to contribute them:")
    _give(found.rows, config)


def before_this(found: Calibration) -> str:
    """By how much the estimates that were in force so far miss the rows; empty where there were none."""
    known = [step_time(row.workload, this_machine()) for row in found.rows]
    pairs = [(one, row) for one, row in zip(known, found.rows, strict=True) if one is not None]
    if not pairs:
        return ""
    missed = statistics.median(abs(one[0].mid / row.seconds - 1) for one, row in pairs)
    return f"Until now, estimates rested on {pairs[0][0][1].text}: they missed these rows by {missed:.0%}."


def calibration_report(found: Calibration, before: str = "") -> list[str]:
    """What a calibration says, in words."""
    speed = found.speed
    lines = [f"{found.machine}, {found.threads} thread{'s' * (found.threads > 1)}, {speed.source}"]
    lines += [f"  {name:26}{value:>20}" for name, value in rates(speed).items()]
    lines.append(
        f"Each row, predicted from the others, is missed by {speed.error:.0%} (median). The range of an "
        f"estimate is {speed.low:.2f} to {speed.high:.2f} times its middle."
    )
    return [*lines, before] if before else lines


def rates(speed: Speed) -> dict[str, str]:
    """The fitted costs as rates that can be compared with a data sheet."""
    units = {"products": "FLOP/s", "attention": "FLOP/s", "fused": "FLOP/s"}
    found = {}
    for kind, cost in sorted(speed.costs.items()):
        if not cost:
            continue  # what a fit gives no cost is contained in the others
        if kind.startswith(("calls", "new")) or kind == "steps":
            found[kind] = f"{cost * 1e6:,.1f} microseconds each"
        else:
            found[kind] = f"{1e-9 / cost:,.1f} G{units.get(kind.split()[0], 'B/s')}"
    return found


def _give(rows: Iterable[MeasuredRow], config: BenchCommandConfig) -> None:
    """Print rows as lines of JSON, and add them to a file if one is named."""
    purpose = "held-out" if config.held_out else "fit"
    lines = [MeasuredRow(**{**vars(row), "purpose": purpose}).to_json() for row in rows]
    print("\n".join(lines))
    if config.rows_path:
        with open(config.rows_path, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
