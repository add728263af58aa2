"""The losses of the GRPO family against trl's own code and against a loop, and advantages by hand."""

import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minimind_edu.stages.policy import (
    VARIANTS,
    Variant,
    adjusted,
    equal_groups,
    group_advantages,
    grpo_loss,
    policy_loss,
)

ROWS, TOKENS = 8, 13
LENGTH = 20  # what Dr. GRPO divides by


class TrlLoss:
    """trl's own `GRPOTrainer._compute_loss`, on given log-probabilities instead of a model's."""

    def __init__(self, loss_type, low, high, beta):
        trl = pytest.importorskip("trl")
        self.trainer = object.__new__(trl.GRPOTrainer)
        accelerator = SimpleNamespace(
            device=torch.device("cpu"), num_processes=1, sync_gradients=True, gather=lambda x: x,
            gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x,
        )  # fmt: skip
        args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
        vars(self.trainer).update(
            model=SimpleNamespace(training=True), accelerator=accelerator, args=args, loss_type=loss_type,
            beta=beta, epsilon_low=low, epsilon_high=high, importance_sampling_level="token",
            top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, aux_loss_enabled=False,
            max_completion_length=LENGTH, current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
            _metrics=defaultdict(lambda: defaultdict(list)),
        )  # fmt: skip

    def __call__(self, new, old, advantages, mask, reference):
        self.trainer._get_per_token_logps_and_entropies = lambda *_, **__: (new, torch.zeros_like(new), None)
        ones = torch.ones(len(new), 1, dtype=torch.long)
        inputs = {
            "prompt_ids": ones, "prompt_mask": ones, "completion_ids": torch.ones_like(mask),
            "completion_mask": mask, "advantages": advantages, "old_per_token_logps": old,
            "ref_per_token_logps": reference, "num_items_in_batch": mask.sum(),
        }  # fmt: skip
        return self.trainer._compute_loss(None, inputs)

    @property
    def metrics(self):
        return {name: values[-1] for name, values in self.trainer._metrics["train"].items()}


