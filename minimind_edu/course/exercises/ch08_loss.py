"""Exercises of chapter 8, continued: the whole loss, and the divergence where only the top k was kept."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _also_nan(mistakes: Sequence[Mistake], where: Callable[..., bool], addition: str) -> tuple[Mistake, ...]:
    """The mistakes, and each again in an answer that is not a number where `where(*arguments)`, too."""

    def both(wrong: Callable) -> Callable:
        return lambda *arguments: torch.tensor(math.nan) if where(*arguments) else wrong(*arguments)

    twins = (Mistake(f"{one.hint}; {addition}", both(one.function)) for one in mistakes)
    return (*mistakes, *twins)


# -- ch08.distill_loss ---------------------------------------------------------------------------------------


def distill_loss(
    student: Tensor, teacher: Tensor, targets: Tensor, alpha: float, temperature: float
) -> Tensor:
    """alpha * cross-entropy + (1 - alpha) * T² * KL(teacher || student), a mean over the labelled positions.

    Logits are (N, V); targets (N,) belong to the same positions, with -100 where there is no loss.
    """
    labelled = targets != -100
    student, teacher, targets = student[labelled], teacher[labelled], targets[labelled]
    log_p, log_q = ((logits / temperature).log_softmax(dim=-1) for logits in (teacher, student))
    kl = (log_p.exp() * (log_p - log_q)).sum()
    cross_entropy = -student.log_softmax(dim=-1).gather(-1, targets[:, None]).sum()
    return (alpha * cross_entropy + (1 - alpha) * temperature**2 * kl) / max(len(targets), 1)


def _terms(s: Tensor, t: Tensor, y: Tensor, T: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """Cross-entropy (N,), 0 where there is no label; KL (N,) everywhere; labelled (N,); their number."""
    labelled = y != -100
    cross_entropy = F.cross_entropy(s, y, ignore_index=-100, reduction="none")
    log_p, log_q = (t / T).log_softmax(-1), (s / T).log_softmax(-1)
    return cross_entropy, (log_p.exp() * (log_p - log_q)).sum(-1), labelled, max(int(labelled.sum()), 1)


def _mixed(a: float, T: float, cross_entropy: Tensor, kl: Tensor, power: float = 2.0) -> Tensor:
    return a * cross_entropy + (1 - a) * T**power * kl


def _loss_cases(generator: torch.Generator) -> list[tuple]:
    cases = []
    for alpha, temperature, rows, vocab in (
        (0.5, 1.0, 5, 6),
        (0.2, 2.0, 9, 5),
        (0.7, 3.0, 7, 8),
        (0.0, 0.5, 6, 7),
    ):
        student, teacher = (2 * torch.randn(rows, vocab, generator=generator) for _ in range(2))
        targets = torch.randint(0, vocab, (rows,), generator=generator)
        targets[torch.randperm(rows, generator=generator)[: rows // 3]] = -100
        cases.append((student, teacher, targets, alpha, temperature))
    nothing = torch.full((4,), -100)
    return [
        *cases,
        (torch.randn(4, 5, generator=generator), torch.randn(4, 5, generator=generator), nothing, 0.4, 2.0),
    ]


def _variant(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A wrong answer from `change(alpha, T, sum of cross-entropy, KL (N,), labelled, count)`."""

    def wrong(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
        cross_entropy, kl, labelled, count = _terms(s, t, y, T)
        return change(a, T, cross_entropy.sum(), kl, labelled, count)

    return wrong


def _no_labels(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> bool:
    return not bool((y != -100).any())


def _nan_without_labels(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    return s.sum() * math.nan if _no_labels(s, t, y, a, T) else distill_loss(s, t, y, a, T)


def _cold(s: Tensor, t: Tensor, y: Tensor, a: float, T: float, hot_teacher: bool, power: int) -> Tensor:
    """The student's logits are not divided by T; the teacher's are, if `hot_teacher`."""
    cross_entropy, _, labelled, count = _terms(s, t, y, T)
    kl = _terms(s, t / T if hot_teacher else t, y, 1.0)[1]
    return _mixed(a, T, cross_entropy.sum(), kl[labelled].sum(), power) / count


def _tempered_labels(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    _, kl, labelled, count = _terms(s, t, y, T)
    cross_entropy = F.cross_entropy(s / T, y, ignore_index=-100, reduction="sum")
    return _mixed(a, T, cross_entropy, kl[labelled].sum()) / count


def _reverse(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    cross_entropy, _, labelled, count = _terms(s, t, y, T)
    kl = _terms(t, s, y, T)[1]
    return _mixed(a, T, cross_entropy.sum(), kl[labelled].sum()) / count


def _teacher_takes_the_test(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    _, kl, labelled, count = _terms(s, t, y, T)
    return _mixed(a, T, _terms(t, s, y, T)[0].sum(), kl[labelled].sum()) / count


def _soft_cross_entropy(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    cross_entropy, _, labelled, count = _terms(s, t, y, T)
    soft = -((t / T).softmax(-1) * (s / T).log_softmax(-1)).sum(-1)
    return _mixed(a, T, cross_entropy.sum(), soft[labelled].sum()) / count


def _by_default(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    cross_entropy, kl, labelled, count = _terms(s, t, y, T)
    return _mixed(a, T, cross_entropy.sum(), kl[labelled].sum() / s.shape[-1]) / count


def _shifted_again(s: Tensor, t: Tensor, y: Tensor, a: float, T: float) -> Tensor:
    return distill_loss(s[:-1], t[:-1], y[1:], a, T)


def _is_scalar(attempt: Callable, generator: torch.Generator) -> bool:
    s, t = torch.randn(2, 4, 6, generator=generator)
    return torch.as_tensor(attempt(s, t, torch.tensor([1, 2, -100, 0]), 0.5, 2.0)).numel() == 1


def _alpha_one_is_cross_entropy(attempt: Callable, generator: torch.Generator) -> bool:
    s, t = torch.randn(2, 4, 6, generator=generator)
    targets = torch.tensor([1, 2, -100, 0])
    return abs(float(attempt(s, t, targets, 1.0, 2.0)) - float(F.cross_entropy(s, targets))) < 1e-4


def _alpha_zero_ignores_targets(attempt: Callable, generator: torch.Generator) -> bool:
    s, t = torch.randn(2, 4, 6, generator=generator)
    one, other = torch.tensor([1, 2, -100, 0]), torch.tensor([3, 5, -100, 4])
    return abs(float(attempt(s, t, one, 0.0, 2.0)) - float(attempt(s, t, other, 0.0, 2.0))) < 1e-5


def _unlabelled_do_not_matter(attempt: Callable, generator: torch.Generator) -> bool:
    s, t = torch.randn(2, 4, 6, generator=generator)
    targets = torch.tensor([1, 2, -100, 0])
    changed = t.clone()
    changed[2] = 5 * torch.randn(6, generator=generator)
    return abs(float(attempt(s, changed, targets, 0.3, 2.0)) - float(attempt(s, t, targets, 0.3, 2.0))) < 1e-5


_LOSS_MISTAKES = (
    Mistake(
        "alpha is the weight of the labels; here it is the teacher's",
        lambda s, t, y, a, T: distill_loss(s, t, y, 1 - a, T),
    ),
    Mistake(
        "the factor T² of the KL is missing",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce, kl[m].sum(), 0) / n),
    ),
    Mistake(
        "the factor of the KL is T², not T",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce, kl[m].sum(), 1) / n),
    ),
    Mistake(
        "T² belongs to the KL only, not to the labels' part",
        _variant(lambda a, T, ce, kl, m, n: T**2 * (a * ce + (1 - a) * kl[m].sum()) / n),
    ),
    Mistake(
        "the temperature is not used in the KL: it divides the logits of both",
        lambda s, t, y, a, T: _cold(s, t, y, a, T, False, 2),
    ),
    Mistake(
        "temperature and T² are both missing in the teacher's part",
        lambda s, t, y, a, T: _cold(s, t, y, a, T, False, 0),
    ),
    Mistake(
        "in the KL the student's logits are divided by the temperature too",
        lambda s, t, y, a, T: _cold(s, t, y, a, T, True, 2),
    ),
    Mistake(
        "the KL is multiplied by T², not divided",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce, kl[m].sum(), -2) / n),
    ),
    Mistake("F.kl_div's default divides by the vocabulary too: take reduction='batchmean'", _by_default),
    Mistake(
        "the KL counts at unlabelled positions too",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce, kl.sum()) / n),
    ),
    Mistake(
        "the KL is a mean over all positions, unlabelled ones included",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce / n, kl.mean())),
    ),
    Mistake(
        "both sums are divided by all positions, unlabelled ones included",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce, kl[m].sum()) / len(kl)),
    ),
    Mistake(
        "a sum over positions: divide by the number of labelled ones",
        _variant(lambda a, T, ce, kl, m, n: _mixed(a, T, ce, kl[m].sum())),
    ),
    Mistake("the labels' part is at temperature 1: do not divide its logits", _tempered_labels),
    Mistake("this is the reverse KL, KL(student || teacher)", _reverse),
    Mistake("the cross-entropy scores the teacher; it is the student that learns", _teacher_takes_the_test),
    Mistake(
        "the teacher's part is a cross-entropy; a KL takes the teacher's own entropy off",
        _soft_cross_entropy,
    ),
    Mistake("the targets are those of the same positions already: do not shift them", _shifted_again),
    Mistake(
        "the teacher's part is added in full; its weight is 1 - alpha",
        _variant(lambda a, T, ce, kl, m, n: (a * ce + T**2 * kl[m].sum()) / n),
    ),
    Mistake("only the labels' part is there", _variant(lambda a, T, ce, kl, m, n: a * ce / n)),
)

