"""Weights: save and load as safetensors, and load what MiniMind publishes.

Nothing here loads in part. A tensor that is missing, unexpected or of the wrong shape is an error that names
every one of them: with `strict=False` a model left half random still runs, and nobody notices.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minimind_edu.config import (
    ModelConfig,
    RopeScaling,
    minimind2_intermediate_size,
    minimind3_intermediate_size,
)
from minimind_edu.model.transformer import MiniMind

MODEL_TYPE = "minimind_edu"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class WeightsError(ValueError):
    """Weights that cannot be read, or do not fit the model."""


def build_model(config: ModelConfig, state: Mapping[str, Tensor]) -> MiniMind:
    """A model with these weights, in float32 and evaluation mode.

    Raises:
        WeightsError: tensors are missing, unexpected or of the wrong shape.
    """
    # On the "meta" device nothing is allocated or drawn at random: all of it comes from `state`.
    with torch.device("meta"):
        model = MiniMind(config)
    check_tensors(model.state_dict(), state)
    copies = {name: tensor.detach().to(torch.float32, copy=True) for name, tensor in state.items()}
    model.load_state_dict(copies, assign=True)
    model.model.build_rope_table(config, model.model.embed_tokens.weight.device)
    return model.eval()


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise a WeightsError that lists every missing, unexpected or misshapen tensor."""
    faults = [f"missing: {name}" for name in expected if name not in found]
    faults += [f"unexpected: {name}" for name in found if name not in expected]
    for name in expected:
        if name in found and expected[name].shape != found[name].shape:
            shapes = f"shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
            faults.append(f"misshapen: {name} has {shapes}")
    if faults:
        raise WeightsError("the weights do not fit the configuration: " + "; ".join(faults))


def save_pretrained(model: MiniMind, directory: str | os.PathLike[str]) -> None:
    """Write `model.safetensors` and `config.json`, each beside its place and then renamed.

    A crash leaves the old files or the new ones, never half a file. A tied head is stored once, as embedding.

    Raises:
        WeightsError: LoRA adapters are attached, whose tensors no model of this shape has.
    """
    if any(".lora_" in name for name in model.state_dict()):
        raise WeightsError(
            "LoRA adapters are attached: remove_lora(model) folds the active one into the weights, and "
            "save_adapter(model, folder) keeps one by itself"
        )
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = folder / f".model.safetensors.{os.getpid()}"
    save_file(state, temporary, metadata={"format": "pt"})
    _rename(temporary, folder / "model.safetensors")
    temporary = folder / f".config.json.{os.getpid()}"
    config = {"model_type": MODEL_TYPE} | model.config.to_dict()
    temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _rename(temporary, folder / "config.json")


def _rename(temporary: Path, final: Path) -> None:
    """Put a finished file in its place, after its bytes have reached the disk."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, final)


def from_pretrained(directory: str | os.PathLike[str]) -> MiniMind:
    """Load what `save_pretrained` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: the folder or one of its two files is not there.
        WeightsError: a file is damaged, or the weights do not fit the config.
        ValueError: the config is wrong.
    """
    folder = Path(directory)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is not there; a saved model has it")
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.pop("model_type", None) != MODEL_TYPE:
        raise WeightsError(
            f"{folder / 'config.json'} was not written by this package (model_type is not {MODEL_TYPE!r}); "
            "for other models use from_minimind or from_transformers"
        )
    return build_model(ModelConfig.from_dict(values), read_state(folder / "model.safetensors"))


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a torch file (.pth, .pt, .bin; tensors only, no code).

    Raises:
        FileNotFoundError: no such file.
        WeightsError: damaged, or not a plain dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path} cannot be read as weights: {reason}") from None
    _require_tensors(state, str(path))
    return state


def _require_tensors(state: object, source: str) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{source} is not a dictionary of tensors (a torch state dict)")


def from_minimind(
    weights_or_path: Mapping[str, Tensor] | str | os.PathLike[str], published_config: Mapping[str, Any]
) -> MiniMind:
    """Load MiniMind2 or MiniMind-3 weights as their author publishes them.

    Args:
        weights_or_path: a state dict, or the path of a .pth or .safetensors file. Any float dtype; the model
            is float32.
        published_config: the values of the published config.json. What it leaves out takes the default of its
            family, which the weights tell: MiniMind-3 has `q_norm`.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: the weights are damaged or do not fit.
        ValueError: the config is wrong, or asks for something that is not supported.
    """
    if isinstance(weights_or_path, Mapping):
        state = dict(weights_or_path)
        _require_tensors(state, "the argument")
    else:
        state = read_state(weights_or_path)
    state = {name: tensor for name, tensor in state.items() if not name.endswith(("freqs_cos", "freqs_sin"))}
    config = minimind_config(published_config, is_minimind3=any("q_norm" in name for name in state))
    return build_model(config, drop_tied_head(state) if config.tie_word_embeddings else state)


def drop_tied_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the output head, which must equal the embedding.

    Raises:
        WeightsError: it does not, so tying the two would lose weights.
    """
    if HEAD in state and EMBEDDING in state and not torch.equal(state[HEAD], state[EMBEDDING]):
        raise WeightsError(
            f"{HEAD} differs from {EMBEDDING}, but the configuration ties them; "
            "set tie_word_embeddings to false to keep both"
        )
    return {name: tensor for name, tensor in state.items() if name != HEAD}


