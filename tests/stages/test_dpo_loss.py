"""DPO: its loss against trl's own code, and the loss of a batch."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from pair_models import batch_of, make_model, make_rows

from minimind_edu.stages.dpo import DPOConfig, PreferenceLoss, dpo_loss
from minimind_edu.stages.reference import reference_logprobs, sequence_logprobs

LN2 = math.log(2)


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
