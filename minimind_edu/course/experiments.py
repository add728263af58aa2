"""Short training runs on the small world, for chapters and sweeps that compare one thing at a time."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import Perplexity, perplexity
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import PretrainConfig, causal_lm_loss
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import FitResult, TrainConfig, fit, read_metrics


@dataclass(frozen=True)
class WorldRun:
    """A model trained on the small world.

    Attributes:
        fit: how training went.
        metrics: the lines of `metrics.jsonl`.
        held_out: loss on held-out documents, with its floor and their ratio.
    """

    fit: FitResult
    metrics: list[dict[str, float]]
    held_out: Perplexity


def world_rows(tokenizer: Tokenizer, max_seq_len: int = PretrainConfig.max_seq_len) -> PackedDataset:
    """The world's 30,000 pretraining documents in packed rows; tokenized once, then read from the cache."""
    records = load_records(default_file("pretrain.jsonl"), "pretrain")
    return PackedDataset(tokenize(records, tokenizer, "pretrain"), max_seq_len)


def held_out_loss(model: MiniMind, tokenizer: Tokenizer) -> Perplexity:
    """Loss on the world's 1,000 held-out documents, and its floor."""
    return perplexity(model, tokenizer, default_file("eval_pretrain.jsonl"))


def train_on_world(
    model: MiniMind,
    tokenizer: Tokenizer,
    steps: int,
    max_seq_len: int = PretrainConfig.max_seq_len,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    **settings: object,
) -> WorldRun:
    """Train a model in place for some steps and measure it; nothing is kept on the disk.

    Args:
        steps: optimizer steps; one is `batch_size` rows of `max_seq_len` tokens.
        progress, on_log: as for `fit`; the last line for `on_log` has the loss on held-out documents.
        settings: fields of `TrainConfig` that differ from `pretrain`'s defaults.
    """
    names = ("optimizer", "learning_rate", "min_lr_ratio", "batch_size")
    defaults = {name: getattr(PretrainConfig, name) for name in names}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        config = TrainConfig(
            **{"out_dir": folder, "max_steps": steps, "save_interval": 0, **defaults, **settings}
        )
        rows = world_rows(tokenizer, max_seq_len)
        result = fit(model, causal_lm_loss, rows, config, progress=progress, on_log=on_log)
        metrics = read_metrics(f"{folder}/metrics.jsonl")
    held_out = held_out_loss(model, tokenizer)
    if on_log:
        on_log({"step": result.step, "validation_loss": held_out.loss})
    return WorldRun(result, metrics, held_out)
