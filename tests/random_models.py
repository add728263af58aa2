"""A small model with random weights that is far from uniform, for tests of what is read from a model."""

import torch

from minimind_edu import MiniMind, ModelConfig

VOCABULARY = 61


def make_model(seed=0, **changes):
    """In evaluation mode; the same seed and shape give the same weights."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(seed)
    model = MiniMind(
        ModelConfig(**(sizes | {"num_key_value_heads": 2, "max_position_embeddings": 64} | changes))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=float(parameter.dim() == 1), std=0.25)
    return model.eval()
