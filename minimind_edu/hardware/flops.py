"""How many floating-point operations a training step has, counted exactly in its matrix products.

Elementwise work is not counted, as is usual: it takes time (see ``timing``) but few operations. Attention
counts the whole square of queries and keys, masked or not, as ``torch.utils.flop_counter`` does.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from minimind_edu.hardware.products import Product, products
from minimind_edu.hardware.workload import Workload


@dataclass(frozen=True)
class Flops:
    """FLOPs of one optimizer step.

    Attributes:
        forward: by part of the model: qkv, attention, out, mlp, router, head, lora.
        backward: gradients of inputs and weights.
        recomputed: forward work done a second time: the blocks under gradient checkpointing, the scores in a
            GPU's fused attention.
        beside: what runs beside the trained model: teacher, reference, rollout, and the
            optimizer's products (Muon).
        tokens: positions that a step trains on, padding included.
    """

    forward: Mapping[str, int]
    backward: int
    recomputed: int
    beside: Mapping[str, int]
    tokens: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.forward.values()) + self.backward + self.recomputed + sum(self.beside.values())

    @property
    def per_token(self) -> float:
        """FLOPs for each position that is trained on."""
        return self.total / self.tokens


def flops(work: Workload) -> Flops:
    """Count the matrix products of one optimizer step (see ``products``)."""
    return count(products(work), work.tokens * work.accumulation_steps)


def count(found: list[Product], tokens: int) -> Flops:
    """Sum up products."""
    forward: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    backward = recomputed = 0
    for one in found:
        once = one.flops * one.times
        if one.phase != "train":
            beside[one.phase] += once
            continue
        forward[one.part] += once
        backward += once * (one.left_grad + one.right_grad)
        recomputed += once * one.again
    return Flops(dict(forward), backward, recomputed, dict(beside), tokens)
