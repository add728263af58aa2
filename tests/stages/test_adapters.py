"""Adapters on disk: equal to peft's in both directions, and nothing is loaded in part."""

import json

import peft
import pytest
import torch
from lora_models import IDS, MOE, make
from safetensors.torch import load_file, save_file
from torch import nn

from minimind_edu import MiniMind
from minimind_edu.stages.adapters import CONFIG, WEIGHTS, AdapterError
from minimind_edu.stages.lora import apply_lora, load_adapter, lora_parameters, save_adapter, set_adapter
from minimind_edu.stages.setup import load_model

SETTINGS = [
    {"rank": 8, "alpha": 16, "targets": ("q_proj", "v_proj")},
    {"rank": 1, "alpha": 0.5, "targets": ("k_proj", "o_proj", "down_proj")},
    {"rank": 5, "alpha": 32, "targets": ("layers.1.mlp.up_proj",)},
    {"rank": 3, "alpha": 7, "targets": "all-linear"},
    {"rank": 2, "alpha": 4, "targets": ("v_proj",), "tokens": (7, 3, 59)},
]
SHAPES = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "qwen2": {"qk_norm": False, "attention_bias": True, "head_dim": None},
    "untied": {"tie_word_embeddings": False},
}


def peft_model(model, rank, alpha, targets, dropout=0.0, tokens=()):
    names = targets if isinstance(targets, str) else list(targets)
    rows = list(tokens) or None
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=dropout, trainable_token_indices=rows
    )
    return peft.get_peft_model(model.to_transformers(), settings)


def short(name):
    name = name.replace("token_adapter.trainable_tokens_delta", "lora_rows").replace(".default", "")
    return name.removeprefix("base_model.model.").removesuffix(".weight")


def theirs(wrapped):
    """The parameters of a peft model's adapter by our names."""
    return {short(n): p for n, p in wrapped.named_parameters() if "lora_" in n or "tokens_delta" in n}


