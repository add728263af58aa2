"""ModelConfig: one frozen dataclass that describes every architecture of the course, and its presets.

All models here are decoders of the Llama family. They differ in sizes and in a few switches: per-head q/k
norms (Qwen3, MiniMind-3), biases on q/k/v (Qwen2), tied output head, YaRN, mixture of experts.
"""

import dataclasses
import math
import numbers
from dataclasses import dataclass
from typing import Any


def minimind2_intermediate_size(hidden_size: int) -> int:
    """MiniMind2's feed-forward width: 8/3 of the hidden size, rounded up to a multiple of 64."""
    return 64 * math.ceil(int(8 * hidden_size / 3) / 64)


def minimind3_intermediate_size(hidden_size: int) -> int:
    """MiniMind-3's feed-forward width: pi times the hidden size, rounded up to a multiple of 64."""
    return 64 * math.ceil(math.pi * hidden_size / 64)


@dataclass(frozen=True)
class RopeScaling:
    """YaRN, which stretches RoPE to longer texts than were trained on (Peng et al., 2023, arXiv:2309.00071).

    Attributes:
        factor: how many times longer the context becomes.
        original_max_position_embeddings: context length of training, in tokens. As in MiniMind, YaRN acts
            only where the model's `max_position_embeddings` is larger than this.
        beta_fast: pairs that turn more often than this over the original context are left alone.
        beta_slow: pairs that turn less often than this are slowed down by the whole `factor`.
        attention_factor: multiplies cos and sin, so attention scores by its square.
    """

    factor: float = 16.0
    original_max_position_embeddings: int = 2048
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        _check_integer(self, "original_max_position_embeddings")
        for name in ("factor", "beta_fast", "beta_slow", "attention_factor"):
            _check_number(self, name, more_than=0.0)
        _require(self.factor >= 1.0, self, "factor", "must be 1 or more (it lengthens the context)")
        _require(
            self.beta_fast > self.beta_slow, self, "beta_fast", f"must exceed beta_slow={self.beta_slow}"
        )


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. `ModelConfig.preset(name)` gives known ones; every field can be overridden.

    Fields whose default is None are derived: `head_dim` is hidden_size / num_attention_heads,
    `intermediate_size` follows MiniMind-3's rule, `moe_intermediate_size` equals `intermediate_size`, and
    `norm_topk_prob` is True for two or more experts per token and False for one (see `has_dead_router`).

    Attributes:
        vocab_size: number of token ids.
        hidden_size: width C of the residual stream.
        num_hidden_layers: number of blocks.
        num_attention_heads: query heads.
        num_key_value_heads: key/value heads, each shared by a group of query heads (GQA).
        head_dim: size of one head; even, because RoPE rotates pairs.
        intermediate_size: inner width of the SwiGLU feed-forward.
        max_position_embeddings: longest text, in tokens.
        rms_norm_eps: epsilon of every RMSNorm.
        rope_theta: base of the RoPE frequencies.
        rope_scaling: YaRN, or None.
        qk_norm: RMSNorm on each query and key head before RoPE.
        attention_bias: biases on the q, k and v projections (never on o).
        tie_word_embeddings: the output head is the embedding matrix.
        dropout: probability, on embeddings, attention weights and the output of each sublayer.
        use_moe: replace every feed-forward by a mixture of experts.
        num_experts: routed experts per layer.
        num_experts_per_tok: routed experts that each token visits (top-k).
        num_shared_experts: further experts that every token visits.
        moe_intermediate_size: inner width of one expert.
        norm_topk_prob: divide the k routing weights by their sum.
        router_aux_loss_coef: factor of the load-balancing loss.
        seq_aux: balance within each sequence (MiniMind2) rather than over the batch (MiniMind-3).

    Raises:
        ValueError: a field has the wrong type or value; the message says which and what to change.
    """

    vocab_size: int = 1600
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    num_key_value_heads: int = 1
    head_dim: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    rope_scaling: RopeScaling | None = None
    qk_norm: bool = True
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    dropout: float = 0.0
    use_moe: bool = False
    num_experts: int = 4
    num_experts_per_tok: int = 2
    num_shared_experts: int = 0
    moe_intermediate_size: int | None = None
    norm_topk_prob: bool | None = None
    router_aux_loss_coef: float = 1e-3
    seq_aux: bool = False

    def __post_init__(self) -> None:
        for name in _INTEGER_FIELDS:
            _check_integer(self, name)
        _check_integer(self, "num_shared_experts", at_least=0)
        for name in ("qk_norm", "attention_bias", "tie_word_embeddings", "use_moe", "seq_aux"):
            _check_bool(self, name)
        _check_number(self, "rms_norm_eps", more_than=0.0)
        _check_number(self, "rope_theta", more_than=1.0)
        _check_number(self, "dropout", at_least=0.0)
        _check_number(self, "router_aux_loss_coef", at_least=0.0)
        _require(self.dropout < 1.0, self, "dropout", "must be in [0, 1)")
        is_scaling = self.rope_scaling is None or isinstance(self.rope_scaling, RopeScaling)
        _require(is_scaling, self, "rope_scaling", "must be None or a RopeScaling")
        self._resolve_defaults()
        self._check_relations()

    def _resolve_defaults(self) -> None:
        """Fill in every field left at None; a frozen dataclass can be written only this way."""
        if self.head_dim is None:
            _require(
                self.hidden_size % self.num_attention_heads == 0,
                self,
                "num_attention_heads",
                f"must divide hidden_size={self.hidden_size}; change one of them or set head_dim",
            )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.intermediate_size is None:
            object.__setattr__(self, "intermediate_size", minimind3_intermediate_size(self.hidden_size))
        if self.moe_intermediate_size is None:
            object.__setattr__(self, "moe_intermediate_size", self.intermediate_size)
        if self.norm_topk_prob is None:
            object.__setattr__(self, "norm_topk_prob", self.num_experts_per_tok > 1)
        for name in ("head_dim", "intermediate_size", "moe_intermediate_size"):
            _check_integer(self, name)
        _check_bool(self, "norm_topk_prob")

    def _check_relations(self) -> None:
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            self,
            "num_key_value_heads",
            f"must divide num_attention_heads={self.num_attention_heads}",
        )
        _require(
            self.head_dim % 2 == 0,
            self,
            "head_dim",
            "must be even, because RoPE rotates pairs; change hidden_size, num_attention_heads or head_dim",
        )
        if self.use_moe:
            _require(
                self.num_experts_per_tok <= self.num_experts,
                self,
                "num_experts_per_tok",
                f"must not exceed num_experts={self.num_experts}",
            )

    @property
    def has_dead_router(self) -> bool:
        """True where the router learns nothing from the language-model loss.

        A single weight divided by itself is always 1, whatever the router says, so no gradient reaches it.
        """
        one_of_many = self.num_experts_per_tok == 1 and self.num_experts > 1
        return self.use_moe and one_of_many and bool(self.norm_topk_prob)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON can hold; the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Build a config from `to_dict`'s form.

        Raises:
            ValueError: unknown keys (all of them named), or a wrong value.
        """
        values = dict(values)
        _reject_unknown(cls, values)
        if isinstance(values.get("rope_scaling"), dict):
            _reject_unknown(RopeScaling, values["rope_scaling"])
            values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
        return cls(**values)

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed. Sizes that followed from a rule follow it again.

        For example a new `hidden_size` brings a new `intermediate_size` if the old one was given by
        MiniMind2's or MiniMind-3's rule, and a new `head_dim` if the heads filled the hidden size exactly.
        """
        _reject_unknown(type(self), changes)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changes
        if "head_dim" not in changes and self.head_dim * self.num_attention_heads == self.hidden_size:
            values["head_dim"] = None
        if "intermediate_size" not in changes and type(values["hidden_size"]) is int:
            for rule in (minimind2_intermediate_size, minimind3_intermediate_size):
                if self.intermediate_size == rule(self.hidden_size) and values["hidden_size"] > 0:
                    values["intermediate_size"] = rule(values["hidden_size"])
        if "moe_intermediate_size" not in changes and self.moe_intermediate_size == self.intermediate_size:
            values["moe_intermediate_size"] = None
        if "norm_topk_prob" not in changes and self.norm_topk_prob == (self.num_experts_per_tok > 1):
            values["norm_topk_prob"] = None
        if isinstance(changes.get("rope_scaling"), dict):
            values["rope_scaling"] = RopeScaling(**changes["rope_scaling"])
        return type(self)(**values)

    @classmethod
    def presets(cls) -> dict[str, "ModelConfig"]:
        """Every preset by name: the course's own shapes, then the published ones."""
        return {name: cls(**row) for name, row in _PRESETS.items()}

    @classmethod
    def preset(cls, name: str = "edu", **overrides: Any) -> "ModelConfig":
        """The preset called `name`, with some fields changed as by `replace`.

        Raises:
            ValueError: no preset has this name (the message lists them), or an override is wrong.
        """
        if name not in _PRESETS:
            raise ValueError(f"no preset is called {name!r}; choose one of: {', '.join(_PRESETS)}")
        return cls(**_PRESETS[name]).replace(**overrides)