def random_batch(seed, dtype, spread=0.3):
    random = torch.Generator().manual_seed(seed)

    def normal():
        return torch.randn(ROWS, TOKENS, generator=random, dtype=torch.float64)

    new = -2 + normal()
    old, reference = new + spread * normal(), new + spread * normal()
    rewards = torch.randint(0, 3, (2, ROWS // 2), generator=random).double()
    lengths = torch.randint(1, TOKENS + 1, (ROWS,), generator=random)
    mask = (torch.arange(TOKENS)[None] < lengths[:, None]).long()
    given = (one.to(dtype) for one in (new, old, reference, rewards))
    return *given, mask


# Ours, and what trl calls it. trl's epsilon_high of CISPO is the bound itself, without "1 +".
TRL = {"grpo": "grpo", "dr_grpo": "dr_grpo", "dapo": "dapo", "cispo": "cispo", "bnpo": "bnpo"}


def pair(name, low, high):
    base = Variant(aggregation="token") if name == "bnpo" else VARIANTS[name]
    if name == "cispo":
        return adjusted(base, eps_high=high), 0.0, 1 + high
    return adjusted(base, eps_low=low, eps_high=high), low, high


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("beta", [0.0, 0.04, 1.0])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.0, 0.5), (0.1, 0.05)])
@pytest.mark.parametrize("name", TRL)
def test_losses_gradients_and_numbers_are_trls(name, low, high, beta, dtype):
    variant, *trl_eps = pair(name, low, high)
    for seed, scale in ((0, True), (1, False), (2, True)):
        new, old, reference, rewards, mask = random_batch(seed, dtype)
        new.requires_grad_()
        advantages = group_advantages(rewards, scale).flatten()
        theirs = TrlLoss(TRL[name], *trl_eps, beta)
        expected = theirs(new, old, advantages, mask, reference)
        loss, numbers = policy_loss(
            new, old, advantages, mask, variant=variant, ref_logprobs=reference, beta=beta, length=LENGTH
        )
        assert loss.dtype == dtype
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
        ours, trls = (torch.autograd.grad(one, new)[0] for one in (loss, expected))
        torch.testing.assert_close(ours, trls, rtol=1e-5, atol=1e-5 * float(trls.abs().max()))
        assert float(ours.abs().max()) > 0
        if beta:
            assert float(numbers["kl"]) == pytest.approx(theirs.metrics["kl"], rel=1e-5)
        if name != "cispo":
            assert float(numbers["clip_share"]) == pytest.approx(theirs.metrics["clip_ratio/region_mean"])


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_equal_a_loop_over_tokens(name):
    """Written from the papers' formulas, one token at a time."""
    variant = VARIANTS[name]
    for seed in range(3):
        new, old, reference, rewards, mask = (one.numpy() for one in random_batch(seed, torch.float64))
        advantages = rewards - rewards.mean(axis=1, keepdims=True)
        if variant.scale:
            advantages = advantages / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4)
        totals, counts = np.zeros(ROWS), np.zeros(ROWS)
        for row in range(ROWS):
            advantage = advantages.flat[row]
            for t in range(TOKENS):
                if not mask[row, t]:
                    continue
                ratio = math.exp(new[row, t] - old[row, t])
                inside = min(max(ratio, 1 - variant.eps_low), 1 + variant.eps_high)
                if variant.surrogate == "cispo":
                    value = -inside * advantage * new[row, t]
                else:
                    value = -min(ratio * advantage, inside * advantage)
                d = reference[row, t] - new[row, t]
                totals[row] += value + 0.1 * (math.exp(d) - d - 1)
                counts[row] += 1
        expected = {
            "sequence": (totals / counts).mean(),
            "token": totals.sum() / counts.sum(),
            "constant": totals.sum() / (ROWS * LENGTH),
        }[variant.aggregation]
        new, old, reference, rewards, mask = random_batch(seed, torch.float64)
        advantages = group_advantages(rewards, variant.scale).flatten()
        options = {"ref_logprobs": reference, "beta": 0.1, "length": LENGTH}
        loss, _ = policy_loss(new, old, advantages, mask, variant=name, **options)
        assert float(loss) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_trls(scale):
    """Its own lines, with its own standard deviation."""
    utils = pytest.importorskip("trl.trainer.utils")
    rewards = torch.rand(5, 7, generator=torch.Generator().manual_seed(1))
    expected = rewards - rewards.mean(dim=1, keepdim=True)
    if scale:
        expected = expected / (utils.nanstd(rewards, dim=1)[:, None] + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, scale), expected, rtol=1e-5, atol=1e-6)


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 4.0], [0.1, 0.1, 0.1, 0.1]])
    plain = group_advantages(rewards, scale=False)
    assert plain.tolist() == [[0.5, -0.5, -0.5, 0.5], [-1.0, -1.0, -1.0, 3.0], [0.0] * 4]
    scaled = group_advantages(rewards)
    assert scaled[1].tolist() == pytest.approx([-0.5, -0.5, -0.5, 1.5], abs=1e-4)  # the deviation is 2
    assert scaled[2].tolist() == [0.0] * 4  # exactly, although 0.1 is no binary number
    assert equal_groups(rewards).tolist() == [False, False, True]
    assert group_advantages(torch.tensor([[3], [5]])).tolist() == [[0.0], [0.0]]


def test_toy_numbers():
    """Two answers of 1 and 3 tokens, ratios 1 but for one of 2: clipped at 1.2 where that is good."""
    old = torch.zeros(2, 3)
    new = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(2)]])
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]])
    advantages = torch.tensor([1.0, -1.0])
    per_token = {  # losses of the four tokens
        "grpo": ([-1.2], [1, 1, 2]),
        "dr_grpo": ([-1.2], [1, 1, 2]),
        "dapo": ([-1.28], [1, 1, 2]),
        "cispo": ([-2 * math.log(2)], [0, 0, 2 * math.log(2)]),
    }
    for name, (first, second) in per_token.items():
        loss, numbers = policy_loss(new, old, advantages, mask, variant=name, length=10)
        total = sum(first) + sum(second)
        expected = {
            "sequence": (sum(first) + sum(second) / 3) / 2,
            "token": total / 4,
            "constant": total / 20,
        }
        assert float(loss) == pytest.approx(expected[VARIANTS[name].aggregation], abs=1e-6)
        assert float(numbers["ratio"]) == pytest.approx(6 / 4)
        assert float(numbers["clip_share"]) == (0 if name == "cispo" else 0.25)  # 2 is below CISPO's 5


def test_clipping_stops_the_gradient_and_cispo_keeps_it():
    old = torch.zeros(1, 2)
    for name, stopped in {"grpo": True, "cispo": False}.items():
        new = torch.tensor([[math.log(6), 0.0]], requires_grad=True)
        policy_loss(new, old, torch.ones(1), torch.ones(1, 2), variant=name)[0].backward()
        assert (new.grad[0, 0] == 0) == stopped
        assert new.grad[0, 1] < 0
    assert float(new.grad[0, 0] / new.grad[0, 1]) == pytest.approx(5)  # the weight is bounded by 1 + 4


