"""DPO: its loss against trl's own code, log-probabilities against a loop, the reference, the stage."""

import json
import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.pairs import PairRows, tokenize_pairs
from minimind_edu.data.records import Records, load_records
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.stages import dpo_records
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages import reference as reference_module
from minimind_edu.stages.dpo import DPOConfig, PreferenceLoss, dpo, dpo_loss, preference_rows
from minimind_edu.stages.reference import mean_kl, reference_logprobs, sequence_logprobs
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, read_metrics

LN2 = math.log(2)
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


# -- the loss ----------------------------------------------------------------------------------------------


class TrlPairs:
    """trl's own `DPOTrainer._compute_loss`, on given log-probabilities instead of a model's.

    The "model" returns log-probabilities of single tokens: each answer's total, spread over its tokens.
    """

    def __init__(self, loss_type, beta, label_smoothing=0.0):
        trl = pytest.importorskip("trl")
        self.trainer = object.__new__(trl.DPOTrainer)
        accelerator = SimpleNamespace(
            device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x
        )
        vars(self.trainer).update(
            model=SimpleNamespace(training=True), accelerator=accelerator, aux_loss_enabled=False,
            ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl",
            loss_types=[loss_type], loss_weights=[1.0], beta=beta, label_smoothing=label_smoothing,
            use_weighting=False, _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0,
            _tp_size=1, args=None,
        )  # fmt: skip

    def __call__(self, policy_chosen, policy_rejected, reference_chosen, reference_rejected, lengths):
        """The mean loss over the pairs; `lengths` (2B,) tokens of each answer, the chosen ones first."""
        longest = int(lengths.max())
        mask = torch.arange(longest + 1)[None] <= lengths[:, None]
        mask[:, 0] = False  # one prompt token
        totals = torch.cat([policy_chosen, policy_rejected])
        single = (totals / lengths)[:, None] * mask[:, 1:]
        outputs = SimpleNamespace(
            log_probs=single, entropy=torch.zeros_like(single), mean_logits=torch.zeros_like(single),
            is_top1=mask[:, 1:],
        )  # fmt: skip
        inputs = {
            "input_ids": torch.ones_like(mask, dtype=torch.long), "attention_mask": torch.ones_like(mask),
            "completion_mask": mask.long(), "ref_chosen_logps": reference_chosen,
            "ref_rejected_logps": reference_rejected,
        }  # fmt: skip
        return self.trainer._compute_loss(lambda **_: outputs, inputs, False)


def random_logprobs(seed, dtype, pairs=7, spread=40.0):
    random = torch.Generator().manual_seed(seed)
    policy = -spread * torch.rand(2, pairs, generator=random, dtype=torch.float64)
    reference = policy + spread / 4 * torch.randn(2, pairs, generator=random, dtype=torch.float64)
    lengths = torch.randint(1, 30, (2 * pairs,), generator=random)
    given = [*policy, *reference]
    return [one.to(dtype).requires_grad_(place < 2) for place, one in enumerate(given)], lengths


def assert_equal(ours, theirs, given, dtype):
    """Loss and gradients for the policy agree to 1e-5 of their size."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    gradients = [torch.autograd.grad(loss, given[:2]) for loss in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()) + 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("beta", [0.01, 0.1, 0.7, 3.0])
@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_and_its_gradients_are_trls(loss_type, beta, dtype, seed):
    given, lengths = random_logprobs(seed, dtype)
    units = lengths.to(dtype).chunk(2) if loss_type == "ipo" else (1, 1)  # trl's IPO: means over tokens
    answers = [one / units[place % 2] for place, one in enumerate(given)]
    ours = dpo_loss(*answers, beta=beta, loss_type=loss_type)
    assert ours.shape == (7,) and ours.dtype == dtype
    assert_equal(ours.mean(), TrlPairs(loss_type, beta)(*given, lengths), given, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("smoothing", [0.1, 0.3, 0.49])
@pytest.mark.parametrize("seed", range(3))
def test_label_smoothing_is_trls(smoothing, dtype, seed):
    """trl applies this formula to pairs it has sorted ("aot_unpaired"); a batch of one needs no sorting."""
    given, lengths = random_logprobs(seed, dtype, pairs=1)
    ours = dpo_loss(*given, beta=0.3, label_smoothing=smoothing).mean()
    assert_equal(ours, TrlPairs("aot_unpaired", 0.3, smoothing)(*given, lengths), given, dtype)


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_label_smoothing_and_trls_robust_loss(smoothing):
    """trl's "robust" (Chowdhury et al., 2024) subtracts what ours adds, and divides by 1 - 2e."""
    given, lengths = random_logprobs(5, torch.float64)
    robust = TrlPairs("robust", 0.3, smoothing)(*given, lengths)
    flipped = [given[1], given[0], given[3], given[2]]  # the pairs the wrong way round
    wrong = dpo_loss(*flipped, beta=0.3).mean()
    ours = dpo_loss(*given, beta=0.3, label_smoothing=smoothing).mean() - 2 * smoothing * wrong
    torch.testing.assert_close(ours / (1 - 2 * smoothing), robust)


