"""The transformer: embedding, blocks, final norm, output head."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minimind_edu.config import ModelConfig
from minimind_edu.model.attention import Attention, KVCache, RMSNorm, attention_bias, plain_is_faster
from minimind_edu.model.inputs import check_inputs
from minimind_edu.model.moe import FeedForward, MoEFeedForward
from minimind_edu.model.rope import rope_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE_INDEX = -100
"""Label of a position that has no loss, as in PyTorch and transformers."""


@dataclass
class ModelOutput:
    """What `MiniMind.forward` returns.

    Attributes:
        logits: (B, T, V).
        loss: mean cross-entropy in nats over the labelled tokens; None without labels.
        aux_loss: the experts' load-balancing loss, a scalar; 0 for a dense model. Not part of `loss`.
    """

    logits: Tensor
    loss: Tensor | None
    aux_loss: Tensor


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy and adds to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = (
            MoEFeedForward(config)
            if config.use_moe
            else FeedForward(config.hidden_size, config.intermediate_size)
        )
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.use_moe = config.use_moe

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor | None,
        is_token: Tensor | None,
        cache: KVCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) to (B, T, C) and this layer's auxiliary loss (None if dense)."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin, bias, cache))
        normed = self.post_attention_layernorm(x)
        mixed, aux_loss = self.mlp(normed, is_token) if self.use_moe else (self.mlp(normed), None)
        return x + self.dropout(mixed), aux_loss


class Decoder(nn.Module):
    """Everything below the output head, under the published names (`embed_tokens`, `layers`, `norm`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.build_rope_table(config)

    def build_rope_table(self, config: ModelConfig, device: torch.device | None = None) -> None:
        """Set the cos and sin of RoPE; they follow from the config, so they are not saved."""
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos.to(device), persistent=False)
        self.register_buffer("sin", sin.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Decoder":
        """Move or convert everything (`to`, `half`, …), but keep the angles in float32."""
        super()._apply(fn, recurse)
        if self.cos.dtype != torch.float32:
            self.build_rope_table(self.config, self.cos.device)
        return self


class MiniMind(nn.Module):
    """A decoder-only language model.

    >>> model = MiniMind(ModelConfig.preset("edu"))
    >>> out = model(input_ids, labels=input_ids)      # out.logits (B, T, V), out.loss, out.aux_loss

    Attributes:
        gradient_checkpointing: where gradients are wanted, keep only the input of every block, and run the
            block again in the backward pass (Chen et al., 2016, arXiv:1604.06174): less memory for a third
            more work.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )
        self.apply(_initialise)
        self._warned_dead_router = False
        self.gradient_checkpointing = False

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        *,
        document_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> ModelOutput:
        """Logits for every position, and the loss if labels are given.

        Args:
            input_ids: (B, T) int64.
            labels: (B, T), the same tokens as `input_ids` with -100 where there is no loss; they are shifted
                here, so that position t is scored on labels[t + 1]. With no label at all the loss is 0.
            document_ids: (B, T); a token sees earlier tokens of its own document only (packing).
            attention_mask: (B, T), 1 for tokens and 0 for padding on either side. With a cache it covers the
                tokens of this call only.
            position_ids: (B, T); default counts from 0 and skips padding.
            cache: keys and values of earlier calls; this call's are added to it.

        Raises:
            ValueError: wrong shapes, more than `max_position_embeddings` tokens, ids outside the vocabulary.
        """
        hidden, aux_loss = self.hidden_states(
            input_ids,
            document_ids=document_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
        )
        logits = self.head(hidden)
        loss = None if labels is None else next_token_loss(logits, labels)
        return ModelOutput(logits, loss, aux_loss)

    def hidden_states(
        self,
        input_ids: Tensor,
        *,
        document_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the head reads: hidden states after the final norm (B, T, C), and the auxiliary loss.

        Training calls this and then `head` on the labelled positions only. Arguments as in `forward`.
        """
        check_inputs(self.config, input_ids, document_ids, attention_mask, position_ids, cache)
        self._warn_if_router_is_dead()
        x = self.model.dropout(self._embed(input_ids))
        cos, sin = self._rope(input_ids, attention_mask, position_ids, cache)
        bias = self._bias(input_ids, document_ids, attention_mask, cache)
        is_token = None if attention_mask is None else attention_mask.bool()
        aux_loss = torch.zeros((), device=x.device)
        # A cache is written to when the block runs, so it must run once only. DPO and GRPO train a model
        # whose dropout is off, that is in evaluation mode, hence no question about the mode here.
        again = self.gradient_checkpointing and torch.is_grad_enabled() and cache is None
        for block in self.model.layers:
            arguments = (x, cos, sin, bias, is_token, cache)
            x, block_aux_loss = (
                checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)
            )
            if block_aux_loss is not None:
                aux_loss = aux_loss + block_aux_loss
        return self.model.norm(x), aux_loss

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (…, C) to logits (…, V)."""
        return (
            F.linear(hidden, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)
        )

    def _embed(self, input_ids: Tensor) -> Tensor:
        try:
            return self.model.embed_tokens(input_ids)
        except IndexError:
            raise ValueError(
                f"input_ids has ids from {int(input_ids.min())} to {int(input_ids.max())}, but the "
                f"vocabulary has {self.config.vocab_size}; use the tokenizer that the model was made for"
            ) from None

    def _rope(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: KVCache | None,
    ) -> tuple[Tensor, Tensor]:
        """cos and sin for the positions at hand: (T, 1, D) if all rows agree, else (B, T, 1, D).

        Packed documents need no positions of their own: RoPE sees only distances.
        """
        cos, sin = self.model.cos, self.model.sin
        tokens = input_ids.shape[1]
        if cache is not None:
            cached_positions = cache.extend(tokens, attention_mask)
            position_ids = cached_positions if position_ids is None else position_ids
        elif position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        if position_ids is None:
            return cos[:tokens, None], sin[:tokens, None]
        return cos[position_ids][:, :, None], sin[position_ids][:, :, None]

    def _bias(
        self,
        input_ids: Tensor,
        document_ids: Tensor | None,
        attention_mask: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor | None:
        """The attention bias shared by all layers, or None where plain causal attention will do."""
        tokens = input_ids.shape[1]
        if cache is None:
            keys, key_is_token = tokens, None if attention_mask is None else attention_mask.bool()
            is_plain = attention_mask is None and document_ids is None
        else:
            keys = cache.length
            key_is_token = cache.is_token[:, :keys] if cache.has_padding else None
            # One new token sees everything; a first chunk is plainly causal.
            is_plain = not cache.has_padding and (tokens == 1 or keys == tokens)
        dtype = self.compute_dtype()
        if is_plain and (tokens == 1 or not plain_is_faster(input_ids.device, dtype, tokens)):
            return None
        return attention_bias(
            tokens,
            keys,
            key_is_token=key_is_token,
            document_ids=document_ids,
            device=input_ids.device,
            dtype=dtype,
        )

    def compute_dtype(self) -> torch.dtype:
        """The dtype of queries and keys: a bias of another dtype would be converted in every layer."""
        device = self.model.embed_tokens.weight.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return self.model.embed_tokens.weight.dtype

    def _warn_if_router_is_dead(self) -> None:
        if (
            self.config.has_dead_router
            and self.training
            and torch.is_grad_enabled()
            and not self._warned_dead_router
        ):
            self._warned_dead_router = True
            warnings.warn(
                "num_experts_per_tok=1 with norm_topk_prob=True: the one routing weight is always 1, so the "
                "language-model loss sends the router no gradient. Set norm_topk_prob=False to train it.",
                stacklevel=3,
            )

    def num_parameters(self, active: bool = False) -> int:
        """Number of parameters; with `active`, only those that one token passes through (MoE)."""
        total = sum(parameter.numel() for parameter in self.parameters())
        if not (active and self.config.use_moe):
            return total
        one_expert = 3 * self.config.hidden_size * self.config.moe_intermediate_size
        idle = self.config.num_experts - self.config.num_experts_per_tok
        return total - self.config.num_hidden_layers * idle * one_expert

    def save_pretrained(self, directory: str | PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json` into `directory` (see `weights.save_pretrained`)."""
        from minimind_edu.model import weights

        weights.save_pretrained(self, directory)

    @classmethod
    def from_pretrained(cls, directory: str | PathLike[str]) -> "MiniMind":
        """Load what `save_pretrained` wrote; the model comes in evaluation mode."""
        from minimind_edu.model import weights

        return weights.from_pretrained(directory)

    @classmethod
    def from_minimind(
        cls, weights_or_path: dict[str, Tensor] | str | PathLike[str], config: dict[str, Any] | None = None
    ) -> "MiniMind":
        """Load published MiniMind2 or MiniMind-3 weights (see `weights.from_minimind`)."""
        from minimind_edu.model import weights

        return weights.from_minimind(weights_or_path, config or {})

    @classmethod
    def from_transformers(cls, hf_model: "PreTrainedModel") -> "MiniMind":
        """Convert a Llama, Qwen2, Qwen3 or Qwen3-MoE model (see `convert.from_transformers`)."""
        from minimind_edu.model import convert

        return convert.from_transformers(hf_model)

    def to_transformers(self) -> "PreTrainedModel":
        """The same model as a transformers model (see `convert.to_transformers`)."""
        from minimind_edu.model import convert

        return convert.to_transformers(self)


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of logits[:, t] (B, T, V) on labels[:, t + 1] (B, T); 0 if there is none.

    A mean over zero tokens would be NaN and poison the weights, hence the sum and the guarded division.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels must have shape {tuple(logits.shape[:2])}, not {tuple(labels.shape)}")
    # Shifting the labels instead of the logits saves a copy of the largest tensor there is.
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    total = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / (targets != IGNORE_INDEX).sum().clamp(min=1)


def _initialise(module: nn.Module) -> None:
    """Matrices and embeddings normal with std 0.02, biases 0; norms are 1 already (GPT-2's scheme)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