# Names of older MiniMind2 configs, and the ones used since.
_OLD_NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "max_seq_len": "max_position_embeddings",
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "aux_loss_alpha": "router_aux_loss_coef",
}
_MINIMIND2_DEFAULTS: dict[str, Any] = {
    "vocab_size": 6400,
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "dropout": 0.0,
    "tie_word_embeddings": True,
    "use_moe": False,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_shared_experts": 1,
    "norm_topk_prob": True,
    "router_aux_loss_coef": 0.01,
    "seq_aux": True,
}
_MINIMIND3_DEFAULTS: dict[str, Any] = _MINIMIND2_DEFAULTS | {
    "hidden_size": 768,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "num_experts_per_tok": 1,
    "num_shared_experts": 0,
    "router_aux_loss_coef": 5e-4,
    "seq_aux": False,
}


def minimind_config(published: Mapping[str, Any], is_minimind3: bool) -> ModelConfig:
    """Our config for a published one, with the defaults of its family.

    Other keys (names of classes, token ids, …) say nothing about the shape and are ignored.

    Raises:
        ValueError: a value that is wrong or not supported; the message names it.
    """
    defaults = _MINIMIND3_DEFAULTS if is_minimind3 else _MINIMIND2_DEFAULTS
    known = {name: value for name, value in published.items() if value is not None}
    given = {new: known[old] for old, new in _OLD_NAMES.items() if old in known} | known
    for name, only in (("hidden_act", "silu"), ("scoring_func", "softmax")):
        if given.get(name, only) != only:
            raise ValueError(f"{name}={given[name]!r} is not supported, only {only!r}")
    values = defaults | _select(given, defaults)
    values["qk_norm"] = is_minimind3
    values |= _select(given, ("intermediate_size",))
    if is_minimind3:
        values |= {"num_shared_experts": 0, "seq_aux": False}
        values |= _select(given, ("head_dim", "moe_intermediate_size"))
    if "intermediate_size" not in values:
        rule = minimind3_intermediate_size if is_minimind3 else minimind2_intermediate_size
        values["intermediate_size"] = rule(values["hidden_size"])
    if given.get("inference_rope_scaling"):
        stretched = [field.name for field in dataclasses.fields(RopeScaling)]
        values["rope_scaling"] = RopeScaling(**_select(given.get("rope_scaling") or {}, stretched))
    if not is_minimind3:
        values |= _minimind2_routing(values)
    return ModelConfig(**values)


def _minimind2_routing(values: dict[str, Any]) -> dict[str, Any]:
    """Two details in which MiniMind2's router differs, expressed in our terms."""
    top_k = values["num_experts_per_tok"]
    changes: dict[str, Any] = {}
    if top_k == 1:
        changes["norm_topk_prob"] = False  # it normalises only two or more weights
    if not values["seq_aux"]:
        # Over the batch too, it counts choices as a share of N k rather than of N.
        changes["router_aux_loss_coef"] = values["router_aux_loss_coef"] / top_k
    return changes


def _select(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
