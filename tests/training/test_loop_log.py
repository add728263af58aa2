"""The training loop: what is logged and measured, and settings that make no sense."""

import json
import math

import pytest
import torch
from torch.utils.data import default_collate
from toys import ToyRows, settings, tiny_model, train, weights

from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import evaluate_loss, fit, read_metrics
from minimind_edu.training.optim import learning_rate_at

# --- what is logged and measured ---


def test_metrics_hold_what_was_trained(tmp_path):
    told = []
    rows = ToyRows(6, labelled=[9, 1, 4, 9, 2, 7], shuffle=False)
    config = settings(tmp_path, lr_schedule="constant", warmup_iters=0)
    model = tiny_model()
    result = fit(model, causal_lm_loss, rows, config, progress=False, on_log=told.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == told == read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["trained_tokens"] for line in lines] == [10, 23, 32]
    assert {line["lr"] for line in lines} == {1e-2} and all(line["tokens_per_second"] > 0 for line in lines)
    batch = default_collate([rows[0], rows[1]])
    with torch.no_grad():
        first = float(tiny_model()(batch["input_ids"], labels=batch["labels"]).loss)
    assert lines[0]["loss"] == pytest.approx(first, rel=1e-5)
    assert result.train_loss == lines[-1]["loss"] and result.validation_loss is None


def test_intervals(tmp_path):
    options = {"rows": ToyRows(20), "validation_data": ToyRows(3, seed=5)}
    train(tmp_path, log_interval=4, eval_interval=3, save_interval=4, keep_checkpoints=9, **options)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 10]
    assert [line["step"] for line in lines if "validation_loss" in line] == [3, 6, 9, 10]
    assert sorted(path.name[-2:] for path in (tmp_path / "checkpoints").iterdir()) == ["04", "08", "10"]


def test_a_logged_loss_is_the_mean_over_tokens_since_the_last_line(tmp_path):
    rows = ToyRows(8, labelled=[9, 9, 1, 1, 5, 5, 2, 2], shuffle=False)
    options = {"rows": rows, "lr_schedule": "constant", "warmup_iters": 0}
    train(tmp_path / "each", **options)
    each = read_metrics(tmp_path / "each" / "metrics.jsonl")
    train(tmp_path / "pairs", log_interval=2, **options)
    pairs = read_metrics(tmp_path / "pairs" / "metrics.jsonl")
    expected = [
        (each[0]["loss"] * 18 + each[1]["loss"] * 2) / 20,
        (each[2]["loss"] * 10 + each[3]["loss"] * 4) / 14,
    ]
    assert [line["loss"] for line in pairs] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_validation_loss_is_a_mean_over_tokens(tmp_path, batch_size):
    rows = ToyRows(8, labelled=[9, 1, 0, 4, 9, 2, 0, 7], seed=3)
    model = tiny_model(dropout=0.3)
    model.train()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in (rows[number] for number in range(8)):
            logits = model.eval()(row["input_ids"][None]).logits[0, :-1]
            targets = row["labels"][1:]
            surprise = -logits.log_softmax(-1)[torch.arange(len(targets)), targets.clamp(min=0)]
            total, count = total + float(surprise[targets >= 0].sum()), count + int((targets >= 0).sum())
    model.train()
    for mode in (True, False):  # it leaves the model in the mode it found it in
        model.train(mode)
        assert evaluate_loss(model, causal_lm_loss, rows, batch_size) == pytest.approx(
            total / count, rel=1e-5
        )
        assert model.training is mode


def test_dropout_is_on_in_training_and_off_in_validation(tmp_path):
    """Validating between steps draws no random number: it must not change what is trained."""
    options = {"rows": ToyRows(8), "max_steps": 6}
    quiet, _ = train(tmp_path / "quiet", tiny_model(dropout=0.2), **options)
    often, result = train(
        tmp_path / "often",
        tiny_model(dropout=0.2),
        validation_data=ToyRows(4, seed=1),
        eval_interval=1,
        **options,
    )
    plain, _ = train(tmp_path / "plain", tiny_model(), **options)
    assert torch.equal(weights(quiet), weights(often)) and not torch.equal(weights(quiet), weights(plain))
    again = evaluate_loss(often, causal_lm_loss, ToyRows(4, seed=1), 2)
    assert result.validation_loss == again


def test_the_seed_decides_what_dropout_drops(tmp_path):
    """Not what was drawn before in the same process, as in a notebook that runs a cell twice."""
    found = []
    for number, seed in enumerate([42, 42, 43]):
        model = tiny_model(dropout=0.3)
        torch.manual_seed(number)
        train(tmp_path / str(number), model, seed=seed)
        found.append(weights(model))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_loop_follows_the_schedule(tmp_path):
    train(tmp_path, rows=ToyRows(20), warmup_iters=2, learning_rate=3e-3, lr_schedule="wsd")
    config = settings(tmp_path, warmup_iters=2, learning_rate=3e-3, lr_schedule="wsd")
    logged = [line["lr"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert logged == pytest.approx([learning_rate_at(step, 10, config) for step in range(10)])


# --- settings that make no sense ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("accumulation_steps", 0), ("learning_rate", 0.0),
        ("learning_rate", math.nan), ("learning_rate", math.inf), ("warmup_iters", -1), ("grad_clip", -1.0),
        ("grad_clip", math.nan), ("max_steps", -1), ("log_interval", 0), ("save_interval", -1),
        ("eval_interval", -1), ("keep_checkpoints", 0), ("num_workers", -1), ("min_lr_ratio", 1.5),
        ("min_lr_ratio", -0.1), ("weight_decay", -0.1), ("seed", 2**63), ("from_resume", 2),
        ("overwrite", -1),
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=name):
        train(tmp_path / "run", **{name: value})
    assert not (tmp_path / "run").exists()


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="choose one"):
        train(tmp_path, from_resume=1, overwrite=1)


def test_no_rows(tmp_path):
    with pytest.raises(ValueError, match="no training data"):
        fit(tiny_model(), causal_lm_loss, ToyRows(0), settings(tmp_path), progress=False)