_INTEGER_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "num_experts",
    "num_experts_per_tok",
)


def _require(condition: bool, config: Any, name: str, advice: str) -> None:
    if not condition:
        raise ValueError(f"{type(config).__name__}.{name}={getattr(config, name)!r} {advice}")


def _check_integer(config: Any, name: str, at_least: int = 1) -> None:
    value = getattr(config, name)
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    _require(is_integer and value >= at_least, config, name, f"must be a whole number of {at_least} or more")
    object.__setattr__(config, name, int(value))


def _check_number(config: Any, name: str, at_least: float = -math.inf, more_than: float = -math.inf) -> None:
    value = getattr(config, name)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    bound = f"more than {more_than:g}" if more_than > -math.inf else f"{at_least:g} or more"
    in_range = is_number and value >= at_least and value > more_than
    _require(in_range, config, name, f"must be a finite number, {bound}")
    object.__setattr__(config, name, float(value))


def _check_bool(config: Any, name: str) -> None:
    _require(isinstance(getattr(config, name), bool), config, name, "must be True or False")


def _reject_unknown(cls: type, values: dict[str, Any]) -> None:
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field called {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )


def _minimind2(hidden_size: int, num_hidden_layers: int, **changes: Any) -> dict[str, Any]:
    """A row of the MiniMind2 family: Llama-like, without q/k norms."""
    row = {
        "vocab_size": 6400,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": minimind2_intermediate_size(hidden_size),
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "qk_norm": False,
    }
    return row | changes


