"""Checkpoints: whole or absent, checked before use, and never lost to a full disk."""

import json
import os
import random

import numpy as np
import pytest
import torch
from toys import CallCounter, ToyRows, settings, tiny_model, train, weights

from minimind_edu.training import CheckpointError, checkpoint
from minimind_edu.training.checkpoint import (
    Position,
    checkpoints,
    damage,
    load_checkpoint,
    newest_good_checkpoint,
    save_checkpoint,
)
from minimind_edu.training.optim import OptimizerSet

FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "trainer.json", "manifest.json")


@pytest.fixture
def run(tmp_path):
    """A run of four steps with a checkpoint after each, the last two of which are kept."""
    whole, _ = train(tmp_path, rows=ToyRows(8), save_interval=1)
    return tmp_path, weights(whole)


def flip_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 0x10
    path.write_bytes(bytes(content))


HURTS = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut by one byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "all zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "first byte flipped": lambda path: flip_byte(path, 0),
    "a middle byte flipped": lambda path: flip_byte(path, path.stat().st_size // 2),
    "last byte flipped": lambda path: flip_byte(path, -1),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("hurt", HURTS)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(run, name, hurt):
    out_dir, expected = run
    newest, before = checkpoints(out_dir / "checkpoints")
    if name == "manifest.json" and hurt == "longer":
        pytest.skip("white space after the manifest's JSON would be no damage")
    HURTS[hurt](newest / name)
    assert damage(newest) and damage(before) is None
    resumed, result = train(out_dir, rows=ToyRows(8), from_resume=1)
    assert torch.equal(weights(resumed), expected)
    (report,) = result.warnings
    assert "step-00000004 is damaged" in report and "the one before it" in report
    assert damage(newest) is None, "the same step was saved anew"


def test_any_flipped_byte_of_the_tensors_is_found(run):
    newest = checkpoints(run[0] / "checkpoints")[0]
    places = np.random.default_rng(0)
    for name in FILES[:-1]:
        whole = (newest / name).read_bytes()
        for place in places.integers(0, len(whole), 20).tolist():
            flip_byte(newest / name, place)
            assert damage(newest) == f"{name} is not what was written"
            (newest / name).write_bytes(whole)
    assert damage(newest) is None


@pytest.mark.parametrize(
    "manifest", ["{}", "[]", "null", "7", '"x"', '{"model.safetensors": 3}', "{", "\udc00"]
)
def test_a_manifest_that_says_nothing_proves_nothing(run, manifest):
    newest = checkpoints(run[0] / "checkpoints")[0]
    (newest / "manifest.json").write_bytes(manifest.encode("utf-8", "surrogatepass"))
    assert damage(newest)


def test_all_damaged(run):
    out_dir, _ = run
    for path in checkpoints(out_dir / "checkpoints"):
        (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no usable checkpoint.*step-00000004.*step-00000003"):
        train(out_dir, rows=ToyRows(8), from_resume=1)
    assert len(checkpoints(out_dir / "checkpoints")) == 2, "nothing is thrown away"
    train(out_dir, rows=ToyRows(8), overwrite=1)


def test_a_checkpoint_saved_after_damage_is_kept(tmp_path):
    """A damaged checkpoint of a later step must not push a whole one out."""
    train(tmp_path, rows=ToyRows(12), save_interval=4)
    newest = checkpoints(tmp_path / "checkpoints")[0]
    assert newest.name == "step-00000006"
    (newest / "trainer.json").unlink()
    stop = CallCounter(2, lambda loss: loss * float("nan"))  # ends the run right after the next save
    with pytest.raises(RuntimeError):
        train(tmp_path, rows=ToyRows(12), save_interval=1, keep_checkpoints=1, from_resume=1, loss=stop)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000005"]


def test_only_the_newest_are_kept(tmp_path):
    for keep in (1, 3):
        train(tmp_path / str(keep), rows=ToyRows(12), save_interval=1, keep_checkpoints=keep)
        names = [path.name for path in checkpoints(tmp_path / str(keep) / "checkpoints")]
        assert names == [f"step-{6 - back:08d}" for back in range(keep)]


def test_nothing_there(tmp_path):
    assert newest_good_checkpoint(tmp_path / "nowhere") == (None, []) and checkpoints(tmp_path) == []


# --- a disk that fills up ---


@pytest.mark.parametrize("failing", FILES)
def test_a_full_disk_leaves_the_older_checkpoint(run, monkeypatch, failing):
    """Writing fails at one of the five files: no half checkpoint, no leftover, and the run goes on later."""
    out_dir, _ = run
    whole, _ = train(out_dir / "whole", rows=ToyRows(8), epochs=2, save_interval=1)
    real_save, real_write = checkpoint.save_file, type(out_dir).write_text

    def save(tensors, path):
        if path.name == failing and "step-00000003" in str(path):
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device", str(path))
        real_save(tensors, path)

    def write(path, text, **options):
        if path.name == failing and "step-00000003" in str(path):
            real_write(path, text[: len(text) // 2], **options)
            raise OSError(28, "No space left on device", str(path))
        return real_write(path, text, **options)

    monkeypatch.setattr(checkpoint, "save_file", save)
    monkeypatch.setattr(type(out_dir), "write_text", write)
    with pytest.raises(CheckpointError, match="step-00000003: cannot be written .*No space left"):
        train(out_dir, rows=ToyRows(8), epochs=2, save_interval=1, overwrite=1)
    monkeypatch.undo()
    names = sorted(path.name for path in (out_dir / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000002"]
    resumed, result = train(out_dir, rows=ToyRows(8), epochs=2, save_interval=1, from_resume=1)
    assert torch.equal(weights(resumed), weights(whole)) and not result.warnings


@pytest.mark.skipif(os.name == "nt", reason="limits of processes are a Unix thing")
def test_a_disk_without_room(tmp_path):
    """The real thing, as far as a test can have it: the system refuses files of more than 20 kB."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="step-00000004: cannot be written .*too large"):
            train(tmp_path, tiny_model(hidden_size=32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("moment", ["rename", "fsync"])
def test_a_stop_before_the_rename_leaves_no_half_checkpoint(run, monkeypatch, moment):
    out_dir, _ = run

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint.os, moment, fail)
    with pytest.raises(CheckpointError, match="Input/output"):
        train(out_dir, rows=ToyRows(8), overwrite=1, save_interval=2)
    assert checkpoints(out_dir / "checkpoints") == []


def test_leftovers_of_a_killed_process_are_ignored_and_removed(run):
    out_dir, expected = run
    leftover = out_dir / "checkpoints" / ".step-00000009.12345.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert newest_good_checkpoint(out_dir / "checkpoints")[0].name == "step-00000004"
    (checkpoints(out_dir / "checkpoints")[0] / "trainer.json").unlink()
    resumed, _ = train(out_dir, rows=ToyRows(8), from_resume=1)
    assert torch.equal(weights(resumed), expected) and not leftover.exists()


# --- what is in it ---


def parts(model, **changes):
    optimizers = OptimizerSet(model, settings("unused", **changes))
    return model, optimizers, torch.amp.GradScaler("cpu", enabled=False)


def test_save_and_load_restore_everything(tmp_path):
    model, optimizers, scaler = parts(tiny_model(), optimizer="muon")
    for _ in range(3):
        model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        for optimizer in optimizers.optimizers:
            optimizer.step()
    position = Position(step=3, epoch=1, batch=2, tokens=77, skipped=1, seconds=1.5)
    np.random.standard_normal(3)  # leaves a number in NumPy's and Python's reserve for the next draw
    random.gauss(0, 1)
    path = save_checkpoint(tmp_path, model, optimizers, scaler, position, {"a": 1}, keep=2)
    expected = [torch.rand(3), np.random.standard_normal(4), [random.gauss(0, 1) for _ in range(3)]]
    fresh, fresh_optimizers, scaler = parts(tiny_model(seed=1), optimizer="muon")
    assert load_checkpoint(path, fresh, fresh_optimizers, scaler, {"a": 1}) == position
    assert torch.equal(weights(fresh), weights(model))
    before, after = optimizers.state_tensors(), fresh_optimizers.state_tensors()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.standard_normal(4), expected[1])
    assert [random.gauss(0, 1) for _ in range(3)] == expected[2]


def test_a_checkpoint_holds_no_pickle_and_a_tied_head_once(run):
    newest = checkpoints(run[0] / "checkpoints")[0]
    assert sorted(path.name for path in newest.iterdir()) == sorted(FILES)
    tensors = checkpoint.load_file(newest / "model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == tiny_model().num_parameters()
    assert json.loads((newest / "trainer.json").read_text())["position"]["step"] == 4


def test_a_tensor_of_another_model_is_an_error_that_names_it(tmp_path):
    model, optimizers, scaler = parts(tiny_model())
    path = save_checkpoint(tmp_path, model, optimizers, scaler, Position(step=1), {}, keep=1)
    other, optimizers, scaler = parts(tiny_model(num_hidden_layers=2))
    with pytest.raises(CheckpointError, match="missing tensors .*layers.1.self_attn"):
        load_checkpoint(path, other, optimizers, scaler, {})
    other, optimizers, scaler = parts(tiny_model(qk_norm=False))
    with pytest.raises(CheckpointError, match="unexpected tensors .*q_norm"):
        load_checkpoint(path, other, optimizers, scaler, {})
