"""The cold start of reasoning: supervised fine-tuning on answers with thoughts, in the layout of R1.

The four tags are few among many tokens, and an answer without one of them is worth nothing. MiniMind
multiplies the loss at their positions by 10. Here the tags are found by where they stand in the answer, not
by which tokens they are made of: "<" and "er" in other words count once, as do tags in a user's message, and
names of tags that the thoughts or the answer mention.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import (
    StageConfig,
    StageData,
    StageResult,
    check_before_work,
    fit_stage,
    load_model,
    packed_rows,
    read_records,
    save_result,
)
from minimind_edu.stages.verify import verify
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import Batch

__all__ = ["ReasonConfig", "TagPositions", "TaggedRows", "reason", "tagged", "verify", "weighted_lm_loss"]


@dataclass
class ReasonConfig(StageConfig):
    """Settings of the cold start: conversations whose answers think first.

    Args:
        tag_weight: the loss at the positions of the think and answer tags counts so many times, as in
            MiniMind; 1 treats all tokens alike.
    """

    out_dir: str = "out/reason"
    from_weight: str = "out/sft"
    tag_weight: float = 10.0
    max_seq_len: int = 512
    epochs: int = 4
    batch_size: int = 16
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 1e-2
    min_lr_ratio: float = 0.0

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        if not 1 <= self.tag_weight <= 1000:
            raise ValueError(f"tag_weight must be from 1 (no weight) to 1000, not {self.tag_weight}")


def reason(
    config: ReasonConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Fine-tune all weights of a model on reasoning traces.

    Raises:
        ValueError: a setting makes no sense, or ``from_weight`` holds no model.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    model, tokenizer = load_model(config.from_weight)
    records = read_records(config, "sft", "reason.jsonl", progress)
    data = tagged(packed_rows(config, "sft", records, tokenizer, progress), tokenizer, config)
    result, notes = fit_stage(config, data, model, weighted_lm_loss, progress, on_log)
    return save_result(config, model, tokenizer, result, notes)


def tagged(data: StageData, tokenizer: Tokenizer, config: ReasonConfig) -> StageData:
    """The data with the weights of the loss in the training rows. Validation stays unweighted, so that its
    loss can be compared with that of other weights."""
    positions, seed = TagPositions(tokenizer), config.seed
    train = TaggedRows(data.train.docs, positions, config.tag_weight, config.max_seq_len, seed)
    validation = TaggedRows(data.validation.docs, positions, 1.0, config.max_seq_len, seed, fill=False)
    notes = list(data.notes)
    first = range(min(len(train.docs), 1_000))
    if config.tag_weight > 1 and not any(positions(*train.docs[number]).any() for number in first):
        notes.append("no answer has a think or answer tag: tag_weight changes nothing")
    identity = f"{data.identity}, tag weight {config.tag_weight}"
    return StageData(train, validation, identity, tuple(notes))


class TagPositions:
    """Finds the tokens that think and answer tags are made of, in the tokens of a conversation.

    A tag is one by its place: `<think>` where an answer begins, the first `</think>` after it, `<answer>`
    right behind that (or where the answer begins), and `</answer>` where it ends. A token that belongs to a
    tag only in part, as ">" and a line end in one, counts as one of its tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Token by token: a character of several tokens comes out as several replacement characters, but tags
        # are ASCII. Control tokens, such as the one that ends an answer, come out empty.
        self.texts = [
            tokenizer.decode([token], skip_special_tokens=True) for token in range(tokenizer.vocab_size)
        ]

    def __call__(self, ids: Sequence[int], mask: Sequence[int]) -> np.ndarray:
        """A mask (L,) of the tokens of tags among the L tokens of a conversation, of which `mask` are the
        assistant's."""
        tags = np.zeros(len(ids), dtype=bool)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, dtype=np.int8), [0]])))
        for begin, end in edges.reshape(-1, 2).tolist():
            texts = [self.texts[token] for token in ids[begin:end]]
            stops = np.cumsum([len(text) for text in texts])
            starts = stops - [len(text) for text in texts]
            for first, last in tag_spans("".join(texts)):
                tags[begin:end] |= (starts < last) & (stops > first)
        return tags


def tag_spans(answer: str) -> list[tuple[int, int]]:
    """Where the tags of an answer stand, as (first character, one past the last)."""
    spans, end = [], 0
    if opened := re.match(r"\s*(<think>)", answer):
        spans.append(opened.span(1))
        closed = re.compile("</think>").search(answer, opened.end())
        if closed is None:
            return spans
        spans.append(closed.span())
        end = closed.end()
    if answered := re.compile(r"\s*(<answer>)").match(answer, end):
        spans.append(answered.span(1))
        rest = answer.rstrip()
        if rest.endswith("</answer>"):
            spans.append((len(rest) - len("</answer>"), len(rest)))
    return spans


class TaggedRows(PackedDataset):
    """Packed rows that also have `weights` (T,) float32: `tag_weight` at the tags of answers, 1 elsewhere.

    Position t has the weight of predicting token t, as `labels` have it. Tags of an empty block of thoughts
    have no label and no weight: they are the prompt's part of an answer (`tokenizer.thinking`).
    """

    def __init__(
        self,
        docs: TokenizedDocuments,
        positions: TagPositions,
        tag_weight: float,
        max_seq_len: int,
        seed: int = 0,
        fill: bool = True,
    ) -> None:
        self.positions, self.tag_weight = positions, tag_weight
        super().__init__(docs, max_seq_len, seed, fill)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        found, end = super().__getitem__(row), 0
        weights = torch.ones(self.max_seq_len)
        for piece in self._pieces_of(row):
            begin, end = end, end + int(self._rows.length[piece])
            # The whole document: where it is cut, its tags are still known by their places in it.
            tags = self.positions(*self.docs[int(self._rows.document[piece])])
            weights[begin:end][torch.from_numpy(tags[: end - begin])] = self.tag_weight
        return {**found, "weights": weights}


def weighted_lm_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, object]]:
    """Next-token cross-entropy with a weight for each token: sum(w * -ln p) / sum(w), in nats.

    The loop weighs batches by ``numbers["tokens"]``, which here is the sum of the weights: the gradient of
    several accumulated batches is then that of one big batch. Batches without ``weights``, and all batches
    in validation, have the plain loss of `causal_lm_loss`.

    Args:
        batch: ``input_ids``, ``labels``, ``document_ids`` and ``weights``, each (B, T), not shifted.

    Returns:
        The loss (a scalar; 0 without labelled tokens), and besides ``tokens``: ``cross_entropy``, the mean
        over the batch's labelled tokens, each counted once, and ``tag_loss``, the mean at the tags.
    """
    if not model.training or "weights" not in batch:
        return causal_lm_loss(model, batch)
    hidden, aux_loss = model.hidden_states(batch["input_ids"], document_ids=batch["document_ids"])
    targets = batch["labels"][:, 1:]
    labelled = targets != IGNORE_INDEX
    logits = model.head(hidden[:, :-1][labelled])
    losses = F.cross_entropy(logits.float(), targets[labelled], reduction="none")
    weights = batch["weights"][:, 1:][labelled]
    total = weights.sum()
    if not len(losses):
        return losses.sum(), {"tokens": 0}
    loss = (weights * losses).sum() / total
    numbers: dict[str, object] = {"tokens": round(float(total)), "cross_entropy": losses.detach().mean()}
    is_tag = weights > 1
    if bool(is_tag.any()):
        numbers["tag_loss"] = losses.detach()[is_tag].mean()
    if model.config.use_moe:
        numbers["aux_loss"], loss = aux_loss, loss + aux_loss
    return loss, numbers
