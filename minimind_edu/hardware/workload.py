"""What one training step consists of: the question that the memory and the time model answer.

A stage differs from pretraining by few numbers: how many rows a step reads, how many of their positions the
output head sees, which weights are trained, and whether a second model runs beside the first.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from minimind_edu.config import ModelConfig

Stage = Literal["pretrain", "sft", "lora", "dpo", "distill", "reason", "grpo"]
Dtype = Literal["float32", "bfloat16", "float16"]
STAGES: tuple[str, ...] = get_args(Stage)

# Share of a row's positions that have a label, so that the head computes logits for them, where a workload
# does not say: measured on the embedded world's files (`tests/hardware` compares).
LABELLED = {"pretrain": 1.0, "sft": 0.22, "lora": 0.5, "dpo": 0.28, "distill": 1.0, "reason": 0.7}


@dataclass(frozen=True)
class Workload:
    """One optimizer step of a stage.

    Attributes:
        config: shape of the model that is trained.
        stage: which stage; LoRA trains an adapter, DPO reads two rows for each pair, distillation runs a
            teacher, GRPO first writes answers.
        batch_size: rows (DPO: pairs; GRPO: answers) in one forward pass.
        seq_len: tokens in a row, padding included.
        dtype: type of matrix products; weights, gradients and optimizer states are float32 always.
        device: ``cpu`` or ``cuda``.
        optimizer: adamw or muon (matrices inside the layers; AdamW elsewhere).
        gradient_checkpointing: keep each layer's input only, and compute the rest anew in the backward pass.
        accumulation_steps: forward passes in a step.
        labelled: share of the positions that have a label; None takes the stage's usual one.
        packed: whether rows hold several documents, whose mask every layer's attention reads.
        rank: LoRA's rank; 0 for the other stages.
        targets: names of the layers that LoRA adapts.
        teacher: shape of the teacher in distillation.
        reference: whether a second copy of the model sits in memory (DPO, GRPO with a KL term). Our DPO
            computes the reference's numbers before training and needs none.
        new_tokens: GRPO: tokens that an answer may have, a part of ``seq_len``.
        rollout_rows: GRPO: answers written at a time (prompts of a step times answers to each).
        group_size: GRPO: answers to each prompt, which is read once for all of them.
    """

    config: ModelConfig
    stage: Stage = "pretrain"
    batch_size: int = 16
    seq_len: int = 256
    dtype: Dtype = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    optimizer: Literal["adamw", "muon"] = "adamw"
    gradient_checkpointing: bool = False
    accumulation_steps: int = 1
    labelled: float | None = None
    packed: bool = True
    rank: int = 0
    targets: tuple[str, ...] = ()
    teacher: ModelConfig | None = None
    reference: bool = False
    new_tokens: int = 0
    rollout_rows: int = 0
    group_size: int = 8

    def __post_init__(self) -> None:
        """Fill in what follows from the stage, and refuse what makes no sense.

        Raises:
            ValueError: a setting makes no sense; the message names it.
        """
        if self.stage not in STAGES:
            raise ValueError(f"unknown stage {self.stage!r}: use {', '.join(STAGES)}")
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"unknown dtype {self.dtype!r}: use {', '.join(get_args(Dtype))}")
        for name in ("batch_size", "seq_len", "accumulation_steps", "group_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.stage == "grpo":
            self._set(
                new_tokens=self.new_tokens or self.seq_len // 2,
                rollout_rows=self.rollout_rows or self.batch_size,
            )
            if self.new_tokens >= self.seq_len:
                raise ValueError(f"new_tokens must be below seq_len={self.seq_len}, not {self.new_tokens}")
        if self.labelled is None:
            written = self.new_tokens / self.seq_len  # GRPO's labels are what the model wrote
            self._set(labelled=written if self.stage == "grpo" else LABELLED[self.stage])
        if not 0 < self.labelled <= 1:
            raise ValueError(f"labelled is a share above 0 and at most 1, not {self.labelled}")
        if self.stage == "lora" and not self.rank:
            self._set(rank=2)
        if self.rank and not self.targets:
            self._set(targets=("gate_proj", "up_proj", "down_proj"))
        if self.stage != "lora" and self.rank:
            raise ValueError(f"rank belongs to the stage lora, not to {self.stage}")
        if self.stage == "distill" and self.teacher is None:
            self._set(teacher=self.config)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> int:
        """Rows in one forward pass: DPO reads the chosen and the rejected answer of each pair."""
        return self.batch_size * (2 if self.stage == "dpo" else 1)

    @property
    def tokens(self) -> int:
        """Positions in one forward pass, padding included."""
        return self.rows * self.seq_len

    @property
    def scored(self) -> int:
        """Positions in one forward pass for which the head computes logits."""
        return max(1, round(self.tokens * self.labelled))

    def replace(self, **changes: object) -> "Workload":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
