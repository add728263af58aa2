"""The training loop: what a step is, and what stops it."""

import json
import math

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate
from toys import CallCounter, ToyRows, settings, tiny_model, train, weights

from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import NonFiniteLossError, read_metrics
from minimind_edu.training.optim import OptimizerSet, learning_rate_at
from minimind_edu.training.precision import Precision


class PlainSGD(OptimizerSet):
    """Weights minus rate times gradient: comparisons are then not blown up by Adam's division.

    (Adam's first step is the sign of the gradient, also where that is all rounding.)
    """

    def __init__(self, model, config):
        super().__init__(model, config)
        self.optimizers = [torch.optim.SGD(self.parameters())]


@pytest.fixture
def plain_sgd(monkeypatch):
    monkeypatch.setattr("minimind_edu.training.loop.OptimizerSet", PlainSGD)


def descend(model, windows, rate=1.0, clip=1.0, aux=False):
    """Gradient descent written out, each window (a list of rows) as one batch; the loop must agree."""
    for rows in windows:
        batch = default_collate(rows)
        out = model(batch["input_ids"], labels=batch["labels"], document_ids=batch["document_ids"])
        (out.loss + out.aux_loss if aux else out.loss).backward()
        with torch.no_grad():
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            for parameter in model.parameters():
                parameter -= rate * min(1.0, clip / float(norm)) * parameter.grad
                parameter.grad = None
    return model


CONSTANT = {"lr_schedule": "constant", "warmup_iters": 0, "learning_rate": 1.0}


# --- what one step is ---


@pytest.mark.parametrize(
    ("batch_size", "accumulation_steps", "count"),
    [(8, 1, 8), (4, 2, 8), (2, 4, 8), (1, 8, 8), (3, 2, 8), (2, 3, 10), (1, 4, 7), (5, 3, 7), (3, 9, 7)],
)
def test_steps_equal_those_on_whole_windows(tmp_path, plain_sgd, batch_size, accumulation_steps, count):
    """Also with unequal label counts, an incomplete last batch and an incomplete last window."""
    labelled = [1 + (5 * number) % 9 for number in range(count)]
    rows = ToyRows(count, labelled=labelled, shuffle=False)
    per_step = batch_size * accumulation_steps
    model, result = train(
        tmp_path,
        rows=rows,
        epochs=2,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
        **CONSTANT,
    )
    one_epoch = [
        [rows[number] for number in range(start, min(start + per_step, count))]
        for start in range(0, count, per_step)
    ]
    expected = descend(tiny_model(), one_epoch * 2)
    assert result.step == 2 * len(one_epoch) and result.tokens == 2 * sum(labelled)
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.05, 1e9])
def test_clipping(tmp_path, plain_sgd, clip):
    rows = ToyRows(4, shuffle=False)
    model, _ = train(tmp_path, rows=rows, grad_clip=clip, batch_size=4, epochs=3, **CONSTANT)
    whole = [rows[number] for number in range(4)]
    expected = descend(tiny_model(), [whole] * 3, clip=clip or math.inf)
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=1e-6)


