"""Low-rank adaptation: two thin matrices beside a frozen one (chapter 6).

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021, arXiv:2106.09685). To a layer that
computes W x, LoRA adds B A x times alpha / rank (section 4.1). A (rank, in) starts random and B (out, rank)
at zero, so the model begins as it was. Only A and B are trained.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class LoRASettings:
    """What decides an adapter besides its weights.

    Attributes:
        rank: rows of A and columns of B.
        alpha: the update is B A times alpha / rank.
        targets: names of the layers that get one, or ("all-linear",).
        dropout: share of A's inputs set to zero in training.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError if a setting makes no sense."""
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a whole number of 1 or more, not {self.rank!r}")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha must be a positive number, not {self.alpha!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {self.dropout!r}")
        if not self.targets or not all(self.targets):
            raise ValueError('no target is named: give names such as "q_proj", or "all-linear"')
        if ALL_LINEAR in self.targets and len(self.targets) > 1:
            raise ValueError(f'"{ALL_LINEAR}" stands alone, but the targets are {", ".join(self.targets)}')

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank


class LoRALinear(nn.Linear):
    """A linear layer with adapters, of which one or none is active.

    Attributes:
        weight: (out, in) of the base, under the name that it had; frozen.
        lora_A, lora_B: (rank, in) and (out, rank) by the adapter's name.
        settings: rank, alpha and so on by the adapter's name.
        active: the adapter that is added to the base; None for the base alone.
        is_merged: whether the active adapter is inside `weight` now.
    """

    def __init__(self, base: nn.Linear) -> None:
        # On the "meta" device nothing is allocated or drawn at random: the weights are those of `base`.
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        self.settings: dict[str, LoRASettings] = {}
        self.active: str | None = None
        self.register_buffer("unmerged", None, persistent=False)
        self.train(base.training)

    @property
    def is_merged(self) -> bool:
        """Whether the active adapter is inside `weight` now."""
        return self.unmerged is not None

    def add_adapter(self, name: str, settings: LoRASettings) -> None:
        """A new adapter with a random A and a B of zeros."""
        like = {"device": self.weight.device, "dtype": self.weight.dtype}
        self.lora_A[name] = nn.Parameter(torch.empty(settings.rank, self.in_features, **like))
        self.lora_B[name] = nn.Parameter(torch.zeros(self.out_features, settings.rank, **like))
        nn.init.kaiming_uniform_(self.lora_A[name], a=math.sqrt(5))
        self.settings[name] = settings

    def update(self) -> Tensor:
        """What the active adapter adds to the weight: B A alpha / rank, (out, in), in float32."""
        a, b = self.lora_A[self.active].float(), self.lora_B[self.active].float()
        return b @ a * self.settings[self.active].scale

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        output = super().forward(x)
        if self.active not in self.lora_A or self.is_merged:
            return output
        settings = self.settings[self.active]
        # Two thin products: B A itself, as large as the weight, is never made.
        low = F.linear(F.dropout(x, settings.dropout, self.training), self.lora_A[self.active])
        return output + F.linear(low, self.lora_B[self.active]) * settings.scale


def apply_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = ("q_proj", "v_proj"),
    dropout: float = 0.0,
    name: str = "default",
) -> nn.Module:
    """Give a model a new adapter, make it the active one, and freeze everything else, all in place.

    Args:
        model: a `MiniMind`, or any module with `nn.Linear` layers.
        targets: a layer is meant if its full name is a target or ends with "." and a target, as in peft; or
            "all-linear" for every linear layer but the output head and a mixture's routers. A string may hold
            several names with commas between.
        name: other adapters of the model keep their names and weights.

    Returns:
        The same model.

    Raises:
        ValueError: a target matches no linear layer (the message names those there are), the name is taken, a
            setting makes no sense, or an adapter is merged into the weights.
    """
    names = targets.split(",") if isinstance(targets, str) else targets
    settings = LoRASettings(rank, alpha, tuple(dict.fromkeys(target.strip() for target in names)), dropout)
    layers = target_layers(model, settings.targets)
    check_new_name(model, name)
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