def test_toy_numbers():
    """Margins of 0 and of ln 3 / beta: sigma is 1/2 and 3/4."""
    policy = torch.tensor([-1.0, math.log(3) / 0.5]), torch.tensor([-1.0, 0.0])
    zero = torch.tensor([-1.0, 0.0]), torch.tensor([-1.0, 0.0])
    losses = dpo_loss(*policy, *zero, beta=0.5)
    assert losses.tolist() == pytest.approx([LN2, math.log(4 / 3)])
    smooth = dpo_loss(*policy, *zero, beta=0.5, label_smoothing=0.2)
    assert smooth.tolist() == pytest.approx([LN2, 0.8 * math.log(4 / 3) + 0.2 * math.log(4)])
    assert dpo_loss(*policy, *zero, beta=0.5, loss_type="ipo")[0] == 1.0
    hinge = dpo_loss(*policy, *zero, beta=0.5, loss_type="hinge")
    assert hinge.tolist() == pytest.approx([1.0, 0.0])
    for name in ("ipo", "hinge"):  # trl smooths neither
        assert torch.equal(
            dpo_loss(*policy, *zero, loss_type=name, label_smoothing=0.1),
            dpo_loss(*policy, *zero, loss_type=name),
        )


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_extreme_values_stay_finite(loss_type, smoothing, dtype):
    huge = torch.tensor([0.0, -1e6, -1e6, 0.0, -1e-30, -3e7], dtype=dtype)
    policy = [huge.clone().requires_grad_(), huge.flip(0).clone().requires_grad_()]
    losses = dpo_loss(*policy, huge.roll(1), huge.roll(2), 0.5, loss_type, smoothing)
    losses.sum().backward()
    assert bool(torch.isfinite(losses).all()) and bool((losses >= 0).all())
    assert all(bool(torch.isfinite(one.grad).all()) for one in policy)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"loss_type": "kto"}, "unknown loss_type 'kto'"),
        ({"beta": 0.0}, "beta must be a positive number, not 0"),
        ({"beta": -0.1}, "beta must be"),
        ({"beta": math.nan}, "beta must be"),
        ({"beta": math.inf}, "beta must be"),
        ({"label_smoothing": 0.5}, "label_smoothing must be from 0 to below 0.5"),
        ({"label_smoothing": -0.01}, "label_smoothing must be"),
        ({"label_smoothing": math.nan}, "label_smoothing must be"),
    ],
)
def test_settings_without_meaning_are_refused(settings, fault):
    ones = [torch.ones(2)] * 4
    with pytest.raises(ValueError, match=fault):
        dpo_loss(*ones, **settings)
    with pytest.raises(ValueError, match=fault):
        DPOConfig(**settings).validate()


def test_more_settings_without_meaning():
    with pytest.raises(ValueError, match="different shapes"):
        dpo_loss(torch.ones(2), torch.ones(2), torch.ones(2), torch.ones(2, 1))
    with pytest.raises(ValueError, match="belongs to the sigmoid loss; ipo has none"):
        DPOConfig(loss_type="ipo", label_smoothing=0.1).validate()
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sft_weight must be"):
            DPOConfig(sft_weight=weight).validate()
    with pytest.raises(ValueError, match="batch_size"):
        DPOConfig(batch_size=0).validate()


# -- log-probabilities of answers --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return train_fast([document.text for document in SmallWorld(6).documents(300)], 500, split_digits=True)


