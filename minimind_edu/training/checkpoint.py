"""Checkpoints that survive a pulled plug: whole or not there at all, checked before they are used.

A checkpoint is a folder. It is written beside its final place, every file is flushed to disk, a manifest
with the size and SHA-256 of each file is added, and only then is the folder renamed: a rename either happens
or it does not. Tensors are stored as safetensors and everything else as JSON, so loading runs no code.
"""

import hashlib
import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from minimind_edu.training.optim import OptimizerSet

MANIFEST = "manifest.json"
CONTENTS = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "trainer.json")


@dataclass(frozen=True)
class Position:
    """Where a run stands: all counts are of what is already done.

    Attributes:
        step: optimizer steps.
        epoch: whole passes over the data.
        batch: forward passes within the current epoch.
        tokens: labelled tokens trained on.
        skipped: batches left out because they had no labelled token.
        seconds: time spent training, over all sittings.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which and why."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizers: OptimizerSet,
    scaler: torch.amp.GradScaler,
    position: Position,
    identity: dict[str, object],
    keep: int,
) -> Path:
    """Write ``folder/step-N`` and delete all but the newest ``keep`` checkpoints.

    Args:
        identity: what must be the same for a run to be continued; ``load_checkpoint`` compares it.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{position.step:08d}"
    beside = folder / f".{final.name}.{os.getpid()}.tmp"
    for leftover in folder.glob(".step-*.tmp"):  # from a run that was killed while it wrote
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir()
    trainer = {
        "position": vars(position),
        "identity": identity,
        "python_random": _python_random_state(),
        "scaler": scaler.state_dict(),
    }
    try:
        # A tied head is one tensor with two names; safetensors wants each tensor once.
        save_file(_unshared(model.state_dict()), beside / "model.safetensors")
        save_file(_unshared(optimizers.state_tensors()), beside / "optimizer.safetensors")
        save_file(_random_state_tensors(), beside / "random.safetensors")
        (beside / "trainer.json").write_text(json.dumps(trainer, indent=1), encoding="utf-8")
        manifest = {name: _describe(beside / name) for name in CONTENTS}
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in beside.iterdir():
            _flush_to_disk(path)
        _flush_to_disk(beside)
        if final.exists():  # a damaged one of the same step, from before a resume
            shutil.rmtree(final)
        os.rename(beside, final)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{final}: cannot be written ({error}); earlier ones are whole") from error
    finally:  # on a full disk half a checkpoint would only take more room
        shutil.rmtree(beside, ignore_errors=True)
    _flush_to_disk(folder)
    # Later ones are damaged, or the run would have gone on from them; they must not count as the newest.
    later = [path for path in checkpoints(folder) if path.name > final.name]
    for old in later + checkpoints(folder)[len(later) :][keep:]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, newest first, whole or damaged."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint on disk, or None where it is whole."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        for name in CONTENTS:
            if _describe(checkpoint / name) != manifest[name]:
                return f"{name} is not what was written"
    except KeyError as error:
        return f"{MANIFEST} does not list {error}"
    except (OSError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def newest_good_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and a line about each damaged one that was passed over.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    reports = []
    for path in checkpoints(folder):
        fault = damage(path)
        if fault is None:
            return path, reports
        reports.append(f"{path.name} is damaged ({fault}); trying the one before it")
    if reports:
        raise CheckpointError(f"no usable checkpoint in {folder}: {'; '.join(reports)}")
    return None, reports


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizers: OptimizerSet,
    scaler: torch.amp.GradScaler,
    identity: dict[str, object],
) -> Position:
    """Restore everything that ``save_checkpoint`` wrote, random states included.

    Raises:
        CheckpointError: the checkpoint belongs to a run with other settings, data or model.
    """
    trainer = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
    before = trainer["identity"]
    different = [
        f"{key} was {before.get(key)!r} and is now {identity.get(key)!r}"
        for key in sorted({*before, *identity})
        if before.get(key) != identity.get(key)
    ]
    if different:
        raise CheckpointError(f"{path} belongs to another run: {'; '.join(different)}")
    device = next(model.parameters()).device
    weights = load_file(path / "model.safetensors", device=str(device))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    # Names that share a tensor with one that was loaded are not missing.
    state = model.state_dict()
    loaded = {state[name].data_ptr() for name in weights if name in state}
    missing = [name for name in missing if state[name].data_ptr() not in loaded]
    if missing or unexpected:
        raise CheckpointError(f"{path}: missing tensors {missing}, unexpected tensors {unexpected}")
    optimizers.load_state_tensors(load_file(path / "optimizer.safetensors"))
    if trainer["scaler"]:
        scaler.load_state_dict(trainer["scaler"])
    _restore_random_states(load_file(path / "random.safetensors"), trainer["python_random"])
    return Position(**trainer["position"])


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each storage once, under its first name, contiguous."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.detach().contiguous()
    return kept


def _random_state_tensors() -> dict[str, torch.Tensor]:
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "numpy_keys": torch.from_numpy(keys.astype(np.int64)),
        "numpy_rest": torch.tensor([place, has_gauss, gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _python_random_state() -> list[object]:
    version, numbers, gauss = random.getstate()
    return [version, list(numbers), gauss]


def _restore_random_states(states: dict[str, torch.Tensor], python_state: list[object]) -> None:
    version, numbers, gauss = python_state
    random.setstate((version, tuple(numbers), gauss))
    place, has_gauss, numpy_gauss = states["numpy_rest"].tolist()
    keys = states["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(place), int(has_gauss), numpy_gauss))
    torch.set_rng_state(states["torch"])
    cuda = [states[f"cuda{i}"] for i in range(sum(name.startswith("cuda") for name in states))]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda[: torch.cuda.device_count()])


def _describe(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush_to_disk(path: Path) -> None:
    """fsync a file or, where the system allows it, a folder (the rename is an entry in its folder)."""
    try:
        # Windows flushes only what is open for writing.
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # Windows cannot open a folder
        return
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)
