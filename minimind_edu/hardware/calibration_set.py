"""The workloads that a machine is measured at: few, short, and each heavy in another kind of work.

A cost is known only where rows differ in how much of it they have. So there are wide models and narrow ones,
long rows and short ones, a large vocabulary, many heads, experts, an optimizer that multiplies matrices, and
answers that are written token by token.
"""

from collections.abc import Sequence

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.workload import Workload


def _shape(
    width: int, layers: int, heads: int, groups: int, vocabulary: int, **changes: object
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=64 * round(width * 2.7 / 64),
        **changes,
    )


_EXPERTS = {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 192}

# name: (shape, batch, length, further settings)
_ON_CPU: dict[str, tuple[ModelConfig, int, int, dict[str, object]]] = {
    "edu": (ModelConfig.preset("edu"), 8, 256, {}),
    "few calls' worth": (_shape(64, 3, 2, 1, 500), 4, 48, {}),
    "wide": (_shape(512, 3, 8, 2, 6400, qk_norm=False), 2, 128, {}),
    "wide, few tokens": (_shape(768, 2, 8, 4, 6400), 1, 64, {}),
    "many tokens": (_shape(256, 2, 4, 2, 1600), 16, 128, {}),
    "narrow, many tokens": (_shape(96, 4, 3, 3, 800, qk_norm=False), 32, 96, {}),
    "vocabulary": (_shape(128, 1, 2, 1, 20000), 4, 128, {}),
    "heads": (_shape(128, 2, 8, 8, 1600), 6, 224, {}),
    "long": (_shape(192, 2, 3, 1, 1600), 2, 768, {}),
    "experts": (_shape(128, 4, 2, 1, 1600, **_EXPERTS), 8, 128, {}),
    "checkpointed": (_shape(256, 2, 4, 1, 4000), 4, 192, {"gradient_checkpointing": True}),
    "muon": (_shape(256, 2, 4, 2, 1600), 4, 64, {"optimizer": "muon", "accumulation_steps": 2}),
    "adapter": (_shape(320, 3, 5, 1, 1600), 6, 96, {"stage": "lora", "rank": 8}),
    "teacher": (_shape(128, 2, 2, 2, 6400), 8, 96, {"stage": "distill"}),
    "answers": (_shape(256, 3, 4, 1, 2000), 16, 96, {"stage": "grpo", "new_tokens": 48}),
    "answers, narrow": (_shape(96, 4, 2, 1, 500), 4, 80, {"stage": "grpo", "new_tokens": 48}),
}

_ON_GPU: dict[str, tuple[ModelConfig, int, int, dict[str, object]]] = {
    "small": (ModelConfig.preset("minimind2-small"), 32, 512, {}),
    "small, few rows": (ModelConfig.preset("minimind2-small"), 4, 256, {}),
    "edu": (ModelConfig.preset("edu"), 64, 256, {}),
    "calls": (_shape(64, 8, 2, 1, 500), 2, 64, {}),
    "minimind2": (ModelConfig.preset("minimind2"), 8, 512, {}),
    "minimind-3": (ModelConfig.preset("minimind-3"), 16, 340, {"packed": False}),
    "wide": (_shape(1024, 4, 8, 2, 6400, qk_norm=False), 16, 512, {}),
    "wide, few tokens": (_shape(1024, 6, 8, 2, 6400), 1, 64, {}),
    "narrow, many tokens": (_shape(128, 4, 2, 2, 1600), 128, 256, {}),
    "vocabulary": (_shape(256, 2, 4, 2, 30000), 16, 256, {}),
    "heads": (_shape(256, 4, 16, 16, 1600), 16, 512, {}),
    "long": (_shape(512, 4, 8, 8, 6400), 4, 2048, {"packed": False}),
    "experts": (ModelConfig.preset("minimind2-moe", num_hidden_layers=4), 16, 256, {}),
    "checkpointed": (ModelConfig.preset("minimind2-small"), 16, 512, {"gradient_checkpointing": True}),
    "muon": (_shape(512, 6, 8, 4, 6400), 8, 256, {"optimizer": "muon", "accumulation_steps": 2}),
    "adapter": (ModelConfig.preset("minimind2-small"), 16, 340, {"stage": "lora", "rank": 8}),
    "teacher": (ModelConfig.preset("minimind2-small"), 8, 340, {"stage": "distill"}),
    "answers": (ModelConfig.preset("minimind2-small"), 32, 128, {"stage": "grpo", "new_tokens": 64}),
    "answers, narrow": (_shape(128, 6, 2, 1, 500), 8, 128, {"stage": "grpo", "new_tokens": 64}),
}


def calibration_works(device: str = "cpu", dtypes: Sequence[str] = ("float32", "bfloat16")) -> list[Workload]:
    """All workloads of the set, in each of the number formats."""
    chosen = _ON_CPU if device == "cpu" else _ON_GPU
    return [
        Workload(config, batch_size=batch, seq_len=length, dtype=dtype, device=device, **settings)
        for config, batch, length, settings in chosen.values()
        for dtype in dtypes
    ]
