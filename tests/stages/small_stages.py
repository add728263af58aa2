"""Data for small runs of stages, and ways to stop one and to look at what it has made."""

import signal

import torch

SENTENCES = [f"person {n} likes {food}." for n in range(12) for food in ("tea", "rice", "plums")]


def state(model):
    """All tensors of a model in one vector (P,), to compare runs by."""
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


def interrupted(loss, call):
    """A loss during whose n-th call (counted from 1) the user presses Ctrl-C."""
    calls = []

    def counted(model, batch):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return loss(model, batch)

    return counted
