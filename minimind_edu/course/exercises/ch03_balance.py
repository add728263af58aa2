"""More exercises of chapter 3: the balance loss, and the parameters that a token meets."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def _random(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))


# -- ch03.aux_loss ---------------------------------------------------------------------------------------


def aux_loss(probabilities: Tensor, chosen: Tensor, is_token: Tensor) -> Tensor:
    """E times the sum over experts of f_e * P_e, both taken over the real tokens only.

    Args:
        probabilities: (N, E), chosen: (N, k) expert numbers, is_token: (N,) bool, False for padding.
    """
    experts = probabilities.shape[-1]
    frequency = F.one_hot(chosen[is_token], experts).sum(dim=1).float().mean(dim=0)
    return experts * (frequency * probabilities[is_token].mean(dim=0)).sum()


def _picked(p: Tensor, c: Tensor) -> Tensor:
    return F.one_hot(c, p.shape[-1]).sum(dim=1).float()


def _from_parts(frequency: Tensor, mean: Tensor) -> Tensor:
    return len(mean) * (frequency * mean).sum()


def _padding_only(p: Tensor, c: Tensor, m: Tensor) -> Tensor:
    return aux_loss(p, c, ~m)


def _aux_cases(generator: torch.Generator) -> list[tuple]:
    cases = []
    for experts, k in ((4, 2), (3, 1), (8, 2), (5, 3), (6, 4)):
        tokens = _random(generator, 7, 13)
        bias = 1.5 * torch.randn(experts, generator=generator)  # some experts are liked more than others
        probabilities = (torch.randn(tokens, experts, generator=generator) + bias).softmax(dim=-1)
        is_token = torch.arange(tokens) < tokens - _random(generator, 2, 4)
        cases.append((probabilities, probabilities.topk(k, dim=-1).indices, is_token))
    # Padding before and between the text, as in a flattened batch, and choices that are not the top k.
    probabilities = torch.randn(12, 6, generator=generator).softmax(dim=-1)
    chosen = torch.rand(12, 6, generator=generator).topk(2, dim=-1).indices
    cases.append((probabilities, chosen, torch.arange(12) % 6 >= _random(generator, 2, 4)))
    return cases


def _first_places(p: Tensor, c: Tensor, m: Tensor) -> Tensor:
    """The loss of the first places, as many as there are real tokens."""
    count = int(m.sum())
    return aux_loss(p[:count], c[:count], _all(count))


def _all(tokens: int) -> Tensor:
    return torch.ones(tokens, dtype=torch.bool)


def _is_one_number(attempt: Callable, generator: torch.Generator) -> bool:
    probabilities = torch.rand(6, 4, generator=generator).softmax(dim=-1)
    given = attempt(probabilities, probabilities.topk(2, dim=-1).indices, _all(6))
    return torch.as_tensor(given).numel() == 1


def _is_k_in_balance(attempt: Callable, generator: torch.Generator) -> bool:
    chosen = torch.tensor([[0, 1], [2, 3], [1, 0], [3, 2]])
    return abs(float(attempt(torch.full((4, 4), 0.25), chosen, _all(4))) - 2.0) < 1e-4


def _is_e_when_collapsed(attempt: Callable, generator: torch.Generator) -> bool:
    probabilities = torch.tensor([[1.0, 0.0, 0.0]]).repeat(7, 1)
    return abs(float(attempt(probabilities, torch.zeros(7, 1, dtype=torch.int64), _all(7))) - 3.0) < 1e-4


def _follows_the_choices(attempt: Callable, generator: torch.Generator) -> bool:
    probabilities = torch.tensor([[0.5, 0.3, 0.2]]).repeat(4, 1)
    often, seldom = torch.full((4, 1), 0), torch.full((4, 1), 2)
    difference = float(attempt(probabilities, often, _all(4))) - float(
        attempt(probabilities, seldom, _all(4))
    )
    return abs(difference - 3 * (0.5 - 0.2)) < 1e-4


def _does_not_see_padding(attempt: Callable, generator: torch.Generator) -> bool:
    probabilities = torch.randn(6, 3, generator=generator).softmax(dim=-1)
    chosen = probabilities.topk(1, dim=-1).indices
    right = float(attempt(probabilities[:4], chosen[:4], _all(4)))
    return all(
        abs(float(attempt(probabilities[order], chosen[order], order < 4)) - right) < 1e-4
        for order in (torch.arange(6), torch.tensor([4, 0, 1, 5, 2, 3]))
    )


AUX_LOSS = Exercise(
    "ch03.aux_loss",
    aux_loss,
    _aux_cases,
    (
        Mistake("padding counts as if it were text", lambda p, c, m: aux_loss(p, c, torch.ones_like(m))),
        Mistake("this is the loss of the padding; is_token is True for the real tokens", _padding_only),
        Mistake(
            "padding need not stand at the end: index with is_token, do not cut off the last places",
            _first_places,
        ),
        Mistake(
            "padding need not stand at the end: text may come again after the first False",
            lambda p, c, m: aux_loss(p, c, m.cumprod(0).bool()) if m[0] else p.sum() * math.nan,
        ),
        Mistake(
            "the choices are given, `chosen`; here they are taken from the probabilities again",
            lambda p, c, m: aux_loss(p, p.topk(c.shape[-1], dim=-1).indices, m),
        ),
        Mistake(
            "the sums leave padding out, but are then divided by all places, padding included",
            lambda p, c, m: aux_loss(p, c, m) * m.float().mean() ** 2,
        ),
        Mistake(
            "padding is left out of the probabilities, but not of the counts",
            lambda p, c, m: _from_parts(_picked(p, c).mean(0), p[m].mean(0)),
        ),
        Mistake(
            "padding is left out of the counts, but not of the probabilities",
            lambda p, c, m: _from_parts(_picked(p, c)[m].mean(0), p.mean(0)),
        ),
        Mistake(
            "E times too small: the formula is E times the sum over the experts (E times their mean is "
            "only the sum)",
            lambda p, c, m: aux_loss(p, c, m) / p.shape[-1],
        ),
        Mistake(
            "k times too small: f_e is the number of tokens that chose e over the number of tokens, so the "
            "f_e sum to k, not to 1",
            lambda p, c, m: aux_loss(p, c, m) / c.shape[-1],
        ),
        Mistake(
            "only the first choice of each token is counted; it has k of them",
            lambda p, c, m: aux_loss(p, c[:, :1], m),
        ),
        Mistake(
            "only the last choice of each token is counted; it has k of them",
            lambda p, c, m: aux_loss(p, c[:, -1:], m),
        ),
        Mistake(
            "only the most probable expert is counted; the k choices of each token are in `chosen`",
            lambda p, c, m: aux_loss(p, p.argmax(dim=-1, keepdim=True), m),
        ),
        Mistake(
            "k stands in place of E: the factor is the number of experts",
            lambda p, c, m: aux_loss(p, c, m) * c.shape[-1] / p.shape[-1],
        ),
        Mistake(
            "the coefficient is in it; the loss is wanted without",
            lambda p, c, m: aux_loss(p, c, m) * 1e-3,
        ),
        Mistake(
            "the coefficient is in it (MiniMind-3's); the loss is wanted without",
            lambda p, c, m: aux_loss(p, c, m) * 5e-4,
        ),
        Mistake(
            "probabilities stand in place of counts: f_e counts the tokens that went to e",
            lambda p, c, m: _from_parts(p[m].mean(0), p[m].mean(0)),
        ),
        Mistake(
            "counts stand in place of probabilities, so no gradient could flow",
            lambda p, c, m: _from_parts(_picked(p, c)[m].mean(0), _picked(p, c)[m].mean(0)),
        ),
        Mistake(
            "P_e is the mean over all real tokens, also over those that did not choose e",
            lambda p, c, m: aux_loss(p * _picked(p, c), c, m),
        ),
        Mistake(
            "choices and probabilities are multiplied token by token; first take the mean of each over "
            "the tokens, then multiply",
            lambda p, c, m: p.shape[-1] * (_picked(p, c) * p)[m].sum(dim=-1).mean(),
        ),
        Mistake(
            "f_e or P_e is a sum, not a mean: divide both by the number of tokens",
            lambda p, c, m: aux_loss(p, c, m) * m.sum(),
        ),
        Mistake(
            "neither f_e nor P_e is divided by the number of tokens",
            lambda p, c, m: aux_loss(p, c, m) * m.sum() ** 2,
        ),
        Mistake(
            "one number is wanted: add up over the experts",
            lambda p, c, m: p.shape[-1] * _picked(p, c)[m].mean(0) * p[m].mean(0),
        ),
        Mistake(
            "nothing is subtracted: in balance the loss is k, not 0",
            lambda p, c, m: aux_loss(p, c, m) - c.shape[-1],
        ),
    ),
    (
        Property("the loss is one number, the sum over the experts", _is_one_number),
        Property(
            "in perfect balance (all probabilities 1/E, each expert chosen equally often) it must be k",
            _is_k_in_balance,
        ),
        Property(
            "where every token goes to one expert with probability 1 it must be E", _is_e_when_collapsed
        ),
        Property("f_e must come from `chosen`, P_e from `probabilities`", _follows_the_choices),
        Property("the places where is_token is False must not matter", _does_not_see_padding),
    ),
)


# -- ch03.active_parameters ------------------------------------------------------------------------------


def active_parameters(hidden: int, width: int, experts: int, top_k: int, shared: int) -> int:
    """Parameters of one layer of experts that a token meets: the router, top_k experts, the shared ones."""
    return hidden * experts + (top_k + shared) * 3 * hidden * width


def _parameter_cases(generator: torch.Generator) -> list[tuple]:
    cases = [(8, 4, 4, 1, 0), (640, 1728, 4, 2, 1), (16, 12, 4, 3, 3)]  # the last: more visits than experts
    for shared in (0, 1, 2, 3):
        top_k = _random(generator, 2, 3)
        experts = top_k + _random(generator, 2, 5)
        cases.append((8 * _random(generator, 2, 9), 4 * _random(generator, 3, 9), experts, top_k, shared))
    return cases


def _grows(attempt: Callable, place: int, by: int) -> bool:
    before, after = [16, 10, 6, 2, 1], [16, 10, 6, 2, 1]
    after[place] += 1
    return attempt(*after) - attempt(*before) == by


ACTIVE_PARAMETERS = Exercise(
    "ch03.active_parameters",
    active_parameters,
    _parameter_cases,
    (
        Mistake(
            "these are all parameters of the layer; a token meets only top_k experts",
            lambda h, w, e, k, s: h * e + (e + s) * 3 * h * w,
        ),
        Mistake(
            "a token meets top_k of the experts, and the shared ones as well",
            lambda h, w, e, k, s: h * e + e * 3 * h * w,
        ),
        Mistake(
            "the router is missing: a matrix with one row for each expert",
            lambda h, w, e, k, s: (k + s) * 3 * h * w,
        ),
        Mistake(
            "the router scores every expert before it chooses, not only top_k",
            lambda h, w, e, k, s: h * k + (k + s) * 3 * h * w,
        ),
        Mistake(
            "the router has no rows for the shared experts: they are not chosen",
            lambda h, w, e, k, s: h * (e + s) + (k + s) * 3 * h * w,
        ),
        Mistake(
            "the shared experts are missing; every token meets them",
            lambda h, w, e, k, s: h * e + k * 3 * h * w,
        ),
        Mistake(
            "a SwiGLU expert has three matrices, not two: gate, up and down",
            lambda h, w, e, k, s: h * e + (k + s) * 2 * h * w,
        ),
        Mistake(
            "a SwiGLU expert has three matrices, not one: gate, up and down",
            lambda h, w, e, k, s: h * e + (k + s) * h * w,
        ),
        Mistake("a token meets top_k experts, not one", lambda h, w, e, k, s: h * e + (1 + s) * 3 * h * w),
        Mistake(
            "the shared experts are no part of the `experts`: top_k + shared may exceed them",
            lambda h, w, e, k, s: h * e + min(k + s, e) * 3 * h * w,
        ),
        Mistake(
            "the norm belongs to the block; count the router and the experts only",
            lambda h, w, e, k, s: h * e + (k + s) * 3 * h * w + h,
        ),
        Mistake("the router has no bias", lambda h, w, e, k, s: (h + 1) * e + (k + s) * 3 * h * w),
    ),
    (
        Property(
            "one more expert to choose from adds one row of the router, `hidden` parameters, and no more",
            lambda attempt, generator: _grows(attempt, 2, 16),
        ),
        Property(
            "one more visited expert adds three matrices of hidden * width parameters",
            lambda attempt, generator: _grows(attempt, 3, 480),
        ),
        Property(
            "one more shared expert adds three matrices of hidden * width parameters",
            lambda attempt, generator: _grows(attempt, 4, 480),
        ),
        Property(
            "something is counted that is neither the router nor an expert, or one layer is not all of it",
            lambda attempt, generator: attempt(16, 10, 6, 2, 1) == 16 * 6 + 3 * 480,
        ),
    ),
)
