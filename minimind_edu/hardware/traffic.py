"""What a training step does besides matrix products: the bytes that it moves, and how many kernels it has.

Elementwise operations (norms, rotations, activations, residuals, softmaxes, the optimizer) compute little
on much data, so their time goes by the bytes that they read and write. The coefficients below are bytes for
each element of a row's width. They were found by adding up the sizes of all tensors that go into and come out
of every operation of our model; `tests/hardware` compares them with that sum.
"""

from collections import Counter
from dataclasses import dataclass

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.products import (
    is_adapted,
    linear_layers,
    scored_positions,
    trained_matrices,
)
from minimind_edu.hardware.workload import Workload
from minimind_edu.model.attention import plain_is_faster

FLOAT = 4  # bytes of a float32
ADAMW_BYTES = (
    28 + 12
)  # weight, gradient and two moments read, three written; and clipping: norm, then scaling
MUON_BYTES = 60  # the same with one moment, and the update on its way through bfloat16
LOGITS_BACKWARD = {"distill": 14, "grpo": 4}  # passes over logits, of 4 bytes; 4 in other stages
LOGITS_FORWARD = {"distill": 27, "grpo": 9}
LOSS_KERNELS = {"dpo": 87, "distill": 46, "reason": 9, "grpo": 100}  # more than a cross-entropy has
SAMPLING_BYTES = 80  # for each token of the vocabulary and each token that is written


@dataclass(frozen=True)
class Passes:
    """Passes over all blocks of one model.

    Attributes:
        tokens: positions in a pass.
        keys: how many keys each position sees; 0 where a fused kernel keeps the scores to itself.
        forward, backward: how many of each.
        itemsize: bytes of a result of a matrix product.
        frozen: whether the norms' weights get no gradient, as with LoRA.
        decoding: whether they read one token a row, which needs fewer kernels.
    """

    config: ModelConfig
    tokens: float
    keys: float
    forward: float
    backward: float
    itemsize: int
    frozen: bool = False
    decoding: bool = False


def is_plain(work: Workload) -> bool:
    """Whether attention is written out (see ``plain_is_faster``), so that scores go through memory."""
    return plain_is_faster(torch.device(work.device), getattr(torch, work.dtype), work.seq_len)


def itemsize(work: Workload) -> int:
    """Bytes of a number in the workload's dtype."""
    return 4 if work.dtype == "float32" else 2


def passes(work: Workload) -> list[Passes]:
    """All passes of a step."""
    size, steps, keys = itemsize(work), work.accumulation_steps, work.seq_len if is_plain(work) else 0
    again = 1 if work.gradient_checkpointing else 0
    found = [Passes(work.config, work.tokens, keys, steps * (1 + again), steps, size, bool(work.rank))]
    if work.stage == "distill":
        found.append(Passes(work.teacher, work.tokens, keys, steps, 0, size))
    if work.reference and work.stage == "grpo":
        found.append(Passes(work.config, work.tokens, keys, steps, 0, size))
    if work.stage == "grpo":
        rows, prompt = work.rollout_rows, work.seq_len - work.new_tokens
        groups = max(1, round(rows / work.group_size))
        own = FLOAT if work.device == "cpu" else size  # rollouts on a CPU are in float32
        found.append(Passes(work.config, groups * prompt, prompt, 1, 0, own))
        mean = prompt + work.new_tokens / 2
        found.append(Passes(work.config, rows, mean, work.new_tokens - 1, 0, own, decoding=True))
    return found


def traffic(work: Workload) -> dict[str, float]:
    """Bytes that a step's elementwise operations read and write, by what they belong to.

    Returns:
        ``activations``: norms, rotations, feed-forward, residuals, experts' sorting; ``scores``: softmax of
        attention and its mask, where the scores are in memory; ``logits``: cast, log-softmax and its
        gradient; ``weights``: conversion to 16 bits and of gradients back; ``optimizer``: the update.
    """
    found: Counter[str] = Counter()
    for one in passes(work):
        found.update(_of_pass(one))
    scored, config, steps = scored_positions(work), work.config, work.accumulation_steps
    forward, backward = LOGITS_FORWARD.get(work.stage, 2), LOGITS_BACKWARD.get(work.stage, 4)
    cast = 12 if itemsize(work) == 2 else 0
    found["logits"] += steps * scored * config.vocab_size * (FLOAT * (forward + backward) + cast)
    if work.stage == "grpo":
        found["logits"] += work.rollout_rows * work.new_tokens * config.vocab_size * SAMPLING_BYTES
    found["activations"] += steps * _lora_bytes(work)
    found["weights"] += steps * _cast_bytes(work)
    found["optimizer"] += _optimizer_bytes(work)
    return dict(found)


