"""The exercises of chapter 6 agree with the package, and unforeseen wrong answers get a hint that fits."""

import torch
from torch import nn

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch06 import lora_linear, rank_needed
from minimind_edu.course.exercises.ch06_targets import largest_rank, matching
from minimind_edu.course.exercises.checking import PASSED, examine
from minimind_edu.stages.lora import apply_lora, count_trainable, target_layers

SHAPE = ModelConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64)


def test_the_layer_is_the_packages():
    torch.manual_seed(0)
    base, x = nn.Linear(6, 4, bias=False), torch.randn(5, 6)
    weight = base.weight.detach().clone()
    layer = apply_lora(nn.ModuleDict({"q": base}), rank=3, alpha=7, targets="q")["q"]
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    b.data.normal_()
    torch.testing.assert_close(lora_linear(x, weight, a, b, 7.0), layer(x))


def test_matching_is_the_packages():
    model = MiniMind(SHAPE)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for targets in (["q_proj"], ["1.mlp.up_proj", "o_proj"], ["self_attn.v_proj"]):
        assert matching(names, targets) == (list(target_layers(model, targets)), [])
    assert matching(names, ["proj"]) == ([], ["proj"])


def test_the_largest_rank_is_just_within():
    model = MiniMind(SHAPE)
    total = model.num_parameters()
    shapes = [tuple(layer.weight.shape) for layer in target_layers(model, ["v_proj"]).values()]
    rank = largest_rank(shapes, total, 0.02)
    assert count_trainable(apply_lora(model, rank=rank, targets="v_proj"))[0] <= 0.02 * total
    more = apply_lora(MiniMind(SHAPE), rank=rank + 1, targets="v_proj")
    assert count_trainable(more)[0] > 0.02 * total


def test_the_rank_by_hand():
    assert rank_needed(torch.diag(torch.tensor([3.0, 4.0])), 0.6) == 1  # 16 of 25
    assert rank_needed(torch.diag(torch.tensor([3.0, 4.0])), 0.7) == 2


def test_other_ways_that_are_right_pass():
    def as_one_matrix(x, weight, a, b, alpha):
        return torch.nn.functional.linear(x, weight + alpha / len(a) * b @ a)

    def by_loop(update, share):
        values = torch.linalg.svdvals(update).square()
        rank = 1
        while values[:rank].sum() < share * values.sum():
            rank += 1
        return rank

    for seed in range(5):
        assert examine(exercise("ch06.lora_linear"), as_one_matrix, seed) == PASSED
        assert examine(exercise("ch06.rank_needed"), by_loop, seed) == PASSED


def test_unforeseen_answers_get_a_hint_that_fits():
    layer, rank = exercise("ch06.lora_linear"), exercise("ch06.rank_needed")
    assert "out" in examine(layer, lambda x, w, a, b, alpha: (x @ w.T).sum(-1), 0)
    assert "B = 0" in examine(layer, lambda x, w, a, b, alpha: 2 * lora_linear(x, w, a, b, alpha), 0)
    assert "alpha" in examine(layer, lambda x, w, a, b, alpha: lora_linear(x, w, a, b, alpha**2), 0)
    assert "whole number" in examine(rank, lambda u, s: float(rank_needed(u, s)) + 1.5, 0)
    names, size = exercise("ch06.matching"), exercise("ch06.largest_rank")
    assert "two lists" in examine(names, lambda n, t: n, 0)
    assert "within the share" in examine(size, lambda s, t, share: 1, 0)
