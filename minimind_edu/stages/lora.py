"""LoRA fine-tuning: from a fine-tuned model to an adapter for one more domain.

The layers are in ``lora_layers``, what is done with a model that has them is in ``adapting``, and the files
are in ``adapters``. The names that users need can be imported from here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import datasets
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import Records
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.adapters import CONFIG, AdapterError, load_adapter, save_adapter
from minimind_edu.stages.adapting import (
    active_adapter,
    adapter_names,
    apply_lora,
    count_trainable,
    lora_parameters,
    merge_lora,
    remove_lora,
    set_adapter,
    target_layers,
    unmerge_lora,
    untrained_tokens,
)
from minimind_edu.stages.lora_layers import LoRALinear, LoRASettings
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import (
    StageConfig,
    StageResult,
    check_before_work,
    fit_stage,
    load_model,
    packed_rows,
    read_records,
    save_result,
)

__all__ = [
    "AdapterError",
    "LoRAConfig",
    "LoRALinear",
    "active_adapter",
    "adapter_names",
    "apply_lora",
    "count_trainable",
    "load_adapter",
    "lora",
    "lora_parameters",
    "merge_lora",
    "remove_lora",
    "save_adapter",
    "set_adapter",
    "unmerge_lora",
    "untrained_tokens",
]

ADAPTER_FOLDER = "adapter"  # inside a run's folder


@dataclass
class LoRAConfig(StageConfig):
    """Settings of LoRA fine-tuning; ``from_weight`` names the model that gets the adapter.

    Args:
        rank: rows of A and columns of B; with it grows what an adapter can learn, and its size.
        lora_alpha: the update is B A times lora_alpha / rank.
        targets: names of the layers that are adapted, with commas between, or all-linear.
        lora_dropout: share of an adapter's inputs set to zero in training.
        new_tokens: 1 also trains the embedding rows of the tokens in the data that the model cannot tell from
            one another, since they never occurred in its training; 0 leaves the embedding alone.
        replay_records: how many conversations of an earlier stage to mix in, against forgetting.
        replay_path: file of those conversations; empty means what ``sft`` takes from the embedded world.
    """

    rank: int = 2
    lora_alpha: float = 4.0
    targets: str = "gate_proj,up_proj,down_proj"
    lora_dropout: float = 0.0
    new_tokens: int = 1
    replay_records: int = 0
    replay_path: str = ""
    out_dir: str = "out/lora"
    from_weight: str = "out/sft"
    epochs: int = 60
    batch_size: int = 4
    learning_rate: float = 2e-2
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0

    def settings(self, tokens: tuple[int, ...] = ()) -> LoRASettings:
        """The adapter's settings, with the ids of the tokens whose rows it trains.

        Raises:
            ValueError: one makes no sense.
        """
        names = tuple(target.strip() for target in self.targets.split(","))
        return LoRASettings(self.rank, self.lora_alpha, names, self.lora_dropout, tokens)

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        self.settings()
        if self.new_tokens not in (0, 1):
            raise ValueError(f"new_tokens must be 0 or 1, not {self.new_tokens}")
        if self.replay_records < 0:
            raise ValueError(f"replay_records must be 0 or more, not {self.replay_records}")
        if self.replay_path and not self.replay_records:
            raise ValueError("replay_path is of use only with replay_records above 0")


def lora(
    config: LoRAConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Train an adapter on conversations: ``out_dir/adapter``, and merged into the model ``out_dir/model``.

    Returns:
        The merged model, a plain one, and how training went.

    Raises:
        ValueError: a setting makes no sense, a target matches nothing, or ``from_weight`` holds no model.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    folder = Path(config.out_dir) / ADAPTER_FOLDER
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} is not an adapter and would be replaced: choose another --out_dir")
    model, tokenizer = load_model(config.from_weight)
    target_layers(model, config.settings().targets)  # a wrong name should not be found out after minutes
    records = read_records(config, "sft", "lora_clinic.jsonl", progress)
    if config.replay_records:
        earlier = read_records(replace(config, data_path=config.replay_path), "sft", "sft.jsonl", progress)
        records = with_replay(records, earlier, config.replay_records, config.seed)
    data = packed_rows(config, "sft", records, tokenizer, progress)
    settings = config.settings(new_tokens(model, data.train) if config.new_tokens else ())
    torch.manual_seed(config.seed)  # a resumed run starts from the same A
    shape = (settings.rank, settings.alpha, settings.targets, settings.dropout)
    apply_lora(model, *shape, tokens=settings.tokens)
    data = replace(data, identity=f"{data.identity}, {settings}")
    result, notes = fit_stage(config, data, model, causal_lm_loss, progress, on_log)
    save_adapter(model, folder)
    trainable, total = count_trainable(model)
    trained = f"{trainable:,} of {total:,} parameters were trained ({trainable / total:.1%})"
    notes += (
        trained + (f", {len(settings.tokens)} rows of the embedding among them" if settings.tokens else ""),
    )
    remove_lora(model)
    return save_result(config, model, tokenizer, result, notes)


def new_tokens(model: MiniMind, rows: PackedDataset) -> tuple[int, ...]:
    """The tokens in training rows that the model cannot tell apart (see ``untrained_tokens``)."""
    return tuple(untrained_tokens(model, np.unique(rows.docs.tokens).tolist()))


def with_replay(records: Records, earlier: Records, count: int, seed: int) -> Records:
    """The records, and after them ``count`` earlier ones (all, if there are fewer), drawn at random."""
    count = min(count, len(earlier))
    chosen = earlier.select(np.sort(np.random.default_rng(seed).permutation(len(earlier))[:count]))
    both = f"{records.fingerprint} {chosen.fingerprint}"
    dataset = datasets.concatenate_datasets([records.dataset, chosen.dataset])
    faults, dropped = records.faults + chosen.faults, records.dropped + chosen.dropped
    fingerprint = hashlib.sha256(both.encode()).hexdigest()
    return Records(dataset, records.kind, fingerprint, faults=faults, dropped=dropped)