def make_model(tokenizer, **changes):
    torch.manual_seed(3)
    model = MiniMind(ModelConfig(**(SHAPE | {"vocab_size": tokenizer.vocab_size} | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # less uniform than a fresh model
    return model


@pytest.fixture(scope="module")
def world_pairs():
    return list(dpo_records(SmallWorld(6)))[:24]


def make_rows(pairs, tokenizer, folder, **options):
    found = tokenize_pairs(Records.from_list(pairs, "dpo"), tokenizer, folder)
    return PairRows(found, **({"max_seq_len": 128} | options))


def batch_of(rows, places):
    made = [rows.pair(place) for place in places]
    return {name: torch.stack([row[name] for row in made]) for name in made[0]}


def one_answer(model, ids, labels):
    """Sum of the labelled tokens' log-probabilities, one sequence at a time and the plainest way."""
    length = int((labels != -100).nonzero().max()) + 1
    logits = model(ids[None, :length]).logits[0].float().log_softmax(-1)
    return sum(logits[t - 1, labels[t]] for t in range(1, length) if labels[t] != -100)


@pytest.mark.parametrize("shape", [{}, {"use_moe": True}, {"tie_word_embeddings": False, "qk_norm": False}])
def test_summed_logprobs_equal_a_loop(shape, world_pairs, tokenizer, tmp_path):
    model = make_model(tokenizer, **shape).eval()
    batch = batch_of(make_rows(world_pairs, tokenizer, tmp_path), range(0, 24, 4))
    ids, labels = batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1)
    scored = sequence_logprobs(model, ids, labels)
    expected = torch.stack([one_answer(model, *pair) for pair in zip(ids, labels, strict=True)])
    torch.testing.assert_close(scored.total, expected, rtol=1e-5, atol=1e-4)
    assert scored.tokens.tolist() == (labels != -100).sum(1).tolist()
    ours = torch.autograd.grad(scored.total.sum(), list(model.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), list(model.parameters()), allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-6)


def test_the_head_sees_labelled_positions_only(world_pairs, tokenizer, tmp_path, monkeypatch):
    model = make_model(tokenizer)
    batch = batch_of(make_rows(world_pairs, tokenizer, tmp_path), range(4))
    seen, calls, head, hidden = [], [], model.head, model.hidden_states
    monkeypatch.setattr(model, "head", lambda x: (seen.append(x.shape[0]), head(x))[1])
    monkeypatch.setattr(
        model, "hidden_states", lambda *a, **k: (calls.append(a[0].shape), hidden(*a, **k))[1]
    )
    sequence_logprobs(model, batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1))
    assert seen == [int((batch["labels"] != -100).sum())]
    last = int((batch["labels"] != -100).flatten(0, 1).any(0).nonzero().max())
    assert calls == [(8, last + 1)]  # one forward pass for both sides, without what nobody scores


def test_padding_changes_nothing(world_pairs, tokenizer, tmp_path):
    for shape in ({}, {"use_moe": True}):
        model = make_model(tokenizer, **shape).eval()
        batch = batch_of(make_rows(world_pairs, tokenizer, tmp_path), range(4))
        ids, labels = batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1)
        together = sequence_logprobs(model, ids, labels)
        other = ids.clone()
        last = (labels != -100).long().cumsum(1).argmax(1)
        for row, end in enumerate(last.tolist()):
            other[row, end + 1 :] = 7  # another token instead of the padding
        assert torch.equal(sequence_logprobs(model, other, labels).total, together.total)
        alone = torch.cat([sequence_logprobs(model, ids[[r]], labels[[r]]).total for r in range(8)])
        torch.testing.assert_close(alone, together.total, rtol=1e-5, atol=1e-4)


# -- the loss of a batch -----------------------------------------------------------------------------------