def merge_lora(model: nn.Module) -> nn.Module:
    """Fold the active adapter into the base weights, in place: the same outputs at the base model's speed.

    The layers stay and keep a copy of their weights, so `unmerge_lora` restores the very same bits. While
    merged, A and B are frozen. `remove_lora` leaves a plain model.

    Raises:
        ValueError: no adapter is active, one is merged already, or the model is in training mode with
            dropout, which a merged weight cannot have.
    """
    _refuse_merged(model, "merge once")
    layers = _layers_with_active(model)
    if any(layer.training and layer.settings[layer.active].dropout for layer in layers):
        raise ValueError(
            "a merged weight has no dropout, so this would change the training: model.eval() first"
        )
    for layer in layers:
        layer.unmerged = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.copy_(layer.weight.float() + layer.update())
    _set_trainable(model)
    return model


def unmerge_lora(model: nn.Module) -> nn.Module:
    """Take the merged adapter out of the base weights again, in place.

    Raises:
        ValueError: none is merged.
    """
    layers = [layer for layer in _lora_layers(model) if layer.is_merged]
    if not layers:
        raise ValueError("no adapter is merged into the weights")
    for layer in layers:
        with torch.no_grad():
            layer.weight.copy_(layer.unmerged)
        layer.unmerged = None
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
    merged = any(layer.is_merged for layer in _lora_layers(model))
    if merge and not merged and active_adapter(model) is not None:
        for layer in _lora_layers(model):
            layer.eval()  # nothing is trained between here and the end, so dropout does not matter
        merge_lora(model)
    elif merged and not merge:
        unmerge_lora(model)
    for name, layer in [*_named_lora_layers(model)]:
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
    for layer in _lora_layers(model):
        layer.active = name
    _set_trainable(model)
    return model


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """The names of all adapters of a model."""
    return tuple(dict.fromkeys(name for layer in _lora_layers(model) for name in layer.settings))


def active_adapter(model: nn.Module) -> str | None:
    """The name of the adapter that is in use, or None."""
    return next((layer.active for layer in _lora_layers(model)), None)


def lora_parameters(model: nn.Module, name: str | None = None) -> dict[str, nn.Parameter]:
    """A and B of an adapter (of the active one without a name): ``{layer}.lora_A`` and ``{layer}.lora_B``."""
    name = active_adapter(model) if name is None else name
    return {
        f"{layer_name}.{part}": getattr(layer, part)[name]
        for layer_name, layer in _named_lora_layers(model)
        for part in ("lora_A", "lora_B")
        if name in layer.settings
    }


def count_trainable(model: nn.Module) -> tuple[int, int]:
    """How many parameters can be trained, and how many there are in all."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trainable in counts if trainable), sum(count for count, _ in counts)


def _named_lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))


def settings_of(model: nn.Module, name: str) -> LoRASettings:
    """The settings of an adapter.

    Raises:
        ValueError: there is none of this name.
    """
    for layer in _lora_layers(model):
        if name in layer.settings:
            return layer.settings[name]
    raise ValueError(f"no adapter is called {name!r}; there are: {_listed(model)}")


def _listed(model: nn.Module) -> str:
    return ", ".join(adapter_names(model)) or "none"


def _lora_layers(model: nn.Module) -> list[LoRALinear]:
    return [layer for _, layer in _named_lora_layers(model)]


def _layers_with_active(model: nn.Module) -> list[LoRALinear]:
    layers = [layer for layer in _lora_layers(model) if layer.active in layer.settings]
    if not layers:
        raise ValueError(f"no adapter is active; there are: {_listed(model)}")
    return layers


def _refuse_merged(model: nn.Module, what: str) -> None:
    if any(layer.is_merged for layer in _lora_layers(model)):
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
    if not any(layer.is_merged for layer in _lora_layers(model)):
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
