"""A whole MiniMind2-MoE, written a second time as plain loops over the published tensors."""

import math

import pytest
import torch

from minimind_edu import MiniMind

CONFIG = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "intermediate_size": 20,
    "max_position_embeddings": 4096,
    "use_moe": True,
    "n_routed_experts": 5,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "aux_loss_alpha": 0.3,
    "inference_rope_scaling": True,
}


def published_state(config, seed=0):
    """Random tensors under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape):
        return torch.randn(shape, generator=generator) * 0.3

    h, i = config["hidden_size"], config["intermediate_size"]
    kv = h // config["num_attention_heads"] * config["num_key_value_heads"]
    state = {"model.embed_tokens.weight": matrix(config["vocab_size"], h), "model.norm.weight": matrix(h) + 1}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", h), ("k", kv), ("v", kv), ("o", h)):
            state[f"{prefix}.self_attn.{name}_proj.weight"] = matrix(rows, h)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{prefix}.{name}.weight"] = matrix(h) + 1
        state[f"{prefix}.mlp.gate.weight"] = matrix(config["n_routed_experts"], h)
        experts = [f"experts.{e}" for e in range(config["n_routed_experts"])]
        experts += [f"shared_experts.{e}" for e in range(config["n_shared_experts"])]
        for expert in experts:
            state[f"{prefix}.mlp.{expert}.gate_proj.weight"] = matrix(i, h)
            state[f"{prefix}.mlp.{expert}.up_proj.weight"] = matrix(i, h)
            state[f"{prefix}.mlp.{expert}.down_proj.weight"] = matrix(h, i)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def angle(position, pair, dim, yarn):
    """RoPE's angle, slowed down by YaRN (theta 1e6, original length 2048, factor 16, betas 32 and 1)."""
    frequency = 1e6 ** (-2 * pair / dim)
    if not yarn:
        return position * frequency

    def bound(beta):
        return dim * math.log(2048 / (beta * 2 * math.pi)) / (2 * math.log(1e6))

    low, high = max(math.floor(bound(32)), 0), min(math.ceil(bound(1)), dim // 2 - 1)
    gamma = min(max((pair - low) / max(high - low, 0.001), 0), 1)
    return position * frequency * ((1 - gamma) + gamma / 16)


def rotate(vector, position, yarn):
    half = len(vector) // 2
    result = vector.clone()
    for i in range(half):
        a = angle(position, i, len(vector), yarn)
        result[i] = vector[i] * math.cos(a) - vector[i + half] * math.sin(a)
        result[i + half] = vector[i + half] * math.cos(a) + vector[i] * math.sin(a)
    return result


def norm(vector, weight):
    return weight * vector / math.sqrt(float((vector**2).mean()) + 1e-5)


def swiglu(x, state, prefix):
    gate = state[f"{prefix}.gate_proj.weight"] @ x
    hidden = gate * torch.sigmoid(gate) * (state[f"{prefix}.up_proj.weight"] @ x)
    return state[f"{prefix}.down_proj.weight"] @ hidden


def attend(xs, state, prefix, config):
    dim = config["hidden_size"] // config["num_attention_heads"]
    share = config["num_attention_heads"] // config["num_key_value_heads"]
    yarn = config["inference_rope_scaling"]
    q, k, v = (
        [(state[f"{prefix}.{name}_proj.weight"] @ x).view(-1, dim) for x in xs] for name in ("q", "k", "v")
    )
    outputs = []
    for t in range(len(xs)):
        heads = []
        for head in range(config["num_attention_heads"]):
            group = head // share
            query = rotate(q[t][head], t, yarn)
            scores = [query @ rotate(k[s][group], s, yarn) / math.sqrt(dim) for s in range(t + 1)]
            weights = torch.stack(scores).softmax(0)
            heads.append(sum(w * v[s][group] for s, w in enumerate(weights)))
        outputs.append(state[f"{prefix}.o_proj.weight"] @ torch.cat(heads))
    return outputs


def route(xs, state, prefix, config):
    """Outputs of one MoE layer for one sequence, and this sequence's auxiliary loss (before alpha)."""
    experts, top_k = config["n_routed_experts"], config["num_experts_per_tok"]
    counts, totals, outputs = [0] * experts, torch.zeros(experts), []
    for x in xs:
        scores = (state[f"{prefix}.gate.weight"] @ x).softmax(0)
        totals += scores
        chosen = scores.argsort(descending=True)[:top_k].tolist()
        total = float(scores[chosen].sum()) + 1e-20 if top_k > 1 else 1.0
        output = sum(float(scores[e]) / total * swiglu(x, state, f"{prefix}.experts.{e}") for e in chosen)
        for e in chosen:
            counts[e] += 1
        for e in range(config["n_shared_experts"]):
            output = output + swiglu(x, state, f"{prefix}.shared_experts.{e}")
        outputs.append(output)
    n = len(xs)
    return outputs, sum(experts * counts[e] / (n * top_k) * float(totals[e]) / n for e in range(experts))


def run(ids, state, config):
    """Logits (T, V) and auxiliary loss of one sequence."""
    xs, aux_loss = [state["model.embed_tokens.weight"][i] for i in ids], 0.0
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        normed = [norm(x, state[f"{prefix}.input_layernorm.weight"]) for x in xs]
        xs = [x + y for x, y in zip(xs, attend(normed, state, f"{prefix}.self_attn", config), strict=True)]
        normed = [norm(x, state[f"{prefix}.post_attention_layernorm.weight"]) for x in xs]
        outputs, loss = route(normed, state, f"{prefix}.mlp", config)
        xs = [x + y for x, y in zip(xs, outputs, strict=True)]
        aux_loss += loss
    final = [norm(x, state["model.norm.weight"]) for x in xs]
    return torch.stack([state["lm_head.weight"] @ x for x in final]), config["aux_loss_alpha"] * aux_loss


@pytest.mark.parametrize(
    "changes", [{}, {"num_experts_per_tok": 1, "inference_rope_scaling": False}, {"n_shared_experts": 2}]
)
@torch.no_grad()
def test_from_minimind_equals_plain_loops(changes):
    config = CONFIG | changes
    state = published_state(config)
    model = MiniMind.from_minimind(state, config).train()
    ids = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    out = model(ids)
    expected = [run(row.tolist(), state, config) for row in ids]
    # The logits reach 30 here, so the tolerance is relative to that.
    torch.testing.assert_close(
        out.logits, torch.stack([logits for logits, _ in expected]), atol=1e-4, rtol=1e-5
    )
    mean_loss = sum(loss for _, loss in expected) / len(expected)
    assert out.aux_loss.item() == pytest.approx(mean_loss, rel=1e-5)
