"""Exercises of chapter 4: the loss of a batch, and a learning-rate schedule (more in `ch04_window`)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.ch04_window import WINDOW_EXERCISES
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ------------------------------------------------------------------------------------------ next_token_loss


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean -ln p of the next token, of logits (B, T, V) and labels (B, T): not shifted, -100 ignored."""
    logits, targets = logits[:, :-1], labels[:, 1:]
    labelled = targets != -100
    log_probabilities = logits.log_softmax(dim=-1)[labelled]
    chosen = log_probabilities.gather(-1, targets[labelled][:, None])
    return -chosen.mean()


def _labelled_logits(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(6):
        batch, length, size = (_integer(generator, *limits) for limits in ((2, 3), (5, 8), (4, 9)))
        logits = 2 * torch.randn(batch, length, size, generator=generator)
        labels = torch.randint(0, size, (batch, length), generator=generator)
        labels[0, 2] = -100  # rows with different numbers of labels
        labels[0, 3] = labels[-1, 4] = -100
        cases.append((logits, labels))
    return cases


def _cross_entropy(logits: Tensor, targets: Tensor, **options: object) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, **options)


def _unshifted(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits, labels)


def _unshifted_without_last(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits[:, :-1], labels[:, :-1])


def _shifted_back(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits[:, 1:], labels[:, :-1])


def _rolled(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits, labels.roll(-1, dims=1))


def _mean_over_places(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits[:, :-1], labels[:, 1:], reduction="sum") / labels[:, 1:].numel()


def _mean_over_all_places(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits[:, :-1], labels[:, 1:], reduction="sum") / labels.numel()


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits[:, :-1], labels[:, 1:], reduction="sum")


def _mean_of_rows(logits: Tensor, labels: Tensor) -> Tensor:
    rows = [next_token_loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(logits))]
    return torch.stack(rows).mean()