def randomise(parameters, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(parameters):
        parameters[name].data.copy_(0.1 * torch.randn(parameters[name].shape, generator=generator))


def close(ours, other, tolerance=1e-5):
    return bool((ours - other).norm() <= tolerance * other.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_outputs_and_gradients_equal_pefts(shape, settings):
    model = make(**SHAPES[shape])
    wrapped = peft_model(model, **settings)
    apply_lora(model, **settings)
    ours, other = lora_parameters(model), theirs(wrapped)
    assert ours.keys() == other.keys()
    randomise(ours)
    randomise(other)
    out, right = model(IDS, labels=IDS), wrapped(IDS, labels=IDS)
    assert close(out.logits, right.logits)
    out.loss.backward()
    right.loss.backward()
    for name, parameter in ours.items():
        assert close(parameter.grad, other[name].grad), name
    trained = {short(name) for name, p in wrapped.named_parameters() if p.requires_grad}
    assert trained == set(ours)


def test_the_same_start_as_pefts():
    model = make()
    wrapped = peft_model(model, 8, 16, ("up_proj",))
    torch.manual_seed(3)
    apply_lora(model, targets="up_proj")
    a = torch.cat([p.flatten() for n, p in lora_parameters(model).items() if "lora_A" in n])
    other = torch.cat([p.flatten() for n, p in theirs(wrapped).items() if "lora_A" in n])
    assert abs(a.std() / other.std() - 1) < 0.1 and abs(a.abs().max() / other.abs().max() - 1) < 0.05
    assert not any(p.any() for n, p in theirs(wrapped).items() if "lora_B" in n)


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_adapter_saved_here_loads_in_peft(tmp_path, settings):
    model = make()
    hf = model.to_transformers()
    apply_lora(model, **settings, name="clinic", dropout=0.25)
    randomise(lora_parameters(model))
    save_adapter(model, tmp_path, "clinic")
    loaded = peft.PeftModel.from_pretrained(hf, tmp_path)
    with torch.no_grad():
        assert close(loaded(IDS).logits, model(IDS).logits)
        if "tokens" not in settings:  # for rows, peft asks the model for its embedding in transformers' way
            assert close(peft.PeftModel.from_pretrained(make(), tmp_path)(IDS).logits, model(IDS).logits)
        assert not close(model(IDS).logits, make()(IDS).logits, 1e-2)
    config = loaded.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (settings["rank"], settings["alpha"], 0.25)
    assert len(theirs(loaded)) == len(lora_parameters(model))


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_adapter_saved_by_peft_loads_here(tmp_path, settings):
    wrapped = peft_model(make(), **settings, dropout=0.125).eval()
    randomise(theirs(wrapped))
    wrapped.save_pretrained(tmp_path)
    model = make()
    before = torch.get_rng_state()
    load_adapter(model, tmp_path, name="theirs")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert close(model(IDS).logits, wrapped(IDS).logits)
    layer = next(m for m in model.modules() if hasattr(m, "settings"))
    assert layer.settings["theirs"].dropout == 0.125 and layer.active == "theirs"


def test_moe_attention_goes_both_ways_and_experts_come_back_here(tmp_path):
    model = make(**MOE)
    hf = model.to_transformers()
    apply_lora(model, targets=("q_proj", "o_proj"))
    randomise(lora_parameters(model))
    save_adapter(model, tmp_path / "attention")
    with torch.no_grad():
        loaded = peft.PeftModel.from_pretrained(hf, tmp_path / "attention")
        assert close(loaded(IDS).logits, model(IDS).logits)
        apply_lora(model, targets="all-linear", rank=2, name="all")
        randomise(lora_parameters(model))
        save_adapter(model, tmp_path / "all", "all")
        again = load_adapter(make(**MOE), tmp_path / "all")
        assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_two_adapters_from_two_folders(tmp_path):
    model = make()
    for name in ("one", "two"):
        apply_lora(model, rank=2, name=name)
        randomise(lora_parameters(model), seed=len(name) + ord(name[0]))
        save_adapter(model, tmp_path / name, name)
    again = load_adapter(load_adapter(make(), tmp_path / "one", "one"), tmp_path / "two", "two")
    for name in ("two", "one"):
        assert torch.equal(set_adapter(again, name)(IDS).logits, set_adapter(model, name)(IDS).logits)
    assert not torch.equal(set_adapter(again, "one")(IDS).logits, set_adapter(again, "two")(IDS).logits)


def test_the_file_has_pefts_keys(tmp_path):
    save_adapter(apply_lora(make(), rank=2, targets="layers.0.self_attn.v_proj"), tmp_path)
    start = "base_model.model.model.layers.0.self_attn.v_proj"
    assert set(load_file(tmp_path / WEIGHTS)) == {f"{start}.lora_A.weight", f"{start}.lora_B.weight"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


@pytest.fixture
def folder(tmp_path):
    """A good adapter, to be spoiled."""
    save_adapter(apply_lora(make(), rank=2), tmp_path / "adapter")
    return tmp_path / "adapter"


def rewrite(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"layers_to_transform": [0]},
        {"exclude_modules": ["o_proj"]},
        {"target_parameters": ["experts.down_proj"]},
        {"trainable_token_indices": {"lm_head": [1]}},
        {"init_lora_weights": "pissa"},
        {"target_modules": ".*_proj"},
        {"peft_type": "IA3"},
        {"lora_bias": True},
        {"a_feature_of_tomorrow": 3},
    ],
)
def test_features_that_we_do_not_have_are_refused_by_name(folder, changes):
    rewrite(folder, **changes)
    with pytest.raises(AdapterError, match=next(iter(changes))):
        load_adapter(make(), folder)


def test_the_default_config_of_peft_is_accepted(folder):
    # Every setting that peft writes, at its default.
    peft.LoraConfig(r=2, lora_alpha=16, target_modules=["q_proj", "v_proj"]).save_pretrained(folder)
    assert len(lora_parameters(load_adapter(make(), folder))) == 8


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"r": 3}, "misshapen: model.layers.0.self_attn.q_proj.lora_A has shape"),
        ({"r": "two"}, "rank must be"),
        ({"lora_alpha": None}, CONFIG),
        ({"target_modules": ["q_proj"]}, "unexpected: model.layers.0.self_attn.v_proj.lora_A"),
        (
            {"target_modules": ["q_proj", "v_proj", "k_proj"]},
            "missing: model.layers.0.self_attn.k_proj.lora_A",
        ),
        ({"target_modules": ["c_attn"]}, "no linear layer is called 'c_attn'"),
        ({"target_modules": None}, CONFIG),
        ({"trainable_token_indices": [4]}, "missing: model.embed_tokens.lora_rows"),
        ({"trainable_token_indices": [60]}, "token 60 is outside the vocabulary of 60"),
        ({"trainable_token_indices": [4, 4]}, "different ids"),
    ],
)
def test_an_adapter_that_does_not_fit_changes_nothing(folder, changes, message):
    rewrite(folder, **changes)
    model = make()
    before = list(model.state_dict())
    with pytest.raises(AdapterError, match=message):
        load_adapter(model, folder)
    assert list(model.state_dict()) == before


