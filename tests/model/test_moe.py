"""Mixture of experts: routing, balance, gradients, and the fault of a router that does not learn."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.model.moe import MoEFeedForward


def make_layer(seed=0, **changes):
    config = ModelConfig(hidden_size=16, use_moe=True, moe_intermediate_size=24, router_aux_loss_coef=0.1)
    torch.manual_seed(seed)
    layer = MoEFeedForward(config.replace(**changes))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    return layer


def swiglu(x, expert):
    gate, up = expert.gate_proj.weight @ x, expert.up_proj.weight @ x
    return expert.down_proj.weight @ (gate / (1 + torch.exp(-gate)) * up)


def by_hand(layer, x, top_k, normalise, per_sequence, coef):
    """The layer written as plain loops over sequences, tokens and experts."""
    experts = len(layer.experts)
    output = torch.zeros_like(x)
    counts, probabilities = torch.zeros(len(x), experts), torch.zeros(len(x), experts)
    for b, sequence in enumerate(x):
        for t, token in enumerate(sequence):
            logits = [float(row @ token) for row in layer.gate.weight]
            p = torch.tensor(logits).exp()
            p = p / p.sum()
            chosen = sorted(range(experts), key=lambda e, p=p: -p[e])[:top_k]
            total = sum(p[e] for e in chosen) if normalise else 1.0
            for e in chosen:
                output[b, t] += p[e] / total * swiglu(token, layer.experts[e])
                counts[b, e] += 1
            for expert in layer.shared_experts:
                output[b, t] += swiglu(token, expert)
            probabilities[b] += p
    tokens = x.shape[1]
    if per_sequence:
        losses = [
            sum(
                experts * counts[b, e] / (tokens * top_k) * probabilities[b, e] / tokens
                for e in range(experts)
            )
            for b in range(len(x))
        ]
        return output, coef * sum(losses) / len(losses)
    n = len(x) * tokens
    total = sum(counts[:, e].sum() / n * probabilities[:, e].sum() / n for e in range(experts))
    return output, coef * experts * total


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("shared", "per_sequence"), [(0, False), (1, True), (2, True), (0, True)])
def test_equals_plain_loops(top_k, normalise, shared, per_sequence):
    layer = make_layer(
        num_experts_per_tok=top_k, norm_topk_prob=normalise, num_shared_experts=shared, seq_aux=per_sequence
    )
    x = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        output, aux_loss = layer(x)
        expected, expected_aux = by_hand(layer, x, top_k, normalise, per_sequence, 0.1)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(aux_loss, expected_aux, atol=1e-6, rtol=1e-5)


def test_gradients_equal_those_of_a_mask_loop():
    layer = make_layer(num_experts_per_tok=2)
    x = torch.randn(2, 9, 16, requires_grad=True)
    torch.manual_seed(1)
    direction = torch.randn(2, 9, 16)

    def mask_loop():
        weights, chosen = layer.gate(x).softmax(-1).topk(2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        return sum(
            expert(x) * (weights * (chosen == e)).sum(-1, keepdim=True)
            for e, expert in enumerate(layer.experts)
        )

    inputs = [x, *layer.parameters()]
    ours = torch.autograd.grad((layer(x)[0] * direction).sum(), inputs)
    theirs = torch.autograd.grad((mask_loop() * direction).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_an_expert_without_tokens_gets_a_zero_gradient():
    layer = make_layer(num_experts=8, num_experts_per_tok=1, norm_topk_prob=False)
    output, aux_loss = layer(torch.randn(1, 2, 16))
    (output.sum() + aux_loss).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    idle = [e for e in layer.experts if bool((e.down_proj.weight.grad == 0).all())]
    assert len(idle) >= 6


@pytest.mark.parametrize("per_sequence", [True, False])
def test_padding_does_not_count_in_the_balance(per_sequence):
    layer = make_layer(seq_aux=per_sequence)
    x = torch.randn(2, 6, 16)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2).bool()
    _, masked = layer(x, mask)
    _, cut = layer(x[:, :4])
    torch.testing.assert_close(masked, cut)
    torch.testing.assert_close(layer(x, torch.ones(2, 6).bool())[1], layer(x)[1])


def test_balanced_routing_has_the_smallest_loss():
    layer = make_layer(num_experts_per_tok=2)
    with torch.no_grad():
        layer.gate.weight.zero_()
    _, balanced = layer(torch.randn(2, 50, 16))
    assert balanced.item() == pytest.approx(0.1 * 2, rel=1e-5)  # coef * k: sum_e f_e = k, P_e = 1/E
    with torch.no_grad():
        layer.gate.weight[0] = 5.0
    _, collapsed = layer(torch.ones(2, 50, 16))
    assert collapsed > 1.5 * balanced


def router_gradient(normalise):
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=50, hidden_size=32, use_moe=True, num_experts_per_tok=1, norm_topk_prob=normalise
    )
    model = MiniMind(config)
    ids = torch.randint(0, 50, (4, 16))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(ids, ids).loss.backward()
        model(ids, ids)
        model.eval()(ids)
    return model.model.layers[0].mlp.gate.weight.grad.abs().max().item(), [str(w.message) for w in caught]


def test_one_normalised_expert_leaves_the_router_without_gradient_and_warns_once():
    gradient, messages = router_gradient(normalise=True)
    assert gradient < 1e-7
    assert len(messages) == 1 and "norm_topk_prob=False" in messages[0]
    gradient, messages = router_gradient(normalise=False)
    assert gradient > 1e-5
    assert not messages


def test_evaluation_of_a_dead_router_does_not_warn():
    config = ModelConfig(vocab_size=50, use_moe=True, num_experts_per_tok=1, norm_topk_prob=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MiniMind(config).eval()(torch.zeros(1, 3, dtype=torch.int64))


def test_works_under_bf16_autocast():
    layer = make_layer(num_shared_experts=1)
    x = torch.randn(2, 8, 16)
    exact, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough, aux_loss = layer(x)
    assert aux_loss.dtype == torch.float32
    # A token near a tie may be routed elsewhere in bf16, so most rather than all must agree.
    close = (rough.float() - exact).abs().amax(-1) < 0.05 * exact.abs().max()
    assert close.float().mean() > 0.8
    (rough.float().sum() + aux_loss).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_one_expert_is_a_plain_feed_forward():
    layer = make_layer(num_experts=1, num_experts_per_tok=1)
    x = torch.randn(1, 5, 16)
    expert = layer.experts[0]
    expected = expert.down_proj(F.silu(expert.gate_proj(x)) * expert.up_proj(x))
    torch.testing.assert_close(layer(x)[0], expected)
