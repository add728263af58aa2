"""FLOPs against PyTorch's own counter, which watches every operation of a step that really runs."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.products import fused_attention, linear_layers, products
from minimind_edu.hardware.steps import real_step
from minimind_edu.hardware.workload import Workload
from minimind_edu.model.transformer import MiniMind

TINY = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
DENSE = ModelConfig(**TINY)
MOE = ModelConfig(**TINY, use_moe=True)
SHARED = ModelConfig(**TINY, use_moe=True, num_shared_experts=1)
LORA = {"stage": "lora", "rank": 3}
ROLLOUT = {"stage": "grpo", "rollout_rows": 16, "accumulation_steps": 4, "new_tokens": 20}


def counted(step) -> int:
    """What PyTorch counts. The CPU's fused attention has no entry in its table, hence the plain one."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (DENSE, {}),
        (DENSE, {"seq_len": 300}),  # beyond what `plain_attention` is used for
        (DENSE, {"dtype": "bfloat16", "accumulation_steps": 3}),
        (DENSE.replace(tie_word_embeddings=False, qk_norm=False, attention_bias=True), {}),
        (DENSE, {"gradient_checkpointing": True}),
        (DENSE.replace(dropout=0.1), {"gradient_checkpointing": True}),
        (MOE, {}),
        (MOE, {"gradient_checkpointing": True}),
        (SHARED, {"gradient_checkpointing": True}),
        (DENSE, {"optimizer": "muon"}),
        (MOE, {"optimizer": "muon"}),
        (DENSE, {"stage": "sft"}),
        (DENSE, {"stage": "reason"}),
        (DENSE, LORA),
        (DENSE, LORA | {"targets": ("q_proj", "v_proj"), "optimizer": "muon"}),
        (DENSE, LORA | {"targets": ("v_proj",), "gradient_checkpointing": True}),
        (DENSE, LORA | {"targets": ("k_proj",)}),
        (DENSE, LORA | {"targets": ("o_proj",)}),
        (DENSE, LORA | {"targets": ("down_proj",), "gradient_checkpointing": True}),
        (DENSE, LORA | {"targets": ("layers.1.mlp.gate_proj",), "gradient_checkpointing": True}),
        (SHARED, LORA | {"targets": ("all-linear",), "gradient_checkpointing": True}),
        (DENSE, {"stage": "dpo"}),
        (MOE, {"stage": "dpo", "gradient_checkpointing": True}),
        (DENSE, {"stage": "distill", "teacher": MOE}),
        (DENSE, ROLLOUT),
        (MOE, ROLLOUT | {"reference": True, "gradient_checkpointing": True}),
    ],
)
def test_a_step_of_every_stage_is_counted_exactly(config, changes):
    """Equal to the last operation, so every gradient that is not needed and every repetition is known."""
    work = Workload(config, **{"batch_size": 4, "seq_len": 48} | changes)
    assert flops(work).total == counted(real_step(work).take)


@pytest.mark.parametrize("name", ModelConfig.presets())
def test_all_presets_agree_with_the_counter_forward_and_backward(name):
    config = ModelConfig.preset(name)
    # Tensors without contents count as well, but a router has to look at its numbers.
    mode = FakeTensorMode() if not config.use_moe else torch.device("cpu")
    rows, length = (2, 96) if not config.use_moe else (1, 16)
    found = {}

    def step() -> None:
        out = model(ids, labels=ids)
        found["forward"] = counter.get_total_flops()
        out.loss.backward()

    with mode:
        with torch.device("meta" if config.use_moe else "cpu"):
            model = MiniMind(config)
        if config.use_moe:  # random weights of this size take seconds to draw
            model = model.to_empty(device="cpu")
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.linspace(-0.02, 0.02, parameter.shape[-1]))
            model.model.build_rope_table(config, torch.device("cpu"))
        model.train()._warned_dead_router = True
        ids = torch.ones(rows, length, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            step()
    ours = flops(Workload(config, batch_size=rows, seq_len=length))
    # The counter saw a head at all positions; a training step leaves out the last of every row.
    unscored = 2 * rows * config.hidden_size * config.vocab_size
    assert sum(ours.forward.values()) + unscored == found["forward"]
    assert ours.total + 3 * unscored == counter.get_total_flops()
    assert ours.backward == 2 * sum(ours.forward.values())


def test_a_hand_counted_layer():
    """Width 4, two heads of 2 over one key head, inner width 6, vocabulary 10; one row of 3 tokens."""
    config = ModelConfig(
        vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    ours = flops(Workload(config, batch_size=1, seq_len=3))
    assert ours.forward == {
        "qkv": 2 * 3 * 4 * (4 + 2 + 2),
        "attention": 2 * (2 * 2 * 3 * 3 * 2),
        "out": 2 * 3 * 4 * 4,
        "mlp": 3 * 2 * 3 * 4 * 6,
        "head": 2 * 2 * 4 * 10,  # two of the three positions have a successor
    }
    assert ours.total == 3 * sum(ours.forward.values()) and ours.per_token == ours.total / 3


def test_experts_cost_by_how_many_a_token_visits():
    one, two = (flops(Workload(MOE.replace(num_experts_per_tok=k))).forward["mlp"] for k in (1, 2))
    assert two == 2 * one
    many = flops(Workload(MOE.replace(num_experts=8))).forward
    assert many["mlp"] == two and many["router"] == 2 * flops(Workload(MOE)).forward["router"]
    names = linear_layers(SHARED)
    assert sum(share for _, _, _, share in names.values() if share < 1) == 3 * 2  # k experts, three matrices


def test_a_fused_kernel_computes_the_scores_twice():
    """As `flop_counter` has it: five products backward, not four."""
    ours = {device: flops(Workload(DENSE, device=device)) for device in ("cpu", "cuda")}
    scores = ours["cpu"].forward["attention"] // 2
    assert ours["cuda"].total - ours["cpu"].total == ours["cuda"].recomputed == scores
    assert fused_attention(Workload(DENSE, device="cuda")) and not fused_attention(Workload(DENSE))


def test_checkpointing_costs_about_a_third_more():
    plain, again = (flops(Workload(DENSE, gradient_checkpointing=flag)) for flag in (False, True))
    assert again.forward == plain.forward and again.backward == plain.backward
    blocks = sum(plain.forward.values()) - plain.forward["head"]
    assert 0.75 * blocks < again.recomputed < blocks  # all but the last product of every block


def test_what_runs_beside_training_is_told_apart():
    step = flops(Workload(DENSE, "grpo", reference=True, optimizer="muon", batch_size=8, seq_len=64))
    assert set(step.beside) == {"rollout", "reference", "optimizer"}
    assert flops(Workload(DENSE, "distill", teacher=MOE)).beside.keys() == {"teacher"}
    assert all(
        one.runs == one.times for one in products(Workload(DENSE, "distill")) if one.phase == "teacher"
    )
