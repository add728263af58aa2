"""Bytes and kernels against a count of every operation that PyTorch's dispatcher sees in a real step."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.steps import real_step
from minimind_edu.hardware.traffic import (
    kernels,
    kernels_by_kind,
    new_shapes,
    passes,
    traffic,
    trained_parameters,
)
from minimind_edu.hardware.workload import Workload
from minimind_edu.model.transformer import MiniMind

NO_WORK = {  # views, empty memory, numbers on their way to Python
    "view", "t", "transpose", "expand", "unsqueeze", "slice", "select", "split", "_unsafe_view", "alias",
    "detach", "squeeze", "permute", "as_strided", "split_with_sizes", "empty", "empty_like", "new_empty",
    "_local_scalar_dense", "_reshape_alias", "unbind", "is_nonzero", "diagonal", "lift_fresh",
}  # fmt: skip
PRODUCTS = {"mm", "bmm", "baddbmm", "addmm"}
SHAPE = {"vocab_size": 300, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
DENSE = ModelConfig(**SHAPE)
MOE = ModelConfig(**SHAPE, use_moe=True, moe_intermediate_size=128)


class Counting(TorchDispatchMode):
    """Operations by name, and the bytes of all tensors that go in and come out."""

    def __init__(self):
        super().__init__()
        self.calls, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if name not in NO_WORK:
            self.calls[name] += 1
            tensors = [one for one in tree_flatten((args, kwargs, out))[0] if isinstance(one, torch.Tensor)]
            self.bytes[name] += sum(one.numel() * one.element_size() for one in tensors)
        return out


def counted(work: Workload) -> tuple[int, int]:
    step = real_step(work)
    step.take()  # the first also makes the optimizer's state
    with Counting() as found:
        step.take()
    moved = sum(size for name, size in found.bytes.items() if name not in PRODUCTS)
    return sum(found.calls.values()), moved


CASES = [
    (DENSE, {}),
    (DENSE, {"dtype": "bfloat16"}),
    (DENSE.replace(qk_norm=False), {"dtype": "bfloat16"}),
    (DENSE, {"gradient_checkpointing": True}),
    (DENSE.replace(vocab_size=6000), {"stage": "sft"}),
    (DENSE, {"accumulation_steps": 3}),
    (MOE, {}),
    (MOE, {"dtype": "bfloat16"}),
    (MOE.replace(num_shared_experts=1, num_experts_per_tok=1), {}),
    (DENSE, {"stage": "lora", "rank": 4}),
    (DENSE, {"stage": "dpo"}),
    (DENSE.replace(vocab_size=3000), {"stage": "distill"}),
    (DENSE, {"stage": "reason"}),
    (DENSE, {"optimizer": "muon"}),
]


@pytest.mark.parametrize(("config", "changes"), CASES)
def test_bytes_and_kernels_are_those_of_a_real_step(config, changes):
    work = Workload(config, **{"batch_size": 8, "seq_len": 96} | changes)
    calls, moved = counted(work)
    assert kernels(work) == pytest.approx(calls, rel=0.1)
    assert sum(traffic(work).values()) == pytest.approx(moved, rel=0.15)


def test_writing_takes_calls_of_its_own():
    few, many = (Workload(DENSE, "grpo", batch_size=8, seq_len=48, new_tokens=count) for count in (4, 20))
    difference = counted(many)[0] - counted(few)[0]
    ours = kernels_by_kind(many)["writing"] - kernels_by_kind(few)["writing"]
    assert ours == pytest.approx(difference, rel=0.1)
    assert kernels_by_kind(Workload(DENSE))["writing"] == 0


def test_scores_are_in_memory_only_where_attention_is_written_out():
    short, long = (traffic(Workload(DENSE, seq_len=length)) for length in (256, 512))
    assert short["scores"] > 0 and long["scores"] == 0
    assert traffic(Workload(DENSE, seq_len=256, device="cuda"))["scores"] == 0


def test_every_stage_makes_its_passes():
    def made(stage, **changes):
        work = Workload(DENSE, stage, batch_size=4, seq_len=32, **changes)
        return [(one.tokens, one.forward, one.backward) for one in passes(work)]

    assert made("pretrain", accumulation_steps=2) == [(128, 2, 2)]
    assert made("pretrain", gradient_checkpointing=True) == [(128, 2, 1)]
    assert made("dpo") == [(256, 1, 1)]
    assert made("distill", teacher=MOE) == [(128, 1, 1), (128, 1, 0)]
    rollout = made("grpo", new_tokens=8, rollout_rows=8, group_size=4, reference=True)
    assert rollout == [(128, 1, 1), (128, 1, 0), (2 * 24, 1, 0), (8, 7, 0)]


@pytest.mark.parametrize("config", [DENSE, MOE, DENSE.replace(tie_word_embeddings=False)])
def test_trained_parameters_are_those_of_the_model(config):
    vectors = sum(one.numel() for one in MiniMind(config).parameters() if one.ndim < 2)
    routers = config.num_hidden_layers * config.hidden_size * config.num_experts if config.use_moe else 0
    found = sum(trained_parameters(Workload(config)))
    assert found + vectors + routers == MiniMind(config).num_parameters()


def test_experts_have_products_of_new_shapes_where_they_are_compiled_for_them():
    work = Workload(MOE, dtype="bfloat16")
    each_way = MOE.num_hidden_layers * MOE.num_experts * 3  # gate, up and down of every expert
    assert (
        new_shapes(work) == 3 * each_way
        and new_shapes(work.replace(gradient_checkpointing=True)) == 4 * each_way
    )
    others = (Workload(MOE), Workload(DENSE, dtype="bfloat16"), work.replace(device="cuda"))
    assert [new_shapes(other) for other in others] == [0, 0, 0]
    assert new_shapes(Workload(DENSE, "distill", dtype="bfloat16", teacher=MOE)) == each_way
