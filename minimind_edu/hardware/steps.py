"""A step that can be taken: the real model, loss and loop of a workload's stage, on random tokens.

What a step costs does not depend on what the tokens say, so no text, tokenizer or trained model is needed.
The memory and the time model are compared with this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minimind_edu.data.packing import IGNORE_INDEX
from minimind_edu.generation import Sampling
from minimind_edu.hardware.products import scored_positions
from minimind_edu.hardware.workload import Workload
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.distill import DistillConfig, white_box_loss
from minimind_edu.stages.dpo import PreferenceLoss
from minimind_edu.stages.grpo import PolicyLoss
from minimind_edu.stages.lora import apply_lora
from minimind_edu.stages.policy import VARIANTS
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.reasoning import weighted_lm_loss
from minimind_edu.stages.rollout import action_logprobs, as_batch, sample_groups
from minimind_edu.stages.rollout_rows import STATISTICS
from minimind_edu.training import Batch, LossFunction, TrainConfig
from minimind_edu.training.loop import Run

LEARNING_RATE = 1e-5  # small: random labels should not drive the weights anywhere
DOCUMENT = 90  # tokens of a document in a packed row, about what the embedded world's have
SAMPLING = Sampling(1.0)


@dataclass
class RealStep:
    """A run that can take steps.

    Attributes:
        run: see ``training.loop.Run``.
        window: makes the batches of the next step.
        second: the teacher or the reference, if there is one.
    """

    run: Run
    window: Callable[[], list[Batch]]
    second: MiniMind | None

    def take(self) -> dict[str, float]:
        """Take one optimizer step, GRPO with the rollout before it; returns the loop's numbers."""
        return self.run.take_step([([], batch) for batch in self.window()], LEARNING_RATE)


def real_step(
    work: Workload, folder: str | Path = "out/none", seed: int = 0, run_class: type[Run] = Run
) -> RealStep:
    """Build model, loss, optimizer and batches of a workload.

    Args:
        folder: what the run believes to be its folder; nothing is written.
        run_class: the loop's, or one derived from it.

    Raises:
        ValueError: the device cannot train in the workload's dtype, or a row is longer than the model reads.
    """
    if work.seq_len > work.config.max_position_embeddings:
        raise ValueError(
            f"seq_len is {work.seq_len}, but the model reads {work.config.max_position_embeddings} tokens"
        )
    torch.manual_seed(seed)
    model = MiniMind(work.config).train()
    model.gradient_checkpointing = work.gradient_checkpointing
    if work.rank:
        apply_lora(model, work.rank, 2.0 * work.rank, work.targets)
    second = _second_model(work)
    settings = TrainConfig(
        out_dir=str(folder),
        dtype=work.dtype,
        device=work.device,
        optimizer=work.optimizer,
        batch_size=work.batch_size,
        accumulation_steps=work.accumulation_steps,
        max_steps=10**9,
    )
    run = run_class(model, _loss(work, second), _NoRows(), settings, None, "")
    if second is not None:
        second.to(run.device)
    if work.stage == "grpo":
        return RealStep(run, lambda: _rollout(work, run, second), second)
    # New tokens in every step: to a mixture of experts the same ones again would be blocks of known sizes.
    return RealStep(run, lambda: [random_batch(work) for _ in range(work.accumulation_steps)], second)


class _NoRows:
    """What the loop asks for where batches are given to it directly."""

    def __len__(self) -> int:
        return 1

    def record_ids(self, row: int) -> list[int]:
        return []


def _second_model(work: Workload) -> MiniMind | None:
    config = work.teacher if work.stage == "distill" else work.config if work.reference else None
    return None if config is None else MiniMind(config).eval().requires_grad_(False)


def _loss(work: Workload, second: nn.Module | None) -> LossFunction:
    match work.stage:
        case "dpo":
            return PreferenceLoss(sft_weight=10.0)
        case "distill":
            return white_box_loss(DistillConfig(), second)
        case "reason":
            return weighted_lm_loss
        case "grpo":
            return PolicyLoss(VARIANTS["grpo"], SAMPLING, 0.1 if work.reference else 0.0, work.new_tokens)
    return causal_lm_loss


def random_batch(work: Workload) -> Batch:
    """Random tokens; the last positions of each row are labelled."""
    rows, length = work.rows, work.seq_len
    ids = torch.randint(work.config.vocab_size, (rows, length))
    scored = scored_positions(work)
    counts = torch.full((rows, 1), scored // rows)
    counts[: scored % rows] += 1
    labels = ids.masked_fill(torch.arange(length) < length - counts, IGNORE_INDEX)
    if work.stage == "dpo":
        pairs = (work.batch_size, 2, length)
        reference = -counts.view(pairs[:2]).float()
        return {"input_ids": ids.view(pairs), "labels": labels.view(pairs), "reference_logprobs": reference}
    documents = torch.arange(length) // DOCUMENT if work.packed else torch.zeros(length, dtype=torch.int64)
    batch = {"input_ids": ids, "labels": labels, "document_ids": documents.expand(rows, length).contiguous()}
    if work.stage == "reason":
        batch["weights"] = torch.ones(rows, length)
    return batch


def _rollout(work: Workload, run: Run, reference: MiniMind | None) -> list[Batch]:
    """The model writes answers of full length, and they become batches."""
    prompts = max(1, round(work.rollout_rows / work.group_size))
    size = -(-work.rollout_rows // prompts)
    asked = torch.randint(work.config.vocab_size, (prompts, work.seq_len - work.new_tokens)).tolist()
    no_stop = -1
    with torch.autocast(
        work.device, run.precision.dtype, enabled=work.device == "cuda" and work.dtype != "float32"
    ):
        groups = sample_groups(run.model, asked, size, SAMPLING, no_stop, work.new_tokens, 0)
    samples = [sample for group in groups for sample in group]
    batches = []
    for start in range(0, work.accumulation_steps * work.batch_size, work.batch_size):
        chosen = [samples[place % len(samples)] for place in range(start, start + work.batch_size)]
        batch = as_batch(chosen)
        batch["advantage"] = torch.randn(len(chosen))
        batch["statistics"] = torch.zeros(len(chosen), len(STATISTICS))
        if reference is not None:
            batch["ref_logprobs"] = _reference_logprobs(batch, run, reference)
        batches.append(batch)
    return batches


@torch.no_grad()
def _reference_logprobs(batch: Batch, run: Run, reference: MiniMind) -> Tensor:
    on_device = {name: tensor.to(run.device) for name, tensor in batch.items()}
    with run.precision.autocast(run.device):
        return action_logprobs(reference, on_device, SAMPLING).logprobs.cpu()
