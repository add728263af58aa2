"""Which parameters get which update, and an optimizer's memory on its way to the disk and back."""

import math

import pytest
import torch
from torch import nn
from toys import settings, tiny_model

from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import OptimizerSet, learning_rate_at, parameter_groups

MOE = {"use_moe": True, "num_experts": 3, "num_shared_experts": 1}
SHAPES = [{}, MOE, {"tie_word_embeddings": False}, {"attention_bias": True, "qk_norm": False}]


def names_of(model, parameters):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return sorted(names[parameter] for parameter in parameters)


def take_steps(model, optimizers, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        ids = torch.randint(0, 19, (2, 9), generator=generator)
        model(ids, labels=ids).loss.backward()
        for optimizer in optimizers.optimizers:
            optimizer.step()
        optimizers.zero_grad()


# --- groups ---


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("shape", SHAPES)
def test_only_matrices_inside_the_layers_decay(tmp_path, shape, optimizer):
    model = tiny_model(**shape)
    optimizers = OptimizerSet(model, settings(tmp_path, weight_decay=0.3, optimizer=optimizer))
    groups = [group for one in optimizers.optimizers for group in one.param_groups]
    decayed = names_of(model, [p for g in groups if g["weight_decay"] == 0.3 for p in g["params"]])
    others = names_of(model, [p for g in groups if g["weight_decay"] == 0.0 for p in g["params"]])
    assert sorted(decayed + others) == sorted(name for name, _ in model.named_parameters())
    assert all("_proj.weight" in name for name in decayed)
    for name in others:
        assert any(part in name for part in ("norm", "bias", "embed_tokens", "lm_head", "mlp.gate."))


@pytest.mark.parametrize("shape", SHAPES)
def test_muon_gets_matrices_inside_the_layers_only(tmp_path, shape):
    model = tiny_model(**shape)
    muon, adamw = OptimizerSet(model, settings(tmp_path, optimizer="muon")).optimizers
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    names = names_of(model, [p for group in muon.param_groups for p in group["params"]])
    assert names and all("layers." in name and "_proj.weight" in name for name in names)
    assert all(p.ndim == 2 for group in muon.param_groups for p in group["params"])


def test_a_tied_head_is_trained_once():
    groups = parameter_groups(tiny_model())
    assert [name for name, _ in groups["table"]] == ["model.embed_tokens.weight"]
    groups = parameter_groups(tiny_model(tie_word_embeddings=False))
    assert len(groups["table"]) == 2


def test_stacked_experts_of_a_library_stay_with_adamw(tmp_path):
    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.Parameter(torch.randn(3, 4, 4))
            self.layer = nn.Linear(4, 4)

    model = Stacked()
    muon, adamw = OptimizerSet(model, settings(tmp_path, optimizer="muon", weight_decay=0.2)).optimizers
    assert names_of(model, muon.param_groups[0]["params"]) == ["layer.weight"]
    assert names_of(model, adamw.param_groups[0]["params"]) == ["experts"]
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.2, 0.0]


@pytest.mark.parametrize(("optimizer", "count"), [("adamw", 1), ("muon", 1)])
def test_frozen_parameters_are_left_out(tmp_path, optimizer, count):
    """As with LoRA: two small matrices are trained, everything else is frozen."""
    model = tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "q_proj" in name or "v_proj" in name
    optimizers = OptimizerSet(model, settings(tmp_path, optimizer=optimizer))
    assert len(optimizers.optimizers) == count
    assert all("q_proj" in n or "v_proj" in n for n in names_of(model, optimizers.parameters()))
    assert len(optimizers.parameters()) == 2


def test_nothing_to_train(tmp_path):
    model = tiny_model().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        OptimizerSet(model, settings(tmp_path))


def test_vectors_alone_can_be_trained_with_muon_asked_for(tmp_path):
    model = tiny_model()
    for parameter in model.parameters():
        parameter.requires_grad = parameter.ndim == 1
    (only,) = OptimizerSet(model, settings(tmp_path, optimizer="muon")).optimizers
    assert isinstance(only, torch.optim.AdamW)


def test_the_learning_rate_reaches_every_group(tmp_path):
    optimizers = OptimizerSet(tiny_model(), settings(tmp_path, optimizer="muon"))
    optimizers.set_learning_rate(0.123)
    assert {group["lr"] for one in optimizers.optimizers for group in one.param_groups} == {0.123}


# --- state ---


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("shape", SHAPES)
def test_state_goes_there_and_back(tmp_path, shape, optimizer):
    """After the round trip both take the same further steps, bit for bit."""
    config = settings(tmp_path, optimizer=optimizer)
    model = tiny_model(**shape)
    optimizers = OptimizerSet(model, config)
    take_steps(model, optimizers, 3)
    state = {name: tensor.clone() for name, tensor in optimizers.state_tensors().items()}
    twin = tiny_model(seed=8, **shape)
    twin.load_state_dict(model.state_dict())
    twins = OptimizerSet(twin, config)
    twins.load_state_tensors(state)
    assert all(torch.equal(tensor, twins.state_tensors()[name]) for name, tensor in state.items())
    take_steps(model, optimizers, 2, seed=1)
    take_steps(twin, twins, 2, seed=1)
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    unused = {name: tensor for name, tensor in state.items() if tensor.numel() > 1}
    assert not any(torch.equal(tensor, optimizers.state_tensors()[name]) for name, tensor in unused.items())


def test_a_loaded_state_is_a_copy(tmp_path):
    model = tiny_model()
    optimizers = OptimizerSet(model, settings(tmp_path))
    take_steps(model, optimizers, 1)
    state = {name: tensor.clone() for name, tensor in optimizers.state_tensors().items()}
    kept = {name: tensor.clone() for name, tensor in state.items()}
    optimizers.load_state_tensors(state)
    take_steps(model, optimizers, 1)
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_state_of_an_unknown_parameter(tmp_path):
    optimizers = OptimizerSet(tiny_model(), settings(tmp_path))
    with pytest.raises(KeyError, match="unknown parameters: model.layers.7.x"):
        optimizers.load_state_tensors({"model.layers.7.x::exp_avg": torch.zeros(2)})


# --- schedules ---


def rates(**changes):
    config = TrainConfig(learning_rate=1.0, **changes)
    return [learning_rate_at(step, 10, config) for step in range(10)]


def test_cosine_by_hand():
    found = rates(warmup_iters=3, lr_schedule="cosine", min_lr_ratio=0.1)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    expected = [0.1 + 0.45 * (1 + math.cos(math.pi * done / 7)) for done in range(7)]
    assert found[3:] == pytest.approx(expected)
    assert learning_rate_at(10, 10, TrainConfig(learning_rate=1.0, warmup_iters=3)) == pytest.approx(0.1)
    assert rates(warmup_iters=0, min_lr_ratio=0.0)[5] == pytest.approx(0.5)


def test_warmup_stable_decay_by_hand():
    found = rates(warmup_iters=1, lr_schedule="wsd", min_lr_ratio=0.0)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 1, 0.5])
    assert rates(warmup_iters=0, lr_schedule="wsd", min_lr_ratio=0.2)[-1] == pytest.approx(0.6)


def test_constant_and_a_warmup_longer_than_the_run():
    assert rates(warmup_iters=1, lr_schedule="constant") == pytest.approx([0.5] + [1.0] * 9)
    assert rates(warmup_iters=19) == pytest.approx([(step + 1) / 20 for step in range(10)])
