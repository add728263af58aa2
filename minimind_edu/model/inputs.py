"""The checks on what a model is called with, so that a wrong shape is named before it breaks something."""

import torch
from torch import Tensor

from minimind_edu.config import ModelConfig
from minimind_edu.model.attention import KVCache


def check_inputs(
    config: ModelConfig,
    input_ids: Tensor,
    document_ids: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    cache: KVCache | None,
) -> None:
    """Raise a ValueError that names the argument, its value and what is expected; see `MiniMind.forward`."""
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(
            f"input_ids must have shape (B, T) with T of 1 or more, not {tuple(input_ids.shape)}"
        )
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids must be int64, not {input_ids.dtype}")
    named = {"document_ids": document_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    for name, tensor in named.items():
        if tensor is not None and tensor.shape != input_ids.shape:
            shapes = f"{tuple(tensor.shape)} and {tuple(input_ids.shape)}"
            raise ValueError(f"{name} and input_ids must have the same shape, not {shapes}")
    if cache is not None and document_ids is not None:
        raise ValueError("packed documents (document_ids) and a cache cannot be combined")
    if cache is not None and cache.batch_size != input_ids.shape[0]:
        raise ValueError(f"the cache has {cache.batch_size} rows, input_ids has {input_ids.shape[0]}")
    _check_length(config, input_ids, attention_mask, position_ids, cache)


def _check_length(
    config: ModelConfig,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    cache: KVCache | None,
) -> None:
    limit = config.max_position_embeddings
    end = input_ids.shape[1] + (0 if cache is None else cache.length)
    if position_ids is not None:
        end = int(position_ids.max()) + 1
        if int(position_ids.min()) < 0:
            raise ValueError(f"position_ids must be 0 or more, not {int(position_ids.min())}")
    elif end > limit and (attention_mask is not None or cache is not None):
        # Padding takes columns but no positions.
        counts = input_ids.shape[1] if attention_mask is None else attention_mask.long().sum(dim=1)
        end = int((counts + (0 if cache is None else cache.position)).max())
    if end > limit:
        raise ValueError(
            f"{end} tokens are more than max_position_embeddings={limit}; shorten the text, "
            "or build the model with a larger max_position_embeddings"
        )
