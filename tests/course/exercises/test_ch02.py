"""Wrong answers to chapter 2's exercises that are no known mistake word for word get a fitting hint."""

import math

import pytest
import torch
import torch.nn.functional as F

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch02 import rope, to_interleaved
from minimind_edu.course.exercises.ch02_attention import grouped_attention
from minimind_edu.course.exercises.checking import PASSED, examine


def angles_of(x, positions, theta):
    return positions[:, None] * theta ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])


def sine_first(x, positions, theta):
    angles = angles_of(x, positions, theta)
    first, second = x.chunk(2, dim=-1)
    return torch.cat(
        (first * angles.sin() - second * angles.cos(), second * angles.sin() + first * angles.cos()), -1
    )


def half_the_size(x, positions, theta):
    half, result = x.shape[-1] // 2, x.clone()
    for i in range(half):
        cos, sin = (positions * theta ** (-2 * i / half)).cos(), (positions * theta ** (-2 * i / half)).sin()
        result[:, i] = x[:, i] * cos - x[:, i + half] * sin
        result[:, i + half] = x[:, i + half] * cos + x[:, i] * sin
    return result


def angles_of_neighbours(x, positions, theta):
    angles = angles_of(x, positions, theta).repeat_interleave(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


def a_frequency_a_channel(x, positions, theta):
    angles = positions[:, None] * theta ** (-torch.arange(x.shape[-1]) / x.shape[-1])
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (sine_first, "changed places"),
        (half_the_size, "divide by D"),
        (angles_of_neighbours, "laid out for neighbours"),
        (a_frequency_a_channel, "different angles"),
        (lambda x, positions, theta: rope(x, positions, theta).tolist(), "a tensor, not a list"),
        (lambda x, positions, theta: torch.stack(rope(x, positions, theta).chunk(2, -1)), "shape of x"),
        (lambda x, positions, theta: x + rope(x, positions, theta), "position 0 turns nothing"),
    ],
)
def test_rope(answer, hint):
    assert all(hint in examine(exercise("ch02.rope"), answer, seed) for seed in range(3))


def attend(query, key, value, dim=-1, visible=-1e9, repeat_value=torch.Tensor.repeat_interleave):
    group, tokens = query.shape[0] // key.shape[0], query.shape[1]
    scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(~torch.ones(tokens, tokens).tril().bool(), visible)
    return scores.softmax(dim) @ repeat_value(value, group, 0)


def nothing_seen_first(query, key, value):
    group, tokens = query.shape[0] // key.shape[0], query.shape[1]
    scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(torch.ones(tokens, tokens).triu().bool(), -math.inf)
    return scores.softmax(-1) @ value.repeat_interleave(group, 0)


def in_turn(value, group, dim):
    return value.repeat(group, 1, 1)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (attend, PASSED),  # a very small number instead of minus infinity is fine
        (lambda q, k, v: attend(q, k, v, dim=0), "sum to 1"),
        (lambda q, k, v: attend(q, k, v, repeat_value=in_turn), "heads 0 and 1 share the first"),
        (lambda q, k, v: attend(q, k, v, visible=-1.0), "sees the future"),
        (lambda q, k, v: grouped_attention(q, k[:1], v[:1]), "its own value vector"),
        (lambda q, k, v: grouped_attention(q, k, v).transpose(0, 1), "shape is that of query"),
        (lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None], enable_gqa=True), "shape"),
        (lambda q, k, v: grouped_attention(q, v, v), "compared with the values"),
        (lambda q, k, v: grouped_attention(q * q.shape[-1], k, v), "the scale is wrong"),
        (
            lambda q, k, v: grouped_attention(q * (q.shape[-1] / q.shape[0]) ** 0.5, k, v),
            "the scale is wrong",
        ),
        (nothing_seen_first, "the mask hides the diagonal"),
    ],
)
def test_grouped_attention(answer, hint):
    assert all(hint in examine(exercise("ch02.grouped_attention"), answer, seed) for seed in range(3))


def first_head_only(weight, heads):
    size = len(weight) // heads
    return torch.cat((to_interleaved(weight[:size], 1), weight[size:]))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda w, heads: torch.cat((w[0::2], w[1::2])), "0 3 1 4 2 5"),
        (lambda w, heads: w.view(heads, -1, w.shape[1]).transpose(0, 1).reshape(w.shape), "0 3 1 4 2 5"),
        (lambda w, heads: to_interleaved(w, heads).view(heads, -1, w.shape[1]), "shape of the weight"),
        (lambda w, heads: -to_interleaved(w, heads), "only trade places"),
        (lambda w, heads: w.view(heads, 2, -1).transpose(1, 2).reshape(w.shape), "taken apart"),
        (first_head_only, "like the first"),
        (lambda w, heads: torch.stack(w.chunk(2), dim=1).reshape(w.shape), "different heads are mixed"),
    ],
)
def test_to_interleaved(answer, hint):
    assert all(hint in examine(exercise("ch02.to_interleaved"), answer, seed) for seed in range(3))
