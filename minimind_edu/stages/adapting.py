"""Whole models with LoRA adapters: attach, merge, switch, remove (chapter 6)."""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minimind_edu.stages.lora_layers import ALL_LINEAR, LoRALinear, LoRASettings, TokenRows

Adapted = LoRALinear | TokenRows


def apply_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = ("q_proj", "v_proj"),
    dropout: float = 0.0,
    name: str = "default",
    tokens: Sequence[int] = (),
) -> nn.Module:
    """Give a model a new adapter, make it the active one, and freeze everything else, all in place.

    Args:
        model: a `MiniMind`, or any module with `nn.Linear` layers.
        targets: a layer is meant if its full name is a target or ends with "." and a target, as in peft; or
            "all-linear" for every linear layer but the output head and a mixture's routers. A string may hold
            several names with commas between.
        name: other adapters of the model keep their names and weights.
        tokens: ids of tokens that the model never met (see `untrained_tokens`); their rows of the embedding
            are trained too.

    Returns:
        The same model.

    Raises:
        ValueError: a target matches no linear layer (the message names those there are), the name is taken, a
            setting makes no sense, or an adapter is merged into the weights.
    """
    names = targets.split(",") if isinstance(targets, str) else targets
    unique = tuple(dict.fromkeys(target.strip() for target in names))
    settings = LoRASettings(rank, alpha, unique, dropout, tuple(int(token) for token in tokens))
    layers = target_layers(model, settings.targets)
    check_new_name(model, name)
    if settings.tokens:
        embedding = token_embedding(model, settings.tokens)[1]
        _token_rows(embedding).add_adapter(name, settings, _base_weight(embedding))
    for layer_name in layers:
        _adapted(model, layer_name).add_adapter(name, settings)
    set_adapter(model, name)
    return model


def target_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear layers that targets mean, by full name.

    Raises:
        ValueError: a target means none.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if tuple(targets) == (ALL_LINEAR,):
        return {name: layer for name, layer in linear.items() if not name.endswith(("lm_head", "mlp.gate"))}
    found: dict[str, nn.Linear] = {}
    for target in targets:
        meant = {name: layer for name, layer in linear.items() if f".{name}".endswith(f".{target}")}
        if not meant:
            there = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
            raise ValueError(
                f"no linear layer is called {target!r}, so LoRA would train nothing there; there are: {there}"
            )
        found |= meant
    return {name: layer for name, layer in linear.items() if name in found}


