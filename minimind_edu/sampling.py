"""How the next token is chosen: the distribution that logits stand for, and random numbers to draw with."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # most tokens in a block of `draw_tokens`: about the square root of a vocabulary


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token (greedy).
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: then keep the fewest tokens whose probabilities reach p; 1 keeps all.
        repetition_penalty: above 1, tokens that occurred already (prompt included) become less likely.

    Raises:
        ValueError: a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.top_p, self.repetition_penalty)
        if any(
            isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers
        ):
            raise ValueError("temperature, top_p and repetition_penalty must be finite numbers")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or more")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k={self.top_k!r} must be a whole number, 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1]")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty} must be more than 0 (1 is off)")


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens less likely that occurred already (Keskar et al., 2019, arXiv:1909.05858, section 4.1).

    Positive logits are divided by the penalty and negative ones multiplied, so that both go down.

    Args:
        logits: (B, V).
        seen: (B, V) bool.
    """
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, penalised, logits)


def sampling_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """The distribution that the next token is drawn from: (…, V) logits to (…, V) probabilities in float32.

    The order is temperature, top-k, top-p, as in transformers. Ties at the k-th place are all kept. With
    temperature 0 the likeliest token has probability 1 (the first of them, if several are).

    Raises:
        ValueError: a parameter out of range.
    """
    Sampling(temperature, top_k, top_p)
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    logits = logits if temperature == 1 else logits / temperature
    if 0 < top_k < logits.shape[-1]:
        smallest_kept = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest_kept, -math.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        # Drop a token if those before it reach p without it; the likeliest one always stays.
        dropped = probabilities.cumsum(dim=-1) - probabilities >= top_p
        dropped[..., 0] = False
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -math.inf)
    return logits.softmax(dim=-1)


def draw_tokens(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The token of each row at which the cumulative distribution first exceeds the row's random number.

    The sums run in float64, which many small probabilities need, but not over the whole vocabulary: first
    over blocks of tokens, then within the block that was hit. A token of probability 0 is never drawn.

    Args:
        probabilities: (B, V); they need not sum to exactly 1.
        uniform: (B,) float64 in [0, 1).

    Returns:
        (B,) int64.
    """
    rows, vocabulary = probabilities.shape
    size = max(divisor for divisor in range(1, BLOCK + 1) if vocabulary % divisor == 0)
    blocks = probabilities.view(rows, -1, size)
    sums = blocks.sum(dim=-1).double()
    cumulative = sums.cumsum(dim=-1)
    goal = uniform[:, None] * cumulative[:, -1:]
    # `right=True` finds the first sum above the goal, so that what was found is more than 0.
    block = torch.searchsorted(cumulative, goal, right=True)
    chosen_sum = sums.gather(1, block)
    # How far into the block, as a share of it: its sum in float32 and the one in float64 differ a little.
    share = ((goal - cumulative.gather(1, block) + chosen_sum) / chosen_sum).clamp(0, 1 - 2.0**-52)
    inside = blocks[torch.arange(rows, device=blocks.device), block[:, 0]].double().cumsum(dim=-1)
    token = torch.searchsorted(inside, share * inside[:, -1:], right=True)
    return (block * size + token)[:, 0]


def uniform_draws(
    sampling: Sampling, rows: int, steps: int, seed: int | None, generator: torch.Generator | None
) -> Tensor | None:
    """Uniform random numbers (rows, steps) in [0, 1), or None for greedy decoding.

    Each row has a generator of its own, so that row i draws the same numbers whatever the batch size.
    """
    if sampling.temperature == 0:
        return None
    if seed is None:
        device = "cpu" if generator is None else generator.device
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
    # A large odd stride keeps the rows of seed s apart from those of seeds s + 1, s + 2, …
    generators = (
        torch.Generator().manual_seed((seed + row * 0x9E3779B97F4A7C15) % 2**63) for row in range(rows)
    )
    return torch.stack([torch.rand(steps, generator=g, dtype=torch.float64) for g in generators])
