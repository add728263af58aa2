"""Stopped and resumed equals never stopped, bit for bit; and when a run may not be resumed."""

import random
import shutil
import signal

import numpy as np
import pytest
import torch
from filelock import FileLock
from toys import CallCounter, ToyRows, settings, tiny_model, train, weights

from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import CheckpointError, Interrupted, RunExistsError, fit, read_metrics


def interrupt(_):
    signal.raise_signal(signal.SIGINT)


def stop_after(out_dir, batches, **options):
    """Train until Ctrl-C during the n-th batch of this sitting."""
    with pytest.raises(Interrupted, match="the state is saved"):
        train(out_dir, loss=CallCounter(batches, interrupt), **options)


def noisy_loss(model, batch):
    """A loss that draws from all three random generators, as a stage's own masking or sampling might."""
    loss, numbers = causal_lm_loss(model, batch)
    return loss * (
        1 + 0.1 * random.random() + 0.1 * np.random.standard_normal() + 0.1 * torch.rand(())
    ), numbers


# --- stopped and resumed ---


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stop_at", [1, 4, 7, 8, 13])
def test_resumed_equals_never_stopped(tmp_path, optimizer, accumulation_steps, stop_at):
    """7 batches an epoch: stops in the middle, at the end and at the beginning of epochs; dropout is on."""
    options = {
        "rows": ToyRows(13, labelled=[9, 3, 1] * 4 + [9]),
        "validation_data": ToyRows(3, seed=9),
        "epochs": 3,
        "accumulation_steps": accumulation_steps,
        "optimizer": optimizer,
        "eval_interval": 2,
    }
    whole, result = train(tmp_path / "whole", tiny_model(dropout=0.2), **options)
    stop_after(tmp_path / "parts", stop_at, model=tiny_model(dropout=0.2), **options)
    random_draws = torch.rand(5)  # what happens between two sittings must not matter
    # Another seed: the weights come from the checkpoint.
    parts, resumed = train(tmp_path / "parts", tiny_model(seed=99, dropout=0.2), from_resume=1, **options)
    assert torch.equal(weights(whole), weights(parts)) and len(random_draws) == 5
    assert resumed.validation_loss == result.validation_loss
    assert (resumed.step, resumed.tokens) == (result.step, result.tokens)
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    for line in lines[0] + lines[1]:
        line.pop("tokens_per_second", None)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_many_stops(tmp_path, optimizer):
    options = {"rows": ToyRows(9), "epochs": 3, "optimizer": optimizer, "accumulation_steps": 2}
    whole, result = train(tmp_path / "whole", tiny_model(dropout=0.1), **options)
    parts, sittings = None, 0
    while parts is None:
        sittings += 1
        loss = CallCounter(2, interrupt)
        try:
            parts, _ = train(tmp_path / "parts", tiny_model(dropout=0.1), from_resume=1, loss=loss, **options)
        except Interrupted:
            continue
    assert result.step == 9 and sittings > 6 and torch.equal(weights(whole), weights(parts))


@pytest.mark.parametrize("workers", [(0, 2), (2, 0), (2, 2)])
def test_worker_processes_change_nothing(tmp_path, workers):
    options = {"rows": ToyRows(8), "epochs": 2}
    whole, _ = train(tmp_path / "whole", tiny_model(dropout=0.2), **options)
    stop_after(tmp_path / "parts", 5, model=tiny_model(dropout=0.2), num_workers=workers[0], **options)
    parts, _ = train(
        tmp_path / "parts", tiny_model(dropout=0.2), num_workers=workers[1], from_resume=1, **options
    )
    assert torch.equal(weights(whole), weights(parts))


def test_random_states_of_torch_numpy_and_python_are_restored(tmp_path):
    def seeded(out_dir, **options):
        random.seed(3), np.random.seed(4)
        return train(out_dir, loss=options.pop("loss", noisy_loss), rows=ToyRows(12), **options)

    whole, _ = seeded(tmp_path / "whole")
    calls = CallCounter(3, interrupt)

    def stopping(model, batch):
        calls(model, batch)
        return noisy_loss(model, batch)

    with pytest.raises(Interrupted):
        seeded(tmp_path / "parts", loss=stopping)
    parts, _ = seeded(tmp_path / "parts", from_resume=1)
    assert torch.equal(weights(whole), weights(parts))


def test_experts_in_bfloat16_resume_in_full_precision(tmp_path):
    """Weights stay in float32 in the checkpoint, whatever the matrix products are done in."""
    shape = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 1, "dropout": 0.1}
    options = {"rows": ToyRows(8), "epochs": 2, "dtype": "bfloat16", "optimizer": "muon"}
    whole, _ = train(tmp_path / "whole", tiny_model(**shape), **options)
    stop_after(tmp_path / "parts", 3, model=tiny_model(**shape), **options)
    parts, _ = train(tmp_path / "parts", tiny_model(**shape), from_resume=1, **options)
    assert torch.equal(weights(whole), weights(parts)) and weights(parts).dtype == torch.float32
    assert not torch.equal(weights(parts), weights(parts).bfloat16().float())


def test_frozen_parameters_stay_as_they_were(tmp_path):
    def frozen():
        model = tiny_model(dropout=0.1)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "q_proj" in name
        return model

    options = {"rows": ToyRows(8), "epochs": 2, "optimizer": "muon"}
    whole, _ = train(tmp_path / "whole", frozen(), **options)
    stop_after(tmp_path / "parts", 3, model=frozen(), **options)
    parts, _ = train(tmp_path / "parts", frozen(), from_resume=1, **options)
    assert torch.equal(weights(whole), weights(parts))
    moved = [
        n for (n, a), b in zip(parts.named_parameters(), frozen().parameters(), strict=True) if (a != b).any()
    ]
    assert moved and all("q_proj" in name for name in moved)