def test_an_adapter_for_a_wider_model(folder):
    with pytest.raises(
        AdapterError, match=r"made for another model.*has shape \(2, 32\), expected \(2, 64\)"
    ):
        load_adapter(make(hidden_size=64), folder)


def test_damaged_files(folder, tmp_path):
    (folder / CONFIG).write_text("{")
    with pytest.raises(AdapterError, match="cannot be read"):
        load_adapter(make(), folder)
    (folder / CONFIG).write_text("[]")
    with pytest.raises(AdapterError, match="not an object"):
        load_adapter(make(), folder)
    (folder / CONFIG).write_text("{}")
    with pytest.raises(AdapterError, match="peft_type=None"):
        load_adapter(make(), folder)
    (folder / CONFIG).write_text('{"peft_type": "LORA"}')
    with pytest.raises(AdapterError, match="lacks 'r'"):
        load_adapter(make(), folder)
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(AdapterError, match="cannot be read"):
        load_adapter(make(), folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match=f"{WEIGHTS} is not there"):
        load_adapter(make(), folder)
    with pytest.raises(AdapterError, match="holds no adapter"):
        load_adapter(make(), tmp_path / "nowhere")


def test_tensors_that_are_not_an_adapters(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, folder / WEIGHTS)
    with pytest.raises(AdapterError, match=r"unexpected: base_model\.model\.lm_head\.weight"):
        load_adapter(make(), folder)


def test_an_adapter_is_no_base_model(folder):
    """Fault 3: with `strict=False` such a file loads, and leaves the model random."""
    with pytest.raises(ValueError, match="no model here"):
        load_model(folder)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        MiniMind.from_pretrained(folder)
    published = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 60}
    with pytest.raises(ValueError, match=r"missing: model\.embed_tokens\.weight.*unexpected: base_model"):
        MiniMind.from_minimind(folder / WEIGHTS, published)


def test_saving_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no adapter is called 'default'; there are: none"):
        save_adapter(make(), tmp_path)
    with pytest.raises(ValueError, match="there are: clinic"):
        save_adapter(apply_lora(make(), name="clinic"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_module_that_is_no_minimind(tmp_path):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    model = apply_lora(net(), targets=("0", "2"), rank=2)
    randomise(lora_parameters(model))
    save_adapter(model, tmp_path)
    x = torch.randn(5, 4)
    assert torch.equal(load_adapter(net(), tmp_path)(x), model(x))
    wrapped = peft.PeftModel.from_pretrained(net(), tmp_path)
    assert close(wrapped(x), model(x))
