"""Distillation: a small student learns from what a bigger teacher expects, not only from what came.

A label says which token came; the teacher's distribution says how likely each token was. The loss mixes both:

    alpha * cross-entropy on the labels + (1 - alpha) * T^2 * KL

where both distributions of the KL are softmax(logits / T). Hinton, Vinyals and Dean, "Distilling the
Knowledge in a Neural Network" (2015), with MiniMind's meaning of alpha. Chapter 8 explains the factor T^2 and
compares the two directions of the KL; the reverse one for language models: Gu et al., "MiniLLM" (2024).

Black-box distillation needs no loss of its own: the teacher writes, and the student is trained on that
(`stages.answers`, then plain `sft`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import IGNORE_INDEX
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.divergence import (
    Direction,
    check_settings,
    full_divergence,
    precise,
    top_k_divergence,
)
from minimind_edu.stages.pretrain import ShapeConfig, causal_lm_loss
from minimind_edu.stages.setup import (
    StageData,
    StageResult,
    check_before_work,
    fit_stage,
    load_model,
    model_digest,
    packed_rows,
    progress_callback,
    read_records,
    save_result,
)
from minimind_edu.stages.teacher import TaughtRows, teacher_top_k
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import Batch, LossFunction
from minimind_edu.training.precision import resolve_device, resolve_precision


def distill_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.5,
    temperature: float = 1.0,
    direction: Direction = "forward",
) -> Tensor:
    """alpha * cross-entropy + (1 - alpha) * T^2 * KL, a mean over the labelled positions, in nats.

    No gradient reaches the teacher. Without labelled tokens the loss is 0.

    Args:
        student_logits, teacher_logits: (B, T, V).
        labels: (B, T), not shifted: position t is scored on labels[t + 1]; -100 where there is no loss.
        alpha: weight of the labels, from 0 to 1.
        temperature: above 1, both distributions become flatter and small probabilities count more.
        direction: forward is KL(teacher || student), reverse is KL(student || teacher).

    Raises:
        ValueError: different vocabularies or shapes, or a setting out of range.
    """
    check_settings(alpha, temperature, direction)
    if student_logits.shape[-1] != teacher_logits.shape[-1]:
        raise ValueError(
            f"the student has {student_logits.shape[-1]} logits and the teacher {teacher_logits.shape[-1]}: "
            "their distributions can be compared only over the same vocabulary"
        )
    if student_logits.shape != teacher_logits.shape or labels.shape != student_logits.shape[:2]:
        shapes = ", ".join(str(tuple(one.shape)) for one in (student_logits, teacher_logits, labels))
        raise ValueError(f"logits must be (B, T, V) twice and labels (B, T), not {shapes}")
    targets = labels[:, 1:]
    labelled = targets != IGNORE_INDEX
    student = student_logits[:, :-1][labelled]
    divergence = full_divergence(student, teacher_logits[:, :-1][labelled], temperature, direction)
    cross_entropy = F.cross_entropy(precise(student), targets[labelled], reduction="sum")
    return _mix(cross_entropy, divergence.sum(), alpha, temperature) / labelled.sum().clamp(min=1)


def _mix(cross_entropy: Tensor, divergence: Tensor, alpha: float, temperature: float) -> Tensor:
    if alpha in (0, 1):  # what has no weight may be infinite, and 0 * infinity is NaN
        return cross_entropy if alpha else temperature**2 * divergence
    return alpha * cross_entropy + (1 - alpha) * temperature**2 * divergence


@dataclass
class DistillConfig(ShapeConfig):
    """Settings of distillation. Student and teacher have the same tokenizer, the teacher's.

    Args:
        teacher: folder of the teacher: an earlier run, or a model.
        from_weight: folder of a student to go on with; empty means a new one.
        preset: the shape of a new student; half means the teacher's with half its width, layers and heads,
            without experts. The settings below change parts of it where they are not 0.
        data_kind: what data_path holds: pretrain (documents) or sft (conversations); by default it is the
            world's file of that kind.
        alpha: weight of the labels, from 0 to 1; the teacher has the rest.
        temperature: divides the logits of both before their distributions are compared.
        direction: forward is KL(teacher || student), which covers all that the teacher holds possible;
            reverse is KL(student || teacher), which avoids what it holds impossible.
        top_k: 0 runs the teacher in every step; k runs it once over the data and keeps its k likeliest
            tokens on disk, with their log-probabilities and the rest as one.
    """

    teacher: str = "out/pretrain"
    preset: str = "half"
    data_kind: Literal["pretrain", "sft"] = "pretrain"
    alpha: float = 0.5
    temperature: float = 1.0
    direction: Direction = "forward"
    top_k: int = 0
    out_dir: str = "out/distill"

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        check_settings(self.alpha, self.temperature, self.direction)
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (no cache) or more, not {self.top_k}")
        if self.data_kind not in ("pretrain", "sft"):
            raise ValueError(f"data_kind must be 'pretrain' or 'sft', not {self.data_kind!r}")

    def student_config(self, teacher: ModelConfig) -> ModelConfig:
        """The shape of a new student for a teacher of this shape."""
        if self.preset != "half":
            return self.model_config(teacher.vocab_size)
        if self.use_moe:
            raise ValueError("use_moe 1 needs a preset with experts, such as --preset edu")
        return self.model_config(teacher.vocab_size, half(teacher))


def half(shape: ModelConfig) -> ModelConfig:
    """A shape with half the width, layers and heads of another, and no experts."""
    heads = max(1, shape.num_attention_heads // 2)
    return shape.replace(
        hidden_size=max(2, shape.hidden_size // 2),
        num_hidden_layers=max(1, shape.num_hidden_layers // 2),
        num_attention_heads=heads,
        num_key_value_heads=math.gcd(heads, max(1, shape.num_key_value_heads // 2)),
        use_moe=False,
    )


def distill(
    config: DistillConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Train a student on documents or conversations and on what the teacher makes of them.

    The validation loss is the cross-entropy on the labels alone, comparable with that of other stages.

    Raises:
        ValueError: a setting makes no sense, there is no teacher, or it does not fit the student or the data.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    teacher, tokenizer = load_model(config.teacher)
    student = choose_student(config, teacher, tokenizer)
    records = read_records(config, config.data_kind, f"{config.data_kind}.jsonl", progress)
    data = packed_rows(config, config.data_kind, records, tokenizer, progress)
    teacher.to(resolve_device(config.device)).eval().requires_grad_(False)
    data = taught(config, data, teacher, progress)
    loss = white_box_loss(config, teacher)
    result, notes = fit_stage(config, data, student, loss, progress, on_log)
    return save_result(config, student, tokenizer, result, notes)


def choose_student(config: DistillConfig, teacher: MiniMind, tokenizer: Tokenizer) -> MiniMind:
    """The student that ``from_weight`` names, or a new one.

    Raises:
        ValueError: another tokenizer or vocabulary than the teacher's, or a text longer than it can read.
    """
    longest = teacher.config.max_position_embeddings
    if config.max_seq_len > longest:
        raise ValueError(
            f"max_seq_len is {config.max_seq_len}, but the teacher reads {longest} tokens at most"
        )
    if not config.from_weight:
        torch.manual_seed(config.seed)
        return MiniMind(config.student_config(teacher.config))
    student, own = load_model(config.from_weight)
    if own.fingerprint != tokenizer.fingerprint or student.config.vocab_size != teacher.config.vocab_size:
        raise ValueError(
            f"the student in {config.from_weight} and the teacher in {config.teacher} have different "
            "tokenizers, so their distributions cannot be compared; train on the teacher's text instead"
        )
    return student


def taught(config: DistillConfig, data: StageData, teacher: MiniMind, show: bool) -> StageData:
    """The data with the teacher's top-k distributions if ``top_k`` asks for them, and their identity."""
    said = (
        f"{data.identity}, taught by {model_digest(teacher)[:16]}: alpha {config.alpha}, "
        f"temperature {config.temperature}, {config.direction}, top_k {config.top_k}"
    )
    if not config.top_k or config.alpha == 1:
        return dataclasses.replace(data, identity=said)
    device = resolve_device(config.device)
    docs = data.train.docs
    with progress_callback("asking the teacher", show) as report:
        known = teacher_top_k(
            teacher,
            docs,
            data.identity,
            config.max_seq_len,
            config.top_k,
            config.temperature,
            device,
            resolve_precision(config.dtype, device),
            batch_size=config.batch_size,
            cache_dir=config.cache_dir or None,
            progress=report,
        )
    rows = TaughtRows(docs, known, config.max_seq_len, seed=config.seed)
    return dataclasses.replace(data, train=rows, identity=said)


