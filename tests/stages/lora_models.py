"""Small random models, and adapters that do something."""

import torch
from torch import nn

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.stages.lora import apply_lora, lora_parameters

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SHAPE = ModelConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64, **HEADS)
MOE = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
IDS = torch.randint(0, 60, (3, 20), generator=torch.Generator().manual_seed(2))


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return MiniMind(SHAPE.replace(**changes)).eval()


def adapted(model, seed=1, **settings):
    """With an adapter that does something: B is no longer zero."""
    torch.manual_seed(seed)
    apply_lora(model, **settings)
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
