"""The mathematics of GRPO and its relatives: advantages within a group, and the loss they are used in.

Chapter 9 derives it. GRPO: Shao et al., 2024, "DeepSeekMath" (arXiv:2402.03300), section 4.1. Dr. GRPO: Liu
et al., 2025, "Understanding R1-Zero-Like Training" (arXiv:2503.20783). DAPO: Yu et al., 2025
(arXiv:2503.14476). CISPO: MiniMax, 2025, "MiniMax-M1" (arXiv:2506.13585), equation 4.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

STD_EPSILON = 1e-4  # added to a standard deviation before dividing by it, as in trl


@dataclass(frozen=True)
class Variant:
    """What sets one loss of the family apart from another.

    Attributes:
        scale: divide advantages by the standard deviation of the group's rewards.
        aggregation: how the tokens' losses become one. sequence: the mean over each answer, then over
            answers, so that a token of a long answer counts less; token: the mean over all tokens; constant:
            the sum over all tokens divided by answers times a fixed length, so that length cannot matter.
        surrogate: clip is PPO's, which lets go of a token whose ratio has left its range; cispo bounds the
            weight of the token instead, and keeps its gradient.
        eps_low, eps_high: ratios count from 1 - eps_low to 1 + eps_high. For cispo an eps_low of 1 means no
            lower bound, as in its paper.
        drop_equal_groups: leave out groups whose rewards are all equal, from which there is nothing to learn.
            The trainer does this.
    """

    scale: bool = True
    aggregation: Literal["sequence", "token", "constant"] = "sequence"
    surrogate: Literal["clip", "cispo"] = "clip"
    eps_low: float = 0.2
    eps_high: float = 0.2
    drop_equal_groups: bool = False

    def __post_init__(self) -> None:
        if self.aggregation not in ("sequence", "token", "constant"):
            raise ValueError(f"unknown aggregation {self.aggregation!r}: use sequence, token or constant")
        if self.surrogate not in ("clip", "cispo"):
            raise ValueError(f"unknown surrogate {self.surrogate!r}: use clip or cispo")
        if not (0 <= self.eps_low <= 1 and 0 <= self.eps_high < float("inf")):
            raise ValueError(
                f"eps_low must be from 0 to 1 and eps_high 0 or more, not {self.eps_low} and {self.eps_high}"
            )


VARIANTS = {
    "grpo": Variant(),
    "dr_grpo": Variant(scale=False, aggregation="constant"),
    "dapo": Variant(aggregation="token", eps_high=0.28, drop_equal_groups=True),
    "cispo": Variant(aggregation="token", surrogate="cispo", eps_low=1.0, eps_high=4.0),
}


def group_advantages(rewards: Tensor, scale: bool = True) -> Tensor:
    """How much better each answer is than the mean of its group.

    A group of equal rewards, or of one answer, has advantages of 0.

    Args:
        rewards: (P, G): G answers to each of P prompts.
        scale: divide by the group's standard deviation (with G - 1 below, as in trl), which gives an easy and
            a hard prompt the same weight; Dr. GRPO leaves it out.

    Returns:
        (P, G).

    Raises:
        ValueError: not (P, G), or a reward that is not finite.
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards must have shape (P, G), not {tuple(rewards.shape)}")
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError("rewards must be finite numbers")
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    # Rounding of the mean must not become an advantage where all rewards are equal.
    centred = centred.masked_fill(equal_groups(rewards)[:, None], 0.0)
    if not scale or rewards.shape[1] == 1:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + STD_EPSILON)