def test_a_run_may_be_resumed_with_another_rhythm(tmp_path):
    """What does not change the weights may change: intervals, workers, the folder."""
    whole, _ = train(tmp_path / "whole", rows=ToyRows(12))
    stop_after(tmp_path / "old", 2, rows=ToyRows(12))
    shutil.move(tmp_path / "old", tmp_path / "new")
    rhythm = {
        "log_interval": 5,
        "save_interval": 2,
        "eval_interval": 1,
        "keep_checkpoints": 1,
        "logger": "none",
    }
    parts, _ = train(tmp_path / "new", rows=ToyRows(12), from_resume=1, validation_data=ToyRows(2), **rhythm)
    assert torch.equal(weights(whole), weights(parts))


def test_resuming_a_finished_run_only_measures(tmp_path):
    options = {"rows": ToyRows(6), "validation_data": ToyRows(3, seed=1)}
    whole, result = train(tmp_path, **options)
    before = (tmp_path / "metrics.jsonl").read_text()
    again, resumed = train(tmp_path, tiny_model(seed=5), from_resume=1, **options)
    assert torch.equal(weights(whole), weights(again)) and (tmp_path / "metrics.jsonl").read_text() == before
    assert resumed.step == result.step and resumed.validation_loss == result.validation_loss
    assert resumed.tokens == result.tokens and resumed.skipped_batches == result.skipped_batches


def test_resuming_where_nothing_was_saved_starts_anew(tmp_path):
    whole, _ = train(tmp_path / "whole")
    fresh, _ = train(tmp_path / "fresh", from_resume=1)
    assert torch.equal(weights(whole), weights(fresh))


def test_counts_go_on_over_sittings(tmp_path):
    rows = ToyRows(8, labelled=[9, 9, 0, 0] * 2, shuffle=False)
    stop_after(tmp_path, 3, rows=rows, epochs=2)
    _, result = train(tmp_path, rows=rows, epochs=2, from_resume=1)
    assert result.step == 8 and result.skipped_batches == 4 and result.tokens == 72
    assert result.seconds > 0


# --- runs that may not be resumed ---


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2e-2}, {"epochs": 3}, {"batch_size": 3}, {"accumulation_steps": 2}, {"seed": 1},
        {"warmup_iters": 3}, {"lr_schedule": "wsd"}, {"min_lr_ratio": 0.2}, {"optimizer": "muon"},
        {"weight_decay": 0.0}, {"grad_clip": 0.5}, {"max_steps": 5}, {"dtype": "bfloat16"},
    ],
)  # fmt: skip
def test_another_setting_is_refused_by_name(tmp_path, change):
    stop_after(tmp_path, 1)
    (name, value), before = *change.items(), sorted((tmp_path / "checkpoints").iterdir())
    with pytest.raises(CheckpointError, match=rf"belongs to another run: .*{name} was .* is now '?{value}"):
        train(tmp_path, from_resume=1, **change)
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    train(tmp_path, from_resume=1)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dropout", {"dropout": 0.1}),
        ("num_attention_heads", {"num_attention_heads": 1, "head_dim": 16}),
        ("hidden_size", {"hidden_size": 32}),
        ("rope_theta", {"rope_theta": 1e4}),
        ("num_experts_per_tok", {"use_moe": True, "num_experts_per_tok": 1}),
    ],
)
def test_another_model_is_refused_by_name(tmp_path, name, changes):
    """Some of these have the same number of parameters, so their tensors would load."""
    stop_after(tmp_path, 1)
    with pytest.raises(CheckpointError, match=f"{name} was .* and is now"):
        train(tmp_path, tiny_model(**changes), from_resume=1)


def test_other_data_are_refused(tmp_path):
    stop_after(tmp_path, 1, rows=ToyRows(8))
    with pytest.raises(CheckpointError, match="rows was 8 and is now 9"):
        train(tmp_path, rows=ToyRows(9), from_resume=1)
    with pytest.raises(CheckpointError, match="data was 'toy' and is now 'other'"):
        fit(tiny_model(), causal_lm_loss, ToyRows(), settings(tmp_path, from_resume=1), None, "other", False)


def test_an_existing_run_is_not_touched_without_being_asked(tmp_path):
    stop_after(tmp_path, 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunExistsError, match="--from_resume 1.*--overwrite 1.*--out_dir"):
        train(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_overwrite_starts_anew(tmp_path):
    whole, _ = train(tmp_path / "whole")
    stop_after(tmp_path / "run", 3, epochs=5, learning_rate=0.5)
    anew, result = train(tmp_path / "run", overwrite=1)
    assert torch.equal(weights(whole), weights(anew)) and result.step == 4
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_folder_in_use_is_refused(tmp_path):
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(RunExistsError, match="another process is training into"),
    ):
        train(tmp_path)
    train(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError):
        train(tmp_path / "file" / "run")


# --- Ctrl-C ---


def test_the_second_interrupt_acts_at_once(tmp_path):
    def twice(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path, loss=CallCounter(3, twice), save_interval=0)
    assert not isinstance(caught.value, Interrupted)
    assert not (tmp_path / "checkpoints").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_handed_back(tmp_path, kind):
    before = signal.getsignal(kind)
    with pytest.raises(Interrupted, match="stopped after step 2 of 4"):
        train(tmp_path, loss=CallCounter(2, lambda _: signal.raise_signal(kind)))
    assert signal.getsignal(kind) is before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    train(tmp_path, from_resume=1)
    assert signal.getsignal(kind) is before
