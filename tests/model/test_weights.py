"""Weights: our own files, the published ones, and what is wrong with broken ones."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.config import RopeScaling
from minimind_edu.model import weights
from minimind_edu.model.attention import KVCache
from minimind_edu.model.weights import WeightsError, minimind_config

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
# The same in the names and form of a published config.
PUBLISHED = SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}


def random_model(seed=0, **changes):
    torch.manual_seed(seed)
    model = MiniMind(ModelConfig(**(SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2} | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=float(parameter.dim() == 1), std=0.2)
    return model.eval()


def minimind3_state():
    return {name: tensor.clone() for name, tensor in random_model().state_dict().items()}


IDS = torch.arange(24).view(2, 12)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "attention_bias": True, "qk_norm": False},
        {"use_moe": True, "num_shared_experts": 1},
        {"rope_scaling": RopeScaling(factor=8, original_max_position_embeddings=64)},
    ],
)
def test_save_and_load_gives_the_same_bits(tmp_path, changes):
    model = random_model(**changes)
    model.save_pretrained(tmp_path / "a" / "b")
    loaded = MiniMind.from_pretrained(str(tmp_path / "a" / "b"))
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]
    assert all(p.requires_grad for p in loaded.parameters())


def test_a_tied_head_is_stored_once(tmp_path):
    random_model().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in state and "model.embed_tokens.weight" in state


def test_saving_over_an_older_model_and_loading_draw_no_random_numbers(tmp_path):
    random_model(seed=1).save_pretrained(tmp_path)
    model = random_model(seed=2)
    model.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    loaded = MiniMind.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    model = random_model(seed=1)
    model.save_pretrained(tmp_path)

    def broken_save(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights, "save_file", broken_save)
    with pytest.raises(OSError, match="disk full"):
        random_model(seed=2).save_pretrained(tmp_path)
    assert torch.equal(MiniMind.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


def test_every_wrong_tensor_is_named(tmp_path):
    random_model().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.norm.weight"], state["model.layers.1.mlp.up_proj.weight"]
    state["adapter.lora_A"] = torch.zeros(2)
    state["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(3, 4)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as error:
        MiniMind.from_pretrained(tmp_path)
    for line in (
        "missing: model.norm.weight",
        "missing: model.layers.1.mlp.up_proj.weight",
        "unexpected: adapter.lora_A",
        "misshapen: model.layers.0.self_attn.q_proj.weight has shape (3, 4), expected (32, 32)",
    ):
        assert line in str(error.value)
    assert isinstance(error.value, ValueError)


def test_broken_folders_and_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        MiniMind.from_pretrained(tmp_path / "nowhere")
    random_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    for damaged in (b"", content[:40], content[:-8], b"\x80" * 100):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match="cannot be read"):
            MiniMind.from_pretrained(tmp_path)
    file.write_bytes(content)
    for text, message in (("{", "not JSON"), ("[]", "model_type"), ('{"model_type": "llama"}', "model_type")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=message):
            MiniMind.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "minimind_edu", "hiden_size": 3}')
    with pytest.raises(ValueError, match="hiden_size"):
        MiniMind.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["minimind2_dense", "minimind3_dense", "minimind3_moe_top2"])
def test_reference_vectors(shared, name):
    with safe_open(shared / "reference" / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
        config = json.loads(file.metadata()["config"])
    state = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    model = MiniMind.from_minimind(state, config).train()
    ids = tensors["input_ids"]
    out = model(ids)
    torch.testing.assert_close(out.logits, tensors["logits"], atol=1e-5, rtol=0)
    if "aux_loss" in tensors:
        torch.testing.assert_close(out.aux_loss, tensors["aux_loss"].squeeze(), atol=1e-6, rtol=0)
    model.eval()
    cache = KVCache(model.config, len(ids), ids.shape[1])
    parts = [
        model(part, cache=cache).logits for part in ids.split([13] + [1] * 20 + [ids.shape[1] - 33], dim=1)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), tensors["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_published_files(tmp_path, suffix):
    state = minimind3_state()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert torch.equal(MiniMind.from_minimind(path, PUBLISHED)(IDS).logits, random_model()(IDS).logits)
    assert torch.equal(MiniMind.from_minimind(str(path), PUBLISHED)(IDS).logits, random_model()(IDS).logits)


def test_published_extras_are_understood():
    state = minimind3_state()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    state["model.freqs_cos"] = state["freqs_sin"] = torch.zeros(4)
    noise = {"torch_dtype": "float16", "architectures": ["X"], "flash_attn": True, "head_dim": None}
    model = MiniMind.from_minimind(state, PUBLISHED | noise)
    assert torch.equal(model(IDS).logits, random_model()(IDS).logits)
    half = MiniMind.from_minimind({k: v.half() for k, v in state.items()}, PUBLISHED)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    torch.testing.assert_close(half(IDS).logits, model(IDS).logits, atol=0.1, rtol=0)


def test_a_head_that_differs_is_an_error_unless_untied():
    state = minimind3_state()
    state["lm_head.weight"] = state["model.embed_tokens.weight"] + 1
    with pytest.raises(WeightsError, match="lm_head.weight differs"):
        MiniMind.from_minimind(state, PUBLISHED)
    untied = MiniMind.from_minimind(state, PUBLISHED | {"tie_word_embeddings": False})
    assert untied.lm_head is not None


def test_loading_copies():
    state = minimind3_state()
    model = MiniMind.from_minimind(state, PUBLISHED)
    state["model.norm.weight"].zero_()
    assert model.model.norm.weight.abs().sum() > 0


def test_code_in_a_torch_file_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"a": Bomb()}, tmp_path / "bad.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    for name in ("bad.pth", "empty.pth", "other.pth"):
        with pytest.raises(WeightsError):
            MiniMind.from_minimind(tmp_path / name, PUBLISHED)
    with pytest.raises(FileNotFoundError):
        MiniMind.from_minimind(tmp_path / "none.pth", PUBLISHED)


def test_family_defaults():
    two = minimind_config({}, is_minimind3=False)
    assert two == ModelConfig.preset(
        "minimind2-small", num_shared_experts=1, router_aux_loss_coef=0.01, seq_aux=True
    )
    assert minimind_config({}, is_minimind3=True) == ModelConfig.preset(
        "minimind-3", num_experts_per_tok=1, norm_topk_prob=True, router_aux_loss_coef=5e-4
    )
    moe = {"use_moe": True}
    assert minimind_config(moe | {"hidden_size": 640}, False) == ModelConfig.preset("minimind2-moe")
    assert minimind_config(moe, True) == ModelConfig.preset("minimind-3-moe")


def test_older_names_and_router_details():
    published = {"use_moe": True, "n_routed_experts": 6, "n_shared_experts": 2, "aux_loss_alpha": 0.1}
    config = minimind_config(published | {"dim": 64, "n_layers": 3, "num_experts_per_tok": 1}, False)
    assert (config.num_experts, config.num_shared_experts, config.hidden_size) == (6, 2, 64)
    assert config.num_hidden_layers == 3
    assert not config.norm_topk_prob  # MiniMind2 never normalises a single weight
    over_batch = minimind_config(published | {"seq_aux": False}, False)
    assert over_batch.router_aux_loss_coef == pytest.approx(0.05)  # its batch form counts shares of N k


def test_yarn_by_the_published_switch():
    switched = {"inference_rope_scaling": True}
    assert minimind_config(switched, True).rope_scaling == RopeScaling()
    assert minimind_config({"inference_rope_scaling": False}, True).rope_scaling is None
    state = minimind3_state()
    plain = MiniMind.from_minimind(state, PUBLISHED | {"max_position_embeddings": 4096})
    yarn = MiniMind.from_minimind(state, PUBLISHED | switched | {"max_position_embeddings": 4096})
    short = MiniMind.from_minimind(state, PUBLISHED | switched)
    assert not torch.equal(yarn.model.cos, plain.model.cos)
    assert torch.equal(short.model.cos, plain.model.cos[:128])


@pytest.mark.parametrize("wrong", [{"hidden_act": "gelu"}, {"scoring_func": "sigmoid", "use_moe": True}])
def test_unsupported_published_features_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MiniMind.from_minimind(minimind3_state(), PUBLISHED | wrong)


def test_weights_that_do_not_fit_the_config_are_named():
    with pytest.raises(WeightsError, match=r"missing: model\.layers\.2\.self_attn\.q_proj\.weight"):
        MiniMind.from_minimind(minimind3_state(), PUBLISHED | {"num_hidden_layers": 3})
    with pytest.raises(WeightsError, match="experts"):
        MiniMind.from_minimind(minimind3_state(), PUBLISHED | {"use_moe": True})


def test_published_names_old_and_new():
    """A new name wins over the old one, in any order; a published YaRN is taken as it is."""
    from minimind_edu.model.weights import minimind_config

    for order in (1, -1):
        pairs = [("max_position_embeddings", 4096), ("max_seq_len", 512)][::order]
        assert minimind_config(dict(pairs), is_minimind3=False).max_position_embeddings == 4096
    yarn = {"factor": 4, "beta_fast": 4, "beta_slow": 1, "type": "yarn"}
    given = minimind_config({"inference_rope_scaling": True, "rope_scaling": yarn}, is_minimind3=True)
    assert (given.rope_scaling.factor, given.rope_scaling.beta_fast) == (4, 4)
    assert given.rope_scaling.original_max_position_embeddings == 2048
