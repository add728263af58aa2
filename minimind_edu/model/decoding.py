"""One new token a row, with a model's weights laid out for it.

While a text is written, the model reads one token a row at a time, and small steps cost more in calls than in
arithmetic. `DecodingStep` does what `MiniMind.hidden_states` does for such a step, in a third of the calls:
projections that read the same input are one matrix, and what is only ever multiplied is multiplied once,
beforehand (the norms' weights into the matrices behind them, the softmax's scale into the queries' norm).
Rounding differs in the last places, the mathematics does not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_edu.model.attention import Attention, KVCache, RMSNorm
from minimind_edu.model.moe import FeedForward, MoEFeedForward
from minimind_edu.model.rope import apply_rope
from minimind_edu.model.transformer import Block, MiniMind


def can_rearrange(model: MiniMind) -> bool:
    """Whether the model consists of plain parts; one with adapters or hooks needs `hidden_states`."""
    plain = (Block, Attention, RMSNorm, FeedForward, MoEFeedForward)
    own = (nn.Linear, nn.Dropout, nn.Identity, nn.ModuleList)
    return all(
        type(module) in plain + own and not module._forward_hooks and not module._forward_pre_hooks
        for layer in model.model.layers
        for module in layer.modules()
    )


class _Layer:
    """One block's weights: queries, keys and values in one matrix, gate and up in another."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, mlp = block.self_attn, block.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([projection.weight for projection in projections])
        self.qkv = (weight * block.input_layernorm.weight).to(dtype)
        biases = [projection.bias for projection in projections]
        self.qkv_bias = None if biases[0] is None else torch.cat(biases).to(dtype)
        self.output = attention.o_proj.weight.to(dtype)
        self.query_heads = attention.q_proj.out_features // attention.head_dim
        self.key_heads = attention.k_proj.out_features // attention.head_dim
        self.head_size = attention.head_dim
        self.head_norm, scale = None, attention.head_dim**-0.5
        if isinstance(attention.q_norm, RMSNorm):
            parts = (
                (attention.q_norm.weight * scale, self.query_heads),
                (attention.k_norm.weight, self.key_heads),
            )
            self.head_norm = torch.cat([weight.float().expand(heads, -1) for weight, heads in parts])
            self.head_eps = attention.q_norm.eps
        self.scale = 1.0 if self.head_norm is not None else scale
        self.norm_eps = block.input_layernorm.eps
        self.mlp_eps = block.post_attention_layernorm.eps
        self.block, self.gate_up = block, None
        if not block.use_moe:
            both = torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight))
            self.gate_up = (both * block.post_attention_layernorm.weight).to(dtype)
            self.down = mlp.down_proj.weight.to(dtype)


def _normed(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) in float32: `RMSNorm` without its weight."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


class DecodingStep:
    """A model's layers for the steps after the prompts. The weights are copied: build it anew after training.

    Raises:
        ValueError: the model has parts of another kind (see `can_rearrange`).
    """

    def __init__(self, model: MiniMind) -> None:
        if not can_rearrange(model):
            raise ValueError("only a plain model can be rearranged: it has adapters, hooks or foreign layers")
        self.model, self.dtype = model, model.compute_dtype()
        with torch.no_grad():
            self.layers = [_Layer(block, self.dtype) for block in model.model.layers]

    @torch.no_grad()
    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token of each row, and remember it.

        Args:
            tokens: (B,).
            cache: keys and values of the text so far; this token's are added.

        Returns:
            (B, C): what the head reads.
        """
        x = self.model.model.embed_tokens(tokens)
        position = cache.extend(1, None)
        cos, sin = self.model.model.cos[position], self.model.model.sin[position]  # (B, 1, D)
        bias = None
        if cache.has_padding:
            seen = cache.is_token[:, : cache.length]
            bias = torch.zeros(seen.shape, dtype=self.dtype, device=x.device)
            bias = bias.masked_fill_(~seen, float("-inf"))[:, None, None]
        for number, layer in enumerate(self.layers):
            x = x + self._attend(layer, number, x, cos, sin, bias, cache)
            x = x + self._feed_forward(layer, x)
        return self.model.model.norm(x)

    def _attend(
        self,
        layer: _Layer,
        number: int,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor | None,
        cache: KVCache,
    ) -> Tensor:
        batch, groups, size = x.shape[0], layer.key_heads, layer.head_size
        mixed = F.linear(_normed(x, layer.norm_eps).to(self.dtype), layer.qkv, layer.qkv_bias)
        heads = mixed.view(batch, -1, size)
        turning = heads[:, :-groups]  # queries and keys; values are not turned
        if layer.head_norm is not None:
            turning = _normed(turning, layer.head_eps).mul_(layer.head_norm)
        turning = apply_rope(turning, cos, sin).to(self.dtype)
        query, key = turning[:, :-groups], turning[:, -groups:, None]
        keys, values = cache.update(number, key, heads[:, -groups:, None])
        # Query heads that share keys are rows of one matrix, so that keys are read once and never copied.
        query = query.reshape(batch * groups, -1, size)
        scores = torch.bmm(query, keys.reshape(batch * groups, -1, size).transpose(1, 2))
        if layer.scale != 1:
            scores = scores * layer.scale
        if bias is not None:
            scores = (scores.view(batch, groups, -1, cache.length) + bias).view(scores.shape)
        weights = scores.softmax(dim=-1).to(self.dtype)
        mixed = torch.bmm(weights, values.reshape(batch * groups, -1, size))
        return F.linear(mixed.view(batch, -1), layer.output)

    def _feed_forward(self, layer: _Layer, x: Tensor) -> Tensor:
        if layer.gate_up is None:
            return layer.block.mlp(layer.block.post_attention_layernorm(x)[:, None])[0][:, 0]
        gate, up = F.linear(_normed(x, layer.mlp_eps).to(self.dtype), layer.gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate).mul_(up), layer.down)