def _qwen3(
    hidden_size: int, num_hidden_layers: int, heads: int, kv_heads: int, **changes: Any
) -> dict[str, Any]:
    """A row of the MiniMind-3 family: Qwen3-like, with a norm on each query and key head."""
    row = {
        "vocab_size": 6400,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32768,
    }
    return row | changes


_EDU: dict[str, Any] = {"vocab_size": 1600, "hidden_size": 128, "intermediate_size": 384}
_MINIMIND2_MOE: dict[str, Any] = {
    "use_moe": True,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_shared_experts": 1,
    "norm_topk_prob": True,
    "router_aux_loss_coef": 0.01,
    "seq_aux": True,
}
# Published with one normalised expert per token: a router that does not learn, kept so that weights fit.
_MINIMIND3_MOE: dict[str, Any] = {
    "use_moe": True,
    "num_experts": 4,
    "num_experts_per_tok": 1,
    "norm_topk_prob": True,
    "router_aux_loss_coef": 5e-4,
}
_V1: dict[str, Any] = {"num_attention_heads": 16, "num_key_value_heads": 8, "rope_theta": 1e4}
_MINIQWEN: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 2048,
    "qk_norm": False,
}

_PRESETS: dict[str, dict[str, Any]] = {
    # Two of the four experts are half as wide as edu's feed-forward each: the same work per token.
    "edu": _EDU,
    "edu-moe": _EDU | {"use_moe": True, "moe_intermediate_size": 192},
    "minimind2-small": _minimind2(512, 8),
    "minimind2": _minimind2(768, 16),
    "minimind2-moe": _minimind2(640, 8, **_MINIMIND2_MOE),
    "minimind2-184m": _minimind2(1024, 16),
    "minimind2-272m": _minimind2(1024, 24),
    "minimind-v1-small": _minimind2(512, 8, **_V1),
    "minimind-v1": _minimind2(768, 16, **_V1),
    "minimind-3": _qwen3(768, 8, 8, 4),
    "minimind-3-moe": _qwen3(768, 8, 8, 4, **_MINIMIND3_MOE),
    "miniqwen": _MINIQWEN | {"tie_word_embeddings": False},
    "miniqwen-tied": _MINIQWEN,
    "qwen3-tiny": _qwen3(128, 3, 2, 1, max_position_embeddings=1024),
    "qwen3-small": _qwen3(256, 5, 4, 2, max_position_embeddings=1024),
    "qwen3-medium": _qwen3(512, 6, 8, 4, max_position_embeddings=2048),
    "qwen3-large": _qwen3(768, 12, 12, 6, max_position_embeddings=2048),
}
