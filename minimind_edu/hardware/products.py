"""Every matrix product of a training step: which matrices, how often, and which of them need a gradient.

A product of (m, k) by (k, n) costs 2 m k n FLOPs: one multiplication and one addition for each of its m k n
terms. Its backward pass costs as much once more for each factor that needs a gradient: the gradient of the
left one is (m, n) by (n, k), that of the right one (k, m) by (m, n). All of ``flops`` follows from this.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.workload import Workload

Phase = Literal["train", "teacher", "reference", "rollout", "optimizer"]
MUON_STEPS = 5  # Newton-Schulz iterations of torch.optim.Muon


@dataclass(frozen=True)
class Product:
    """Products of equal shape: ``batch`` pairs of matrices, (m, k) by (k, n), ``times`` a step.

    Attributes:
        part: qkv, attention, out, mlp, router, head or lora.
        m: rows of the left factor: tokens, or positions that look (queries).
        k: the dimension that is summed over.
        n: columns of the result (k or n is a mean where keys grow in number, hence no int).
        batch: independent products in one call, as attention has one for each head of each row.
        left_grad: whether the backward pass computes the gradient of the left factor.
        right_grad: the same for the right one, which is the weight in all parts but attention.
        again: how often the backward pass computes the product anew (checkpointing, fused attention).
        times: calls in a step.
        phase: train, or what runs beside it: teacher, reference, rollout, optimizer.
    """

    part: str
    m: int
    k: float
    n: float
    batch: int = 1
    left_grad: bool = True
    right_grad: bool = True
    again: int = 0
    times: int = 1
    phase: Phase = "train"

    @property
    def flops(self) -> int:
        """FLOPs of one forward call."""
        return round(2 * self.batch * self.m * self.k * self.n)

    @property
    def runs(self) -> int:
        """Calls of this size in a step, backward and recomputation included."""
        return self.times * (1 + self.left_grad + self.right_grad + self.again)


def products(work: Workload) -> list[Product]:
    """All matrix products of one optimizer step of a workload (those of equal shape may be listed apart)."""
    passes, scored = work.accumulation_steps, scored_positions(work)
    found = [replace(one, times=passes) for one in _training_pass(work)]
    forward = {"rows": work.rows, "length": work.seq_len, "scored": scored, "times": passes}
    if work.stage == "distill":
        found += _forward_only(work.teacher, phase="teacher", **forward)
    if work.stage == "grpo":
        found += _rollout(work)
        if work.reference:
            found += _forward_only(work.config, phase="reference", **forward)
    if work.optimizer == "muon":
        found += _muon(work)
    return found


def scored_positions(work: Workload) -> int:
    """Positions in a forward pass that the head sees: from one to all but the last of every row."""
    return max(work.rows, min(work.scored, work.rows * (work.seq_len - 1)))


def linear_layers(config: ModelConfig) -> dict[str, tuple[str, int, int, float]]:
    """The linear layers of one block: name to (part, inputs, outputs, share of the tokens that pass it).

    Routed experts see a k-th of E of the tokens each, on average; the sum over experts is exact.
    """
    width, query = config.hidden_size, config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    layers = {
        "self_attn.q_proj": ("qkv", width, query, 1.0),
        "self_attn.k_proj": ("qkv", width, key, 1.0),
        "self_attn.v_proj": ("qkv", width, key, 1.0),
        "self_attn.o_proj": ("out", query, width, 1.0),
    }
    if not config.use_moe:
        return layers | _feed_forward("mlp", width, config.intermediate_size, 1.0)
    layers["mlp.gate"] = ("router", width, config.num_experts, 1.0)
    share = config.num_experts_per_tok / config.num_experts
    for expert in range(config.num_experts):
        layers |= _feed_forward(f"mlp.experts.{expert}", width, config.moe_intermediate_size, share)
    for expert in range(config.num_shared_experts):
        layers |= _feed_forward(f"mlp.shared_experts.{expert}", width, config.moe_intermediate_size, 1.0)
    return layers


def _feed_forward(name: str, width: int, inner: int, share: float) -> dict[str, tuple[str, int, int, float]]:
    return {
        f"{name}.gate_proj": ("mlp", width, inner, share),
        f"{name}.up_proj": ("mlp", width, inner, share),
        f"{name}.down_proj": ("mlp", inner, width, share),
    }


def is_adapted(name: str, targets: Iterable[str]) -> bool:
    """Whether LoRA adapts the layer of this full name (see ``apply_lora``)."""
    if tuple(targets) == ("all-linear",):
        return not name.endswith("mlp.gate")
    return any(f".{name}".endswith(f".{target}") for target in targets)


def fused_attention(work: Workload) -> bool:
    """Whether the backward pass of attention computes the scores a second time.

    PyTorch's fused kernels on GPUs do, which is how they get by without storing them (Dao et al., 2022,
    arXiv:2205.14135). On a CPU we count the plain formula: its fused kernel has no entry in ``flop_counter``.
    """
    return work.device == "cuda"


def _training_pass(work: Workload) -> Iterator[Product]:
    """Products of one forward and backward pass.

    Without LoRA all weights are trained, the embedding too, so every factor needs its gradient. With LoRA
    weights need none, and nothing does below the first layer that is adapted.
    """
    config, full, length = work.config, not work.rank, work.seq_len
    lines = linear_layers(config)
    carries = full  # whether the input of the layer at hand needs a gradient
    for layer in range(config.num_hidden_layers):
        adapted = {
            name: not full and is_adapted(f"model.layers.{layer}.{name}", work.targets) for name in lines
        }
        ends = carries or any(adapted.values())
        again = int(work.gradient_checkpointing and ends)
        query, key, value = (carries or adapted[f"self_attn.{name}_proj"] for name in "qkv")
        mixed = query or key or value
        middle = mixed or adapted["self_attn.o_proj"]
        for name, (part, inputs, outputs, share) in lines.items():
            needs = middle
            if part in ("qkv", "out"):
                needs = carries if part == "qkv" else mixed
            elif name.endswith("down_proj"):
                stem = name.removesuffix("down_proj")
                needs = middle or adapted[stem + "gate_proj"] or adapted[stem + "up_proj"]
            if part == "out":
                yield from _attention(work, query, key, value, again)
            # Recomputation ends with the last tensor that the backward pass reads. In a dense block that is
            # the input of the last product.
            last = name == "mlp.down_proj" and not config.dropout
            rows = round(work.rows * length * share)
            repeat = again if not last or adapted[name] else 0
            yield Product(part, rows, inputs, outputs, left_grad=needs, right_grad=full, again=repeat)
            if adapted[name]:
                repeat = 0 if last else again
                yield Product("lora", rows, inputs, work.rank, left_grad=needs, again=again)
                yield Product("lora", rows, work.rank, outputs, again=repeat)
        carries = ends
    yield Product(
        "head",
        scored_positions(work),
        config.hidden_size,
        config.vocab_size,
        left_grad=carries,
        right_grad=full,
    )


def _attention(work: Workload, query: bool, key: bool, value: bool, again: int) -> Iterator[Product]:
    """Scores and mixing. Every query counts every key: a mask leaves out results, not work."""
    config, length = work.config, work.seq_len
    shared = {"batch": work.rows * config.num_attention_heads, "part": "attention"}
    twice = int(fused_attention(work) and (query or key or value))
    yield Product(
        m=length, k=config.head_dim, n=length, left_grad=query, right_grad=key, again=again + twice, **shared
    )
    weights = query or key
    yield Product(
        m=length, k=length, n=config.head_dim, left_grad=weights, right_grad=value, again=again, **shared
    )


def _forward_only(
    config: ModelConfig, rows: int, length: int, scored: int, phase: Phase, times: int
) -> list[Product]:
    """Products of forward passes without a gradient."""
    passes = _training_pass(Workload(config, batch_size=rows, seq_len=length))
    return [
        replace(
            one,
            m=scored if one.part == "head" else one.m,
            left_grad=False,
            right_grad=False,
            times=times,
            phase=phase,
        )  # fmt: skip
        for one in passes
    ]


def _rollout(work: Workload) -> list[Product]:
    """Answers written with a cache: prompts are read once for each group, then one token a row at a time.

    Every answer is taken to have ``new_tokens`` tokens; those that end earlier save their part.
    """
    config, rows = work.config, work.rollout_rows
    prompt, steps = work.seq_len - work.new_tokens, work.new_tokens - 1
    groups = max(1, round(rows / work.group_size))
    found = _forward_only(config, groups, prompt, rows, "rollout", 1)
    # The first token follows from the prompt and the last is never read. Keys grow by one a step; with their
    # mean, the sum over the steps is exact.
    keys = prompt + work.new_tokens / 2
    for one in _forward_only(config, rows, 1, rows, "rollout", steps) if steps else ():
        if one.part == "attention":
            one = replace(one, k=keys) if one.n == config.head_dim else replace(one, n=keys)
        found.append(one)
    return found


def trained_matrices(work: Workload) -> list[tuple[int, int]]:
    """(outputs, inputs) of every matrix inside the layers that is trained; A and B of each LoRA adapter."""
    found = []
    for layer in range(work.config.num_hidden_layers):
        for name, (part, inputs, outputs, _) in linear_layers(work.config).items():
            if not work.rank and part != "router":
                found.append((outputs, inputs))
            elif work.rank and is_adapted(f"model.layers.{layer}.{name}", work.targets):
                found += [(work.rank, inputs), (outputs, work.rank)]
    return found


def _muon(work: Workload) -> Iterator[Product]:
    """Muon pushes the singular values of every momentum matrix X (short, long) towards 1.

    An iteration computes A = X X', then b A + c A A, and the product of that with X (Jordan et al., 2024).
    """
    for shape in trained_matrices(work):
        short, long = sorted(shape)
        for k, n in ((long, short), (short, short), (short, long)):
            yield Product(
                "muon", short, k, n, left_grad=False, right_grad=False, times=MUON_STEPS, phase="optimizer"
            )
