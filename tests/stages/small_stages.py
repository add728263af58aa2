"""Ways to look at what a stage has made."""

import torch


def state(model):
    """All tensors of a model in one vector (P,), to compare runs by."""
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])
