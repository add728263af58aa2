"""Supervised fine-tuning: learn to answer. Only the assistant's tokens and their end token are labelled."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from minimind_edu.data.mixing import MixedDataset
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.tokenized import tokenize
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import (
    StageConfig,
    StageData,
    StageResult,
    check_before_work,
    fit_stage,
    load_model,
    notes_on,
    packed_rows,
    progress_callback,
    read_records,
    save_result,
)
from minimind_edu.tokenizer import Tokenizer


@dataclass
class SFTConfig(StageConfig):
    """Settings of supervised fine-tuning; ``from_weight`` names the pretrained model.

    Args:
        replay_share: part of the training rows that are pretraining documents, against forgetting: from 0
            (none) to below 1. All conversations are still seen once an epoch, so a share of 0.5 doubles the
            steps. Documents have more labels in a row than conversations, so their part of the labelled
            tokens is larger; a note after training tells it.
        replay_path: file of those documents, as ``pretrain`` takes it; empty means the file of the embedded
            world.
    """

    out_dir: str = "out/sft"
    from_weight: str = "out/pretrain"
    epochs: int = 16
    batch_size: int = 16
    learning_rate: float = 1e-3
    min_lr_ratio: float = 0.0
    replay_share: float = 0.0
    replay_path: str = ""

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        if not 0 <= self.replay_share < 1:
            raise ValueError(f"replay_share must be 0 or more and below 1, not {self.replay_share}")
        if self.replay_path and not self.replay_share:
            raise ValueError("replay_path is of use only with a replay_share above 0")


def sft(
    config: SFTConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Fine-tune all weights of a pretrained model on conversations.

    Raises:
        ValueError: a setting makes no sense, or ``from_weight`` holds no model.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    model, tokenizer = load_model(config.from_weight)
    data = sft_rows(config, tokenizer, progress)
    result, notes = fit_stage(config, data, model, causal_lm_loss, progress, on_log)
    return save_result(config, model, tokenizer, result, notes)


def sft_rows(config: SFTConfig, tokenizer: Tokenizer, show: bool) -> StageData:
    """Conversations in packed rows, with pretraining documents among the training rows where asked for.

    Validation is on conversations alone.

    Raises:
        DataError: see ``load_records`` and ``packed_rows``.
        ValueError: a share that rounds to no row at all.
    """
    records = read_records(config, "sft", "sft.jsonl", show)
    data = packed_rows(config, "sft", records, tokenizer, show)
    if not config.replay_share:
        return data
    texts = read_records(replace(config, data_path=config.replay_path), "pretrain", "pretrain.jsonl", show)
    with progress_callback("tokenizing", show) as report:
        documents = tokenize(texts, tokenizer, "pretrain", config.cache_dir or None, progress=report)
    replay = PackedDataset(documents, config.max_seq_len, seed=config.seed)
    mixed = MixedDataset(data.train, replay, config.replay_share, config.seed, first_record=len(records))
    identity = (
        f"{data.identity}, {mixed.replayed} of {len(mixed)} rows replayed from {texts.fingerprint[:16]}"
    )
    return StageData(mixed, data.validation, identity, (*data.notes, *notes_on(texts), _note(mixed)))


def _note(mixed: MixedDataset) -> str:
    """What share of the rows, and of the labelled tokens, the replayed documents have in the first epoch."""
    rows = {True: 0, False: 0}
    labels = {True: 0, False: 0}
    for row in range(min(len(mixed), 1_000)):
        replayed = mixed.is_replayed(row)
        rows[replayed] += 1
        labels[replayed] += int((mixed[row]["labels"][1:] != -100).sum())
    part = labels[True] / sum(labels.values())
    return (
        f"{mixed.replayed} of {len(mixed)} rows of an epoch are pretraining documents, with {part:.0%} of "
        "the labelled tokens"
    )
