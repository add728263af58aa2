"""Low-rank adaptation: two thin matrices beside a frozen one (chapter 6).

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021, arXiv:2106.09685). To a layer that
computes W x, LoRA adds B A x times alpha / rank (section 4.1). A (rank, in) starts random and B (out, rank)
at zero, so the model begins as it was. Only A and B are trained.
"""

import math
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
        tokens: ids whose rows of the embedding are trained too.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = 0.0
    tokens: tuple[int, ...] = ()

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

        if len(set(self.tokens)) < len(self.tokens) or min(self.tokens, default=0) < 0:
            raise ValueError("tokens must be different ids, from 0")

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

    def parts(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters of an adapter."""
        return {"lora_A": self.lora_A[name], "lora_B": self.lora_B[name]}

    def update(self) -> Tensor:
        """What the active adapter adds to the weight: B A alpha / rank, (out, in), in float32."""
        a, b = self.lora_A[self.active].float(), self.lora_B[self.active].float()
        return b @ a * self.settings[self.active].scale

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        output = super().forward(x)
        if self.active not in self.settings or self.is_merged:
            return output
        settings = self.settings[self.active]
        # Two thin products: B A itself, as large as the weight, is never made.
        low = F.linear(F.dropout(x, settings.dropout, self.training), self.lora_A[self.active])
        return output + F.linear(low, self.lora_B[self.active]) * settings.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Put the active adapter into the weight; a copy of it stays, to restore the very same bits."""
        self.unmerged = self.weight.detach().clone()
        self.weight.copy_(self.weight.float() + self.update())

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weight back as it was."""
        self.weight.copy_(self.unmerged)
        self.unmerged = None


class TokenRows(nn.Module):
    """Rows of an embedding that adapters have of their own; a parametrization of its weight.

    What a frozen embedding cannot tell apart no adapter of other layers can. peft calls it
    `trainable_token_indices`.

    Attributes:
        lora_rows: (tokens, width) by the adapter's name; they replace rows of the weight.
        settings, active: as in `LoRALinear`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lora_rows = nn.ParameterDict()
        self.settings: dict[str, LoRASettings] = {}
        self.active: str | None = None
        self.is_merged = False

    def add_adapter(self, name: str, settings: LoRASettings, weight: Tensor) -> None:
        """A new adapter that starts as the rows of `weight` (V, width) are."""
        ids = torch.tensor(settings.tokens, device=weight.device)
        self.register_buffer(f"ids_of_{name}", ids, persistent=False)
        self.lora_rows[name] = nn.Parameter(weight.detach()[ids].clone())
        self.settings[name] = settings

    def parts(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters of an adapter."""
        return {"lora_rows": self.lora_rows[name]}

    def forward(self, weight: Tensor) -> Tensor:
        """The embedding's weight (V, width) with the active adapter's rows in it."""
        if self.active not in self.settings:
            return weight
        ids = self.get_buffer(f"ids_of_{self.active}")
        return weight.index_copy(0, ids, self.lora_rows[self.active].to(weight.dtype))

    def merge(self) -> None:
        """Nothing to do: replacing rows costs next to nothing, and the base keeps its own."""
        self.is_merged = True

    def unmerge(self) -> None:
        """See `merge`."""
        self.is_merged = False
