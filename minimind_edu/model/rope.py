"""Rotary position embedding (RoPE) in its rotate-half form, with optional YaRN.

RoPE turns each pair of channels of a query or key by an angle that grows with the position, so that their dot
product depends only on how far apart the two tokens are (Su et al., 2021, arXiv:2104.09864, equation 34).
"""

import math

import torch
from torch import Tensor

from minimind_edu.config import ModelConfig, RopeScaling


def rope_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position of each channel pair, in radians: (head_dim / 2,) float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if uses_yarn(config):
        frequencies = _yarn(frequencies, config, config.rope_scaling)
    return frequencies


def uses_yarn(config: ModelConfig) -> bool:
    """Whether YaRN acts: it is configured, and the context exceeds the original one (as in MiniMind)."""
    scaling = config.rope_scaling
    return scaling is not None and config.max_position_embeddings > scaling.original_max_position_embeddings


def _yarn(frequencies: Tensor, config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """Slow down the slow pairs by `factor`, leave the fast ones, blend linearly between.

    Source: Peng et al., 2023 (arXiv:2309.00071), section 3.2, in MiniMind's variant (the ramp runs over the
    index of the pair, and its ends are rounded outwards to whole pairs).
    """

    def pair_index(turns: float) -> float:
        """Which pair turns this often over the original context (fractional)."""
        wavelength = scaling.original_max_position_embeddings / turns
        return config.head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.rope_theta))

    pairs = config.head_dim // 2
    first = max(math.floor(pair_index(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_index(scaling.beta_slow)), pairs - 1)
    ramp = ((torch.arange(pairs).float() - first) / max(last - first, 0.001)).clamp(0, 1)
    return frequencies * (1 - ramp + ramp / scaling.factor)


def rope_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """What `apply_rope` multiplies by: two tensors (max_position_embeddings, head_dim) in float32.

    Both halves of a head turn by the same angles: the first holds (cos, cos), the second (-sin, sin).
    """
    positions = torch.arange(config.max_position_embeddings).float()
    angles = torch.outer(positions, rope_frequencies(config))
    factor = config.rope_scaling.attention_factor if uses_yarn(config) else 1.0
    cos, sin = angles.cos() * factor, angles.sin() * factor
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + D/2]) of every head by their angles.

    (a, b) becomes (a cos - b sin, b cos + a sin): x times (cos, cos), plus x with its halves swapped times
    (-sin, sin). Swapping by `roll` avoids splitting and joining, which would cost twice the time.

    Args:
        x: queries or keys (B, T, H, D).
        cos, sin: rows of `rope_table`, (T, 1, D), or (B, T, 1, D) where rows have positions of their own.

    Returns:
        (B, T, H, D) in the dtype of x.
    """
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cos, swapped, sin).to(x.dtype)