def _of_pass(one: Passes) -> Counter[str]:
    """Bytes of the blocks. Everything is proportional to a width: of the row, the heads, the feed-forward."""
    config, size, found = one.config, one.itemsize, Counter()
    layers = config.num_hidden_layers * one.tokens
    turned = (config.num_attention_heads + config.num_key_value_heads) * config.head_dim
    normed = config.qk_norm
    width = config.hidden_size * (
        (88 if size == 2 else 80) * one.forward + (195 if one.frozen else 255) * one.backward
    )
    heads = turned * (
        (36 + 38 * normed) * one.forward + (62 + (72 if one.frozen else 102) * normed) * one.backward
    )
    pairs, inner = 1.0, float(config.intermediate_size)
    if config.use_moe:
        pairs = config.num_experts_per_tok + config.num_shared_experts
        inner = pairs * config.moe_intermediate_size
        # Rows are picked, sorted back, weighted and added up.
        sorting = config.num_experts_per_tok * config.hidden_size
        width += sorting * (40 * one.forward + 60 * one.backward)
    feed = inner * size * (5 * one.forward + 9 * one.backward)
    found["activations"] = layers * (width + heads + feed)
    cells = layers * config.num_attention_heads * one.keys
    found["scores"] = cells * size * (4 * one.forward + 3 * one.backward)
    return found


def _lora_bytes(work: Workload) -> float:
    """Adapters add their result to that of the layer, and their gradient to that of its input."""
    found = 0.0
    for name, (_, inputs, outputs, share) in linear_layers(work.config).items() if work.rank else ():
        for layer in range(work.config.num_hidden_layers):
            if is_adapted(f"model.layers.{layer}.{name}", work.targets):
                found += work.tokens * share * (outputs * 7 + inputs * 3) * itemsize(work)
    return found


def block_parameters(config: ModelConfig) -> int:
    """Weights of one block's linear layers."""
    return sum(inputs * outputs for _, inputs, outputs, _ in linear_layers(config).values())


def _cast_bytes(work: Workload) -> float:
    """Weights are float32, so a pass in 16 bits converts them, and their gradients back."""
    if itemsize(work) == FLOAT:
        return 0.0
    config = work.config
    own = config.num_hidden_layers * block_parameters(config) + config.vocab_size * config.hidden_size
    found = 6.0 * own * (1 + bool(work.gradient_checkpointing) + (not work.rank))
    for other in [work.teacher] * (work.stage == "distill") + [config] * work.reference:
        found += 6.0 * (
            other.num_hidden_layers * block_parameters(other) + other.vocab_size * other.hidden_size
        )
    return found


def trained_parameters(work: Workload) -> tuple[int, int]:
    """Numbers that are updated: those in matrices inside the layers, and all others."""
    inside = sum(rows * columns for rows, columns in trained_matrices(work))
    if work.rank:
        return inside, 0
    config = work.config
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return inside, tables


def _optimizer_bytes(work: Workload) -> float:
    """The update, and the embedding's gradient: a table of zeros that a few rows are added to."""
    inside, tables = trained_parameters(work)
    each = MUON_BYTES if work.optimizer == "muon" else ADAMW_BYTES
    more = 12 * work.accumulation_steps * tables  # zeros, and the sum of both gradients of a tied table
    accumulated = 12 * (work.accumulation_steps - 1) * (inside + tables)
    return inside * each + tables * ADAMW_BYTES + more + accumulated


def kernels(work: Workload) -> float:
    """Calls of operations that compute something: a GPU launches a kernel for each."""
    return sum(kernels_by_kind(work).values())


def kernels_by_kind(work: Workload) -> dict[str, float]:
    """Calls that autograd takes part in (``training``), and those of answers being written (``writing``).

    On a CPU the latter cost less: nothing is recorded, and the operations are smaller.
    """
    found = {"training": 0.0, "writing": 0.0}
    for one in passes(work):
        kind = "writing" if one.decoding else "training"
        found[kind] += one.config.num_hidden_layers * _kernels_of_block(one)
    matrices, steps = len(trained_matrices(work)), work.accumulation_steps
    if work.optimizer == "muon":
        found["training"] += 23 * matrices
    if steps > 1:  # from the second pass on, gradients are added to those that are there
        tensors = matrices + work.config.num_hidden_layers * (2 + 2 * work.config.qk_norm) * (not work.rank)
        found["training"] += (steps - 1) * tensors
    found["training"] += 14 + steps * (LOSS_KERNELS.get(work.stage, 0) + (60 if itemsize(work) == 2 else 54))
    found["writing"] += 47 * work.new_tokens
    return found


def new_shapes(work: Workload) -> float:
    """Products of a shape that was not met before: what a router sends to an expert differs in every step.

    On a CPU, products in 16 bits are compiled for their shape (oneDNN), which takes longer than many of them.
    """
    if work.device != "cpu":
        return 0.0
    return sum(
        one.config.num_hidden_layers * one.config.num_experts * 3 * (one.forward + 2 * one.backward)
        for one in passes(work)
        if one.config.use_moe and one.itemsize == 2
    )


def _kernels_of_block(one: Passes) -> float:
    """Operations of a block as PyTorch's dispatcher counts them, views left out."""
    config, short, normed = one.config, one.itemsize == 2, one.config.qk_norm
    experts = config.num_experts + config.num_shared_experts if config.use_moe else 0
    if one.decoding:
        return one.forward * (60 + (35 + 5 * experts if experts else 0))
    forward = 34 + 12 * normed + (11 + 4 * normed) * short
    backward = 71 + 28 * normed + (17 + 4 * normed) * short
    if experts:
        forward += 25 + 5 * experts + 3 * (experts - 1) * short
        backward += 21 + 10 * experts + 3 * (experts + 1) * short
    return one.forward * forward + one.backward * backward
