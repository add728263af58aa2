"""Adapters on disk, in the format of the peft library.

An adapter that this module writes loads in peft on `model.to_transformers()`, and one that peft wrote loads
here. peft has many variants of LoRA; a config that asks for one we do not have is an error that names it,
since leaving it out would load and give other outputs.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minimind_edu.model.weights import WeightsError, check_tensors
from minimind_edu.stages.adapting import (
    apply_lora,
    check_new_name,
    lora_parameters,
    settings_of,
    target_layers,
    token_embedding,
)
from minimind_edu.stages.lora_layers import ALL_LINEAR, LoRASettings

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft wraps the model twice, and its keys say so
# The end of peft's keys, and what we call it.
ENDS = {
    ".lora_A.weight": ".lora_A",
    ".lora_B.weight": ".lora_B",
    ".token_adapter.trainable_tokens_delta": ".lora_rows",
}

# What peft's config says about things that do not change what the adapter computes.
_FREE = {
    "peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "auto_mapping",
    "peft_version", "base_model_name_or_path", "revision", "inference_mode", "megatron_core",
    "layers_pattern", "qalora_group_size", "init_lora_weights", "bias", "ensure_weight_tying",
    "trainable_token_indices",
}  # fmt: skip
# These starts leave the base weights as they are; others (PiSSA, OLoRA, …) move a part of them into A and B.
_STARTS = (True, False, None, "gaussian", "orthogonal")


class AdapterError(ValueError):
    """A folder does not hold an adapter that this model can take; the message says why."""


def save_adapter(model: nn.Module, folder: str | os.PathLike[str], name: str = "default") -> None:
    """Write one adapter in peft's format: `load_adapter` reads it, and peft on `model.to_transformers()`.

    The experts of a mixture are an exception, since transformers keeps them in another form.

    Raises:
        ValueError: there is no such adapter.
    """
    settings, tensors = settings_of(model, name), lora_parameters(model, name)
    if settings.targets == (ALL_LINEAR,):  # peft, and a model with other layers, may mean others by it
        last = {name.split(".")[-2] for name in tensors if not name.endswith("lora_rows")}
        settings = replace(settings, targets=tuple(sorted(last)))
    write_adapter(folder, settings, tensors)


def load_adapter(model: nn.Module, folder: str | os.PathLike[str], name: str = "default") -> nn.Module:
    """Attach an adapter that `save_adapter` or peft wrote, and make it the active one, in place.

    Raises:
        AdapterError: the folder holds none, it uses what is not supported, or it was made for another model.
        ValueError: the name is taken, or an adapter is merged into the weights.
    """
    settings, tensors = read_adapter(folder)
    check_new_name(model, name)
    try:
        layers = target_layers(model, settings.targets)
        expected = {}
        if settings.tokens:
            embedding_name, embedding = token_embedding(model, settings.tokens)
            shape = (len(settings.tokens), embedding.embedding_dim)
            expected[f"{embedding_name}.lora_rows"] = torch.empty(shape, device="meta")
        for layer_name, layer in layers.items():
            shapes = {
                "lora_A": (settings.rank, layer.in_features),
                "lora_B": (layer.out_features, settings.rank),
            }
            expected |= {
                f"{layer_name}.{part}": torch.empty(shape, device="meta") for part, shape in shapes.items()
            }
        check_tensors(expected, tensors)
    except (ValueError, WeightsError) as error:
        raise AdapterError(f"{folder}: the adapter was made for another model: {error}") from None
    with torch.random.fork_rng(devices=[]):  # the random A is replaced at once
        shape = (settings.rank, settings.alpha, settings.targets, settings.dropout)
        apply_lora(model, *shape, name, settings.tokens)
    for tensor_name, parameter in lora_parameters(model, name).items():
        parameter.data.copy_(tensors[tensor_name])
    return model


def write_adapter(
    folder: str | os.PathLike[str], settings: LoRASettings, tensors: Mapping[str, Tensor]
) -> None:
    """Write both files, each beside its place and then renamed.

    Args:
        tensors: ``{layer}.lora_A`` (rank, in) and ``{layer}.lora_B`` (out, rank) by the layers' full names,
            and ``{embedding}.lora_rows`` (tokens, width) if there are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    alpha = int(settings.alpha) if float(settings.alpha).is_integer() else settings.alpha
    config = {
        "peft_type": "LORA",
        "task_type": None,  # any module with these layers will do
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": alpha,
        "lora_dropout": settings.dropout,
        "target_modules": sorted(settings.targets),
        "trainable_token_indices": list(settings.tokens) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    stored = {_peft_name(name): tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    beside = folder / f".{WEIGHTS}.{os.getpid()}"
    save_file(stored, beside, metadata={"format": "pt"})
    os.replace(beside, folder / WEIGHTS)
    beside = folder / f".{CONFIG}.{os.getpid()}"
    beside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, folder / CONFIG)


def read_adapter(folder: str | os.PathLike[str]) -> tuple[LoRASettings, dict[str, Tensor]]:
    """What `write_adapter` or peft wrote: the settings, and the tensors named as for `write_adapter`.

    Raises:
        AdapterError: a file is missing or damaged, or the config asks for what LoRA does not have here.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder} holds no adapter: {name} is not there")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise AdapterError(f"{folder}: the adapter cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise AdapterError(f"{folder / CONFIG} is not an object with settings")
    unknown = unsupported(config)
    if unknown:
        raise AdapterError(f"{folder / CONFIG} asks for what is not supported here: {', '.join(unknown)}")
    try:
        settings = LoRASettings(
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=_targets(config["target_modules"]),
            dropout=config.get("lora_dropout", 0.0),
            tokens=tuple(config.get("trainable_token_indices") or ()),
        )
    except KeyError as error:
        raise AdapterError(f"{folder / CONFIG} lacks {error}") from None
    except (ValueError, TypeError) as error:
        raise AdapterError(f"{folder / CONFIG}: {error}") from None
    return settings, {_short_name(name): tensor for name, tensor in tensors.items()}


def unsupported(config: Mapping[str, Any]) -> list[str]:
    """The settings of a peft config that we do not have, as ``name=value``; names unknown to us included."""
    found = []
    if config.get("peft_type") != "LORA":
        found.append(f"peft_type={config.get('peft_type')!r} (only 'LORA')")
    if config.get("bias", "none") != "none":
        found.append(f"bias={config['bias']!r} (only 'none')")
    if config.get("init_lora_weights") not in _STARTS:
        found.append(f"init_lora_weights={config['init_lora_weights']!r} (it changes the base weights)")
    # peft's switches are off where they are false, absent or empty, those of later versions too.
    found += [f"{name}={value!r}" for name, value in config.items() if name not in _FREE and value]
    tokens = config.get("trainable_token_indices")
    if not (tokens is None or isinstance(tokens, list) and all(isinstance(one, int) for one in tokens)):
        found.append(f"trainable_token_indices={tokens!r} (only a list of ids, for the input embedding)")
    targets = config.get("target_modules")
    if isinstance(targets, str) and targets != ALL_LINEAR:
        found.append(f"target_modules={targets!r} (a pattern; only a list of names, or {ALL_LINEAR!r})")
    return found


def _targets(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _peft_name(name: str) -> str:
    end = next(end for end, ours in ENDS.items() if name.endswith(ours))
    return PREFIX + name.removesuffix(ENDS[end]) + end


def _short_name(name: str) -> str:
    """Our name for peft's; left as it is if it is none of an adapter's."""
    for end, ours in ENDS.items():
        if name.startswith(PREFIX) and name.endswith(end):
            return name[len(PREFIX) : -len(end)] + ours
    return name
