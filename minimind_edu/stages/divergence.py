"""How far a student's distribution is from its teacher's: KL over the vocabulary, or over its top k.

KL(p || q) = sum of p (ln p - ln q), in nats. It is 0 only where p = q, and it is not symmetric. *Forward*,
KL(teacher || student), is large where the student holds impossible what the teacher holds possible;
*reverse*, KL(student || teacher), the other way round. Chapter 8 shows both on a distribution with two modes.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Direction = Literal["forward", "reverse"]


def check_settings(alpha: float, temperature: float, direction: str) -> None:
    """Raise ValueError if a setting of the loss is out of range."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the weight of the labels, from 0 to 1, not {alpha}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a positive number, not {temperature}")
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction must be 'forward' or 'reverse', not {direction!r}")


def full_divergence(student: Tensor, teacher: Tensor, temperature: float, direction: Direction) -> Tensor:
    """KL (N,) between softmax(logits / T) of teacher and student, both (N, V)."""
    log_q = (precise(student) / temperature).log_softmax(dim=-1)
    log_p = (precise(teacher.detach()) / temperature).log_softmax(dim=-1)
    return divergence_of(log_p, log_q, direction)


def top_k_divergence(
    student: Tensor, ids: Tensor, log_probs: Tensor, temperature: float, direction: Direction
) -> Tensor:
    """KL (N,) over k + 1 outcomes: the teacher's k likeliest tokens, and "any other".

    Merging outcomes never makes a KL larger, so this is a lower bound that rises with k to the full KL.

    Args:
        student: (N, V) logits.
        ids, log_probs: (N, k) and (N, k + 1), as `teacher.top_k_log_probabilities` gives them at this
            temperature.
    """
    log_q = (precise(student) / temperature).log_softmax(dim=-1)
    chosen = log_q.gather(-1, ids)
    log_p = log_probs.detach().to(log_q.dtype).log_softmax(dim=-1)  # 16 bits do not sum to 1 exactly
    if ids.shape[-1] == log_q.shape[-1]:  # nothing is left for the others
        return divergence_of(log_p[:, :-1], chosen, direction)
    # Not log(1 - sum): where nearly nothing is left, the difference would be rounding.
    others = log_q.scatter(-1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return divergence_of(log_p, torch.cat((chosen, others), dim=-1), direction)


def divergence_of(log_p: Tensor, log_q: Tensor, direction: Direction) -> Tensor:
    """KL(p || q) if forward, KL(q || p) if reverse; log-probabilities (…, n) to nats (…)."""
    if direction == "reverse":
        return (log_q.exp() * (log_q - log_p)).sum(dim=-1)
    # Where p is 0 its logarithm is minus infinity, and 0 * infinity would be NaN; the term is 0.
    return (log_p.exp() * (log_p.clamp(min=-1e30) - log_q)).sum(dim=-1)


def precise(logits: Tensor) -> Tensor:
    """float32, or float64 if they have it: sixteen bits are too few for sums over a vocabulary."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
