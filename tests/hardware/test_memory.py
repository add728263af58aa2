"""The memory model against autograd's own record, PyTorch's allocator, and the peak of a real process."""

import contextlib

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.memory import activations_by_layer, memory, play
from minimind_edu.hardware.peak import measure_memory
from minimind_edu.hardware.steps import real_step
from minimind_edu.hardware.workload import Workload

TINY = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip
DENSE = ModelConfig(**TINY)
MOE = ModelConfig(**TINY, use_moe=True, num_experts=3)
SHARED = ModelConfig(**TINY, use_moe=True, num_shared_experts=1, seq_aux=True, num_experts_per_tok=1)
BF16 = {"dtype": "bfloat16"}
AGAIN = {"gradient_checkpointing": True}
CASES = [
    (DENSE, {}),
    (DENSE, BF16),
    (DENSE, {"batch_size": 1}),
    (DENSE, {"seq_len": 300}),
    (DENSE, BF16 | {"seq_len": 600}),
    (DENSE.replace(num_key_value_heads=4), BF16),
    (DENSE.replace(num_key_value_heads=1), {}),
    (DENSE.replace(num_attention_heads=1, num_key_value_heads=1), {}),
    (DENSE.replace(qk_norm=False, tie_word_embeddings=False), BF16),
    (DENSE, AGAIN),
    (DENSE, AGAIN | BF16 | {"seq_len": 600}),
    (MOE, {}),
    (MOE, BF16),
    (SHARED, BF16 | AGAIN),
    (SHARED, {"seq_len": 300}),
    (DENSE, {"stage": "sft", "labelled": 0.3}),
    (DENSE, {"stage": "reason"} | BF16),
    (DENSE, {"stage": "dpo"}),
    (DENSE, {"stage": "dpo"} | AGAIN | BF16),
    (DENSE, {"stage": "lora", "rank": 3}),
    (DENSE, {"stage": "lora", "rank": 3, "targets": ("q_proj", "v_proj")} | BF16),
    (DENSE, {"stage": "lora", "rank": 3} | AGAIN),
]


def workload(config: ModelConfig, changes: dict) -> Workload:
    return Workload(config, **{"batch_size": 3, "seq_len": 40} | changes)


def kept_by_autograd(work: Workload) -> int:
    """Bytes of the tensors that a real forward pass keeps, apart from parameters, tables and the batch."""
    step = real_step(work)
    batch = step.window()[0]
    known = [*step.run.model.parameters(), *step.run.model.buffers(), *batch.values()]
    ignored = {tensor.untyped_storage().data_ptr() for tensor in known}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    precise = contextlib.nullcontext() if work.dtype == "float32" else torch.autocast("cpu", torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precise:
        step.run.loss(step.run.model, batch)
    return sum(one.untyped_storage().nbytes() for place, one in found.items() if place not in ignored)


@pytest.mark.parametrize(("config", "changes"), CASES)
def test_what_autograd_keeps_is_known_to_the_byte(config, changes):
    work = workload(config, changes)
    assert sum(activations_by_layer(work).values()) == kept_by_autograd(work)


def most_allocated(work: Workload, steps: int) -> int:
    """The most bytes that PyTorch's CPU allocator had handed out, from building the model on."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step = real_step(work)
        for _ in range(steps):
            step.take()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


@pytest.mark.parametrize(
    ("config", "changes", "tolerance"),
    [
        (DENSE, {}, 0.001),
        (DENSE, {"optimizer": "muon", "accumulation_steps": 2}, 0.001),
        (DENSE.replace(vocab_size=5000), BF16, 0.001),
        (DENSE.replace(max_position_embeddings=160), {"optimizer": "muon"}, 0.001),
        (MOE, {}, 0.01),  # experts get uneven shares of the tokens
        (DENSE, {"stage": "lora", "rank": 3}, 0.005),
        (DENSE, {"stage": "dpo"}, 0.005),
        (DENSE, AGAIN, 0.02),
        (DENSE.replace(vocab_size=2000), {"stage": "distill"}, 0.03),
        (DENSE.replace(vocab_size=2000), {"stage": "grpo", "reference": True, "seq_len": 48}, 0.05),
    ],
)
def test_the_most_bytes_in_tensors(config, changes, tolerance):
    work = workload(config, {"seq_len": 160, "batch_size": 8} | changes)
    assert memory(work, framework=0).live == pytest.approx(most_allocated(work, 2), rel=tolerance)


def test_parts_add_up_and_say_where_the_memory_is():
    found = memory(workload(DENSE, {"batch_size": 8, "seq_len": 200}), framework=1000)
    assert sum(found.parts.values()) == found.total and found.parts["framework"] == 1000
    count = sum(p.size for p in _parameters(DENSE)) // 4
    assert found.parts["weights"] == 4 * (count + 2 * 1024 * DENSE.head_dim)
    assert found.parts["optimizer"] == 8 * count
    assert found.moment.startswith(("backward", "forward", "optimizer"))


def _parameters(config):
    from minimind_edu.hardware.activations import Shadow
    from minimind_edu.hardware.tape import Tape

    return Shadow(Tape(), config, Workload(config)).parameters


def test_levers_work_in_the_right_direction():
    work = workload(DENSE.replace(vocab_size=3000), {"batch_size": 8, "seq_len": 256})
    total = memory(work, 0).live
    less = [{"batch_size": 4}, {"seq_len": 128}, AGAIN, BF16, {"optimizer": "muon"}, {"labelled": 0.3}]
    for changes in less:
        assert memory(work.replace(**changes), 0).live < total, changes
    lora = memory(work.replace(stage="lora", rank=2, labelled=1.0), 0)
    assert lora.parts["optimizer"] < 0.2 * lora.parts["weights"]
    assert memory(work.replace(stage="distill"), 0).parts["second_model"] > 0
    assert memory(work.replace(stage="grpo"), 0).live > 0


def test_a_step_leaves_only_weights_and_states():
    tape = play(workload(DENSE, {}), steps=3)
    live = {name: size for name, size in tape.live.items() if size}
    assert set(live) == {"weights", "optimizer"} or not live


def test_a_gpu_has_no_heap_but_a_cache_of_blocks():
    work = workload(DENSE, {"seq_len": 300, "device": "cuda", "dtype": "bfloat16"})
    found = memory(work)
    assert found.parts["framework"] > 0 and found.total - found.parts["framework"] >= 2 << 20
    no_mask = memory(work.replace(packed=False))
    assert no_mask.live < found.live


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 24, "seq_len": 200},
        {"batch_size": 8, "seq_len": 300, "stage": "sft", "labelled": 0.5} | BF16,
    ],
)
def test_the_peak_of_a_process(changes):
    config = ModelConfig(vocab_size=3000, hidden_size=128, num_hidden_layers=3, num_attention_heads=2)
    work = workload(config, changes)
    measured = measure_memory(work)
    assert measured.peak - measured.before > 80 << 20  # a step that is seen beside the libraries
    assert memory(work, framework=measured.before).total == pytest.approx(measured.peak, rel=0.15)