def with_reference(model, rows):
    rows.set_reference(reference_logprobs(model, rows))
    return rows


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("moe", [False, True])
def test_the_first_loss_is_ln_2(dropout, moe, world_pairs, tokenizer, tmp_path):
    """In training mode, with dropout in the model: policy and reference must be the same function."""
    model = make_model(tokenizer, dropout=dropout, use_moe=moe).train()
    rows = with_reference(model, make_rows(world_pairs, tokenizer, tmp_path))
    loss, numbers = PreferenceLoss()(model, batch_of(rows, range(8)))
    assert model.training and numbers["tokens"] == 8
    assert float(numbers["preference_loss"]) == pytest.approx(LN2, abs=1e-5)
    assert float(numbers["margin"]) == pytest.approx(0, abs=1e-4)
    assert float(numbers["chosen_reward"]) == pytest.approx(0, abs=1e-4)


def test_numbers_of_a_batch(world_pairs, tokenizer, tmp_path):
    model = make_model(tokenizer).eval()
    rows = with_reference(model, make_rows(world_pairs, tokenizer, tmp_path))
    batch = batch_of(rows, range(6))
    other = make_model(tokenizer, num_hidden_layers=1)
    for loss_type in ("sigmoid", "hinge", "ipo"):
        loss, numbers = PreferenceLoss(0.3, loss_type)(other, batch)
        scored = sequence_logprobs(other, batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1))
        policy, tokens = scored.total.view(6, 2), scored.tokens.view(6, 2)
        reference = batch["reference_logprobs"]
        unit = tokens if loss_type == "ipo" else torch.ones_like(tokens)
        each = [
            dpo_loss(p[0] / n[0], p[1] / n[1], r[0] / n[0], r[1] / n[1], 0.3, loss_type)
            for p, r, n in zip(policy, reference, unit, strict=True)
        ]
        assert float(loss.detach()) == pytest.approx(float(sum(each).detach() / 6), rel=1e-5)
        rewards = 0.3 * (policy - reference)
        margins = rewards[:, 0] - rewards[:, 1]
        expected = {
            "preference_loss": loss, "margin": margins.mean(), "accuracy": (margins > 0).float().mean(),
            "chosen_logp": policy[:, 0].mean(), "rejected_logp": policy[:, 1].mean(),
            "chosen_reward": rewards[:, 0].mean(), "rejected_reward": rewards[:, 1].mean(),
        }  # fmt: skip
        assert set(numbers) == {*expected, "tokens"} and numbers["tokens"] == 6
        for name, value in expected.items():
            assert float(numbers[name]) == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-5), name
        plus = PreferenceLoss(0.3, loss_type, sft_weight=2.0)(other, batch)[0]
        nll = -(policy[:, 0] / tokens[:, 0]).mean()
        assert float((plus - loss).detach()) == pytest.approx(2 * float(nll.detach()), rel=1e-4)


