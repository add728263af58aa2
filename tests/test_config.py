"""ModelConfig: presets, validation, and the round trip through a dictionary."""

import json

import numpy as np
import pytest
import torch

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.config import RopeScaling, minimind2_intermediate_size, minimind3_intermediate_size

PUBLISHED_MILLIONS = {
    "minimind2-small": 25.830,
    "minimind2": 104.031,
    "minimind2-moe": 145.030,
    "minimind2-184m": 183.797,
    "minimind2-272m": 272.418,
    "minimind-v1-small": 26.878,
    "minimind-v1": 108.750,
    "minimind-3": 63.912,
    "minimind-3-moe": 198.417,
    "miniqwen": 84.641,
    "miniqwen-tied": 61.200,
}
ABOUT_MILLIONS = {"edu": 1.0, "qwen3-tiny": 1.5, "qwen3-small": 6, "qwen3-medium": 24, "qwen3-large": 96}


def on_meta(config):
    """A model without memory behind it: enough to count parameters."""
    with torch.device("meta"):
        return MiniMind(config)


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_presets_have_exactly_the_published_parameters(name):
    count = on_meta(ModelConfig.preset(name)).num_parameters()
    assert round(count / 1e6, 3) == PUBLISHED_MILLIONS[name]


@pytest.mark.parametrize("name", ABOUT_MILLIONS)
def test_presets_without_a_published_count_have_about_the_stated_size(name):
    count = on_meta(ModelConfig.preset(name)).num_parameters() / 1e6
    assert count == pytest.approx(ABOUT_MILLIONS[name], rel=0.05)


def test_active_parameters_of_the_mixtures():
    assert round(on_meta(ModelConfig.preset("minimind-3-moe")).num_parameters(active=True) / 1e6) == 64
    dense = on_meta(ModelConfig.preset("edu")).num_parameters()
    sparse = on_meta(ModelConfig.preset("edu-moe"))
    assert sparse.num_parameters(active=True) == pytest.approx(dense, rel=0.01)
    assert sparse.num_parameters() > 1.5 * dense


def test_every_published_preset_is_there():
    assert set(ModelConfig.presets()) == {*PUBLISHED_MILLIONS, *ABOUT_MILLIONS, "edu-moe"}


def test_presets_returns_a_new_dictionary_each_time():
    ModelConfig.presets().clear()
    assert "edu" in ModelConfig.presets()


def test_the_published_rules_of_the_feed_forward_width():
    assert [minimind2_intermediate_size(h) for h in (512, 640, 768, 1024)] == [1408, 1728, 2048, 2752]
    assert minimind3_intermediate_size(768) == 2432


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", -5),
        ("vocab_size", 10.0),
        ("vocab_size", "10"),
        ("vocab_size", None),
        ("hidden_size", True),
        ("hidden_size", float("nan")),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 2.5),
        ("num_attention_heads", 0),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 4),
        ("num_key_value_heads", 0),
        ("head_dim", 31),
        ("head_dim", 0),
        ("head_dim", -2),
        ("intermediate_size", 0),
        ("intermediate_size", 1.5),
        ("max_position_embeddings", 0),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", float("inf")),
        ("rms_norm_eps", "1e-5"),
        ("rope_theta", float("nan")),
        ("rope_theta", -1e4),
        ("rope_theta", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", True),
        ("dropout", float("nan")),
        ("qk_norm", 1),
        ("use_moe", "yes"),
        ("tie_word_embeddings", None),
        ("rope_scaling", {"factor": 4}),
        ("num_shared_experts", -1),
        ("router_aux_loss_coef", -1e-3),
        ("norm_topk_prob", 1),
        ("moe_intermediate_size", 0),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field_and_the_value(field, value):
    with pytest.raises(ValueError) as error:
        ModelConfig(**{field: value})
    assert field in str(error.value)
    assert repr(value) in str(error.value)


def test_top_k_may_not_exceed_the_experts():
    with pytest.raises(ValueError, match="num_experts_per_tok=5 must not exceed num_experts=4"):
        ModelConfig(use_moe=True, num_experts_per_tok=5)
    ModelConfig(use_moe=False, num_experts=1)  # without experts their number does not matter


def test_an_odd_head_size_says_what_to_change():
    with pytest.raises(ValueError, match=r"head_dim=33 must be even.*num_attention_heads"):
        ModelConfig(hidden_size=66, num_attention_heads=2)


@pytest.mark.parametrize(
    "values",
    [{"factor": 0.5}, {"factor": float("nan")}, {"beta_fast": 1.0}, {"original_max_position_embeddings": 0}],
)
def test_wrong_yarn_values(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        RopeScaling(**values)


def test_derived_fields():
    config = ModelConfig(hidden_size=96, num_attention_heads=4)
    assert (config.head_dim, config.intermediate_size, config.moe_intermediate_size) == (24, 320, 320)
    assert ModelConfig(hidden_size=100, num_attention_heads=3, head_dim=32).head_dim == 32


def test_numpy_integers_are_whole_numbers():
    config = ModelConfig(hidden_size=np.int64(128))
    assert json.dumps(config.to_dict())


def test_config_is_frozen_and_hashable():
    config = ModelConfig()
    with pytest.raises(AttributeError):
        config.hidden_size = 7
    assert hash(config) == hash(ModelConfig())


@pytest.mark.parametrize("name", ModelConfig.presets())
def test_dictionary_round_trip_survives_json(name):
    config = ModelConfig.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_dictionary_round_trip_with_yarn():
    config = ModelConfig(rope_scaling=RopeScaling(factor=4))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_keys_are_named():
    with pytest.raises(ValueError, match="n_layer, nheads"):
        ModelConfig.from_dict({"n_layer": 4, "nheads": 2, "vocab_size": 10})
    with pytest.raises(ValueError, match="no field called fctr"):
        ModelConfig.from_dict({"rope_scaling": {"fctr": 2}})
    with pytest.raises(ValueError, match="hidden"):
        ModelConfig.preset("edu", hidden=4)


def test_unknown_preset_lists_the_names():
    with pytest.raises(ValueError, match=r"'gpt-5'.*edu.*minimind2-small"):
        ModelConfig.preset("gpt-5")


def test_overrides_follow_the_rules_of_the_preset():
    small = ModelConfig.preset("minimind2-small", hidden_size=640)
    assert (small.intermediate_size, small.head_dim) == (1728, 80)
    three = ModelConfig.preset("minimind-3", hidden_size=512)
    assert (three.intermediate_size, three.head_dim, three.moe_intermediate_size) == (1664, 64, 1664)
    assert ModelConfig.preset("minimind-3", hidden_size=512, intermediate_size=100).intermediate_size == 100
    assert ModelConfig(head_dim=32).replace(hidden_size=256).head_dim == 32
    with pytest.raises(ValueError, match="hidden_size"):
        ModelConfig.preset("edu", hidden_size=0)


def test_our_own_mixtures_default_to_a_router_that_learns():
    one = ModelConfig(use_moe=True, num_experts_per_tok=1)
    assert not one.norm_topk_prob and not one.has_dead_router
    assert not ModelConfig.preset("edu-moe").has_dead_router
    assert not ModelConfig.preset("edu-moe", num_experts_per_tok=1).has_dead_router
    assert ModelConfig.preset("minimind-3-moe").has_dead_router
    assert not ModelConfig(
        use_moe=True, num_experts=1, num_experts_per_tok=1, norm_topk_prob=True
    ).has_dead_router