def white_box_loss(config: DistillConfig, teacher: MiniMind) -> LossFunction:
    """The stage's loss of a packed batch.

    The teacher's distributions come with the batch where they were cached; otherwise the teacher runs here,
    without a gradient and under the same autocast as the student. With alpha 1 it is not asked at all.
    """

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, object]]:
        if not model.training or config.alpha == 1:
            return causal_lm_loss(model, batch)
        hidden, aux_loss = model.hidden_states(batch["input_ids"], document_ids=batch["document_ids"])
        targets = batch["labels"][:, 1:]
        labelled = targets != IGNORE_INDEX
        student = model.head(hidden[:, :-1][labelled])
        tokens = int(labelled.sum())
        cross_entropy = F.cross_entropy(precise(student), targets[labelled], reduction="sum") / max(tokens, 1)
        kl = _divergence(config, teacher, student, batch, labelled).sum() / max(tokens, 1)
        numbers: dict[str, object] = {"tokens": tokens, "cross_entropy": cross_entropy, "kl": kl}
        total = _mix(cross_entropy, kl, config.alpha, config.temperature)
        if model.config.use_moe:
            numbers["aux_loss"], total = aux_loss, total + aux_loss
        return total, numbers

    return loss


def _divergence(
    config: DistillConfig, teacher: MiniMind, student: Tensor, batch: Batch, labelled: Tensor
) -> Tensor:
    """KL (N,) at the labelled positions, from the batch's top-k or from the teacher itself."""
    if "teacher_ids" in batch:
        ids, log_probs = (batch[name][:, :-1][labelled] for name in ("teacher_ids", "teacher_log_probs"))
        return top_k_divergence(student, ids.long(), log_probs, config.temperature, config.direction)
    with torch.no_grad():
        hidden, _ = teacher.hidden_states(batch["input_ids"], document_ids=batch["document_ids"])
        expected = teacher.head(hidden[:, :-1][labelled])
    return full_divergence(student, expected, config.temperature, config.direction)