def test_a_pair_without_labels_counts_for_nothing(world_pairs, tokenizer, tmp_path):
    model = make_model(tokenizer)
    batch = batch_of(with_reference(model, make_rows(world_pairs, tokenizer, tmp_path)), range(4))
    whole, _ = PreferenceLoss(sft_weight=1.0)(model, {name: one[:3] for name, one in batch.items()})
    batch["labels"][3, 1] = -100
    loss, numbers = PreferenceLoss(sft_weight=1.0)(model, batch)
    assert numbers["tokens"] == 3 and float(loss.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    batch["labels"][:] = -100
    loss, numbers = PreferenceLoss(sft_weight=1.0)(model, batch)
    assert numbers["tokens"] == 0 and float(loss.detach()) == 0.0


def test_the_gradient_is_weighted_by_sigma_of_minus_the_margin():
    policy = torch.tensor([2.0, 0.0, -5.0], requires_grad=True)
    zero = torch.zeros(3)
    dpo_loss(policy, zero, zero, zero, beta=0.5).sum().backward()
    assert policy.grad.tolist() == pytest.approx([-0.5 * 1 / (1 + math.exp(0.5 * x)) for x in (2, 0, -5)])


# -- the reference -----------------------------------------------------------------------------------------


def test_reference_logprobs_equal_a_loop_and_need_no_gradient(world_pairs, tokenizer, tmp_path):
    model = make_model(tokenizer, dropout=0.5).train()
    rows = make_rows(world_pairs, tokenizer, tmp_path)
    found = reference_logprobs(model, rows, batch_size=5)
    assert found.shape == (24, 2) and found.dtype == np.float32 and model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for place in range(0, 24, 5):
        row = rows.pair(place)
        with torch.no_grad():
            each = [float(one_answer(model, row["input_ids"][s], row["labels"][s])) for s in (0, 1)]
        assert found[place].tolist() == pytest.approx(each, rel=1e-4)


# -- KL to the reference -----------------------------------------------------------------------------------


def test_kl_is_zero_to_itself_and_exact_for_one_token(tokenizer):
    model, other = make_model(tokenizer).eval(), make_model(tokenizer, num_hidden_layers=1).eval()
    prompts = [[5, 6, 7], [8, 9]]
    assert mean_kl(model, model, prompts, tokenizer.eos_token_id) == pytest.approx(0, abs=1e-5)
    kl = mean_kl(model, other, prompts, tokenizer.eos_token_id, max_new_tokens=1)
    exact = []
    with torch.no_grad():
        for prompt in prompts:
            p, q = (m(torch.tensor([prompt])).logits[0, -1].log_softmax(-1) for m in (model, other))
            exact.append(float((p.exp() * (p - q)).sum()))
    assert kl == pytest.approx(sum(exact) / 2, rel=1e-4) and kl > 0.01


# -- the stage ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tokenizer, world_pairs, tmp_path_factory):
    """A folder with a model to start from, and a file of pairs."""
    folder = tmp_path_factory.mktemp("start")
    save_model(make_model(tokenizer, dropout=0.1), tokenizer, folder / "model")
    (folder / "dpo.jsonl").write_text("\n".join(map(json.dumps, world_pairs)), encoding="utf-8")
    return folder


def settings(start, out_dir, **changes):
    plain = {
        "data_path": str(start / "dpo.jsonl"), "cache_dir": str(start / "cache"), "out_dir": str(out_dir),
        "from_weight": str(start), "batch_size": 4, "epochs": 2, "device": "cpu", "dtype": "float32",
        "log_interval": 1, "warmup_iters": 0, "val_fraction": 0.2,
    }  # fmt: skip
    return DPOConfig(**(plain | changes))


def state(model):
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


def test_a_run_from_a_file_to_a_model(start, tmp_path):
    result = dpo(settings(start, tmp_path, sft_weight=0.0, epochs=6, learning_rate=3e-3), progress=False)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert lines[0]["loss"] == lines[0]["preference_loss"] == pytest.approx(LN2, abs=1e-5) and lines[0][
        "margin"
    ] == pytest.approx(0, abs=1e-4)
    assert {"accuracy", "chosen_logp", "rejected_logp", "chosen_reward", "rejected_reward"} <= set(lines[0])
    assert lines[-1]["loss"] < 0.3 and lines[-1]["margin"] > 1 and result.fit.tokens == 6 * 19
    assert 0 < result.fit.validation_loss < 2  # on five pairs; held-out loss falls on real data, below
    model, tokenizer = load_model(tmp_path)
    assert torch.equal(state(model), state(result.model)) and model.config.dropout == 0.1
    before, _ = load_model(start)
    assert not torch.equal(state(before), state(model))


def test_the_reference_is_computed_once(start, tmp_path, monkeypatch):
    calls, compute = [], reference_module.reference_logprobs
    monkeypatch.setattr(
        reference_module, "reference_logprobs", lambda *a, **k: (calls.append(len(a[1])), compute(*a, **k))[1]
    )
    cache = {"cache_dir": str(tmp_path / "cache"), "max_steps": 2}
    first = dpo(settings(start, tmp_path / "one", **cache), progress=False)
    assert calls == [19, 5]
    second = dpo(settings(start, tmp_path / "two", **cache), progress=False)
    assert calls == [19, 5] and torch.equal(state(first.model), state(second.model))
    dpo(settings(start, tmp_path / "beta", beta=0.5, **cache), progress=False)
    assert calls == [19, 5]  # the settings of the loss do not change it
    other = tmp_path / "other"
    save_model(make_model(first.tokenizer, num_hidden_layers=1), first.tokenizer, other / "model")
    for change in ({"from_weight": str(other)}, {"max_seq_len": 100}, {"dtype": "bfloat16"}):
        calls.clear()
        dpo(settings(start, tmp_path / str(len(str(change))), **cache, **change), progress=False)
        assert calls == [19, 5], change


def test_cached_numbers_equal_computed_ones(start, tmp_path):
    config = settings(start, tmp_path)
    records = load_records(config.data_path, "dpo", cache_dir=config.cache_dir)
    model, tokenizer = load_model(start)
    for _ in range(2):
        data = preference_rows(config, records, model, tokenizer, False)
        fresh = reference_logprobs(model, data.train, batch_size=3)
        cached = np.stack([data.train.pair(place)["reference_logprobs"].numpy() for place in range(19)])
        np.testing.assert_allclose(cached, fresh, rtol=1e-5)


def test_the_first_loss_is_ln_2_in_bfloat16_too(start, tmp_path):
    dpo(settings(start, tmp_path, dtype="bfloat16", max_steps=1), progress=False)
    first = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert first["preference_loss"] == pytest.approx(LN2, abs=5e-3)  # rounding, by which rows shared a batch


def test_resume_refuses_another_loss(start, tmp_path):
    dpo(settings(start, tmp_path, max_steps=1), progress=False)
    for change in ({"beta": 0.2}, {"loss_type": "hinge"}, {"label_smoothing": 0.1}, {"sft_weight": 9.0}):
        with pytest.raises(CheckpointError, match="data was .* and is now"):
            dpo(settings(start, tmp_path, max_steps=1, from_resume=1, **change), progress=False)


def test_a_resumed_run_ends_at_the_same_weights(start, tmp_path):
    whole = dpo(settings(start, tmp_path / "whole"), progress=False)
    kept = settings(start, tmp_path / "parts", save_interval=1, keep_checkpoints=99)
    dpo(kept, progress=False)
    for checkpoint in sorted((tmp_path / "parts" / "checkpoints").iterdir())[3:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    parts = dpo(settings(start, tmp_path / "parts", from_resume=1), progress=False)
    assert torch.equal(state(whole.model), state(parts.model))


def test_what_the_user_should_know(start, tmp_path, world_pairs):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    bad = {"chosen": chat, "rejected": [{"role": "user", "content": "??"}, chat[1]]}
    first = world_pairs[0]
    more = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "That is all."}]
    also = [{"role": "user", "content": "So?"}, {"role": "assistant", "content": "No."}]
    diverging = {"chosen": first["chosen"] + more, "rejected": first["rejected"] + also}
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(map(json.dumps, [bad, *[diverging] * 4, *world_pairs])), encoding="utf-8")
    with pytest.raises(ValueError, match="1 records are no pairs"):
        dpo(settings(start, tmp_path / "run", data_path=str(path), max_steps=1), progress=False)
    config = settings(
        start, tmp_path / "run", data_path=str(path), max_steps=1, on_bad_record="skip", max_seq_len=40
    )
    notes = "\n".join(dpo(config, progress=False).notes)
    assert "1 pairs have no prompt in common and were left out" in notes
    assert "the first that was none: record:0: chosen and rejected differ first in message 1" in notes
    assert "4 pairs go on with different questions after their first answers" in notes
    assert "longer than 40 tokens and were cut" in notes


