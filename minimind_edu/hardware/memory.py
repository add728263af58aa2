"""How much memory a step needs, before it is taken: tensor by tensor, at the moment of the peak.

The model, its loss and its optimizer are played on a `Tape`, and what an allocator makes of it is played on a
`Heap` or a `CudaCache`. What cannot be derived, the interpreter and its libraries, is measured once
(`hardware.peak.measured_framework`).
"""

from dataclasses import dataclass, field
from functools import lru_cache

from minimind_edu.hardware.activations import Shadow
from minimind_edu.hardware.heap import CudaCache, heap_bytes
from minimind_edu.hardware.operations import FLOAT, LONG
from minimind_edu.hardware.products import products
from minimind_edu.hardware.tails import causal_lm, distillation, policy, table
from minimind_edu.hardware.tape import PARTS, Tape, Value
from minimind_edu.hardware.workload import Workload

KERNEL_BYTES = 450 << 10  # of one shape, fitted to the rows of rows/memory.jsonl
MOST_KERNELS = 1024  # oneDNN's default (ONEDNN_PRIMITIVE_CACHE_CAPACITY)
STEPS = 2  # the optimizer's states exist from the first step's end on


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step.

    Attributes:
        parts: bytes by name: weights (float32, and RoPE's tables), gradients, optimizer, activations (what
            autograd keeps), logits (everything of the vocabulary's width), temporary, second_model, cache
            (keys and values), allocator (holes between tensors) and framework (the process before).
        moment: the phase in which the peak falls, such as "backward of head" or "optimizer step".
        live: bytes of tensors at the peak: all parts but the last two.
    """

    parts: dict[str, int] = field(default_factory=dict)
    moment: str = ""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def live(self) -> int:
        """Bytes of tensors."""
        return self.total - self.parts["allocator"] - self.parts["framework"]


def memory(work: Workload, framework: int | None = None, keeps_freed: bool = True) -> Memory:
    """What a step of `work` needs at its peak.

    Args:
        framework: bytes that the process has before the model is built; default a measurement on this
            machine for the CPU, and `CUDA_CONTEXT` for a GPU.
        keeps_freed: whether `training.memory.keep_freed_memory` was called, as our training loop does.
    """
    tape_parts, moment, peak, held = _played(work, keeps_freed)
    if framework is None:
        from minimind_edu.hardware.peak import measured_framework

        framework = measured_framework(work)
    parts = {name: size for name, size in tape_parts if size or name in PARTS[:6]}
    parts |= {"allocator": max(0, held - peak), "framework": framework + kernels(work)}
    return Memory(parts, moment)


def kernels(work: Workload, steps: int = 3) -> int:
    """Bytes of the code that oneDNN writes for 16-bit products on a CPU, for every shape anew.

    It keeps the last `MOST_KERNELS`. Experts get other numbers of tokens in every step, so that a mixture in
    16 bits grows for many steps; this counts the first few.
    """
    if work.dtype == "float32" or work.device != "cpu":
        return 0
    shapes, changing = set(), 0
    for one in products(work):
        if work.config.use_moe and one.part in ("mlp", "lora"):
            changing += one.runs * steps * 2 // 3  # a third have the shape of another, as gate and up have
        else:
            shapes |= {(one.m, one.k, one.n, one.batch, run) for run in range(one.runs // one.times)}
    return min(len(shapes) + changing, MOST_KERNELS) * KERNEL_BYTES


@lru_cache(maxsize=4096)
def _played(work: Workload, keeps_freed: bool) -> tuple[tuple[tuple[str, int], ...], str, int, int]:
    tape = play(work)
    on_cpu = work.device == "cpu"
    held = heap_bytes(tape.events, keeps_freed) if on_cpu else CudaCache().play(tape.events)
    return tuple(tape.at_peak.items()), tape.moment, tape.peak, held


def activations_by_layer(work: Workload) -> dict[str, int]:
    """Bytes of every tensor that autograd keeps after the forward pass, by name."""
    tape = Tape()
    model, second = _models(tape, work)
    _forward(tape, work, model, second)
    return dict(tape.kept_by_name)


def play(work: Workload, steps: int = STEPS) -> Tape:
    """A tape of the first steps of a workload, from building the model on."""
    tape = Tape()
    model, second = _models(tape, work)
    batch = [
        Value(tape, tape.allocate(work.tokens * LONG)) for _ in range(3 * work.accumulation_steps)
    ]  # ids, labels, documents
    states: list[Value] = []
    for _ in range(steps):
        if work.stage == "grpo":
            rollout(model, work)
            if work.reference:
                _reference(second, work)
        for _ in range(work.accumulation_steps):
            loss = _forward(tape, work, model, second).source
            tape.casts.clear()
            tape.backward(loss, tape.allocate(FLOAT))
        tape.phase = "optimizer step"
        update(model, work, states)
    del batch
    return tape


def _models(tape: Tape, work: Workload) -> tuple[Shadow, Shadow | None]:
    for config in (work.config, work.teacher):
        if config is not None:  # what `rope_table` makes on its way
            size = config.max_position_embeddings * config.head_dim * FLOAT
            on_the_way = [Value(tape, tape.allocate(size)) for _ in range(3)]
            del on_the_way
    model = Shadow(tape, work.config, work)
    other = work.teacher if work.stage == "distill" else work.config if work.reference else None
    return model, None if other is None else Shadow(tape, other, work, trained=False, part="second_model")


def _forward(tape: Tape, work: Workload, model: Shadow, second: Shadow | None) -> Value:
    if work.stage == "distill":
        return distillation(model, work, second)
    return policy(model, work) if work.stage == "grpo" else causal_lm(model, work)


def update(model: Shadow, work: Workload, states: list[Value]) -> None:
    """The optimizer's step; `states` are made in the first one."""
    tape, is_first = model.tape, not states
    for parameter in model.parameters:
        if not parameter.trained:
            continue
        is_muon = work.optimizer == "muon" and len(parameter.shape) == 2 and not parameter.is_table
        if is_first:
            for _ in range(1 if is_muon else 2):
                states.append(Value(tape, tape.allocate(parameter.size, "optimizer")))
        if is_muon:
            _newton_schulz(tape, parameter.shape)
    for parameter in model.parameters:
        if parameter.total is not None:
            tape.drop(parameter.total)
            parameter.total = None


def _newton_schulz(tape: Tape, shape: tuple[int, ...]) -> None:
    """Temporaries of `torch.optim.Muon` for one matrix: 16-bit iterates and their small products."""
    count, small = shape[0] * shape[1], min(shape) ** 2
    update = tape.allocate(count * FLOAT)
    temporary = [tape.allocate(size) for size in (2 * count, 2 * small, 2 * small, 2 * count)]
    for buffer in [update, *temporary]:
        tape.drop(buffer)


def rollout(model: Shadow, work: Workload) -> None:
    """`sample_groups`: prompts are read once, weights are laid out for single tokens, answers are written."""
    tape, c = model.tape, model.config
    before, model.e = model.e, FLOAT if work.device == "cpu" else model.e
    prompts = max(1, round(work.rollout_rows / work.group_size))
    length, rows = work.seq_len - work.new_tokens, work.rollout_rows
    per_token = 2 * c.num_key_value_heads * c.head_dim * model.e

    def cache(rows: int, columns: int) -> list[Value]:
        size = rows * columns * per_token // 2
        return [Value(tape, tape.allocate(size, "cache")) for _ in range(2 * c.num_hidden_layers)]

    with tape.no_grad():
        held = cache(prompts, length)
        hidden = model.hidden_states(prompts, length, masked=False)
        tape.casts.clear()
        model.balances.clear()
        tape.phase = "rollout"
        weights = _decoding_weights(model)
        held += cache(rows, work.new_tokens)
        del hidden
        for position in (0, work.new_tokens - 1):
            _write_token(model, rows, prompts, length, position)
    model.e = before
    del held, weights


def _decoding_weights(model: Shadow) -> list[Value]:
    """`DecodingStep`'s copies: in float32 of the joined matrices, in 16 bits of all."""
    from minimind_edu.generation import LARGEST_REARRANGED

    tape, part = model.tape, "cache"
    if sum(one.size for one in model.parameters) // FLOAT > LARGEST_REARRANGED or model.adapted:
        return []
    names = ["q_proj", "k_proj", "v_proj"] + ([] if model.e == FLOAT else ["o_proj"])
    copies = []
    for layer in model.layers:
        matrices = [layer[name][0] for name in names]
        if "mlp" in layer:
            matrices += [layer["mlp"][name][0] for name in ("gate_proj", "up_proj")]
            matrices += [] if model.e == FLOAT else [layer["mlp"]["down_proj"][0]]
        for group in (matrices[:3], matrices[3:]):
            joined = [tape.allocate(sum(one.size for one in group)) for _ in "1"]
            copies.append(Value(tape, tape.allocate(sum(one.size for one in group) * model.e // FLOAT, part)))
            for buffer in joined:
                tape.drop(buffer)
    return copies


def _write_token(model: Shadow, rows: int, prompts: int, length: int, position: int) -> None:
    """One decoding step: the widest tensors of a layer, and the distribution over the vocabulary."""
    tape, c, e = model.tape, model.config, model.e
    keys = length + position + 1
    heads = rows * c.num_attention_heads
    scores = [Value(tape, tape.allocate(heads * keys * e)) for _ in range(3)]
    del scores
    both = [Value(tape, tape.allocate(rows * 2 * c.intermediate_size * e)) for _ in range(2)]
    del both
    logits = [Value(tape, tape.allocate(table(model, rows), "logits")) for _ in range(3)]
    del logits


def _reference(second: Shadow, work: Workload) -> None:
    """`_reference_logprobs`: one batch after another, without gradients."""
    with second.tape.no_grad():
        for _ in range(work.accumulation_steps):
            policy(second, work)
            second.tape.casts.clear()
            second.balances.clear()