def token_embedding(model: nn.Module, tokens: Sequence[int]) -> tuple[str, nn.Embedding]:
    """The one embedding of a model, with its name.

    Raises:
        ValueError: there is not exactly one, or it has no row for one of the tokens.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
    if len(found) != 1:
        raise ValueError(f"tokens need a model with one embedding; this one has {len(found)}")
    if max(tokens, default=0) >= found[0][1].num_embeddings:
        raise ValueError(f"token {max(tokens)} is outside the vocabulary of {found[0][1].num_embeddings}")
    return found[0]


@torch.no_grad()
def untrained_tokens(model: nn.Module, tokens: Sequence[int], cosine: float = 0.95) -> list[int]:
    """Which of some token ids the model cannot tell from another token of its vocabulary.

    A token that never occurred in training was only ever pushed down, like all others of its kind, so their
    rows of the embedding end up pointing the same way (Land and Bartolo, "Fishing for Magikarp", 2024,
    arXiv:2405.05417). A token counts as untrained if its row has a twin with at least this cosine.
    """
    ids = torch.tensor(sorted(set(tokens)), dtype=torch.int64)
    rows = F.normalize(token_embedding(model, ids.tolist())[1].weight.detach().float(), dim=-1)
    ids = ids.to(rows.device)
    found = []
    for part in ids.split(1024):  # of a large vocabulary the whole table of cosines would not fit
        likeness = rows[part] @ rows.T
        likeness[torch.arange(len(part)), part] = -1.0  # every row is its own twin
        found += part[likeness.amax(dim=-1) >= cosine].tolist()
    return found


def merge_lora(model: nn.Module) -> nn.Module:
    """Fold the active adapter into the base weights, in place: the same outputs at the base model's speed.

    The layers stay and keep a copy of their weights, so `unmerge_lora` restores the very same bits. While
    merged, A and B are frozen. `remove_lora` leaves a plain model.

    Raises:
        ValueError: no adapter is active, one is merged already, or the model is in training mode with
            dropout, which a merged weight cannot have.
    """
    _refuse_merged(model, "merge once")
    layers = [layer for _, layer in _adapted_layers(model) if layer.active in layer.settings]
    if not layers:
        raise ValueError(f"no adapter is active; there are: {_listed(model)}")
    if any(layer.training and layer.settings[layer.active].dropout for layer in layers):
        raise ValueError(
            "a merged weight has no dropout, so this would change the training: model.eval() first"
        )
    for layer in layers:
        layer.merge()
    _set_trainable(model)
    return model


def unmerge_lora(model: nn.Module) -> nn.Module:
    """Take the merged adapter out of the base weights again, in place.

    Raises:
        ValueError: none is merged.
    """
    layers = [layer for _, layer in _adapted_layers(model) if layer.is_merged]
    if not layers:
        raise ValueError("no adapter is merged into the weights")
    for layer in layers:
        layer.unmerge()
    _set_trainable(model)
    return model


def remove_lora(model: nn.Module, merge: bool = True) -> nn.Module:
    """Make a plain model of it again, in place, with every parameter trainable.

    Args:
        merge: keep what the active adapter has learned; False gives the base back.

    Raises:
        ValueError: the model has no adapters.
    """
    if not adapter_names(model):
        raise ValueError("the model has no adapters")
    merged = any(layer.is_merged for _, layer in _adapted_layers(model))
    if merged and not merge:
        unmerge_lora(model)
    for name, layer in _adapted_layers(model):
        if isinstance(layer, TokenRows):
            if not merge:
                layer.active = None
            embedding = model.get_submodule(name)
            weight = embedding.weight.detach().clone()
            parametrize.remove_parametrizations(embedding, "weight", leave_parametrized=False)
            embedding.weight.data = weight
            continue
        if merge and not merged and layer.active in layer.settings:
            layer.merge()
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        plain.weight, plain.bias = layer.weight, layer.bias
        _replace(model, name, plain.train(model.training))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def set_adapter(model: nn.Module, name: str | None) -> nn.Module:
    """Switch to another adapter, in place; None is the base alone. Only the active adapter can be trained.

    Raises:
        ValueError: there is no such adapter, or one is merged into the weights.
    """
    _refuse_merged(model, "switch to another adapter")
    if name is not None and name not in adapter_names(model):
        raise ValueError(f"no adapter is called {name!r}; there are: {_listed(model)}")
    for _, layer in _adapted_layers(model):
        layer.active = name
    _set_trainable(model)
    return model


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """The names of all adapters of a model."""
    return tuple(dict.fromkeys(name for _, layer in _adapted_layers(model) for name in layer.settings))


def active_adapter(model: nn.Module) -> str | None:
    """The name of the adapter that is in use, or None."""
    return next((layer.active for _, layer in _adapted_layers(model)), None)


def lora_parameters(model: nn.Module, name: str | None = None) -> dict[str, nn.Parameter]:
    """The parameters of an adapter, of the active one without a name.

    ``{layer}.lora_A`` and ``{layer}.lora_B`` for each layer, and ``{embedding}.lora_rows`` where there are.
    """
    name = active_adapter(model) if name is None else name
    return {
        f"{layer_name}.{part}": parameter
        for layer_name, layer in _adapted_layers(model)
        if name in layer.settings
        for part, parameter in layer.parts(name).items()
    }


def count_trainable(model: nn.Module) -> tuple[int, int]:
    """How many parameters can be trained, and how many there are in all."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trainable in counts if trainable), sum(count for count, _ in counts)


def settings_of(model: nn.Module, name: str) -> LoRASettings:
    """The settings of an adapter.

    Raises:
        ValueError: there is none of this name.
    """
    for _, layer in _adapted_layers(model):
        if name in layer.settings:
            return layer.settings[name]
    raise ValueError(f"no adapter is called {name!r}; there are: {_listed(model)}")


def _listed(model: nn.Module) -> str:
    return ", ".join(adapter_names(model)) or "none"


def _adapted_layers(model: nn.Module) -> list[tuple[str, Adapted]]:
    """Every layer that has adapters, by the name that it had in the plain model."""
    return [
        (name.partition(".parametrizations.")[0], module)
        for name, module in model.named_modules()
        if isinstance(module, Adapted)
    ]


def _refuse_merged(model: nn.Module, what: str) -> None:
    if any(layer.is_merged for _, layer in _adapted_layers(model)):
        raise ValueError(f"an adapter is merged into the weights: unmerge_lora(model) first, then {what}")


def check_new_name(model: nn.Module, name: str) -> None:
    """Raise ValueError if a model cannot take another adapter of this name."""
    _refuse_merged(model, "add another adapter")
    if name in adapter_names(model):
        raise ValueError(f"the model has an adapter called {name!r} already: choose another name")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ParameterDict, name):
        raise ValueError(f"{name!r} cannot be an adapter's name: letters, digits, _ and - can")


def _set_trainable(model: nn.Module) -> None:
    """Freeze everything but A and B of the active adapter; while it is merged, these too."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if not any(layer.is_merged for _, layer in _adapted_layers(model)):
        for parameter in lora_parameters(model).values():
            parameter.requires_grad_(True)


def _adapted(model: nn.Module, name: str) -> LoRALinear:
    """The layer of this name as a `LoRALinear`, replaced if it is a plain one."""
    layer = model.get_submodule(name)
    if not isinstance(layer, LoRALinear):
        layer = LoRALinear(layer)
        _replace(model, name, layer)
    return layer


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _token_rows(embedding: nn.Embedding) -> TokenRows:
    if not parametrize.is_parametrized(embedding, "weight"):
        parametrize.register_parametrization(embedding, "weight", TokenRows().train(embedding.training))
    return embedding.parametrizations.weight[0]


def _base_weight(embedding: nn.Embedding) -> Tensor:
    return embedding.parametrizations.weight.original
