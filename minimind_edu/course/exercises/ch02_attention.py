"""The second exercise of chapter 2: attention with groups of heads and a causal mask."""

from collections.abc import Callable

import torch
from torch import Tensor

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def grouped_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of query (H, T, D) to key and value (G, T, D): (H, T, D)."""
    heads, tokens, size = query.shape
    group = heads // key.shape[0]
    key, value = key.repeat_interleave(group, dim=0), value.repeat_interleave(group, dim=0)
    scores = query @ key.transpose(1, 2) / size**0.5
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, float("-inf")).softmax(dim=-1) @ value


def _attention_cases(generator: torch.Generator) -> list[tuple]:
    cases = []
    for heads, groups, tokens, size in ((4, 2, 5, 8), (6, 3, 4, 4), (8, 2, 6, 16)):
        query = 2 * torch.randn(heads, tokens, size, generator=generator)
        key, value = torch.randn(2, groups, tokens, size, generator=generator)
        cases.append((query, key, value))
    return cases


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    repeat: Callable[[Tensor], Tensor] | None = None,
    scale: float | None = None,
    hide: Callable[[Tensor], Tensor] = lambda ones: ones.triu(1),
    axis: int = -1,
    fill: float = float("-inf"),
    keep_nan: bool = False,
) -> Tensor:
    """Attention with one thing wrong."""
    heads, tokens, size = query.shape
    group = heads // key.shape[0]
    repeat = repeat or (lambda x: x.repeat_interleave(group, dim=0))
    scores = query @ repeat(key).transpose(1, 2) * (size**-0.5 if scale is None else scale)
    scores = scores.masked_fill(hide(torch.ones(tokens, tokens, dtype=torch.bool)), fill)
    weights = scores.softmax(dim=axis)
    return (weights if keep_nan else weights.nan_to_num(0.0)) @ repeat(value)


def _masked_after_softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    heads, tokens, size = query.shape
    group = heads // key.shape[0]
    scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) / size**0.5
    return scores.softmax(dim=-1).tril() @ value.repeat_interleave(group, 0)


def _scores_transposed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    group, tokens = query.shape[0] // key.shape[0], query.shape[1]
    scores = key.repeat_interleave(group, 0) @ query.transpose(1, 2) / query.shape[-1] ** 0.5
    scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(dim=-1) @ value.repeat_interleave(group, 0)


def _inputs(generator: torch.Generator, heads: int = 4, groups: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    key, value = torch.randn(2, groups, 5, 8, generator=generator)
    return torch.randn(heads, 5, 8, generator=generator), key, value


def _first_token_copies_value(attempt: Callable, generator: torch.Generator) -> bool:
    query, key, value = _inputs(generator)
    return torch.allclose(attempt(query, key, value)[[0, 3], 0], value[[0, 1], 0], atol=1e-4)


def _ignores_later_tokens(attempt: Callable, generator: torch.Generator) -> bool:
    query, key, value = _inputs(generator)
    before = attempt(query.clone(), key.clone(), value.clone())[:, :3]
    key[:, 3:], value[:, 3:] = 0.0, 100.0
    return torch.allclose(before, attempt(query, key, value)[:, :3], atol=1e-4)


def _neighbours_share(attempt: Callable, generator: torch.Generator) -> bool:
    query, key, value = _inputs(generator)
    changed = value.clone()
    changed[1] += 1.0
    moved = (attempt(query, key, changed) - attempt(query, key, value)).abs().amax(dim=(1, 2)) > 1e-3
    return moved.tolist() == [False, False, True, True]


def _scale_is_right(attempt: Callable, generator: torch.Generator) -> bool:
    query, value = torch.zeros(2, 2, 4), torch.zeros(1, 2, 4)
    query[:, 1, 0], value[:, 1] = 2.0, 1.0  # the second token's scores: 0 with the first, 4 / 2 with itself
    given = attempt(query.clone(), query[:1].clone(), value)[:, 1]
    return torch.allclose(given, torch.tensor(2.0).sigmoid().expand(2, 4), atol=1e-4)


def _weights_sum_to_one(attempt: Callable, generator: torch.Generator) -> bool:
    query, key, _ = _inputs(generator)
    return torch.allclose(attempt(query, key, torch.ones(2, 5, 8)), torch.ones(4, 5, 8), atol=1e-4)


GROUPED_ATTENTION = Exercise(
    name="ch02.grouped_attention",
    solution=grouped_attention,
    cases=_attention_cases,
    mistakes=(
        Mistake(
            "the query heads are dealt out to the key/value heads in turn; neighbours should share one: "
            "query head h reads head h // (H / G)",
            lambda q, k, v: _attend(q, k, v, repeat=lambda x: x.repeat(q.shape[0] // k.shape[0], 1, 1)),
        ),
        Mistake(
            "the scores are not scaled: divide them by the square root of D",
            lambda q, k, v: _attend(q, k, v, scale=1.0),
        ),
        Mistake(
            "the scores are divided by D; the square root of D is meant",
            lambda q, k, v: _attend(q, k, v, scale=1 / q.shape[-1]),
        ),
        Mistake(
            "tokens see the future: there is no causal mask",
            lambda q, k, v: _attend(q, k, v, hide=torch.zeros_like),
        ),
        Mistake(
            "tokens do not see themselves: the mask is off by one, and hides the diagonal",
            lambda q, k, v: _attend(q, k, v, hide=lambda ones: ones.triu(0)),
        ),
        Mistake(
            "the first token sees nothing (its softmax is NaN): the mask hides the diagonal, off by one",
            lambda q, k, v: _attend(q, k, v, hide=lambda ones: ones.triu(0), keep_nan=True),
        ),
        Mistake(
            "minus infinity times 0 is NaN: fill the hidden scores in instead of multiplying the mask",
            lambda q, k, v: torch.full_like(q, float("nan")),
        ),
        Mistake(
            "the scores are those of the keys with the queries: a row belongs to a query, a column to a key",
            _scores_transposed,
        ),
        Mistake(
            "each token sees one token of the future: the mask is off by one",
            lambda q, k, v: _attend(q, k, v, hide=lambda ones: ones.triu(2)),
        ),
        Mistake(
            "the mask is the wrong way round: tokens see the future and not the past",
            lambda q, k, v: _attend(q, k, v, hide=lambda ones: ones.tril(-1)),
        ),
        Mistake(
            "the mask comes after the softmax, so the remaining weights do not sum to 1: mask the scores",
            _masked_after_softmax,
        ),
        Mistake(
            "a score of 0 is not out of sight (its exponential is 1): hidden scores must be minus infinity",
            lambda q, k, v: _attend(q, k, v, fill=0.0),
        ),
        Mistake(
            "the softmax runs over the queries; the weights of each query should sum to 1 over the keys",
            lambda q, k, v: _attend(q, k, v, axis=-2),
        ),
        Mistake(
            "the keys are mixed, not the values: the weights come from the keys, what they weigh are values",
            lambda q, k, v: _attend(q, k, k),
        ),
        Mistake(
            "the queries are compared with the values; they should be compared with the keys",
            lambda q, k, v: _attend(q, v, v),
        ),
        Mistake(
            "the scale is the square root of D, the size of one head, not of the number of tokens or heads",
            lambda q, k, v: _attend(q, k, v, scale=q.shape[1] ** -0.5),
        ),
    ),
    properties=(
        Property(
            "there is one result for each query head: the shape is that of query",
            lambda f, g: f(*_inputs(g)).shape == (4, 5, 8),
        ),
        Property(
            "the weights of a query should sum to 1: where all values are ones, the result is ones",
            _weights_sum_to_one,
        ),
        Property(
            "the result at a token changes when later tokens change: something sees the future",
            _ignores_later_tokens,
        ),
        Property(
            "the first token sees only itself, so its result is its own value vector",
            _first_token_copies_value,
        ),
        Property(
            "with 4 query heads and 2 key/value heads, heads 0 and 1 share the first, 2 and 3 the second",
            _neighbours_share,
        ),
        Property(
            "with queries of zeros all visible keys count the same: the result is the running mean of values",
            lambda f, g: torch.allclose(
                f(
                    torch.zeros(2, 3, 4),
                    torch.ones(1, 3, 4),
                    torch.arange(3.0)[None, :, None].expand(1, 3, 4),
                ),
                torch.tensor([0.0, 0.5, 1.0])[None, :, None].expand(2, 3, 4),
                atol=1e-4,
            ),
        ),
        Property(
            "the scale is wrong: with D = 4, a query and a key whose dot product is 4 have the score 2",
            _scale_is_right,
        ),
    ),
)
