"""LoRA: merged into the weights and taken out again, and several adapters in one model."""

import pytest
import torch
from lora_models import MOE, adapted, logits, make, state
from torch import nn

from minimind_edu import MiniMind
from minimind_edu.model.weights import WeightsError
from minimind_edu.stages.lora import (
    active_adapter,
    adapter_names,
    apply_lora,
    lora_parameters,
    merge_lora,
    remove_lora,
    set_adapter,
    unmerge_lora,
)
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import OptimizerSet

# --- merging ---


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "qk_norm": False}, MOE])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_merged_equals_unmerged(changes, targets):
    model = adapted(make(**changes), targets=targets, rank=4, alpha=8)
    before, apart = state(model), logits(model)
    assert (apart - logits(make(**changes))).abs().max() > 1e-2
    merge_lora(model)
    assert (logits(model) - apart).abs().max() <= 1e-5 * apart.abs().max()
    assert not torch.equal(model.state_dict()["model.layers.0.self_attn.q_proj.weight"],
                           before["model.layers.0.self_attn.q_proj.weight"])  # fmt: skip
    unmerge_lora(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), apart)


def test_merged_equals_unmerged_to_1e_6_in_a_layer():
    torch.manual_seed(3)
    base, x = nn.Linear(64, 48, bias=False), torch.randn(100, 64)
    model = adapted(nn.ModuleDict({"q_proj": base}), targets="q_proj")
    apart = model["q_proj"](x)
    merge_lora(model)
    merged = model["q_proj"](x)
    assert (merged - apart).norm() <= 1e-6 * apart.norm()


@pytest.mark.parametrize("merged_before", [False, True])
@pytest.mark.parametrize("merge", [False, True])
def test_removed_is_a_plain_model(tmp_path, merge, merged_before):
    model = adapted(make(), targets="all-linear", dropout=0.1)
    base, apart = logits(make()), logits(model)
    if merged_before:
        merge_lora(model)
    remove_lora(model, merge=merge)
    assert (logits(model) - (apart if merge else base)).abs().max() < 1e-5
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(MiniMind.from_pretrained(tmp_path)), logits(model))


def test_removing_with_no_adapter_active_gives_the_base():
    model = set_adapter(adapted(make()), None)
    assert torch.equal(logits(remove_lora(model)), logits(make()))


def test_what_cannot_be_done_while_merged():
    model = merge_lora(adapted(make()))
    for forbidden in (
        lambda: merge_lora(model),
        lambda: set_adapter(model, None),
        lambda: apply_lora(model, name="second"),
    ):
        with pytest.raises(ValueError, match=r"merged into the weights: unmerge_lora\(model\) first"):
            forbidden()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="nothing to train"):
        OptimizerSet(model, TrainConfig())
    unmerge_lora(model)
    assert all(parameter.requires_grad for parameter in lora_parameters(model).values())


def test_nothing_to_merge_unmerge_remove():
    model = adapted(make())
    with pytest.raises(ValueError, match="no adapter is merged"):
        unmerge_lora(model)
    with pytest.raises(ValueError, match="no adapter is active; there are: default"):
        merge_lora(set_adapter(model, None))
    for function in (remove_lora, merge_lora):
        with pytest.raises(ValueError, match="no adapter"):
            function(make())


def test_merging_in_training_with_dropout_is_refused():
    model = adapted(make(), dropout=0.1).train()
    with pytest.raises(ValueError, match=r"model.eval\(\) first"):
        merge_lora(model)
    merge_lora(model.eval())
    merge_lora(adapted(make()).train())  # without dropout there is nothing to lose


# --- several adapters ---


def test_several_adapters_switched_by_name():
    model = adapted(make(), name="one", targets="v_proj", rank=2)
    one = logits(model)
    adapted(model, seed=5, name="two", targets=("q_proj", "up_proj"), rank=3, alpha=1)
    two = logits(model)
    assert set(adapter_names(model)) == {"one", "two"} and active_adapter(model) == "two"
    alone = adapted(make(), seed=5, targets=("q_proj", "up_proj"), rank=3, alpha=1)
    assert torch.equal(two, logits(alone))
    for name, right in (("one", one), (None, logits(make())), ("two", two), ("one", one)):
        set_adapter(model, name)
        assert torch.equal(logits(model), right)
        trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trainable == {n for n in state(model) if name and n.endswith(f".{name}")}
    merge_lora(model)
    assert (logits(model) - one).abs().max() < 1e-5
    set_adapter(unmerge_lora(model), "two")
    assert torch.equal(logits(model), two)


def test_a_name_twice_and_an_unknown_name():
    model = apply_lora(make(), name="clinic")
    with pytest.raises(ValueError, match="has an adapter called 'clinic' already"):
        apply_lora(model, name="clinic", targets="up_proj")
    with pytest.raises(ValueError, match="no adapter is called 'x'; there are: clinic"):
        set_adapter(model, "x")
    with pytest.raises(ValueError, match="there are: none"):
        set_adapter(make(), "x")


# --- saving ---


def test_a_model_with_adapters_is_not_saved_as_a_model(tmp_path):
    for model in (adapted(make()), merge_lora(adapted(make()))):
        with pytest.raises(WeightsError, match=r"remove_lora\(model\)"):
            model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