def _ignored_as_zero(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(logits[:, :-1], labels[:, 1:].clamp(min=0))


def _in_bits(logits: Tensor, labels: Tensor) -> Tensor:
    return next_token_loss(logits, labels) / math.log(2)


def _positive(logits: Tensor, labels: Tensor) -> Tensor:
    return -next_token_loss(logits, labels)


def _as_perplexity(logits: Tensor, labels: Tensor) -> Tensor:
    return next_token_loss(logits, labels).exp()


def _softmax_twice(logits: Tensor, labels: Tensor) -> Tensor:
    return next_token_loss(logits.softmax(dim=-1), labels)


def _softmax_over_time(logits: Tensor, labels: Tensor) -> Tensor:
    targets = labels[:, 1:]
    chosen = logits[:, :-1].log_softmax(dim=1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -chosen[targets != -100].mean()


def _raw_logits(logits: Tensor, labels: Tensor) -> Tensor:
    targets = labels[:, 1:]
    chosen = logits[:, :-1].gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -chosen[targets != -100].mean()


def _is_a_number(attempt: Callable, generator: torch.Generator) -> bool:
    logits, labels = _labelled_logits(generator)[0]
    return torch.as_tensor(attempt(logits, labels)).numel() == 1


def _is_log_of_size(attempt: Callable, generator: torch.Generator) -> bool:
    labels = torch.randint(0, 7, (2, 6), generator=generator)
    return abs(float(attempt(torch.zeros(2, 6, 7), labels)) - math.log(7)) < 1e-4


def _ignores(attempt: Callable, generator: torch.Generator) -> bool:
    logits = torch.randn(1, 5, 6, generator=generator)
    labels = torch.tensor([[1, 2, 3, -100, -100]])
    other = torch.cat([logits[:, :2], 3 * torch.randn(1, 3, 6, generator=generator)], dim=1)
    return abs(float(attempt(logits, labels)) - float(attempt(other, labels))) < 1e-5


def _first_label_is_free(attempt: Callable, generator: torch.Generator) -> bool:
    logits = torch.randn(1, 4, 6, generator=generator)
    given = [float(attempt(logits, torch.tensor([[first, 2, 3, 4]]))) for first in (0, 5)]
    return abs(given[0] - given[1]) < 1e-6


# ---------------------------------------------------------------------------------------------- wsd


def wsd(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    """Learning rate of a step (from 0): warm-up, peak, and a line down in the last fifth of the steps."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    decay_steps = total // 5
    left = min(1.0, (total - step) / decay_steps)
    return last + (peak - last) * left


def _schedules(generator: torch.Generator) -> list[tuple]:
    cases = []
    for _ in range(3):
        warmup, total = _integer(generator, 4, 9), 5 * _integer(generator, 8, 16)
        peak = _integer(generator, 2, 9) / 100
        last = peak * _integer(generator, 1, 4) / 10
        decay = total // 5
        steps = (0, 1, warmup - 1, warmup, warmup + 1, total // 2, total - decay - 1, total - decay)
        steps += (total - decay + 1, total - decay // 2, total - 2, total - 1)
        cases += [(step, total, warmup, peak, last) for step in steps]
    return cases


def _warmup_from_zero(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return peak * step / warmup if step < warmup else wsd(step, total, warmup, peak, last)


def _warmup_too_fast(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return peak * (step + 1) / warmup if step < warmup else wsd(step, total, warmup, peak, last)


def _warmup_zero_slow(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return peak * step / (warmup + 1) if step < warmup else wsd(step, total, warmup, peak, last)


def _decay_to_zero(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return wsd(step, total, warmup, peak, 0.0)


def _never_decays(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return peak * (step + 1) / (warmup + 1) if step < warmup else peak


def _never_warms_up(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return wsd(step, total, 0, peak, last)


def _decays_from_warmup(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return last + (peak - last) * (total - step) / (total - warmup)


def _decay_a_step_early(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return last + (peak - last) * max(0.0, min(1.0, (total - step - 1) / (total // 5)))


def _decay_of_rest(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return last + (peak - last) * min(1.0, (total - step) / ((total - warmup) // 5))


def _drops_at_once(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    return last if step >= total - total // 5 else wsd(step, total, warmup, peak, last)


def _cosine_decay(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    if step < total - total // 5:
        return wsd(step, total, warmup, peak, last)
    done = 1 - (total - step) / (total // 5)
    return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * done))


def _without_last(step: int, total: int, warmup: int, peak: float, last: float) -> float:
    if step < total - total // 5:
        return wsd(step, total, warmup, peak, last)
    return max(last, peak * (total - step) / (total // 5))


def _starts_above_zero(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(0, 100, 4, 1.0, 0.1) - 0.2) < 1e-6


def _is_stable(attempt: Callable, generator: torch.Generator) -> bool:
    return all(abs(attempt(step, 100, 4, 1.0, 0.1) - 1.0) < 1e-6 for step in (4, 30, 79, 80))


def _falls_evenly(attempt: Callable, generator: torch.Generator) -> bool:
    rates = [attempt(step, 100, 4, 1.0, 0.1) for step in range(81, 100)]
    falls = [before - after for before, after in zip(rates, rates[1:], strict=False)]
    return max(falls) - min(falls) < 1e-6 and falls[0] > 0


EXERCISES = (
    Exercise(
        name="ch04.next_token_loss",
        solution=next_token_loss,
        cases=_labelled_logits,
        mistakes=(
            Mistake(
                "position t is scored on its own token; it should be scored on the token after it",
                _unshifted,
            ),
            Mistake(
                "you cut the last position off both; logits lose their last position, labels their first",
                _unshifted_without_last,
            ),
            Mistake(
                "the shift goes the wrong way: each position is scored on the token before it", _shifted_back
            ),
            Mistake(
                "rolling the labels makes the last position predict the first token; it has no target",
                _rolled,
            ),
            Mistake(
                "ignored labels still count in the mean: divide by the number of labelled targets only",
                _mean_over_places,
            ),
            Mistake(
                "you divide by the number of all labels, although the first ones are never predicted and "
                "some are ignored",
                _mean_over_all_places,
            ),
            Mistake("this is the sum over the labelled tokens, not their mean", _summed),
            Mistake(
                "this is a mean of the rows' means; a row with fewer labels then weighs too much",
                _mean_of_rows,
            ),
            Mistake("targets of -100 must be left out; you score them as token 0", _ignored_as_zero),
            Mistake("these are bits: take the natural logarithm", _in_bits),
            Mistake("the sign is wrong: a loss is minus the log-probability", _positive),
            Mistake("this is the perplexity, exp(loss); return the loss itself", _as_perplexity),
            Mistake("the softmax is taken twice; cross_entropy wants logits", _softmax_twice),
            Mistake(
                "the softmax runs over the positions; it belongs over the vocabulary", _softmax_over_time
            ),
            Mistake("logits are not log-probabilities yet: a log-softmax is missing", _raw_logits),
        ),
        properties=(
            Property("the loss is one number for the whole batch", _is_a_number),
            Property(
                "equal logits should give ln(vocabulary size), whatever the labels are", _is_log_of_size
            ),
            Property("positions whose target is -100 should not change the loss", _ignores),
            Property(
                "the first label of a row is never predicted, so it should not matter", _first_label_is_free
            ),
        ),
    ),
    Exercise(
        name="ch04.wsd",
        solution=wsd,
        cases=_schedules,
        mistakes=(
            Mistake(
                "step 0 has a learning rate of 0 and changes nothing: begin the warm-up one step higher",
                _warmup_from_zero,
            ),
            Mistake(
                "step 0 should already learn a little: count the warm-up from step + 1", _warmup_zero_slow
            ),
            Mistake(
                "the warm-up reaches the peak one step too early: the peak comes at step == warmup",
                _warmup_too_fast,
            ),
            Mistake("the decay should end towards `last`, not towards 0", _decay_to_zero),
            Mistake("the last fifth of the steps should decay; yours stays at the peak", _never_decays),
            Mistake("the warm-up is missing: the first steps should be below the peak", _never_warms_up),
            Mistake("there is no stable part: the decay begins right after the warm-up", _decays_from_warmup),
            Mistake(
                "the decay is one step early: the first step of the last fifth still has the peak",
                _decay_a_step_early,
            ),
            Mistake("the decay takes a fifth of all steps, the warm-up included", _decay_of_rest),
            Mistake("the decay should be a straight line, not a drop to `last` at once", _drops_at_once),
            Mistake("the decay should be a straight line, not a cosine", _cosine_decay),
            Mistake(
                "the line should lead from peak to `last`; yours aims at 0 and is cut off", _without_last
            ),
        ),
        properties=(
            Property("look at the warm-up: wsd(0, 100, 4, 1.0, 0.1) should be 1/5", _starts_above_zero),
            Property("between warm-up and decay the rate should be the peak itself", _is_stable),
            Property("in the decay every step should lower the rate by the same amount", _falls_evenly),
        ),
    ),
    *WINDOW_EXERCISES,
)