class Bigram(nn.Module):
    """Which token follows which, in float64."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.embed, self.hidden = nn.Embedding(19, 6), nn.Linear(6, 6)
        self.norm, self.lm_head = nn.LayerNorm(6), nn.Linear(6, 19, bias=False)
        self.double()

    def forward(self, ids):
        return self.lm_head(self.norm(self.hidden(self.embed(ids))))

    @staticmethod
    def loss(model, batch):
        labels = batch["labels"][:, 1:].flatten()
        logits = model(batch["input_ids"][:, :-1]).flatten(0, 1)
        return nn.functional.cross_entropy(logits, labels), {"tokens": int((labels != -100).sum())}


def test_adamw_equals_torchs_on_whole_windows(tmp_path):
    """Cosine, clipping, weight decay of the one hidden matrix; 12 rows in uneven windows."""
    rows = ToyRows(12, labelled=[9, 1, 4, 7, 2, 9, 3, 3, 8, 5, 1, 6], shuffle=False)
    options = {"epochs": 3, "batch_size": 2, "accumulation_steps": 4, "grad_clip": 0.5, "weight_decay": 0.7}
    model, result = train(tmp_path, Bigram(), rows, Bigram.loss, **options)
    assert result.step == 6
    expected = Bigram()
    decayed = [expected.hidden.weight]
    others = [p for p in expected.parameters() if p is not decayed[0]]
    groups = [{"params": decayed, "weight_decay": 0.7}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    for step in range(6):
        numbers = range(8) if step % 2 == 0 else range(8, 12)
        Bigram.loss(expected, default_collate([rows[number] for number in numbers]))[0].backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, 6, settings(tmp_path))
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=1e-12)


def test_the_logged_norm_is_the_one_before_clipping(tmp_path):
    train(tmp_path / "free", grad_clip=0.0, max_steps=1)
    norm = read_metrics(tmp_path / "free" / "metrics.jsonl")[0]["grad_norm"]
    train(tmp_path / "clipped", grad_clip=norm / 100, max_steps=1)
    assert read_metrics(tmp_path / "clipped" / "metrics.jsonl")[0]["grad_norm"] == pytest.approx(norm)
    batch = default_collate([ToyRows()[row] for row in range(2)])
    fresh = tiny_model()
    fresh(batch["input_ids"], labels=batch["labels"]).loss.backward()
    by_hand = torch.cat([p.grad.flatten() for p in fresh.parameters()]).norm()
    assert norm == pytest.approx(float(by_hand), rel=1e-5)


def test_experts_learn_the_same_from_accumulated_batches(tmp_path, plain_sgd):
    """The balance loss depends on the batch, so it is off here; the cross-entropy part must agree."""
    shape = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.0}
    rows = ToyRows(6, labelled=[9, 2, 5, 1, 9, 4], shuffle=False)
    options = {"rows": rows, "max_steps": 3, **CONSTANT}
    model, _ = train(tmp_path / "1", tiny_model(**shape), batch_size=6, **options)
    accumulated, _ = train(tmp_path / "2", tiny_model(**shape), batch_size=2, accumulation_steps=3, **options)
    torch.testing.assert_close(weights(accumulated), weights(model), rtol=0, atol=1e-6)


def test_balance_loss_is_trained_on_and_logged_apart(tmp_path, plain_sgd):
    shape = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 1, "router_aux_loss_coef": 0.5}
    rows = ToyRows(4, shuffle=False)
    options = {"rows": rows, "batch_size": 4, "max_steps": 2, **CONSTANT}
    model, result = train(tmp_path, tiny_model(**shape), validation_data=rows, **options)
    whole = [rows[number] for number in range(4)]
    expected = descend(tiny_model(**shape), [whole] * 2, aux=True)
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=1e-6)
    first = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert first["aux_loss"] > 0.1
    assert first["loss"] == pytest.approx(first["cross_entropy"] + first["aux_loss"], rel=1e-5)
    batch = default_collate(whole)
    with torch.no_grad():
        cross_entropy = model(batch["input_ids"], labels=batch["labels"]).loss
    assert result.validation_loss == pytest.approx(float(cross_entropy), rel=1e-5)  # comparable with dense


def test_max_steps_ends_a_run_early_and_late(tmp_path):
    _, result = train(tmp_path / "early", rows=ToyRows(8), epochs=5, max_steps=3)
    assert result.step == 3 and result.tokens == 3 * 2 * 9
    _, result = train(tmp_path / "late", rows=ToyRows(8), epochs=1, max_steps=9)
    assert result.step == 9 and result.tokens == 9 * 2 * 9
    last = read_metrics(tmp_path / "late" / "metrics.jsonl")[-1]
    assert last["epoch"] == 2 and last["step"] == 9


def test_each_epoch_sees_every_row_once_in_its_own_order(tmp_path):
    seen = []

    def watching(model, batch):
        seen.extend(tuple(row.tolist()) for row in batch["input_ids"])
        return causal_lm_loss(model, batch)

    rows = ToyRows(7)
    train(tmp_path, rows=rows, epochs=3, loss=watching, accumulation_steps=2)
    every = sorted(tuple(row.tolist()) for row in rows.tokens)
    epochs = [seen[start : start + 7] for start in range(0, 21, 7)]
    assert len(seen) == 21 and all(sorted(epoch) == every for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


# --- batches without labels, and losses that are not numbers ---


def test_batches_without_labels_are_skipped_and_counted(tmp_path, plain_sgd):
    labelled = [9, 9, 0, 0, 9, 9, 0, 0]
    rows = ToyRows(8, labelled=labelled, shuffle=False)
    model, result = train(tmp_path, rows=rows, epochs=2, accumulation_steps=2, **CONSTANT)
    assert result.skipped_batches == 4 and result.tokens == 2 * 4 * 9 and math.isfinite(result.train_loss)
    windows = [[rows[0], rows[1]], [rows[4], rows[5]]]
    expected = descend(tiny_model(), windows * 2)
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=1e-6)


def test_a_step_without_any_label_changes_nothing(tmp_path):
    rows = ToyRows(4, labelled=[0] * 4)
    before = weights(tiny_model())
    model, result = train(tmp_path, rows=rows, validation_data=rows)
    assert torch.equal(weights(model), before) and result.skipped_batches == 2 and result.tokens == 0
    assert math.isnan(result.validation_loss) and math.isnan(result.train_loss)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, bad, accumulation_steps):
    """The fifth batch is bad: the message names its step and records, and the last good state is kept."""
    rows = ToyRows(12, shuffle=False)
    loss = CallCounter(5, lambda value: value * bad)
    options = {"rows": rows, "save_interval": 1, "accumulation_steps": accumulation_steps}
    with pytest.raises(NonFiniteLossError) as caught:
        train(tmp_path, loss=loss, **options)
    step = 5 if accumulation_steps == 1 else 3
    records = "108, 109" if accumulation_steps == 1 else "108, 109, 110, 111"
    assert f"the loss is {bad} at step {step};" in str(caught.value)
    assert f"records {records}." in str(caught.value)
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [f"step-{number:08d}" for number in (step - 2, step - 1)]
    # A loss that is right again goes on from there as if nothing had been.
    resumed, _ = train(tmp_path, from_resume=1, **options)
    never_stopped, _ = train(tmp_path / "whole", **options)
    assert torch.equal(weights(resumed), weights(never_stopped))


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path):
    """The square root's slope at 0 is infinite where its value is 0."""
    loss = CallCounter(2, lambda value: value + (value - value.detach()).abs().sqrt())
    with pytest.raises(NonFiniteLossError, match="the gradient is (nan|inf) at step 2"):
        train(tmp_path, loss=loss, save_interval=0)
    assert not (tmp_path / "checkpoints").exists()


