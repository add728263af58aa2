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


class SharedPrompts:
    """Keys and values of prompts that several rows begin with, held and read once for all of them.

    Args:
        prompts: a cache that has read P prompts.
        sources: for each row of the batch, which prompt it has.
    """

    def __init__(self, prompts: KVCache, sources: list[int]) -> None:
        self.prompts, self.sources = prompts, sources
        self._arrange()

    def keep_rows(self, rows: list[int]) -> None:
        """Keep only these rows of the batch, in this order."""
        self.sources = [self.sources[row] for row in rows]
        self._arrange()

    def _arrange(self) -> None:
        """Seat the rows in a table with a line for each prompt, as a matrix product over lines needs them."""
        device = self.prompts.position.device
        used = sorted(set(self.sources))
        if 2 * len(used) <= self.prompts.batch_size:
            self.prompts.keep_rows(torch.tensor(used, dtype=torch.int64, device=device))
            self.sources = [used.index(source) for source in self.sources]
        lines: list[list[int]] = [[] for _ in range(self.prompts.batch_size)]
        for row, source in enumerate(self.sources):
            lines[source].append(row)
        self.seats = max(map(len, lines), default=0)
        table = [line + [0] * (self.seats - len(line)) for line in lines]  # an empty seat repeats some row
        places = {
            row: number * self.seats + seat
            for number, line in enumerate(lines)
            for seat, row in enumerate(line)
        }
        self.table = torch.tensor(table, dtype=torch.int64, device=device).flatten()
        self.places = torch.tensor([places[row] for row in range(len(self.sources))], device=device)
        self.bias = None
        if self.prompts.has_padding:
            seen = self.prompts.is_token[:, None, None, : self.prompts.length]
            self.bias = torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))

    def seated(self, rows: Tensor) -> Tensor:
        """(B, G, R, N) by rows to (P * G, seats * R, N) by prompts."""
        _, groups, heads, size = rows.shape
        table = rows[self.table].view(-1, self.seats, groups, heads, size).transpose(1, 2)
        return table.reshape(-1, self.seats * heads, size)

    def unseated(self, table: Tensor, groups: int) -> Tensor:
        """What `seated` did, undone."""
        size = table.shape[-1]
        rows = table.view(self.prompts.batch_size, groups, self.seats, -1, size).transpose(1, 2)
        return rows.reshape(self.prompts.batch_size * self.seats, groups, -1, size)[self.places]

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """(B, G, R, D) queries to (B, G, R, L): their products with the keys of the rows' prompts."""
        keys = self.prompts.keys[layer][:, :, : self.prompts.length]
        scores = torch.bmm(self.seated(query), keys.flatten(0, 1).transpose(1, 2))
        if self.bias is not None:
            scores = scores.view(len(self.bias), -1, *scores.shape[1:]) + self.bias.to(scores.dtype)
        return self.unseated(scores.flatten(0, -3), query.shape[1])

    def mix(self, layer: int, weights: Tensor) -> Tensor:
        """(B, G, R, L) weights to (B, G, R, D): the prompts' values, mixed."""
        values = self.prompts.values[layer][:, :, : self.prompts.length]
        return self.unseated(torch.bmm(self.seated(weights), values.flatten(0, 1)), weights.shape[1])


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
    def __call__(self, tokens: Tensor, cache: KVCache, shared: SharedPrompts | None = None) -> Tensor:
        """Read one token of each row, and remember it.

        Args:
            tokens: (B,).
            cache: keys and values of the text so far; this token's are added.
            shared: what came before that, if the cache holds only what differs between rows.

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
            x = x + self._attend(layer, number, x, cos, sin, bias, cache, shared)
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
        shared: SharedPrompts | None,
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
        query = query.reshape(batch, groups, -1, size)
        query = query if layer.scale == 1 else query * layer.scale
        scores = torch.bmm(query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
        scores = scores.view(batch, groups, -1, cache.length)
        if bias is not None:
            scores = scores + bias
        if shared is None:
            weights = scores.softmax(dim=-1).to(self.dtype)
            mixed = torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).view(batch, -1)
        else:
            scores = torch.cat((shared.scores(number, query), scores), dim=-1)
            weights = scores.softmax(dim=-1).to(self.dtype)
            of_prompt, own = weights.split((shared.prompts.length, cache.length), dim=-1)
            mixed = torch.bmm(own.flatten(0, 1), values.flatten(0, 1)).view(batch, groups, -1, size)
            mixed = (mixed + shared.mix(number, of_prompt)).view(batch, -1)
        return F.linear(mixed, layer.output)

    def _feed_forward(self, layer: _Layer, x: Tensor) -> Tensor:
        if layer.gate_up is None:
            return layer.block.mlp(layer.block.post_attention_layernorm(x)[:, None])[0][:, 0]
        gate, up = F.linear(_normed(x, layer.mlp_eps).to(self.dtype), layer.gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate).mul_(up), layer.down)
