"""Exercises of chapter 8: the KL divergence at a temperature, and its gradient. Two more: `ch08_loss`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.ch08_loss import DISTILL_LOSS, LUMPED_KL
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

# -- ch08.kl -------------------------------------------------------------------------------------------------


def kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of logits (N, V) at a temperature: (N,), in nats."""
    log_p, log_q = ((logits / temperature).log_softmax(dim=-1) for logits in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _logits(generator: torch.Generator) -> list[tuple]:
    cases = [(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log(), 1.0)]
    for temperature, rows, vocab in ((1.0, 3, 5), (2.0, 4, 7), (0.5, 2, 6), (3.0, 5, 4)):
        teacher, student = (2 * torch.randn(rows, vocab, generator=generator) for _ in range(2))
        cases.append((teacher, student, temperature))
    # Logits whose exponentials overflow, as a bad batch may have them.
    large = 200 + 2 * torch.randn(3, 5, generator=generator)
    return [*cases, (large, large + torch.randn(3, 5, generator=generator), 1.0)]


def _unstable(t: Tensor, s: Tensor, T: float) -> Tensor:
    p, q = ((x / T).exp() / (x / T).exp().sum(dim=-1, keepdim=True) for x in (t, s))
    return (p * (p / q).log()).sum(dim=-1)


def _cross_entropy(t: Tensor, s: Tensor, T: float) -> Tensor:
    return -((t / T).softmax(dim=-1) * (s / T).log_softmax(dim=-1)).sum(dim=-1)


def _of_logs(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _one_for_each_row(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.randn(2, 4, 6, generator=generator)
    return tuple(attempt(t, s, 1.0).shape) == (4,)


def _zero_where_equal(attempt: Callable, generator: torch.Generator) -> bool:
    t = torch.randn(4, 6, generator=generator)
    return bool((attempt(t, t.clone(), 2.0).abs() < 1e-5).all())


def _ignores_shifts(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.randn(2, 4, 6, generator=generator)
    return bool(torch.allclose(attempt(t + 3, s - 2, 1.5), attempt(t, s, 1.5), atol=1e-4))


def _rows_are_apart(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.randn(2, 4, 6, generator=generator)
    return bool(torch.allclose(attempt(t[:1], s[:1], 1.0), attempt(t, s, 1.0)[:1], atol=1e-5))


def _is_not_negative(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.randn(2, 20, 6, generator=generator)
    return bool((attempt(t, s, 1.0) > -1e-6).all())


KL = Exercise(
    "ch08.kl",
    kl,
    _logits,
    (
        Mistake("this is the reverse KL, KL(student || teacher)", lambda t, s, T: kl(s, t, T)),
        Mistake("the temperature is not used: it divides the logits of both", lambda t, s, T: kl(t, s, 1.0)),
        Mistake("the student's logits are not divided by the temperature", lambda t, s, T: kl(t, s * T, T)),
        Mistake("the teacher's logits are not divided by the temperature", lambda t, s, T: kl(t * T, s, T)),
        Mistake(
            "the temperature divides the logits; here it multiplies them", lambda t, s, T: kl(t, s, 1 / T)
        ),
        Mistake(
            "T divides the logits, before softmax; here it divides log-probabilities",
            lambda t, s, T: _of_logs(t.log_softmax(-1) / T, s.log_softmax(-1) / T),
        ),
        Mistake(
            "T divides the logits, before softmax; here it divides probabilities",
            lambda t, s, T: kl(t, s, 1.0) / T,
        ),
        Mistake(
            "the weights of the sum are the teacher's probabilities at the same temperature",
            lambda t, s, T: (t.softmax(-1) * ((t / T).log_softmax(-1) - (s / T).log_softmax(-1))).sum(-1),
        ),
        Mistake("the factor T² belongs to the loss, not to the KL", lambda t, s, T: T**2 * kl(t, s, T)),
        Mistake("a factor T too many", lambda t, s, T: T * kl(t, s, T)),
        Mistake(
            "F.kl_div wants the logarithm of the student's probabilities",
            lambda t, s, T: F.kl_div((s / T).softmax(-1), (t / T).softmax(-1), reduction="none").sum(-1),
        ),
        Mistake(
            "exp of large logits overflows, and infinity over infinity is NaN: take log_softmax", _unstable
        ),
        Mistake("this is the cross-entropy; the teacher's own entropy is not taken off", _cross_entropy),
        Mistake("the sign is turned round: a KL is never negative", lambda t, s, T: -kl(t, s, T)),
        Mistake("one number for each row is wanted, not their mean", lambda t, s, T: kl(t, s, T).mean()),
        Mistake("one number for each row is wanted, not their sum", lambda t, s, T: kl(t, s, T).sum()),
        Mistake(
            "the terms of a row are added up; a mean over the vocabulary is V times too small",
            lambda t, s, T: kl(t, s, T) / t.shape[-1],
        ),
        Mistake(
            "the distributions are over the vocabulary, the last dimension; here softmax runs over the rows",
            lambda t, s, T: ((t / T).softmax(0) * ((t / T).log_softmax(0) - (s / T).log_softmax(0))).sum(-1),
        ),
        Mistake(
            "the terms of the vocabulary are still apart: add them up for each row",
            lambda t, s, T: (t / T).softmax(-1) * ((t / T).log_softmax(-1) - (s / T).log_softmax(-1)),
        ),
        Mistake(
            "the logits themselves are subtracted; subtract logarithms of probabilities",
            lambda t, s, T: ((t / T).softmax(-1) * (t - s) / T).sum(-1),
        ),
        Mistake("bits instead of nats: take the natural logarithm", lambda t, s, T: kl(t, s, T) / 0.6931472),
    ),
    (
        Property("one number for each row is wanted, shape (N,)", _one_for_each_row),
        Property("where student and teacher agree, the divergence is 0", _zero_where_equal),
        Property("a constant added to all logits of a row changes no probability", _ignores_shifts),
        Property("a row's divergence must not depend on the rows beside it", _rows_are_apart),
        Property("a KL divergence is never negative", _is_not_negative),
    ),
)

# -- ch08.gradient -------------------------------------------------------------------------------------------


def gradient(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The gradient of T² KL(teacher || student) by the student's logits, (N, V): row by row T (q - p)."""
    p, q = ((logits / temperature).softmax(dim=-1) for logits in (teacher, student))
    return temperature * (q - p)


def _gradient_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log(), 1.0)]
    for temperature, rows, vocab in ((2.0, 3, 5), (0.5, 4, 7), (3.0, 2, 6), (1.5, 5, 4)):
        teacher, student = (2 * torch.randn(rows, vocab, generator=generator) for _ in range(2))
        cases.append((teacher, student, temperature))
    return cases


def _p(x: Tensor, T: float) -> Tensor:
    return (x / T).softmax(dim=-1)


def _reverse_gradient(t: Tensor, s: Tensor, T: float) -> Tensor:
    q, terms = _p(s, T), (s / T).log_softmax(dim=-1) - (t / T).log_softmax(dim=-1)
    return T * q * (terms - (q * terms).sum(dim=-1, keepdim=True))


def _gradient_by_teacher(t: Tensor, s: Tensor, T: float) -> Tensor:
    return _reverse_gradient(s, t, T)


def _sums_to_zero(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.randn(2, 4, 6, generator=generator)
    return bool((attempt(t, s, 2.0).sum(dim=-1).abs() < 1e-4).all())


def _has_their_shape(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.randn(2, 4, 6, generator=generator)
    return tuple(attempt(t, s, 2.0).shape) == (4, 6)


def _pushes_towards_the_teacher(attempt: Callable, generator: torch.Generator) -> bool:
    t, s = torch.tensor([[2.0, 0.0, 0.0]]), torch.zeros(1, 3)
    return float(attempt(t, s, 1.0)[0, 0]) < 0 < float(attempt(t, s, 1.0)[0, 1])


def _vanishes_where_equal(attempt: Callable, generator: torch.Generator) -> bool:
    t = torch.randn(4, 6, generator=generator)
    return bool((attempt(t, t + 1.0, 2.0).abs() < 1e-5).all())


GRADIENT = Exercise(
    "ch08.gradient",
    gradient,
    _gradient_cases,
    (
        Mistake(
            "the sign is turned round: descending would lead away from the teacher",
            lambda t, s, T: -gradient(t, s, T),
        ),
        Mistake(
            "this is the gradient of the KL without its factor T²", lambda t, s, T: gradient(t, s, T) / T**2
        ),
        Mistake(
            "the logits are divided by T before softmax, so the chain rule brings a factor 1/T",
            lambda t, s, T: T * gradient(t, s, T),
        ),
        Mistake(
            "q - p alone: the factor T² and the 1/T of the chain rule leave a factor T",
            lambda t, s, T: gradient(t, s, T) / T,
        ),
        Mistake(
            "softmax is taken of the logits themselves; divide them by T",
            lambda t, s, T: T * (_p(s, 1) - _p(t, 1)),
        ),
        Mistake(
            "softmax is taken of the logits themselves, and the factor T is missing",
            lambda t, s, T: _p(s, 1) - _p(t, 1),
        ),
        Mistake(
            "softmax is taken of the logits themselves; with it, the chain rule brings a 1/T too",
            lambda t, s, T: T**2 * (_p(s, 1) - _p(t, 1)),
        ),
        Mistake("this is the gradient of the reverse KL", _reverse_gradient),
        Mistake("the sign is turned round, and the factor T is missing", lambda t, s, T: _p(t, T) - _p(s, T)),
        Mistake(
            "the sign is turned round, and the chain rule's 1/T is missing",
            lambda t, s, T: T**2 * (_p(t, T) - _p(s, T)),
        ),
        Mistake(
            "this is the gradient by the teacher's logits: it is the student that learns",
            _gradient_by_teacher,
        ),
        Mistake(
            "the teacher's logits are not divided by the temperature",
            lambda t, s, T: T * (_p(s, T) - _p(t, 1)),
        ),
        Mistake(
            "the student's logits are not divided by the temperature",
            lambda t, s, T: T * (_p(s, 1) - _p(t, T)),
        ),
        Mistake(
            "the temperature divides the logits; here it multiplies them",
            lambda t, s, T: T * (_p(s, 1 / T) - _p(t, 1 / T)),
        ),
        Mistake(
            "this is the gradient of the sum of rows over their number: do not average",
            lambda t, s, T: gradient(t, s, T) / len(t),
        ),
        Mistake(
            "softmax runs over the rows; the distributions are over the last dimension",
            lambda t, s, T: T * ((s / T).softmax(0) - (t / T).softmax(0)),
        ),
        Mistake(
            "only the teacher's likeliest token is used, as if it were a label; use all of its distribution",
            lambda t, s, T: T * (_p(s, T) - F.one_hot(t.argmax(-1), t.shape[-1])),
        ),
        Mistake(
            "this is the limit for a large T; at this T take the difference of the probabilities",
            lambda t, s, T: ((s - s.mean(-1, keepdim=True)) - (t - t.mean(-1, keepdim=True))) / t.shape[-1],
        ),
    ),
    (
        Property("a gradient has the shape of the logits, (N, V)", _has_their_shape),
        Property("probabilities sum to 1, so the gradient of each row must sum to 0", _sums_to_zero),
        Property("where student and teacher agree, there is nothing to change", _vanishes_where_equal),
        Property(
            "where the teacher finds a token likelier than the student does, the gradient is negative there",
            _pushes_towards_the_teacher,
        ),
    ),
)

EXERCISES = (KL, GRADIENT, DISTILL_LOSS, LUMPED_KL)