def test_length_bias():
    """The gradient of a wrong token in a long answer is smaller under "sequence", the same under others."""
    old, mask = torch.zeros(2, 8), torch.tensor([[1] * 2 + [0] * 6, [1] * 8])
    for name, ratio in {"grpo": 4.0, "dapo": 1.0, "dr_grpo": 1.0}.items():
        new = torch.zeros(2, 8, requires_grad=True)
        policy_loss(new, old, -torch.ones(2), mask, variant=name)[0].backward()
        assert float(new.grad[0, 0] / new.grad[1, 0]) == pytest.approx(ratio)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_masked_has_no_influence(name):
    new, old, reference, rewards, mask = random_batch(0, torch.float64)
    mask[3] = 0
    advantages = group_advantages(rewards).flatten()
    results = []
    for garbage in (0.0, math.nan, math.inf, -math.inf):
        spoiled = [one.masked_fill(mask == 0, garbage) for one in (new, old, reference)]
        spoiled[0].requires_grad_()
        options = {"variant": name, "ref_logprobs": spoiled[2], "beta": 0.1, "entropy": spoiled[2]}
        loss, numbers = policy_loss(*spoiled[:2], advantages, mask, **options)
        gradient = torch.autograd.grad(loss, spoiled[0])[0]
        assert not gradient[3].any()
        results.append(torch.cat([loss.detach()[None], *(n[None] for n in numbers.values()), gradient[0]]))
        assert torch.equal(results[-1], results[0]) and bool(torch.isfinite(results[0]).all())


@pytest.mark.parametrize("name", VARIANTS)
def test_no_token_at_all_is_a_loss_of_zero(name):
    new = torch.zeros(2, 3, requires_grad=True)
    loss, numbers = policy_loss(
        new, torch.zeros(2, 3), torch.ones(2), torch.zeros(2, 3), variant=name, ref_logprobs=torch.ones(2, 3)
    )
    loss.backward()
    assert float(loss.detach()) == 0 and not new.grad.any()
    assert all(float(value) == 0 for value in numbers.values())


def test_k3_is_an_unbiased_estimate_of_the_kl():
    random = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 50, generator=random).log_softmax(-1) * 1.0).unbind(0)
    exact = float((ours.exp() * (ours - theirs)).sum())
    drawn = torch.multinomial(ours.exp(), 200_000, replacement=True, generator=random)[None]
    numbers = policy_loss(
        ours[drawn], ours[drawn], torch.zeros(1), torch.ones_like(drawn), ref_logprobs=theirs[drawn]
    )[1]
    assert float(numbers["kl"]) == pytest.approx(exact, rel=0.03)


def test_the_public_loss():
    new, old, reference, rewards, mask = random_batch(0, torch.float64)
    advantages = group_advantages(rewards).flatten()
    for name in VARIANTS:
        expected = policy_loss(new, old, advantages, mask, variant=name)[0]
        assert torch.equal(grpo_loss(new, old, None, advantages, mask, loss_type=name), expected)
    variant = Variant(eps_low=0.1, eps_high=0.3)
    expected = policy_loss(new, old, advantages, mask, variant=variant, ref_logprobs=reference, beta=0.2)[0]
    ours = grpo_loss(new, old, reference, advantages, mask, clip_low=0.1, clip_high=0.3, kl_coef=0.2)
    assert torch.equal(ours, expected)


def test_wrong_arguments_are_named():
    one = torch.zeros(2, 3)
    wrong = {
        "unknown variant 'ppo'": lambda: policy_loss(one, one, one[:, 0], one, variant="ppo"),
        "no ref_logprobs": lambda: policy_loss(one, one, one[:, 0], one, beta=0.1),
        r"advantages must be \(2,\)": lambda: policy_loss(one, one, one[0], one),
        r"must all be \(B, T\)": lambda: policy_loss(one, one[:, :1], one[:, 0], one),
        "unknown aggregation": lambda: Variant(aggregation="mean"),
        "unknown surrogate": lambda: Variant(surrogate="none"),
        "eps_low must be": lambda: Variant(eps_low=1.5),
        r"shape \(P, G\)": lambda: group_advantages(torch.zeros(4)),
        "finite": lambda: group_advantages(torch.tensor([[0.0, math.nan]])),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()
