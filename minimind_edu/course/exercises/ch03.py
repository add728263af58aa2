"""Exercises of chapter 3: routing weights, and adding up what the experts answer; two more are beside."""

from collections.abc import Callable

import torch
from torch import Tensor

from minimind_edu.course.exercises.ch03_balance import ACTIVE_PARAMETERS, AUX_LOSS
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

# -- ch03.top_k_weights ----------------------------------------------------------------------------------


def top_k_weights(logits: Tensor, k: int, normalise: bool) -> Tensor:
    """Router logits (N, E) to weights (N, E): 0 for the experts that a token does not visit."""
    probabilities = logits.softmax(dim=-1)
    values, chosen = probabilities.topk(k, dim=-1)
    if normalise:
        values = values / values.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, chosen, values)


def _keep_largest(values: Tensor, k: int) -> Tensor:
    """The k largest of each row, 0 elsewhere."""
    kept, chosen = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, chosen, kept)


def _softmax_over_tokens(logits: Tensor, k: int, normalise: bool) -> Tensor:
    weights = _keep_largest(logits.softmax(dim=0), k)
    return weights / weights.sum(-1, keepdim=True) if normalise else weights


def _mask(logits: Tensor, k: int, normalise: bool) -> Tensor:
    return (top_k_weights(logits, k, False) > 0).float()


def _even_weights(logits: Tensor, k: int, normalise: bool) -> Tensor:
    mask = _mask(logits, k, normalise)
    return mask / k if normalise else mask


def _least_probable(logits: Tensor, k: int, normalise: bool) -> Tensor:
    probabilities = logits.softmax(dim=-1)
    values, chosen = probabilities.topk(k, dim=-1, largest=False)
    values = values / values.sum(-1, keepdim=True) if normalise else values
    return torch.zeros_like(probabilities).scatter(-1, chosen, values)


def _softmax_twice(logits: Tensor, k: int, normalise: bool) -> Tensor:
    probabilities = logits.softmax(dim=-1)
    values, chosen = probabilities.topk(k, dim=-1)
    values = values.softmax(dim=-1) if normalise else values
    return torch.zeros_like(probabilities).scatter(-1, chosen, values)


def _no_softmax(logits: Tensor, k: int, normalise: bool) -> Tensor:
    weights = _keep_largest(logits, k)
    return weights / weights.sum(-1, keepdim=True) if normalise else weights


def _normalised_over_tokens(logits: Tensor, k: int, normalise: bool) -> Tensor:
    weights = top_k_weights(logits, k, False)
    return weights / weights.sum(0, keepdim=True).clamp(min=1e-20) if normalise else weights


def _over_largest(weights: Tensor, normalise: bool) -> Tensor:
    return weights / weights.amax(dim=-1, keepdim=True) if normalise else weights


def _sorted_places(logits: Tensor, k: int, normalise: bool) -> Tensor:
    """The weights, largest first, in the first k columns."""
    return top_k_weights(logits, k, normalise).sort(dim=-1, descending=True).values


def _weight_cases(generator: torch.Generator) -> list[tuple]:
    cases = []
    for tokens, experts, k in ((5, 4, 2), (4, 4, 1), (3, 6, 3), (7, 8, 2), (6, 5, 4), (2, 3, 3)):
        for normalise in (False, True):
            logits = 1.5 * torch.randn(tokens, experts, generator=generator)
            cases.append((logits, k, normalise))
    return cases


def _has_k_weights(attempt: Callable, generator: torch.Generator) -> bool:
    weights = attempt(torch.randn(9, 6, generator=generator), 2, False)
    return bool(((weights != 0).sum(dim=-1) == 2).all())


def _chooses_the_largest(attempt: Callable, generator: torch.Generator) -> bool:
    logits = torch.randn(9, 6, generator=generator)
    chosen = attempt(logits, 2, True) != 0
    return bool((chosen == (top_k_weights(logits, 2, True) != 0)).all())


def _keeps_probabilities(attempt: Callable, generator: torch.Generator) -> bool:
    logits = torch.randn(9, 6, generator=generator)
    return torch.allclose(attempt(logits, 3, False), top_k_weights(logits, 3, False), atol=1e-5)


def _sums_to_one(attempt: Callable, generator: torch.Generator) -> bool:
    weights = attempt(torch.randn(9, 6, generator=generator), 3, True)
    return torch.allclose(weights.sum(dim=-1), torch.ones(9), atol=1e-5)