DISTILL_LOSS = Exercise(
    "ch08.distill_loss",
    distill_loss,
    _loss_cases,
    (
        Mistake(
            "without labelled positions the mean is over nothing: return 0, not NaN", _nan_without_labels
        ),
        *_also_nan(_LOSS_MISTAKES, _no_labels, "and without a label the loss is 0, not NaN"),
    ),
    (
        Property("the loss is one number", _is_scalar),
        Property(
            "with alpha 1 it is the cross-entropy of the labelled positions", _alpha_one_is_cross_entropy
        ),
        Property("with alpha 0 the values of the labels do not matter", _alpha_zero_ignores_targets),
        Property("positions without a label must not matter", _unlabelled_do_not_matter),
    ),
)

# -- ch08.lumped_kl ------------------------------------------------------------------------------------------


def lumped_kl(teacher: Tensor, student: Tensor, k: int) -> Tensor:
    """KL(teacher || student) of probabilities (V,), over the teacher's k likeliest tokens and any other."""
    kept = teacher.topk(k).indices
    p, q = (torch.cat((x[kept], 1 - x[kept].sum(dim=0, keepdim=True))) for x in (teacher, student))
    if k == len(teacher):  # nothing is left
        p, q = p[:-1], q[:-1]
    return (p * (p / q).log()).sum()


