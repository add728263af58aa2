"""To and from the models of the transformers library: Llama, Qwen2, Qwen3, Qwen3-MoE.

The tensors have the same names there, except that Qwen3-MoE stacks its experts. What differs between the
families is which switches they have; a feature that has no place on the other side is an error that names it.
Dropout is not carried over, since the families apply it in different places.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minimind_edu.config import ModelConfig, RopeScaling
from minimind_edu.model.rope import rope_frequencies, uses_yarn
from minimind_edu.model.transformer import MiniMind
from minimind_edu.model.weights import HEAD, build_model, check_tensors, drop_tied_head

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe")


def from_transformers(hf_model: "PreTrainedModel") -> MiniMind:
    """Convert a causal language model of transformers; the result is float32, in evaluation mode.

    Raises:
        ValueError: another family, or a feature that MiniMind does not have.
        WeightsError: the tensors do not fit.
    """
    hf_config = hf_model.config
    _check_features(hf_config)
    config = _config_from(hf_config)
    _check_frequencies(hf_model, config)
    state = dict(hf_model.state_dict())
    if config.use_moe:
        state = _unstack_experts(state)
    return build_model(config, drop_tied_head(state) if config.tie_word_embeddings else state)


def to_transformers(model: MiniMind) -> "PreTrainedModel":
    """The same model as a transformers model, on the same device, in evaluation mode.

    Plain models become Llama, with q/k/v biases Qwen2, with q/k norms Qwen3, with experts Qwen3-MoE.

    Raises:
        ValueError: no family has this combination.
    """
    import transformers

    config = model.config
    family = _family_for(config)
    hf_config = transformers.AutoConfig.for_model(family, **_config_values(config, family))
    hf_model = transformers.AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32)
    _check_frequencies(hf_model, config)
    state = dict(model.state_dict())
    if config.use_moe:
        state = _stack_experts(state, config)
    if config.tie_word_embeddings:
        state[HEAD] = state["model.embed_tokens.weight"]
    check_tensors(hf_model.state_dict(), state)
    hf_model.load_state_dict(state)
    return hf_model.to(model.model.embed_tokens.weight.device).eval()


def _check_features(hf_config: "PreTrainedConfig") -> None:
    """Raise a ValueError that lists everything in `hf_config` that MiniMind cannot express."""
    family = hf_config.model_type
    if family not in FAMILIES:
        raise ValueError(f"model_type={family!r} is not supported; supported: {', '.join(FAMILIES)}")
    rope = hf_config.rope_parameters or {}
    kinds = set(getattr(hf_config, "layer_types", None) or ["full_attention"])
    unsupported = {
        f"hidden_act={hf_config.hidden_act!r} (only 'silu')": hf_config.hidden_act != "silu",
        "sliding-window attention": kinds != {"full_attention"}
        or bool(getattr(hf_config, "use_sliding_window", False) and hf_config.sliding_window),
        "attention_bias (it adds a bias to o_proj)": bool(getattr(hf_config, "attention_bias", False)),
        "mlp_bias": bool(getattr(hf_config, "mlp_bias", False)),
        f"rope_type={rope.get('rope_type')!r}": rope.get("rope_type", "default") not in ("default", "yarn"),
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "mlp_only_layers (dense layers among MoE ones)": bool(getattr(hf_config, "mlp_only_layers", None)),
        "decoder_sparse_step other than 1": getattr(hf_config, "decoder_sparse_step", 1) != 1,
    }
    found = [feature for feature, is_present in unsupported.items() if is_present]
    if found:
        raise ValueError(f"this {family} model uses what MiniMind does not have: {', '.join(found)}")


def _config_from(hf_config: "PreTrainedConfig") -> ModelConfig:
    rope = hf_config.rope_parameters or {}
    values: dict[str, Any] = {
        "vocab_size": hf_config.vocab_size,
        "hidden_size": hf_config.hidden_size,
        "num_hidden_layers": hf_config.num_hidden_layers,
        "num_attention_heads": hf_config.num_attention_heads,
        "num_key_value_heads": hf_config.num_key_value_heads,
        "head_dim": getattr(hf_config, "head_dim", None),
        "intermediate_size": hf_config.intermediate_size,
        "max_position_embeddings": hf_config.max_position_embeddings,
        "rms_norm_eps": hf_config.rms_norm_eps,
        "rope_theta": rope.get("rope_theta", 1e4),
        "qk_norm": hf_config.model_type in ("qwen3", "qwen3_moe"),
        "attention_bias": hf_config.model_type == "qwen2",
        "tie_word_embeddings": hf_config.tie_word_embeddings,
    }
    if rope.get("rope_type") == "yarn":
        values["rope_scaling"] = RopeScaling(
            factor=rope["factor"],
            original_max_position_embeddings=rope["original_max_position_embeddings"],
            beta_fast=rope.get("beta_fast") or 32.0,
            beta_slow=rope.get("beta_slow") or 1.0,
            # Where it is not given, transformers takes the paper's (Peng et al., 2023, equation 22).
            attention_factor=rope.get("attention_factor") or 0.1 * math.log(rope["factor"]) + 1.0,
        )
    if hf_config.model_type == "qwen3_moe":
        values |= {
            "use_moe": True,
            "num_experts": hf_config.num_experts,
            "num_experts_per_tok": hf_config.num_experts_per_tok,
            "moe_intermediate_size": hf_config.moe_intermediate_size,
            "norm_topk_prob": hf_config.norm_topk_prob,
            "router_aux_loss_coef": hf_config.router_aux_loss_coef,
        }
    return ModelConfig(**values)


def _check_frequencies(hf_model: "PreTrainedModel", config: ModelConfig) -> None:
    """YaRN has variants; accept one only if it turns every pair exactly as ours does."""
    # Built anew: the model's own table is rounded if the model is in half precision.
    rotary = type(hf_model.model.rotary_emb)(hf_model.config)
    ours = rope_frequencies(config)
    factor = config.rope_scaling.attention_factor if uses_yarn(config) else 1.0
    same = torch.allclose(rotary.inv_freq, ours, rtol=1e-6, atol=0.0)
    if not same or abs(rotary.attention_scaling - factor) > 1e-6:
        raise ValueError("rope_scaling: this YaRN differs from MiniMind's (frequencies or attention factor)")


def _family_for(config: ModelConfig) -> str:
    if config.attention_bias and config.qk_norm:
        raise ValueError("no family of transformers has both attention_bias and qk_norm in MiniMind's form")
    if config.use_moe and (not config.qk_norm or config.num_shared_experts):
        raise ValueError(
            "transformers' Qwen3-MoE needs qk_norm=True and num_shared_experts=0, but this model has "
            f"qk_norm={config.qk_norm} and num_shared_experts={config.num_shared_experts}"
        )
    if config.attention_bias and config.head_dim * config.num_attention_heads != config.hidden_size:
        raise ValueError("transformers' Qwen2 needs head_dim = hidden_size / num_attention_heads")
    if config.use_moe:
        return "qwen3_moe"
    return "qwen3" if config.qk_norm else "qwen2" if config.attention_bias else "llama"


def _config_values(config: ModelConfig, family: str) -> dict[str, Any]:
    """Arguments of the transformers config class of `family`."""
    names = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
        "intermediate_size max_position_embeddings rms_norm_eps tie_word_embeddings"
    ).split()
    if family != "qwen2":
        names.append("head_dim")
    if config.use_moe:
        names += "num_experts num_experts_per_tok moe_intermediate_size".split()
        names += "norm_topk_prob router_aux_loss_coef".split()
    values = {name: getattr(config, name) for name in names}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if uses_yarn(config):
        rope |= {"rope_type": "yarn"} | config.to_dict()["rope_scaling"]
    # Special tokens belong to the tokenizer; Llama's defaults (1 and 2) would end a generation by surprise.
    return values | {
        "rope_parameters": rope,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _unstack_experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Qwen3-MoE's stacked (E, 2I, C) and (E, C, I) tensors as three matrices per expert."""
    separate: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix, _, kind = name.rpartition(".")
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                separate[f"{prefix}.{expert}.gate_proj.weight"] = gate
                separate[f"{prefix}.{expert}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            separate |= {f"{prefix}.{expert}.{kind}.weight": down for expert, down in enumerate(tensor)}
        else:
            separate[name] = tensor
    return separate


def _stack_experts(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of `_unstack_experts`."""
    stacked = {name: tensor for name, tensor in state.items() if ".experts." not in name}
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp.experts"
        gates, ups, downs = (
            torch.stack(
                [state[f"{prefix}.{expert}.{kind}_proj.weight"] for expert in range(config.num_experts)]
            )
            for kind in ("gate", "up", "down")
        )
        stacked[f"{prefix}.gate_up_proj"] = torch.cat((gates, ups), dim=1)
        stacked[f"{prefix}.down_proj"] = downs
    return stacked