def test_many_records_are_named_in_short(tmp_path):
    loss = CallCounter(1, lambda value: value * math.nan)
    with pytest.raises(NonFiniteLossError, match="100, 101, .*, 119 and 10 more"):
        train(tmp_path, rows=ToyRows(30), batch_size=30, loss=loss)


# --- loss scaling, which float16 needs ---


@pytest.fixture
def scaled(monkeypatch):
    """Loss scaling as on a GPU of the Turing generation, here with bfloat16."""
    precision = Precision(torch.bfloat16, True, "as on a GPU without bfloat16")
    monkeypatch.setattr("minimind_edu.training.loop.resolve_precision", lambda *_: precision)


def test_a_scaled_loss_trains_the_same_weights(tmp_path, scaled):
    """The scale is a power of two, so dividing by it gives the same bits back."""
    rows = ToyRows(8, labelled=[9, 1, 4, 4, 2, 9, 3, 8])
    model, _ = train(tmp_path / "scaled", rows=rows, accumulation_steps=2, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        plain = Precision(torch.bfloat16, False, "the same without a scaler")
        patch.setattr("minimind_edu.training.loop.resolve_precision", lambda *_: plain)
        expected, _ = train(tmp_path / "plain", rows=rows, accumulation_steps=2, epochs=2)
    assert torch.equal(weights(model), weights(expected))


def test_an_overflow_lowers_the_scale_and_skips_the_step(tmp_path, scaled):
    """float16 overflows now and then; that is no reason to stop. The scale survives a resume."""
    loss = CallCounter(2, lambda value: value + (value - value.detach()).abs().sqrt())
    train(tmp_path / "run", loss=loss, save_interval=1)
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert json.loads((newest / "trainer.json").read_text())["scaler"]["scale"] == 2.0**15
    assert math.isfinite(float(weights(train(tmp_path / "run", from_resume=1)[0]).sum()))


def test_a_loss_that_is_no_number_stops_a_scaled_run_too(tmp_path, scaled):
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 3"):
        train(tmp_path, loss=CallCounter(3, lambda value: value * math.nan))
