"""Causal self-attention with grouped key/value heads, its mask, and the key/value cache."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_edu.config import ModelConfig
from minimind_edu.model.rope import apply_rope


class KVCache:
    """Keys and values of the tokens seen so far, in memory that is allocated once.

    Every row of the batch fills the same columns. Rows with shorter prompts are padded on the left;
    `is_token` says which columns hold a real token of the row.

    Attributes:
        length: number of columns in use.
        max_length: number of columns allocated.
        is_token: (B, max_length) bool.
        position: (B,) int64, the position that the next token of each row gets.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch_size, config.num_key_value_heads, max_length, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.is_token = torch.zeros(batch_size, max_length, dtype=torch.bool, device=device)
        self.position = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.length = 0
        self.max_length = max_length
        self.has_padding = False

    @property
    def batch_size(self) -> int:
        """Number of rows still held."""
        return self.is_token.shape[0]

    def extend(self, tokens: int, attention_mask: Tensor | None) -> Tensor:
        """Reserve the next `tokens` columns and return their position ids (B, tokens).

        Raises:
            ValueError: the cache is too short.
        """
        if self.length + tokens > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} tokens per row and {self.length} are in use, "
                f"so {tokens} more do not fit; build it with a larger max_length"
            )
        columns = slice(self.length, self.length + tokens)
        self.is_token[:, columns] = True if attention_mask is None else attention_mask.bool()
        if tokens == 1 and attention_mask is None:  # the usual step, in fewer calls
            positions, self.position, self.length = self.position[:, None], self.position + 1, self.length + 1
            return positions
        if attention_mask is not None:
            self.has_padding = self.has_padding or not bool(attention_mask.bool().all())
        counts = self.is_token[:, columns].cumsum(dim=1)
        positions = (self.position[:, None] + counts - 1).clamp(min=0)
        self.position = self.position + counts[:, -1]
        self.length += tokens
        return positions

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values (B, H_kv, T, D) and return all of them so far."""
        columns = slice(self.length - keys.shape[2], self.length)
        self.keys[layer][:, :, columns] = keys
        self.values[layer][:, :, columns] = values
        return self.keys[layer][:, :, : self.length], self.values[layer][:, :, : self.length]

    def keep_rows(self, rows: Tensor, max_length: int | None = None) -> None:
        """Keep only these rows of the batch, for example the unfinished ones.

        Args:
            rows: a bool mask, or indices; an index that occurs twice gives two equal rows.
            max_length: columns to have from now on; default as before.
        """
        self.max_length = max_length or self.max_length
        self.keys, self.values = (
            [self._chosen(one, rows) for one in kind] for kind in (self.keys, self.values)
        )
        is_token = self.is_token[rows, : self.length]
        self.is_token = is_token.new_zeros(is_token.shape[0], self.max_length)
        self.is_token[:, : self.length] = is_token
        self.position = self.position[rows]

    def _chosen(self, old: Tensor, rows: Tensor) -> Tensor:
        """Rows of keys or values, of which only the columns in use are copied."""
        used = old[:, :, : self.length][rows]
        new = old.new_empty(*used.shape[:2], self.max_length, used.shape[3])
        new[:, :, : self.length] = used
        return new

    def drop_rows(self, rows: Sequence[int]) -> list[int]:
        """Let these rows go, in place: the last rows of the batch move to where they were.

        Far less is copied than by `keep_rows` where few of many rows leave.

        Returns:
            For every row that is left, which row it was before.
        """
        left = self.batch_size - len(rows)
        order = list(range(left))
        holes = [row for row in rows if row < left]
        moving = [row for row in range(left, self.batch_size) if row not in set(rows)]
        for hole, row in zip(holes, moving, strict=True):
            order[hole] = row
        for tensors in (self.keys, self.values):
            for number, tensor in enumerate(tensors):
                if holes:
                    tensor[holes, :, : self.length] = tensor[moving, :, : self.length]
                tensors[number] = tensor[:left]
        self.is_token, self.position = self.is_token[order], self.position[order]
        return order


def attention_bias(
    queries: int,
    keys: int,
    *,
    key_is_token: Tensor | None = None,
    document_ids: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """What is added to the attention scores: 0 where a query may look, minus infinity where it may not.

    A query sees earlier keys and itself, only real tokens, and only its own document. Every query may see
    itself, padding too: a row of minus infinities would make its softmax NaN.

    Args:
        queries, keys: their numbers; the queries are the last of the keys.
        key_is_token: (B, keys) bool.
        document_ids: (B, keys); needs queries == keys.

    Returns:
        (B or 1, 1, queries, keys) in `dtype`.
    """
    key_index = torch.arange(keys, device=device)
    query_index = key_index[keys - queries :, None]
    allowed = (key_index <= query_index)[None]
    if document_ids is not None:
        allowed = allowed & (document_ids[:, :, None] == document_ids[:, None, :])
    if key_is_token is not None:
        allowed = (allowed & key_is_token[:, None, :]) | (key_index == query_index)
    bias = torch.zeros(allowed.shape, device=device, dtype=dtype)
    return bias.masked_fill_(~allowed, float("-inf"))[:, None]


def plain_is_faster(device: torch.device, dtype: torch.dtype, keys: int) -> bool:
    """Whether `plain_attention` beats `scaled_dot_product_attention` here, by our measurements.

    On a CPU, short texts fit the caches whole, and its fused kernel leaves bf16 units idle. Forward and
    backward at 256 tokens: 1.0 to 2 times faster in float32, 3 times in bf16 (2 cores, AVX-512).
    """
    return device.type == "cpu" and keys <= (512 if dtype == torch.bfloat16 else 256)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    dropout: float = 0.0,
    repeats: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` of query heads that share key/value heads; see `plain_attention`.

    Args:
        bias: None means causal, except for a single query, which sees all keys.
        repeats: copy keys and values to every query head first. Only the newest CUDA kernels take a mask and
            shared heads at once; without copies, the scores of all heads would be in memory (filters in
            PyTorch's aten/src/ATen/native/transformers/sdp_utils_cpp.h).
    """
    shared = key.shape[1] < query.shape[1]
    if repeats and shared:
        key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
        shared = False
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=bias,
        is_causal=bias is None and query.shape[2] > 1,
        dropout_p=dropout,
        enable_gqa=shared,
    )


