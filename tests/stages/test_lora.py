"""LoRA: the method on random layers and models, and rows of the embedding."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lora_models import IDS, MOE, adapted, logits, make, state
from torch import nn

from minimind_edu import MiniMind
from minimind_edu.stages.lora import (
    LoRALinear,
    apply_lora,
    count_trainable,
    lora_parameters,
    merge_lora,
    remove_lora,
    set_adapter,
    unmerge_lora,
    untrained_tokens,
)
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import OptimizerSet

# --- one layer ---


@pytest.mark.parametrize("rank, alpha, bias", [(1, 1.0, False), (3, 16.0, True), (8, 4.0, False)])
def test_a_layer_is_the_base_plus_the_scaled_product(rank, alpha, bias):
    torch.manual_seed(rank)
    base = nn.Linear(10, 6, bias=bias)
    weight, x = base.weight.clone(), torch.randn(4, 5, 10, requires_grad=True)
    model = adapted(nn.ModuleDict({"q_proj": base}), rank=rank, alpha=alpha, targets="q_proj")
    layer = model["q_proj"]
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    assert a.shape == (rank, 10) and b.shape == (6, rank)
    right = F.linear(x, weight + b @ a * (alpha / rank), base.bias)
    assert torch.allclose(layer(x), right, atol=1e-6)
    grads = torch.autograd.grad(right.square().sum(), (x, a, b))
    ours = torch.autograd.grad(layer(x).square().sum(), (x, a, b))
    for mine, torchs in zip(ours, grads, strict=True):
        assert (mine - torchs).norm() <= 1e-5 * torchs.norm()


def test_the_start_of_a_new_adapter():
    model = make()
    before = logits(model)
    apply_lora(model, rank=4)
    assert torch.equal(logits(model), before)
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            assert not parameter.any()
        else:  # kaiming_uniform_(a=sqrt 5): uniform within 1 / sqrt(inputs)
            bound = 1 / math.sqrt(parameter.shape[1])
            assert 0.8 * bound < parameter.abs().max() <= bound
            assert abs(float(parameter.detach().mean())) < 0.3 * bound


def test_dropout_is_on_the_adapters_input_only_and_only_in_training():
    model = adapted(make(), dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    same = copy.deepcopy(model)
    for layer in same.modules():
        if isinstance(layer, LoRALinear):
            layer.settings = {"default": copy.copy(layer.settings["default"])}
            object.__setattr__(layer.settings["default"], "dropout", 0.0)
    assert torch.equal(logits(model), logits(same))
    model.train()
    layer, x = model.get_submodule("model.layers.0.self_attn.q_proj"), torch.ones(2000, 32)
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    draws = (layer(x) - F.linear(x, layer.weight)).mean(dim=0)
    assert not torch.equal(layer(x[:1]), layer(x[:1]))
    assert torch.allclose(draws, (b @ a * 2).sum(dim=1), atol=0.1)  # kept inputs are scaled up to make up


# --- a model ---


def test_only_a_and_b_are_trained():
    model = adapted(make(), rank=2).train()
    before = state(model)
    optimizers = OptimizerSet(model, TrainConfig(learning_rate=0.01, weight_decay=0.0))
    loss = causal_lm_loss(model, {"input_ids": IDS, "labels": IDS, "document_ids": torch.zeros_like(IDS)})[0]
    loss.backward()
    assert all((p.grad is not None) == (".lora_" in name) for name, p in model.named_parameters())
    optimizers.optimizers[0].step()
    assert {key.split("::")[0] for key in optimizers.state_tensors()} == {
        name for name in before if ".lora_" in name
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".lora_" not in name)


def test_counting_by_hand():
    # q_proj is 32 -> 4 heads of 8, v_proj is 32 -> 2 heads of 8; a rank costs inputs + outputs.
    model = make()
    sizes, total = (32 + 32) + (32 + 16), model.num_parameters()
    assert count_trainable(model) == (total, total)
    apply_lora(model, rank=3)
    assert count_trainable(model) == (3 * sizes * 2, total + 3 * sizes * 2)
    assert sum(p.numel() for p in lora_parameters(model).values()) == 3 * sizes * 2


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "q_proj, v_proj", ["v_proj", "q_proj", "q_proj"]])
def test_targets_by_name(targets):
    model = apply_lora(make(), targets=targets)
    names = {name for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    assert names == {f"model.layers.{n}.self_attn.{part}_proj" for n in (0, 1) for part in "qv"}


def test_a_target_is_a_whole_name_or_its_end():
    model = apply_lora(make(), targets="layers.1.self_attn.q_proj")
    assert list(lora_parameters(model))[0] == "model.layers.1.self_attn.q_proj.lora_A"
    assert len(lora_parameters(model)) == 2
    with pytest.raises(ValueError, match="no linear layer is called 'proj'"):
        apply_lora(make(), targets="proj")


@pytest.mark.parametrize("targets", ["c_attn", ("q_proj", "w_q"), "embed_tokens", "self_attn"])
def test_a_target_that_matches_nothing_names_those_there_are(targets):
    model = make()
    before = state(model)
    with pytest.raises(
        ValueError, match="there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_"
    ):
        apply_lora(model, targets=targets)
    assert state(model).keys() == before.keys() and all(p.requires_grad for p in model.parameters())


def test_the_choice_by_square_shape_can_hit_nothing_and_names_cannot():
    """Fault 2: square matrices only. Here the heads are wider than the model, so none is square."""
    model = make(head_dim=16, num_key_value_heads=4)
    square = [m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features == m.out_features]
    assert square == []
    assert count_trainable(apply_lora(model))[0] > 0


def test_all_linear_leaves_out_head_and_router():
    model = apply_lora(make(tie_word_embeddings=False, **MOE), targets="all-linear")
    plain = {
        n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not isinstance(m, LoRALinear)
    }
    assert plain == {"lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"}
    assert "model.layers.0.mlp.experts.2.down_proj.lora_B" in lora_parameters(model)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rank": 0}, "rank must be"),
        ({"rank": 2.5}, "rank must be"),
        ({"alpha": 0.0}, "alpha must be"),
        ({"alpha": math.nan}, "alpha must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"targets": ()}, "no target"),
        ({"targets": ""}, "no target"),
        ({"targets": "all-linear,q_proj"}, "stands alone"),
        ({"name": "a.b"}, "cannot be an adapter's name"),
        ({"name": "keys"}, "cannot be an adapter's name"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        apply_lora(make(), **settings)


# --- rows of the embedding ---


def test_rows_replace_those_of_the_embedding():
    model = apply_lora(make(), tokens=(5, 9))
    rows = lora_parameters(model)["model.embed_tokens.lora_rows"]
    base = make()
    assert rows.shape == (2, 32) and torch.equal(logits(model), logits(base))
    assert torch.equal(rows, base.model.embed_tokens.weight[[5, 9]])
    with torch.no_grad():
        rows += torch.randn(2, 32)
        base.model.embed_tokens.weight[[5, 9]] = rows
    assert torch.equal(logits(model), logits(base))  # tied: at the input and at the output
    assert not torch.equal(logits(set_adapter(model, None)), logits(base))
    assert torch.equal(logits(model), logits(make()))


def test_only_the_chosen_rows_are_trained():
    model = apply_lora(make(), rank=1, targets="v_proj", tokens=(5, 9))
    assert count_trainable(model)[0] == 2 * (32 + 16) + 2 * 32
    before = state(model)
    optimizers = OptimizerSet(model.train(), TrainConfig(learning_rate=0.01))
    model(IDS, labels=IDS).loss.backward()
    optimizers.optimizers[0].step()
    for name, tensor in model.state_dict().items():
        moved = ".lora_B" in name or ".lora_rows" in name  # A waits until B is no longer zero
        assert torch.equal(tensor, before[name]) != moved or ".lora_A" in name


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("untied", [False, True])
def test_rows_are_removed_like_the_rest(tmp_path, merge, untied):
    model = adapted(make(tie_word_embeddings=not untied), tokens=(5, 9))
    with torch.no_grad():
        lora_parameters(model)["model.embed_tokens.lora_rows"].mul_(3)
    apart, base = logits(model), logits(make(tie_word_embeddings=not untied))
    merge_lora(model)
    assert (logits(model) - apart).abs().max() < 1e-5
    assert torch.equal(logits(unmerge_lora(model)), apart)
    remove_lora(model, merge=merge)
    assert (logits(model) - (apart if merge else base)).abs().max() < 1e-5
    assert type(model.model.embed_tokens) is nn.Embedding
    assert model.state_dict().keys() == make(tie_word_embeddings=not untied).state_dict().keys()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(MiniMind.from_pretrained(tmp_path)), logits(model))


def test_two_adapters_with_rows_of_their_own():
    model = apply_lora(make(), name="one", tokens=(5, 9))
    with torch.no_grad():
        lora_parameters(model)["model.embed_tokens.lora_rows"].mul_(3)
    one = logits(model)
    apply_lora(model, name="two", tokens=(1,))
    assert torch.equal(logits(model), logits(make()))
    assert torch.equal(logits(set_adapter(model, "one")), one)


def test_tokens_that_cannot_be():
    for tokens, message in (((60,), "outside the vocabulary"), ((1, 1), "different"), ((-1,), "different")):
        with pytest.raises(ValueError, match=message):
            apply_lora(make(), tokens=tokens)
    with pytest.raises(ValueError, match="this one has 0"):
        apply_lora(nn.ModuleDict({"q_proj": nn.Linear(2, 2)}), targets="q_proj", tokens=(1,))


def test_untrained_tokens_are_those_with_a_twin():
    model = make()
    with torch.no_grad():
        rows = model.model.embed_tokens.weight
        rows[40] = 2 * rows[7] + 0.001  # the same direction
        rows[41] = -rows[8]
    assert untrained_tokens(model, range(60)) == [7, 40]
    assert untrained_tokens(model, [40, 40, 3]) == [40]
    assert untrained_tokens(model, range(60), cosine=1.01) == [] == untrained_tokens(make(), range(60))


def test_autocast():
    model = adapted(make(), targets="all-linear").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(IDS, labels=IDS)
    out.loss.backward()
    model.eval()
    assert abs((out.loss - model(IDS, labels=IDS).loss).item()) < 0.05
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in lora_parameters(model).values())