TOP_K_WEIGHTS = Exercise(
    "ch03.top_k_weights",
    top_k_weights,
    _weight_cases,
    (
        Mistake(
            "the softmax runs down the tokens; each token needs probabilities over its own experts",
            _softmax_over_tokens,
        ),
        Mistake(
            "the weights of a token always sum to 1, as after a softmax of the chosen logits alone; with "
            "normalise=False they are the probabilities among all the experts",
            lambda x, k, n: top_k_weights(x, k, True),
        ),
        Mistake(
            "normalise=True changes nothing: divide by the sum of the k chosen, not of all",
            lambda x, k, n: top_k_weights(x, k, False),
        ),
        Mistake("normalise is read the wrong way round", lambda x, k, n: top_k_weights(x, k, not n)),
        Mistake(
            "only the best expert gets a weight; each token visits k experts",
            lambda x, k, n: top_k_weights(x, 1, n),
        ),
        Mistake(
            "every expert has a weight; those that are not among the top k need 0",
            lambda x, k, n: x.softmax(dim=-1),
        ),
        Mistake("this says which experts were chosen (1 or 0); the weights are their probabilities", _mask),
        Mistake("the chosen experts weigh the same; the router's probabilities decide", _even_weights),
        Mistake(
            "every chosen expert weighs 1/k; the router's probabilities decide",
            lambda x, k, n: _mask(x, k, n) / k,
        ),
        Mistake("these are the least probable experts", _least_probable),
        Mistake(
            "a second softmax over the probabilities flattens them; divide by their sum instead",
            _softmax_twice,
        ),
        Mistake("the logits were never turned into probabilities", _no_softmax),
        Mistake(
            "the softmax comes after the others were set to 0, and e^0 is 1: choose after the softmax, or "
            "set the others to minus infinity",
            lambda x, k, n: _keep_largest(x, k).softmax(dim=-1),
        ),
        Mistake(
            "normalised, a single weight becomes 1 too, though that is the dead router",
            lambda x, k, n: top_k_weights(x, k, n and k > 1),
        ),
        Mistake(
            "the weights are divided by the largest, so the best is 1; their sum must be 1",
            lambda x, k, n: _over_largest(top_k_weights(x, k, n), n),
        ),
        Mistake(
            "the sum that is divided by runs down the tokens; it is one sum for each token",
            _normalised_over_tokens,
        ),
        Mistake(
            "the weights stand in order of size; column e must hold the weight of expert e", _sorted_places
        ),
    ),
    (
        Property(
            "the result is a tensor with one row a token and one column an expert, (N, E), 0 where an expert "
            "is not visited",
            lambda f, g: f(torch.randn(3, 5, generator=g), 2, True).shape == (3, 5),
        ),
        Property("each token needs exactly k weights that are not 0", _has_k_weights),
        Property("the chosen experts are not those with the k largest logits", _chooses_the_largest),
        Property(
            "with normalise=False a weight is the softmax over all E experts, unchanged", _keeps_probabilities
        ),
        Property("with normalise=True the weights of each token must sum to 1", _sums_to_one),
    ),
)


# -- ch03.combine ----------------------------------------------------------------------------------------


def combine(outputs: Tensor, weights: Tensor, token: Tensor, num_tokens: int) -> Tensor:
    """Add each weighted output (M, C) to the row of its token; returns (num_tokens, C)."""
    result = torch.zeros(num_tokens, outputs.shape[1], dtype=outputs.dtype)
    return result.index_add(0, token, outputs * weights[:, None])


def _last_wins(outputs: Tensor, weights: Tensor, token: Tensor, num_tokens: int) -> Tensor:
    result = torch.zeros(num_tokens, outputs.shape[1], dtype=outputs.dtype)
    for row, value in zip(token.tolist(), outputs * weights[:, None], strict=True):
        result[row] = value
    return result


def _unweighted(outputs: Tensor, weights: Tensor, token: Tensor, num_tokens: int) -> Tensor:
    return combine(outputs, torch.ones_like(weights), token, num_tokens)


def _visits(token: Tensor, num_tokens: int) -> Tensor:
    return token.bincount(minlength=num_tokens).clamp(min=1)[:, None]


def _renormalised(outputs: Tensor, weights: Tensor, token: Tensor, num_tokens: int) -> Tensor:
    total = combine(torch.ones_like(outputs[:, :1]), weights, token, num_tokens).clamp(min=1e-20)
    return combine(outputs, weights, token, num_tokens) / total


def _combine_cases(generator: torch.Generator) -> list[tuple]:
    cases = []
    for tokens, k, width in ((4, 2, 3), (5, 1, 2), (3, 4, 1), (8, 2, 4), (2, 3, 2)):
        pairs = tokens * k
        token = torch.randint(0, tokens, (pairs,), generator=generator)
        token[0] = token[-1] = 0  # a token that is visited twice
        weights = 0.1 + torch.rand(pairs, generator=generator)
        cases.append((torch.randn(pairs, width, generator=generator), weights, token, tokens))
    # A token without any visit at the end: an expert that was full has dropped it.
    outputs = torch.randn(6, 2, generator=generator)
    weights = 0.1 + torch.rand(6, generator=generator)
    cases.append((outputs, weights, torch.tensor([1, 0, 1, 0, 0, 1]), 3))
    return cases


