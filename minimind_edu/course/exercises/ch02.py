"""Exercises of chapter 2: the parts of a transformer."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minimind_edu.course.exercises.ch02_attention import GROUPED_ATTENTION
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

# -- rotary position embedding ---------------------------------------------------------------------------


def rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Turn the pairs (x[i], x[i + D/2]) of x (T, D) by positions (T,) times theta ** (-2i / D)."""
    size = x.shape[-1]
    frequencies = theta ** (-torch.arange(0, size, 2) / size)
    angles = positions[:, None] * frequencies
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _rope_cases(generator: torch.Generator) -> list[tuple]:
    cases = []
    for tokens, size, theta in ((5, 8, 10_000.0), (4, 16, 100.0), (7, 6, 1e6)):
        x = torch.randn(tokens, size, generator=generator)
        start = int(torch.randint(2, 40, (), generator=generator))
        cases.append((x, torch.arange(start, start + tokens), theta))
    scattered = torch.randperm(30, generator=generator)[:6]
    return [*cases, (torch.randn(6, 8, generator=generator), scattered, 500.0)]


def _angles(x: Tensor, positions: Tensor, theta: float, power: float = -2.0) -> Tensor:
    size = x.shape[-1]
    return positions[:, None] * theta ** (power * torch.arange(size // 2) / size)


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _rope_interleaved(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    cos, sin = _angles(x, positions, theta).cos(), _angles(x, positions, theta).sin()
    even, odd = x[:, 0::2], x[:, 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(1)


def _rope_reflected(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = _angles(x, positions, theta).cos(), _angles(x, positions, theta).sin()
    return torch.cat((first * cos + second * sin, second * cos + first * sin), dim=-1)


def _rope_overwritten(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = _angles(x, positions, theta).cos(), _angles(x, positions, theta).sin()
    first = first * cos - second * sin
    return torch.cat((first, second * cos + first * sin), dim=-1)


def _rope_mixed_layouts(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    angles = _angles(x, positions, theta).repeat_interleave(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


def _rope_neighbours_with_halves(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    angles = _angles(x, positions, theta).repeat(1, 2)
    turned = torch.stack((-x[:, 1::2], x[:, 0::2]), dim=-1).flatten(1)
    return x * angles.cos() + turned * angles.sin()


def _rope_angle_a_channel(x: Tensor, positions: Tensor, theta: float, power: float) -> Tensor:
    angles = positions[:, None] * theta ** (power * torch.arange(x.shape[-1]) / x.shape[-1])
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


def _first_pair_turns_by_position(attempt: Callable, generator: torch.Generator) -> bool:
    x = torch.zeros(3, 4)
    x[:, 0] = 1.0
    given = attempt(x, torch.tensor([0, 1, 2]), 100.0)
    want = torch.tensor([[1.0, 0.0], [0.5403, 0.8415], [-0.4161, 0.9093]])
    return torch.allclose(given[:, [0, 2]].float(), want, atol=1e-3)


def _second_pair_is_slower(attempt: Callable, generator: torch.Generator) -> bool:
    x = torch.zeros(2, 4)
    x[:, 1] = 1.0
    given = attempt(x, torch.tensor([0, 1]), 100.0)  # 100 ** (-2/4) = 0.1
    return torch.allclose(given[1, [1, 3]].float(), torch.tensor([0.9950, 0.0998]), atol=1e-3)


def _keeps_lengths(attempt: Callable, generator: torch.Generator) -> bool:
    x = torch.randn(6, 8, generator=generator)
    return torch.allclose(attempt(x.clone(), torch.arange(6), 50.0).norm(dim=-1), x.norm(dim=-1), rtol=1e-3)


_ROPE = Exercise(
    name="ch02.rope",
    solution=rope,
    cases=_rope_cases,
    mistakes=(
        Mistake(
            "these are the pairs of the interleaved layout, (0, 1), (2, 3), …; here channel i goes with "
            "channel i + D/2",
            _rope_interleaved,
        ),
        Mistake(
            "every pair turns the wrong way round: look at the signs in front of the two sines",
            lambda x, p, theta: _turn(x, -_angles(x, p, theta)),
        ),
        Mistake(
            "the frequencies grow with the pair's number; they should shrink (the sign of theta's exponent)",
            lambda x, p, theta: _turn(x, _angles(x, p, theta, power=2.0)),
        ),
        Mistake(
            "the exponent is half as large as it should be: pair i has -2i / D, and i counts pairs",
            lambda x, p, theta: _turn(x, _angles(x, p, theta, power=-1.0)),
        ),
        Mistake(
            "the exponents grow twice too fast: divide by D, and count the 2 only once",
            lambda x, p, theta: _turn(x, _angles(x, p, theta, power=-4.0)),
        ),
        Mistake(
            "the rows are counted from 0: use the positions that are given",
            lambda x, p, theta: rope(x, torch.arange(len(x)), theta),
        ),
        Mistake(
            "the angles are in radians already: cos and sin need no conversion from degrees",
            lambda x, p, theta: _turn(x, _angles(x, p, theta).deg2rad()),
        ),
        Mistake(
            "every pair turns at the same speed; each needs a frequency of its own",
            lambda x, p, theta: _turn(x, p[:, None].float().expand(-1, x.shape[-1] // 2)),
        ),
        Mistake(
            "a rotation has one minus sign: without it the lengths of the pairs change",
            _rope_reflected,
        ),
        Mistake(
            "the second half is computed from a first half that was overwritten: keep the old values",
            _rope_overwritten,
        ),
        Mistake(
            "cosine and sine have changed places: at angle 0 nothing should turn",
            lambda x, p, theta: _turn(x, math.pi / 2 - _angles(x, p, theta)),
        ),
        Mistake(
            "the halves of the result are in the wrong order: the first components of all pairs come first",
            lambda x, p, theta: rope(x, p, theta).roll(x.shape[-1] // 2, dims=-1),
        ),
        Mistake(
            "the turned pairs are laid out as neighbours; the result has the layout of x, with halves",
            lambda x, p, theta: torch.stack(rope(x, p, theta).chunk(2, dim=-1), dim=-1).flatten(1),
        ),
        Mistake(
            "the angles are laid out for neighbours (0 0 1 1 …), but the pairs for halves (0 1 … 0 1 …)",
            _rope_mixed_layouts,
        ),
        Mistake(
            "the pairs are neighbours, but the angles are laid out for halves (0 1 … 0 1 …)",
            _rope_neighbours_with_halves,
        ),
        Mistake(
            "the two channels of a pair turn by different angles: there are D/2 frequencies, not D",
            lambda x, p, theta: _rope_angle_a_channel(x, p, theta, power=-1.0),
        ),
        Mistake(
            "the exponent grows with the channel, not with the pair: both channels turn alike",
            lambda x, p, theta: _rope_angle_a_channel(x, p, theta, power=-2.0),
        ),
        Mistake(
            "theta has no effect: the base of the frequencies is an argument, not always the same number",
            lambda x, p, theta: rope(x, p, 10_000.0),
        ),
        Mistake(
            "every token stands one place too far: row t stands at positions[t] itself",
            lambda x, p, theta: rope(x, p + 1, theta),
        ),
        Mistake(
            "the pairs are counted from 1: the first pair has exponent 0 and turns by a radian a token",
            lambda x, p, theta: _turn(
                x, p[:, None] * theta ** (-2 * (torch.arange(x.shape[-1] // 2) + 1) / x.shape[-1])
            ),
        ),
    ),
    properties=(
        Property(
            "the result has the shape of x",
            lambda f, g: f(torch.randn(3, 8, generator=g), torch.arange(3), 10.0).shape == (3, 8),
        ),
        Property(
            "position 0 turns nothing: row 0 of x should come back unchanged there",
            lambda f, g: torch.allclose(f(x := torch.randn(1, 8, generator=g), torch.tensor([0]), 10.0), x),
        ),
        Property(
            "a rotation keeps lengths, and yours does not: is it (a cos - b sin, b cos + a sin)?",
            _keeps_lengths,
        ),
        Property(
            "the first pair is channels 0 and D/2, and turns by the position itself, in radians: (1, 0) at "
            "position 1 becomes (cos 1, sin 1)",
            _first_pair_turns_by_position,
        ),
        Property(
            "the second pair turns too fast or too slowly: for D = 4 and theta = 100 its frequency is 0.1",
            _second_pair_is_slower,
        ),
    ),
)

# -- layouts of RoPE -------------------------------------------------------------------------------------


def to_interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of a q or k projection (heads * D, C) from the rotate-half layout to the interleaved one."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def _layout_cases(generator: torch.Generator) -> list[tuple]:
    shapes = ((2, 8, 3), (2, 6, 12), (6, 8, 48), (4, 10, 7))  # (heads, D, columns)
    return [
        (torch.randn(heads * size, columns, generator=generator), heads) for heads, size, columns in shapes
    ]


def _to_halves(weight: Tensor, heads: int) -> Tensor:
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _rows_stay_whole(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(10 * torch.arange(12.0)[:, None] + torch.arange(3.0), 2)
    return bool((given - given[:, :1] == torch.arange(3.0)).all())


def _rows_are_kept(attempt: Callable, generator: torch.Generator) -> bool:
    numbers = torch.arange(12.0)[:, None]
    return attempt(numbers, 2).flatten().sort().values.tolist() == list(range(12))


_INTERLEAVED = Exercise(
    name="ch02.to_interleaved",
    solution=to_interleaved,
    cases=_layout_cases,
    mistakes=(
        Mistake(
            "this goes from interleaved to halves, as in the chapter; the way back is asked for",
            _to_halves,
        ),
        Mistake(
            "rows of different heads are mixed: every head is rearranged by itself",
            lambda w, heads: to_interleaved(w, 1),
        ),
        Mistake(
            "the order is right but each pair is swapped: the row of the first half comes first",
            lambda w, heads: to_interleaved(w, heads).view(-1, 2, w.shape[1]).flip(1).reshape(w.shape),
        ),
        Mistake("nothing has moved: the rows come back in the old order", lambda w, heads: w.clone()),
        Mistake(
            "`heads` is the number of heads, not the size of one: a head has rows / heads rows",
            lambda w, heads: to_interleaved(w, w.shape[0] // heads),
        ),
        Mistake(
            "the two halves of each head have changed places; the rows should alternate between them",
            lambda w, heads: w.view(heads, 2, -1, w.shape[1]).flip(1).reshape(w.shape),
        ),
    ),
    properties=(
        Property(
            "the result has the shape of the weight",
            lambda f, g: f(torch.randn(8, 3, generator=g), 2).shape == (8, 3),
        ),
        Property("rows should only trade places: some are lost, doubled or changed", _rows_are_kept),
        Property(
            "a row was taken apart: its columns stay together and in order, only whole rows move",
            _rows_stay_whole,
        ),
        Property(
            "row by row: a head with rows 0 1 2 3 4 5 becomes 0 3 1 4 2 5",
            lambda f, g: f(torch.arange(6.0)[:, None], 1).flatten().tolist() == [0, 3, 1, 4, 2, 5],
        ),
        Property(
            "with two heads, the first keeps rows 0 to D - 1 for itself",
            lambda f, g: set(f(torch.arange(12.0)[:, None], 2).flatten().tolist()[:6]) == set(range(6)),
        ),
        Property(
            "every head is rearranged like the first: rows 6 to 11 become 6 9 7 10 8 11",
            lambda f, g: f(torch.arange(12.0)[:, None], 2).flatten().tolist()[6:] == [6, 9, 7, 10, 8, 11],
        ),
    ),
)

EXERCISES = (_ROPE, GROUPED_ATTENTION, _INTERLEAVED)