def _lump_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.25, 0.5]), 1)]
    for vocab, k in ((6, 2), (8, 3), (7, 1), (9, 5)):
        teacher, student = ((1.5 * torch.randn(vocab, generator=generator)).softmax(dim=-1) for _ in range(2))
        cases.append((teacher, student, k))
    # Binary fractions add up to 1 exactly: with k = V nothing at all is left, rather than some rounding.
    exact = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16])
    return [*cases, (exact[torch.randperm(5, generator=generator)], exact.roll(1), 5)]


def _kept_only(p: Tensor, q: Tensor, kept: Tensor) -> Tensor:
    return (p[kept] * (p[kept] / q[kept]).log()).sum()


def _renormalised(p: Tensor, q: Tensor, k: int) -> Tensor:
    kept = p.topk(k).indices
    return _kept_only(p / p[kept].sum(), q / q[kept].sum(), kept)


def _students_choice(p: Tensor, q: Tensor, k: int) -> Tensor:
    return _over(p, q, q.topk(k).indices)


def _over(p: Tensor, q: Tensor, kept: Tensor) -> Tensor:
    """The lumped KL over the outcomes `kept`, and the rest."""
    total = _kept_only(p, q, kept)
    if len(kept) == len(p):
        return total
    rest_p, rest_q = 1 - p[kept].sum(), 1 - q[kept].sum()
    return total + rest_p * (rest_p / rest_q).log()