def equal_groups(rewards: Tensor) -> Tensor:
    """(P,) bool: groups (P, G) whose rewards are all equal, and which therefore teach nothing."""
    return (rewards == rewards[:, :1]).all(dim=1)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    variant: Variant | str = "grpo",
    ref_logprobs: Tensor | None = None,
    beta: float = 0.0,
    length: int | None = None,
    entropy: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, and what is worth knowing about it.

    With the ratio r = exp(logprob - old logprob), the loss of a token is -min(r A, clip(r) A); for CISPO it
    is -stop_gradient(clip(r)) A logprob. To it comes beta times k3 = exp(d) - d - 1 with
    d = reference - logprob, an unbiased estimate of KL(policy || reference) that is never negative (Schulman,
    2020, "Approximating KL Divergence").

    What the mask leaves out has no influence, not even if it is NaN. An answer without a token counts as one
    of loss 0; with no token at all the loss is 0.

    Args:
        logprobs: (B, T), log-probabilities (nats) of the tokens that were drawn, with gradients.
        old_logprobs: (B, T), the same under the distribution that they were drawn from.
        advantages: (B,), one for each answer.
        mask: (B, T), true or 1 on the answer's tokens.
        variant: a name in `VARIANTS`, or a `Variant`.
        ref_logprobs: (B, T), the same under the reference; needed if beta is above 0.
        beta: weight of the KL to the reference.
        length: what "constant" divides by; default T.
        entropy: (B, T), nats; only to be reported.

    Returns:
        The loss, and means over the answers' tokens, without gradients: ``ratio``; ``clip_share``, tokens
        whose ratio lies beyond its range on the side where that stops (clip) or bounds (cispo) the step;
        ``kl`` and ``entropy`` where they are given.

    Raises:
        ValueError: shapes that do not fit, an unknown variant, or beta without a reference.
    """
    variant = find_variant(variant)
    _check_shapes(logprobs, advantages, mask, old_logprobs, ref_logprobs, entropy)
    if beta and ref_logprobs is None:
        raise ValueError(f"beta is {beta}, but there are no ref_logprobs")
    keep = mask.bool()
    weight = keep.to(logprobs.dtype)
    logprobs, old = logprobs.masked_fill(~keep, 0.0), old_logprobs.masked_fill(~keep, 0.0)
    advantage = advantages[:, None].to(logprobs.dtype)

    ratio = (logprobs - old).exp()
    bounded = ratio.clamp(1 - variant.eps_low, 1 + variant.eps_high)
    if variant.surrogate == "cispo":
        loss = -bounded.detach() * advantage * logprobs
        is_clipped = ratio != bounded
    else:
        loss = -torch.minimum(ratio * advantage, bounded * advantage)
        is_clipped = bounded * advantage < ratio * advantage
    numbers = {"ratio": ratio, "clip_share": is_clipped.to(weight.dtype)}
    if ref_logprobs is not None:
        difference = ref_logprobs.masked_fill(~keep, 0.0) - logprobs
        kl = difference.exp() - difference - 1
        loss = loss + beta * kl if beta else loss
        numbers["kl"] = kl
    if entropy is not None:
        numbers["entropy"] = entropy.masked_fill(~keep, 0.0)

    tokens = weight.sum().clamp(min=1)
    means = {name: (value.detach() * weight).sum() / tokens for name, value in numbers.items()}
    return _aggregate(loss * weight, weight, variant.aggregation, length), means


def grpo_loss(
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float | None = None,
    clip_high: float | None = None,
    kl_coef: float = 0.0,
    loss_type: str = "grpo",
) -> Tensor:
    """`policy_loss` without its record, a scalar; default ranges of the ratio are the variant's own."""
    variant = adjusted(find_variant(loss_type), eps_low=clip_low, eps_high=clip_high)
    given = {"variant": variant, "ref_logprobs": ref_logps, "beta": kl_coef}
    return policy_loss(logps, old_logps, advantages, mask, **given)[0]


def adjusted(variant: Variant, **changes: float | bool | None) -> Variant:
    """A variant with some of its settings changed; None leaves a setting as it is."""
    return replace(variant, **{name: value for name, value in changes.items() if value is not None})


def _aggregate(loss: Tensor, weight: Tensor, how: str, length: int | None) -> Tensor:
    """One number from the losses of all tokens (B, T)."""
    answers, tokens = loss.shape
    if how == "token":
        return loss.sum() / weight.sum().clamp(min=1)
    if how == "constant":
        return loss.sum() / max(answers * (length or tokens), 1)
    return (loss.sum(dim=1) / weight.sum(dim=1).clamp(min=1)).sum() / max(answers, 1)


def find_variant(variant: Variant | str) -> Variant:
    """The variant of a name.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: use {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def _check_shapes(logprobs: Tensor, advantages: Tensor, mask: Tensor, *others: Tensor | None) -> None:
    """Broadcasting would hide a mistake in these."""
    shapes = {tuple(one.shape) for one in (logprobs, mask, *others) if one is not None}
    if len(shapes) > 1 or logprobs.dim() != 2:
        raise ValueError(f"log-probabilities, mask and entropy must all be (B, T), not {sorted(shapes)}")
    if advantages.shape != logprobs.shape[:1]:
        raise ValueError(f"advantages must be ({len(logprobs)},), not {tuple(advantages.shape)}")