def plain_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v, written out (Vaswani et al., 2017, arXiv:1706.03762, equation 1).

    The query heads that share a key/value head are stacked along the sequence, so that keys and values are
    never copied per head.

    Args:
        query: (B, H, T, D).
        key, value: (B, H_kv, S, D).
        bias: (B or 1, 1, T, S).

    Returns:
        (B, H, T, D).
    """
    batch, heads, queries, size = query.shape
    groups, keys = key.shape[1], key.shape[2]
    stacked = (batch * groups, heads // groups * queries, size)
    bias = bias.expand(batch, heads, queries, keys).reshape(*stacked[:2], keys)
    key, value = key.reshape(-1, keys, size), value.reshape(-1, keys, size)
    scores = torch.baddbmm(bias, query.reshape(stacked), key.transpose(1, 2), alpha=size**-0.5)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return torch.bmm(weights, value).view(batch, heads, queries, size)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al., 2023, arXiv:2305.13245), with optional per-head q/k norms."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, cache: KVCache | None = None
    ) -> Tensor:
        """Mix the tokens of x (B, T, C) and return (B, T, C); `bias` None means plainly causal."""
        batch, tokens, _ = x.shape
        heads = (batch, tokens, -1, self.head_dim)
        query = apply_rope(self.q_norm(self.q_proj(x).view(heads)), cos, sin).transpose(1, 2)
        key = apply_rope(self.k_norm(self.k_proj(x).view(heads)), cos, sin).transpose(1, 2)
        value = self.v_proj(x).view(heads).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(self.layer, key, value)
        dropout = self.dropout if self.training else 0.0
        if tokens > 1 and bias is not None and plain_is_faster(x.device, query.dtype, key.shape[2]):
            mixed = plain_attention(query, key, value, bias, dropout)
        else:
            repeats = bias is not None and x.device.type == "cuda"
            mixed = fused_attention(query, key, value, bias, dropout, repeats)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in float32 (Zhang & Sennrich, 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of x (any shape); the result has the dtype of x, or of autocast.

        Autocast would convert a float32 result once for every projection that reads it.
        """
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)
        device = x.device.type
        return (normed * self.weight).to(
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        )