@pytest.mark.parametrize(
    ("name", "count"),
    [("preference/instruction-data-with-preference.json", 300), ("preference/dpo_zh_demo.json", 120)],
)
def test_loss_falls_on_held_out_real_pairs(shared, name, count, tmp_path):
    found = load_records(shared / "data" / name, "dpo", on_bad_record="skip", cache_dir=tmp_path)
    lines = [json.dumps(found[place]) for place in range(count)]
    (tmp_path / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = [m["content"] for place in range(count) for side in found[place].values() for m in side]
    tokenizer = train_fast(texts, 1_000)
    save_model(make_model(tokenizer), tokenizer, tmp_path / "start" / "model")
    config = DPOConfig(
        data_path=str(tmp_path / "some.jsonl"), cache_dir=str(tmp_path / "cache"),
        out_dir=str(tmp_path / "run"), from_weight=str(tmp_path / "start"), max_steps=40, batch_size=16,
        learning_rate=1e-3, val_fraction=0.3, device="cpu", dtype="float32", max_seq_len=128,
        sft_weight=0.0, log_interval=1,
    )  # fmt: skip
    result = dpo(config, progress=False)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[0]["loss"] == pytest.approx(LN2, abs=1e-4)
    assert result.fit.validation_loss < 0.97 * LN2