def _gives_each_token_a_row(attempt: Callable, generator: torch.Generator) -> bool:
    outputs, weights = torch.randn(4, 3, generator=generator), torch.rand(4, generator=generator)
    return attempt(outputs, weights, torch.tensor([0, 1, 1, 0]), 5).shape == (5, 3)


def _puts_a_visit_in_its_row(attempt: Callable, generator: torch.Generator) -> bool:
    outputs = 1 + torch.rand(2, 3, generator=generator)
    result = attempt(outputs, torch.ones(2), torch.tensor([2, 0]), 4)
    return (result != 0).all(dim=1).tolist() == [True, False, True, False]


def _multiplies_by_the_weight(attempt: Callable, generator: torch.Generator) -> bool:
    outputs, weights = torch.randn(3, 2, generator=generator), torch.rand(3, generator=generator)
    result = attempt(outputs, weights, torch.arange(3), 3)
    return torch.allclose(result, outputs * weights[:, None], atol=1e-5)


def _adds_visits_up(attempt: Callable, generator: torch.Generator) -> bool:
    outputs = torch.randn(4, 2, generator=generator)
    result = attempt(outputs, torch.ones(4), torch.zeros(4, dtype=torch.int64), 1)
    return torch.allclose(result, outputs.sum(0, keepdim=True), atol=1e-5)


def _leaves_the_unvisited_zero(attempt: Callable, generator: torch.Generator) -> bool:
    nobody = torch.zeros(0, dtype=torch.int64)
    return bool((attempt(torch.zeros(0, 2), torch.zeros(0), nobody, 3) == 0).all())


COMBINE = Exercise(
    "ch03.combine",
    combine,
    _combine_cases,
    (
        Mistake(
            "a token that several experts answer keeps only the last answer: assigning (or +=) to "
            "result[token] does not add up where an index repeats",
            _last_wins,
        ),
        Mistake(
            "a token that several experts answer keeps only the first answer",
            lambda o, w, t, n: _last_wins(o.flip(0), w.flip(0), t.flip(0), n),
        ),
        Mistake("the outputs are added up without their weights", _unweighted),
        Mistake(
            "only the first column is added up: scatter_add wants an index for every number",
            lambda o, w, t, n: torch.zeros(n, o.shape[1]).scatter_add(0, t[:, None], o * w[:, None]),
        ),
        Mistake("each weight is applied twice", lambda o, w, t, n: combine(o, w**2, t, n)),
        Mistake(
            "this is a mean over a token's visits; the weights already say how much each one counts",
            lambda o, w, t, n: combine(o, w, t, n) / _visits(t, n),
        ),
        Mistake(
            "this is a plain mean; each output counts by its weight",
            lambda o, w, t, n: _unweighted(o, w, t, n) / _visits(t, n),
        ),
        Mistake(
            "this is a mean, and the zeros of the result count in it as one more visit; add up",
            lambda o, w, t, n: combine(o, w, t, n) / (_visits(t, n) + 1),
        ),
        Mistake(
            "outputs and weights of a token are added up apart; each output has its own weight",
            lambda o, w, t, n: _unweighted(o, w, t, n) * combine(torch.ones_like(o), w, t, n),
        ),
        Mistake(
            "the weights are normalised again; they come as the router decided, and need not sum to 1",
            _renormalised,
        ),
        Mistake(
            "this takes the pairs in order, k for each token; `token` says where each row belongs",
            lambda o, w, t, n: (o * w[:, None]).view(n, -1, o.shape[1]).sum(dim=1),
        ),
        Mistake(
            "the number of rows follows from the largest index here; tokens at the end that nobody visited "
            "need rows too",
            lambda o, w, t, n: combine(o, w, t, int(t.max()) + 1),
        ),
        Mistake(
            "the outputs are weighted, but not yet added to the rows of their tokens",
            lambda o, w, t, n: o * w[:, None],
        ),
        Mistake(
            "weights[i] belongs to outputs[i], not to token i", lambda o, w, t, n: combine(o, w[t], t, n)
        ),
        Mistake(
            "this reads the rows that `token` names; the outputs are to be added to those rows",
            lambda o, w, t, n: (o * w[:, None])[t],
        ),
    ),
    (
        Property(
            "the result is a tensor with one row for each of the num_tokens tokens", _gives_each_token_a_row
        ),
        Property("a token that no expert visited must stay 0", _leaves_the_unvisited_zero),
        Property("outputs[i], all of it, must land in row token[i]", _puts_a_visit_in_its_row),
        Property("outputs[i] must be multiplied by weights[i]", _multiplies_by_the_weight),
        Property("several outputs of one token must be added up", _adds_visits_up),
    ),
)

EXERCISES = (TOP_K_WEIGHTS, COMBINE, AUX_LOSS, ACTIVE_PARAMETERS)