def _each_its_own(p: Tensor, q: Tensor, k: int) -> Tensor:
    a, b = (x.topk(k).values for x in (p, q))
    total = (a * (a / b).log()).sum()
    return total if k == len(p) else total + (1 - a.sum()) * ((1 - a.sum()) / (1 - b.sum())).log()


def _nan_where_whole(p: Tensor, q: Tensor, k: int) -> Tensor:
    return lumped_kl(p, q, k) if k < len(p) else p.sum() * math.nan


def _is_whole_at_v(attempt: Callable, generator: torch.Generator) -> bool:
    p, q = torch.randn(2, 6, generator=generator).softmax(dim=-1)
    return abs(float(attempt(p, q, 6)) - float((p * (p / q).log()).sum())) < 1e-4


def _never_above(attempt: Callable, generator: torch.Generator) -> bool:
    p, q = torch.randn(2, 6, generator=generator).softmax(dim=-1)
    return 0 <= float(attempt(p, q, 2)) <= float((p * (p / q).log()).sum()) + 1e-6


def _order_does_not_matter(attempt: Callable, generator: torch.Generator) -> bool:
    p, q = torch.randn(2, 6, generator=generator).softmax(dim=-1)
    return abs(float(attempt(p, q, 2)) - float(attempt(p.flip(0), q.flip(0), 2))) < 1e-5


_LUMP_MISTAKES = (
    Mistake(
        "the rest is missing: all other tokens together are one more outcome",
        lambda p, q, k: _kept_only(p, q, p.topk(k).indices),
    ),
    Mistake("the kept probabilities are scaled to sum to 1; lump the rest instead", _renormalised),
    Mistake("these are the student's likeliest tokens; the teacher's are on the disk", _students_choice),
    Mistake("each model's own k likeliest are compared; they must be the same tokens", _each_its_own),
    Mistake("these are the teacher's least likely tokens", lambda p, q, k: _over(p, q, (-p).topk(k).indices)),
    Mistake("these are the first k tokens, not the likeliest", lambda p, q, k: _over(p, q, torch.arange(k))),
    Mistake(
        "this is the whole KL: the other tokens are compared one by one",
        lambda p, q, k: (p * (p / q).log()).sum(),
    ),
    Mistake(
        "this is the reverse KL over the right outcomes",
        lambda p, q, k: _over(q, p, p.topk(k).indices),
    ),
    Mistake("teacher and student are exchanged", lambda p, q, k: lumped_kl(q, p, k)),
    Mistake(
        "these are probabilities already: no softmax",
        lambda p, q, k: lumped_kl(p.softmax(-1), q.softmax(-1), k),
    ),
    Mistake("bits instead of nats", lambda p, q, k: lumped_kl(p, q, k) / math.log(2)),
    Mistake(
        "the rest is subtracted; it is one more term of the sum",
        lambda p, q, k: 2 * _kept_only(p, q, p.topk(k).indices) - lumped_kl(p, q, k),
    ),
    Mistake("one token too many is kept", lambda p, q, k: lumped_kl(p, q, min(k + 1, len(p)))),
)

LUMPED_KL = Exercise(
    "ch08.lumped_kl",
    lumped_kl,
    _lump_cases,
    (
        Mistake("with k = V nothing is left, and 0 · ln(0/0) is NaN: leave that term out", _nan_where_whole),
        *_also_nan(_LUMP_MISTAKES, lambda p, q, k: k == len(p), "and with k = V, 0 · ln(0/0) is NaN"),
    ),
    (
        Property("with k = V it is the whole KL", _is_whole_at_v),
        Property("merging outcomes never makes a KL larger, and a KL is never negative", _never_above),
        Property("the order of the vocabulary must not matter", _order_does_not_matter),
    ),
)
