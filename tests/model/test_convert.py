"""Equality with transformers' Llama, Qwen2, Qwen3 and Qwen3-MoE, in both directions."""

import copy

import pytest
import torch
import transformers

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.config import RopeScaling
from minimind_edu.model.attention import KVCache

SIZES = {
    "vocab_size": 83,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": 1.0,
}
MOE = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "head_dim": 12}
FAMILIES = {
    "llama": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama-wide-heads": ("Llama", {"head_dim": 16, "num_key_value_heads": 6}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2", {"num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"head_dim": 20}),
    "qwen3-yarn": ("Qwen3", {"head_dim": 64, "rope_parameters": YARN}),
    "qwen3-yarn-default-factor": (
        "Qwen3",
        {"head_dim": 64, "rope_parameters": YARN | {"attention_factor": None}},
    ),
    "qwen3-moe": ("Qwen3Moe", MOE),
    "qwen3-moe-normalised": ("Qwen3Moe", MOE | {"norm_topk_prob": True, "tie_word_embeddings": True}),
}


def make_hf(class_name, seed=0, **changes):
    torch.manual_seed(seed)
    config = getattr(transformers, f"{class_name}Config")(**(SIZES | changes))
    model = getattr(transformers, f"{class_name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=float(parameter.dim() == 1), std=0.15)
    return model


@pytest.fixture(params=FAMILIES)
def hf_model(request):
    class_name, changes = FAMILIES[request.param]
    return make_hf(class_name, **changes)


IDS = torch.randint(0, 83, (2, 37), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_logits_equal_with_and_without_cache_and_back(hf_model):
    expected = hf_model(IDS).logits
    model = MiniMind.from_transformers(hf_model)
    torch.testing.assert_close(model(IDS).logits, expected, atol=1e-5, rtol=0)
    cache = KVCache(model.config, 2, 37)
    parts = [model(part, cache=cache).logits for part in IDS.split([20] + [1] * 10 + [7], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=0)
    back = model.to_transformers()
    assert type(back) is type(hf_model)
    torch.testing.assert_close(back(IDS).logits, expected, atol=1e-6, rtol=0)


def test_loss_and_gradients_equal(hf_model):
    model = MiniMind.from_transformers(hf_model)
    labels = IDS.clone()
    labels[0, :10] = -100
    theirs, ours = hf_model(IDS, labels=labels).loss, model(IDS, labels).loss
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    theirs.backward()
    ours.backward()
    for name in ("model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"):
        a, b = model.get_parameter(name).grad, hf_model.get_parameter(name).grad
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_padding_agrees():
    hf_model = make_hf("Qwen3", head_dim=16)
    mask = torch.ones_like(IDS)
    mask[0, :9] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = hf_model(IDS, attention_mask=mask, position_ids=positions).logits
    ours = MiniMind.from_transformers(hf_model)(IDS, attention_mask=mask).logits
    torch.testing.assert_close(ours[0, 9:], expected[0, 9:], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[1], expected[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["edu", "edu-moe", "qwen3-tiny"])
@torch.no_grad()
def test_presets_convert(name):
    model = MiniMind(ModelConfig.preset(name)).eval()
    ids = torch.randint(0, 1600, (1, 20))
    torch.testing.assert_close(model.to_transformers()(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


def test_conversion_copies_and_leaves_the_original_alone():
    hf_model = make_hf("Qwen3Moe", **MOE)
    before = copy.deepcopy(hf_model.state_dict())
    model = MiniMind.from_transformers(hf_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in hf_model.state_dict().items())


def test_half_precision_becomes_float32():
    model = MiniMind.from_transformers(make_hf("Llama").bfloat16())
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("class_name", "changes", "message"),
    [
        ("Llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("Llama", {"attention_bias": True}, "attention_bias"),
        ("Llama", {"mlp_bias": True}, "mlp_bias"),
        ("Qwen3", {"attention_bias": True}, "attention_bias"),
        (
            "Qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "sliding-window",
        ),
        ("Qwen3Moe", MOE | {"mlp_only_layers": [1]}, "mlp_only_layers"),
        ("Qwen3Moe", MOE | {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_type='linear'",
        ),
        ("Qwen3", {"rope_parameters": YARN | {"truncate": False}}, "YaRN"),
        ("Mistral", {}, "model_type='mistral'"),
    ],
)
def test_unsupported_features_are_named(class_name, changes, message):
    with pytest.raises(ValueError, match=message):
        MiniMind.from_transformers(make_hf(class_name, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias and qk_norm"),
        ({"use_moe": True, "num_shared_experts": 1}, "num_shared_experts=1"),
        ({"use_moe": True, "qk_norm": False}, "qk_norm=False"),
        ({"attention_bias": True, "qk_norm": False, "head_dim": 16}, "head_dim"),
    ],
)
def test_shapes_without_a_family_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        MiniMind(ModelConfig(**changes)).to_transformers()


@torch.no_grad()
def test_yarn_converts_both_ways():
    scaling = RopeScaling(factor=8.0, original_max_position_embeddings=64)
    config = ModelConfig(vocab_size=83, max_position_embeddings=256, rope_scaling=scaling)
    model = MiniMind(config).eval()
    hf_model = model.to_transformers()
    torch.testing.assert_close(hf_model(IDS).logits, model(IDS).logits, atol=1e-5, rtol=0)
    assert MiniMind.from_transformers(hf_model).config.rope_scaling == scaling
