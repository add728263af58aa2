"""LoRA fine-tuning: from a fine-tuned model to an adapter for one more domain.

The method is in ``lora_layers``, the files are in ``adapters``; their names can be imported from here too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minimind_edu.stages.adapters import CONFIG, AdapterError, load_adapter, save_adapter
from minimind_edu.stages.lora_layers import (
    LoRALinear,
    LoRASettings,
    active_adapter,
    adapter_names,
    apply_lora,
    count_trainable,
    lora_parameters,
    merge_lora,
    remove_lora,
    set_adapter,
    unmerge_lora,
)
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import (
    MODEL_FOLDER,
    StageConfig,
    StageResult,
    check_before_work,
    fit_stage,
    load_model,
    packed_rows,
    read_records,
    save_model,
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
    """

    rank: int = 8
    lora_alpha: float = 16.0
    targets: str = "q_proj,v_proj"
    lora_dropout: float = 0.0
    out_dir: str = "out/lora"
    from_weight: str = "out/sft"
    epochs: int = 40
    batch_size: int = 4
    learning_rate: float = 1e-2
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0

    def settings(self) -> LoRASettings:
        """The adapter's settings.

        Raises:
            ValueError: one makes no sense.
        """
        names = tuple(target.strip() for target in self.targets.split(","))
        return LoRASettings(self.rank, self.lora_alpha, names, self.lora_dropout)

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        self.settings()


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
    settings = config.settings()
    model, tokenizer = load_model(config.from_weight)
    torch.manual_seed(config.seed)  # a resumed run starts from the same A
    apply_lora(model, settings.rank, settings.alpha, settings.targets, settings.dropout)
    records = read_records(config, "sft", "lora_clinic.jsonl", progress)
    data = packed_rows(config, "sft", records, tokenizer, progress)
    data = replace(data, identity=f"{data.identity}, {settings}")
    result, notes = fit_stage(config, data, model, causal_lm_loss, progress, on_log)
    save_adapter(model, folder)
    trainable, total = count_trainable(model)
    notes += (f"{trainable:,} of {total:,} parameters were trained ({trainable / total:.1%})",)
    remove_lora(model)
    model_dir = save_model(model, tokenizer, Path(config.out_dir) / MODEL_FOLDER)
    return StageResult(model, tokenizer, result, model_dir, notes)
