"""The exercises of chapter 10 agree with torch and the package; what nobody foresaw gets a hint that fits."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch10 import attainable, layer_flops
from minimind_edu.course.exercises.ch10_cards import largest_batch, ring_bytes
from minimind_edu.course.exercises.checking import PASSED, examine
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import OptimizerSet

SHAPE = ModelConfig(
    vocab_size=50, hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    intermediate_size=40, num_hidden_layers=1, max_position_embeddings=64,
)  # fmt: skip


def test_a_layer_has_as_many_flops_as_torch_counts():
    ids = torch.zeros(3, 10, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        MiniMind(SHAPE).hidden_states(ids)
    assert layer_flops(3, 10, 24, 4, 2, 8, 40) == counter.get_total_flops()


def test_the_numbers_by_hand():
    assert layer_flops(1, 3, 4, 2, 1, 2, 8) == 1_008
    assert attainable(100, 50, 10, 3) == 6
    assert attainable(100, 50, 5, 3) == 5
    assert largest_batch(1_000, 40, 10, 100) == 7
    assert ring_bytes(10, 4) == 72


def test_the_bytes_of_a_model_are_those_after_a_step():
    model = MiniMind(SHAPE)
    model.model.embed_tokens.requires_grad_(False)
    optimizers = OptimizerSet(model, TrainConfig(optimizer="adamw"))
    ids = torch.zeros(1, 4, dtype=torch.int64)
    model(ids, labels=ids).loss.backward()
    for optimizer in optimizers.optimizers:
        optimizer.step()
    trained = [p for p in model.parameters() if p.requires_grad]
    held = [*model.parameters(), *(p.grad for p in trained)]
    held += [t for name, t in optimizers.state_tensors().items() if "exp_avg" in name]
    total, count = sum(t.nbytes for t in held), sum(p.numel() for p in trained)
    assert largest_batch(total + 70, model.num_parameters(), count, 10) == 7


def test_a_ring_sends_what_a_ring_sends():
    """A ring in slow motion: chunk by chunk, as the exercise describes it."""
    for cards, size in ((2, 6), (3, 9), (5, 20)):
        held, sent = torch.randn(cards, cards, size // cards), 0
        wanted = held.sum(dim=0)
        for step in range(2 * (cards - 1)):
            passing = [
                (card, (card - step) % cards, held[card, (card - step) % cards].clone())
                for card in range(cards)
            ]
            for card, chunk, values in passing:
                neighbour = held[(card + 1) % cards]
                neighbour[chunk] = values + (neighbour[chunk] if step < cards - 1 else 0)
                sent += values.nbytes
        for card in range(cards):
            torch.testing.assert_close(held[card], wanted)
        assert sent == cards * ring_bytes(size, cards)


def test_other_ways_that_are_right_pass():
    def by_modules(rows, tokens, hidden, heads, kv_heads, head_dim, intermediate):
        with torch.device("meta"):
            sizes = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim, intermediate, intermediate]
            layers = [nn.Linear(hidden, size, bias=False) for size in sizes]
            layers += [
                nn.Linear(heads * head_dim, hidden, bias=False),
                nn.Linear(intermediate, hidden, bias=False),
            ]
        weights = sum(layer.weight.numel() for layer in layers)
        return rows * (2 * tokens * weights + 4 * heads * head_dim * tokens**2)

    def by_time(flops, moved, peak, bandwidth):
        return flops / max(flops / peak, moved / bandwidth)

    def by_counting(memory, parameters, trained, row):
        free, rows = memory - 16 * trained - 4 * (parameters - trained), 0
        while free >= row:
            free, rows = free - row, rows + 1
        return rows

    for seed in range(5):
        assert examine(exercise("ch10.layer_flops"), by_modules, seed) == PASSED
        assert examine(exercise("ch10.attainable"), by_time, seed) == PASSED
        assert examine(exercise("ch10.largest_batch"), by_counting, seed) == PASSED


def test_unforeseen_answers_get_a_hint_that_fits():
    layer, roof = exercise("ch10.layer_flops"), exercise("ch10.attainable")
    assert "six rows" in examine(layer, lambda rows, *rest: layer_flops(1, *rest), 0)
    assert "square" in examine(layer, lambda r, t, *rest: r * t * layer_flops(1, 1, *rest), 0)
    assert "whole number" in examine(layer, lambda *shape: layer_flops(*shape) + 0.5, 0)
    assert "peak" in examine(roof, lambda f, m, p, b: 2 * attainable(f, m, p, b), 0)
    batch, ring = exercise("ch10.largest_batch"), exercise("ch10.ring_bytes")
    assert "one row more" in examine(batch, lambda *a: largest_batch(*a) // 2, 0)
    assert "together" in examine(batch, lambda *a: 3 * largest_batch(*a), 0)
    assert "alone" in examine(ring, lambda v, n: ring_bytes(v, n) + 4, 0)
