# %% [markdown]
# # 2. Transformer: RMSNorm, RoPE, GQA, SwiGLU
#
# Python, English. Less than two minutes on two CPU cores, without a network.
#
# | | |
# | --- | --- |
# | goal | write every part of a MiniMind model, and prove the whole equal to the library's |
# | needs | Python, a little PyTorch; no earlier chapter |
# | time, memory | less than 120 seconds on two cores, less than 2 GB |
# | **the number you will reach** | logits within **0.0001** of transformers' Llama, Qwen2 and Qwen3 |
#
# ![Map of the course: you are at chapter 2, the transformer](../figures/map_02.svg)

# %%
import math
import tempfile
import time

import ipywidgets
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRotaryEmbedding, apply_rotary_pos_emb

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.config import RopeScaling
from minimind_edu.course import artifacts, claims, figures, session, widgets
from minimind_edu.course.exercises import check
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.data.world import SmallWorld
from minimind_edu.generation import generate
from minimind_edu.model.attention import KVCache, RMSNorm, attention_bias, plain_attention
from minimind_edu.model.moe import FeedForward
from minimind_edu.model.rope import apply_rope, rope_frequencies, rope_table
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import TrainConfig, fit

session.start()


def difference(ours, *theirs):
    """The largest absolute difference between a tensor and any of the others."""
    return max(float((ours - other).detach().abs().max()) for other in theirs)


print(", ".join(ModelConfig.presets()))

# %% [markdown]
# The names are shapes of models, published ones and the course's own. All but the mixtures
# of experts (`-moe`, chapter 3) are this:
#
# ![One block: RMSNorm and attention, then RMSNorm and feed-forward, each added to the residual
# stream](../figures/02_block.svg)
#
# Every token becomes a vector of $C$ numbers. A block changes it twice, each time by adding something. This
# chapter makes the boxes one by one. "Equal" means that this notebook's few lines, the package's module and a
# library that the field trusts give the same numbers for the same random inputs.
#
# ## RMSNorm
#
# A sum of many terms grows. So each sublayer reads a copy that was divided by its root mean square. For
# $(3, 4)$ the mean square is $(9 + 16) / 2 = 12.5$, its root 3.5355, and the result $(0.8485, 1.1314)$.


# %%
def rms_norm(x, weight, eps):
    """x (…, C) divided by its root mean square, times a learned weight (C,)."""
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


print(rms_norm(torch.tensor([3.0, 4.0]), torch.ones(2), eps=0.0))

# %% [markdown]
# Half of the test vectors are tiny, so that `eps` counts: a version with `eps` outside the root would fail.

# %%
x = torch.randn(2, 5, 16) * torch.tensor([1.0, 1e-3])[:, None, None]
library, package = nn.RMSNorm(16, eps=1e-6), RMSNorm(16, eps=1e-6)
library.weight.data = package.weight.data = torch.rand(16) + 0.5
worst = difference(rms_norm(x, library.weight, 1e-6), library(x), package(x))
claims.record("ch02.rms_norm", worst, at_most=1e-5, source="difference from torch and the package")

# %% [markdown]
# What is lost is the vector's length, and (but for the weights) nothing else. LayerNorm, its predecessor,
# also subtracts the mean:

# %%
x, ones = torch.randn(16), torch.ones(16)
for name, changed in {"x times 100": 100 * x, "x plus 100": 100 + x}.items():
    same_rms = torch.allclose(rms_norm(changed, ones, 1e-6), rms_norm(x, ones, 1e-6), atol=1e-3)
    same_layer = torch.allclose(F.layer_norm(changed, (16,)), F.layer_norm(x, (16,)), atol=1e-3)
    print(f"{name}: the same after RMSNorm {same_rms}, after LayerNorm {same_layer}")

# %% [markdown]
# ## RoPE: where a token is
#
# Attention compares a *query* of one token with a *key* of another by a dot product, which knows nothing of
# places. RoPE turns both by an angle proportional to their position. Turning $(a, b)$ by $\varphi$ gives
# $(a \cos\varphi - b \sin\varphi,\ b \cos\varphi + a \sin\varphi)$. By 90°, $(1, 0)$ becomes $(0, 1)$.
#
# ![Query and key at positions 2 and 0, 5 and 3, 13 and 11: both turn, the angle between them stays 60
# degrees](../figures/02_rotation.svg)
#
# Let query and key be $(1, 0)$ and a step 30°. Two tokens apart, the angle between them is 60°, wherever they
# are.

# %%
for query, key in ((2, 0), (5, 3), (13, 11), (5, 4)):
    a, b = math.radians(30 * query), math.radians(30 * key)  # (1, 0) turned by a is (cos a, sin a)
    score = math.cos(a) * math.cos(b) + math.sin(a) * math.sin(b)
    print(f"query at {query}, key at {key}: score {score:.3f}")

# %% [markdown]
# A head of $D$ channels has $D/2$ such pairs. Pair $i$ turns by $\theta^{-2i/D}$ radians a token: the first
# ones fast, the last ones hardly at all. In the *rotate-half* layout, pair $i$ is channels $i$ and $i + D/2$.
# A pair is a complex number, and to turn it is to multiply it by $e^{i\varphi}$.
#
# By hand, $D = 4$, $\theta = 100$, position 1: $(1, 3)$ turns by 1 radian and becomes $(-1.984, 2.462)$;
# $(2, 4)$ turns by $100^{-1/2} = 0.1$ and becomes $(1.591, 4.180)$.


# %%
def turns(positions, size, theta):
    """(T, D/2) complex numbers of length 1: what pair i is multiplied by at each position."""
    angles = positions[:, None].double() * theta ** (-torch.arange(0, size, 2).double() / size)
    return torch.polar(torch.ones_like(angles), angles)


def rotate_half(x, positions, theta):
    """Turn the pairs (x[i], x[i + D/2]) of x (…, T, D)."""
    pairs = torch.complex(*x.chunk(2, dim=-1))
    pairs = pairs * turns(positions, x.shape[-1], theta).to(pairs.dtype)
    return torch.cat((pairs.real, pairs.imag), dim=-1)


print(rotate_half(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([1]), theta=100))

# %% [markdown]
# The package multiplies real numbers by a table of cosines and sines, as transformers does.

# %%
config = ModelConfig.preset("minimind2-small", max_position_embeddings=512)
positions, x = torch.arange(512), torch.randn(1, 8, 512, 64)  # (B, H, T, D)
cos, sin = rope_table(config)
ours = apply_rope(x.transpose(1, 2), cos[:, None], sin[:, None]).transpose(1, 2)

# %%
theta = {"rope_type": "default", "rope_theta": config.rope_theta}
rotary = LlamaRotaryEmbedding(transformers.LlamaConfig(head_dim=64, rope_parameters=theta))
theirs, _ = apply_rotary_pos_emb(x, x, *rotary(x, positions[None]))
worst = difference(rotate_half(x, positions, config.rope_theta), ours, theirs)
claims.record("ch02.rope", worst, at_most=1e-3, source="difference from transformers and the package")

# %% [markdown]
# **Distance alone.** Put one random query and one random key at each of 300 positions. Row $m$, column $n$ of
# the scores must depend on $m - n$ only: every diagonal is constant.

# %%
query, key = torch.randn(2, 1, 64, dtype=torch.float64).expand(2, 300, 64)
places = torch.arange(300)
scores = rotate_half(query, places, 1e4) @ rotate_half(key, places, 1e4).T
diagonals = [scores.diagonal(-distance) for distance in range(300)]
spread = max(float(diagonal.max() - diagonal.min()) for diagonal in diagonals)
claims.record("ch02.rope_spread", spread, at_most=1e-9, source="largest range of scores at one distance")

# %% [markdown]
# Turn the pair yourself. Move the position: the left picture turns, and the score stays.


# %%
def two_vectors(position, distance, frequency):
    figure, (circle, curve) = figures.new_figure(7.5, 3.4, columns=2)
    for place, name, colour in ((position, "query", figures.BLUE), (position - distance, "key", figures.RED)):
        angle = frequency * place
        circle.annotate(
            "",
            (math.cos(angle), math.sin(angle)),
            (0, 0),
            arrowprops={"color": colour, "width": 2, "headwidth": 8},
        )
        circle.plot([], [], color=colour, linewidth=3, label=f"{name} at {place}")
    circle.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.5), aspect="equal", title="one pair of channels")
    with figures.style():
        circle.legend(loc="upper center", fontsize=8, ncols=2)
    around = torch.linspace(0, 2 * math.pi, 100)
    circle.plot(around.cos(), around.sin(), color=figures.GREY, linewidth=1)
    distances = torch.arange(0, 64.5, 0.25)
    curve.plot(distances, (frequency * distances).cos(), color=figures.GREY)
    curve.plot(distance, math.cos(frequency * distance), "o", color=figures.GREEN, markersize=9)
    score = math.cos(frequency * distance)
    curve.set(
        title=f"score {score:+.3f} at distance {distance}", xlabel="distance in tokens", ylim=(-1.1, 1.1)
    )
    return figure


widgets.explore(
    two_vectors,
    "a query and a key as two arrows on a circle, and their score as a function of distance",
    position=ipywidgets.IntSlider(70, 64, 200, description="query at"),
    distance=ipywidgets.IntSlider(6, 0, 64, description="distance"),
    frequency=ipywidgets.FloatSlider(0.2, min=0.01, max=1.0, step=0.01, description="rad a token"),
)

# %% [markdown]
# **The other layout.** The original Llama weights pair neighbours: channels 0 and 1, 2 and 3, and so on. This
# *interleaved* form turns the same pairs, stored in other places. So weights convert by sorting rows of the
# query and key projections, head by head: first the even rows, then the odd ones.


# %%
def rotate_neighbours(x, positions, theta):
    """Turn the pairs (x[2i], x[2i + 1]) of x (…, T, D)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    pairs = pairs * turns(positions, x.shape[-1], theta).to(pairs.dtype)
    return torch.view_as_real(pairs).flatten(-2)


def to_halves(weight, heads):
    """Rows of a q or k projection (heads · D, C), from the interleaved layout to rotate-half."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


print(to_halves(torch.arange(12)[:, None], heads=2).flatten().tolist())

# %% [markdown]
# The scores are equal after the conversion. Without it nothing crashes, and they are wrong. Values and the
# output projection stay as they are, since RoPE does not touch them.

# %%
x, wq, wk, places = torch.randn(20, 32), torch.randn(32, 32), torch.randn(32, 32), torch.arange(20)


def all_scores(wq, wk, rotate):
    q, k = ((x @ w.T).unflatten(-1, (4, 8)).transpose(0, 1) for w in (wq, wk))  # (H, T, D)
    return rotate(q, places, 1e4) @ rotate(k, places, 1e4).transpose(1, 2)


right = all_scores(wq, wk, rotate_neighbours)
converted = all_scores(to_halves(wq, 4), to_halves(wk, 4), rotate_half)
error = float((converted - right).norm() / right.norm())
claims.record("ch02.layout_converted", error, at_most=1e-5, source="relative error of the scores")
error = float((all_scores(wq, wk, rotate_half) - right).norm() / right.norm())
claims.record("ch02.layout_forgotten", error, at_least=0.3, source="relative error of the scores")

# %% [markdown]
# ## Attention in groups
#
# Each query weighs the keys by the softmax of $q \cdot k / \sqrt{D}$ and takes that mixture of their values.
# A *causal mask* hides what comes later: such scores become $-\infty$, their weights 0.
#
# ![Multi-head attention has a key/value head for every query head, grouped-query attention one for each
# group, multi-query attention one for all](../figures/02_heads.svg)
#
# Query head $h$ of $H$ reads key/value head $\lfloor h / (H/H_{kv}) \rfloor$: neighbours share. By hand:
# where all keys are zeros, all visible tokens weigh the same, so values 1, 2, 6 give 1, then $(1+2)/2 = 1.5$,
# then $9/3 = 3$.


# %%
def attention(query, key, value, causal=True):
    """query (B, H, T, D), key and value (B, H_kv, S, D) to (B, H, T, D); queries are the last keys."""
    grouped = query.unflatten(1, (key.shape[1], -1))  # (B, H_kv, H / H_kv, T, D)
    scores = grouped @ key[:, :, None].transpose(-2, -1) / math.sqrt(query.shape[-1])
    if causal:
        tokens, keys = scores.shape[-2:]
        later = torch.ones(tokens, keys, dtype=torch.bool).triu(1 + keys - tokens)
        scores = scores.masked_fill(later, float("-inf"))
    return (scores.softmax(dim=-1) @ value[:, :, None]).flatten(1, 2)


zeros, values = torch.zeros(1, 1, 3, 1), torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1)
print(attention(zeros, zeros, values).flatten())

# %%
query, (keys, values), worst = torch.randn(2, 8, 40, 16), torch.randn(2, 2, 8, 40, 16), 0.0
for key, value in ((keys[:, :n], values[:, :n]) for n in (8, 2, 1)):
    library = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    package = plain_attention(query, key, value, attention_bias(40, 40))
    worst = max(worst, difference(attention(query, key, value), library, package))
claims.record("ch02.attention", worst, at_most=1e-5, source="difference from torch and the package")

# %% [markdown]
# Why share? When a model writes, it keeps the keys and values of all earlier tokens (section "The cache").
# Queries are used once and need no memory. On paper the cache takes
# $2 \cdot \text{layers} \cdot H_{kv} \cdot D \cdot \text{tokens} \cdot \text{bytes}$; the 2 is for keys and
# values. Measured, for the shape of minimind2-small and 2,048 tokens in 16 bits:

# %%
small, measured = ModelConfig.preset("minimind2-small"), {}
for kv_heads, name in ((8, "MHA"), (2, "GQA"), (1, "MQA")):
    shape = small.replace(num_key_value_heads=kv_heads)
    cache = KVCache(shape, batch_size=1, max_length=2048, dtype=torch.bfloat16)
    measured[name] = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    assert measured[name] == 2 * shape.num_hidden_layers * kv_heads * shape.head_dim * 2048 * 2
    print(f"{name}: {kv_heads} key/value heads, {measured[name] / 2**20:.0f} MiB")
share = measured["GQA"] / measured["MHA"]
claims.record("ch02.cache_share", share, equals=2 / 8, source="bytes of keys and values, GQA / MHA")

# %% [markdown]
# Multi-query attention needs the least memory, multi-head attention has the most freedom. Ainslie et al.
# report that groups come close to multi-head quality at nearly the speed of multi-query.
#
# ## SwiGLU
#
# The feed-forward works on each token alone. SwiGLU has a *gate*: $\text{down}(\text{silu}(\text{gate}(x))
# \cdot \text{up}(x))$, with $\text{silu}(z) = z / (1 + e^{-z})$. A gate far below zero is shut, one far above
# multiplies by itself. It has three matrices where the older feed-forward had two of width $4C$; a width of
# $8C/3$ makes both $8C^2$ numbers.


# %%
def silu(z):
    return z / (1 + torch.exp(-z))


def swiglu(x, gate, up, down):
    """x (…, C); gate and up (I, C), down (C, I)."""
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


print([f"{value:.4f}" for value in silu(torch.tensor([-10.0, -1.0, 0.0, 1.0, 10.0])).tolist()])

# %%
library = LlamaMLP(transformers.LlamaConfig(hidden_size=32, intermediate_size=80))
package, x, w = FeedForward(32, 80), torch.randn(4, 32), library.state_dict()
package.load_state_dict(w)
by_hand = swiglu(x, *(w[f"{name}_proj.weight"] for name in ("gate", "up", "down")))
worst = difference(by_hand, library(x), package(x))
claims.record("ch02.swiglu", worst, at_most=1e-5, source="difference from transformers and the package")

# %% [markdown]
# ## The whole model
#
# Now the parts are joined, under the names of published weights. Two switches are new. *q/k norm* (Qwen3,
# MiniMind-3) is an RMSNorm on each query and key head before RoPE, after which a head's vector has length
# $\sqrt{D}$ (before its learned weights), so that a score is at most $\sqrt{D}$. *Biases* on q, k and v are
# Qwen2's. Both apply where the weights have them. A *tied* model has no output head of its own: the embedding
# matrix is used again.


# %%
def attend(x, w, config, causal):
    """One attention sublayer: x (B, T, C) to (B, T, C); w are its weights by name."""

    def heads(name):
        projected = F.linear(x, w[f"{name}_proj.weight"], w.get(f"{name}_proj.bias"))
        projected = projected.unflatten(-1, (-1, config.head_dim)).transpose(1, 2)  # (B, H, T, D)
        norm = w.get(f"{name}_norm.weight")
        return projected if norm is None else rms_norm(projected, norm, config.rms_norm_eps)

    def place(projected):
        return rotate_half(projected, torch.arange(x.shape[1]), config.rope_theta)

    mixed = attention(place(heads("q")), place(heads("k")), heads("v"), causal)
    return mixed.transpose(1, 2).flatten(-2) @ w["o_proj.weight"].T


def forward(weights, config, ids, causal=True):
    """Token ids (B, T) to logits (B, T, V), from a dictionary of weights."""

    def part(prefix):
        return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        w = part(f"model.layers.{layer}.")
        normed = rms_norm(x, w["input_layernorm.weight"], config.rms_norm_eps)
        x = x + attend(normed, part(f"model.layers.{layer}.self_attn."), config, causal)
        normed = rms_norm(x, w["post_attention_layernorm.weight"], config.rms_norm_eps)
        x = x + swiglu(normed, *(w[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")))
    x = rms_norm(x, weights["model.norm.weight"], config.rms_norm_eps)
    return x @ weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).T


# %% [markdown]
# Three families, made small, with random weights everywhere. (Norms and biases that start as ones and zeros
# would hide mistakes.)

# %%
worst, ids = 0.0, torch.randint(500, (2, 40))
for name, biases in (("minimind2", False), ("miniqwen", True), ("minimind-3", False)):
    shape = {"vocab_size": 500, "hidden_size": 96, "num_hidden_layers": 2, "attention_bias": biases}
    model = MiniMind(ModelConfig.preset(name, **shape)).eval()
    for kind, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in kind), std=0.1)
    library = model.to_transformers()
    with torch.no_grad():
        logits = forward(model.state_dict(), model.config, ids)
        worst = max(worst, difference(logits, model(ids).logits, library(ids).logits))
    print(f"{name}, biases {biases}: {type(library).__name__}")
claims.record("ch02.logits", worst, at_most=1e-4, source="difference from transformers and the package")

# %% [markdown]
# ## The cache
#
# To write one more token, a model needs the last query and *all* keys and values. Under a causal mask the
# earlier ones never change. Recomputing them is a waste of time; keeping them is the key/value cache.
#
# ![Without a cache every new token computes all positions again, 25 in the drawing; with a cache only the new
# one, 7 in all](../figures/02_cache.svg)

# %%
query, (key, value) = torch.randn(1, 4, 30, 16), torch.randn(2, 1, 2, 30, 16)
last = attention(query, key, value)[:, :, -1:]
worst = difference(last, attention(query[:, :, -1:], key, value))
claims.record("ch02.last_query", worst, at_most=1e-5, source="the last query alone, against all of them")

# %%
model, ids = MiniMind(ModelConfig.preset("edu", vocab_size=500)).eval(), torch.randint(500, (1, 300))
for parameter in model.parameters():  # larger weights than a fresh model's, so that it writes varied tokens
    nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else None

# %%
cache = KVCache(model.config, batch_size=1, max_length=300)
with torch.inference_mode():
    pieces = [model(piece, cache=cache).logits for piece in ids.split([20, 1, 1, 278], dim=1)]
    worst = difference(model(ids).logits, torch.cat(pieces, dim=1))
claims.record("ch02.cache_logits", worst, at_most=1e-4, source="in four pieces, against all at once")

# %% [markdown]
# How much work is it? A prompt of 32 tokens and 96 new ones take
# $32 + 33 + \dots + 127 = 96 \cdot 159 / 2 = 7{,}632$ positions without a cache, and $32 + 95 = 127$ with
# one. (The last token that is written is never read.)


# %%
def write(use_cache, prompt=32, new=96):
    """The tokens that the model writes, and how many positions went through its first block."""
    seen = []
    hook = model.model.layers[0].register_forward_hook(
        lambda block, inputs, out: seen.append(inputs[0].shape[1])
    )
    tokens = generate(model, ids[:, :prompt], max_new_tokens=new, use_cache=use_cache)
    hook.remove()
    return tokens, sum(seen)


# %%
(kept, with_cache), (recomputed, without) = write(True), write(False)
print(f"{without:,} positions without a cache, {with_cache} with one; equal tokens: {kept.equal(recomputed)}")
claims.record("ch02.cache_work", without / with_cache, equals=7632 / 127, source="positions, without / with")
rows = [ids[0, :5].tolist(), ids[0, :20].tolist()]  # unequal prompts, padded on the left
same = kept.equal(recomputed) and generate(model, rows) == [generate(model, [row])[0] for row in rows]
claims.record("ch02.cache_tokens", same, equals=1, source="greedy tokens: cached or not, together or alone")

# %% [markdown]
# The time saved is far less than such a ratio: a hundred positions at once use a processor better than one
# alone. With a prompt of 192 tokens (22,992 positions against 287):

# %% tags=["nbval-ignore-output"]
seconds = {True: [], False: []}
for use_cache in (True, False) * 4:
    started = time.perf_counter()
    write(use_cache, prompt=192)
    seconds[use_cache].append(time.perf_counter() - started)
ratio = min(seconds[False]) / min(seconds[True])
print(
    f"with a cache {min(seconds[True]):.2f} s, without {min(seconds[False]):.2f} s: {ratio:.1f} times as long"
)
claims.record("ch02.cache_time", ratio, at_least=1.5, source="seconds without / with, best of 4 alternating")

# %% [markdown]
# ## The zoo
#
# One dataclass describes all shapes. With vocabulary $V$, inner width $I$ and $L$ layers, on paper:
#
# $$VC + L\,(2CHD + 2CH_{kv}D + 3CI + 2C) + C$$
#
# Embedding; q and o; k and v; the feed-forward; two norms a block; the last norm. An untied head adds $VC$,
# q/k norms add $2D$ a layer, biases $(H + 2H_{kv})D$ a layer. For minimind2-small a block has
# $524{,}288 + 131{,}072 + 2{,}162{,}688 + 1{,}024$, eight of them $22{,}552{,}576$; with the embedding's
# $3{,}276{,}800$ and the last norm's $512$ that is $25{,}829{,}888$. Models on the *meta* device have shapes
# and no memory, so even LLaMA-7B is counted at once. (Mixtures of experts follow in chapter 3.)


# %%
def count_on_paper(c):
    queries, pairs = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    block = c.hidden_size * (2 * queries + 2 * pairs + 3 * c.intermediate_size + 2)
    block += 2 * c.head_dim * c.qk_norm + (queries + 2 * pairs) * c.attention_bias
    embedding = c.vocab_size * c.hidden_size * (1 if c.tie_word_embeddings else 2)
    return embedding + c.num_hidden_layers * block + c.hidden_size


zoo = {name: shape for name, shape in ModelConfig.presets().items() if not shape.use_moe}
zoo["LLaMA-7B"] = ModelConfig(
    vocab_size=32000, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    intermediate_size=11008, rope_theta=1e4, qk_norm=False, tie_word_embeddings=False,
)  # fmt: skip

print(f"{'':18}layers width heads inner q/k-norm tied  parameters  embedding, head")
agreeing = 0
for name, c in zoo.items():
    with torch.device("meta"):
        count = MiniMind(c).num_parameters()
    agreeing += count == count_on_paper(c)
    share = c.vocab_size * c.hidden_size * (2 - c.tie_word_embeddings) / count
    heads = f"{c.num_attention_heads}/{c.num_key_value_heads}"
    print(
        f"{name:18}{c.num_hidden_layers:6}{c.hidden_size:6}{heads:>6}{c.intermediate_size:6}{c.qk_norm!s:>9}"
        f"{c.tie_word_embeddings!s:>6}{count / 1e6:11.3f}M{share:10.0%}"
    )
claims.record("ch02.zoo", agreeing, equals=len(zoo), source="shapes whose parameters are as on paper")
claims.record("ch02.llama", count, equals=6_738_415_616, source="parameters of LLaMA-7B, by the model")

# %% [markdown]
# ## Past the trained length
#
# A model meets positions beyond its training length. To see what happens, we train one on short rows: the
# small world's documents end to end, cut into rows of 64 tokens. The base $\theta = 300$ is to 64 about what
# LLaMA's 10,000 is to its 2,048. The floor is the documents' entropy for each token of the stream. A row that
# begins inside a document lacks context, which can only raise its loss, so the floor holds.

# %% tags=["nbval-ignore-output"]
tokenizer, world = artifacts.tokenizer(), SmallWorld()


def stream(count, split):
    """Documents as one list of token ids, and their entropy in nats for each of them."""
    documents = list(world.documents(count, split))
    texts = tokenizer.encode_batch([document.text for document in documents])
    ids = [token for text in texts for token in (tokenizer.bos_token_id, *text, tokenizer.eos_token_id)]
    return ids, -sum(document.log_probability for document in documents) / len(ids)


(train_ids, _), (held_out, floor) = stream(15_000, "train"), stream(600, "valid")
print(f"{len(train_ids):,} tokens to train on, {len(held_out):,} held out, floor {floor:.3f} nats a token")
sizes = {"vocab_size": tokenizer.vocab_size, "rope_theta": 300.0, "max_position_embeddings": 64}
torch.manual_seed(42)
model = MiniMind(ModelConfig.preset("edu", **sizes))
prompt = tokenizer.encode(" ".join(world.document(1, "valid").text.split()[:3]))
before = generate(model, [prompt], max_new_tokens=25)[0]
rows = PackedDataset(TokenizedDocuments.from_lists([train_ids]), max_seq_len=64)
live = figures.LivePlot("Training on rows of 64 tokens", floor)
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    settings = TrainConfig(
        folder, max_steps=280, optimizer="muon", learning_rate=1e-2, min_lr_ratio=0.0, save_interval=0
    )
    trained = fit(model, causal_lm_loss, rows, settings, on_log=live)
model = model.cpu().eval()
print("before:", tokenizer.decode(before))
print("after: ", tokenizer.decode(generate(model, [prompt], max_new_tokens=25)[0]))

# %% [markdown]
# A pair that completed a turn within 64 tokens has shown every angle. A slower pair will show angles that no
# query ever met. And the softmax will spread over more keys than it ever had to.
#
# *YaRN* addresses both. Pairs that turn at least `beta_fast` times over the old length stay as they are,
# those below `beta_slow` turns are slowed down by the factor $s$ of the extension, with a ramp between. And
# cosines and sines are multiplied by $0.1 \ln s + 1$, which sharpens the softmax. (MiniMind leaves that
# factor at 1.)
#
# ![Turns of each pair within 64 tokens, plain and with YaRN: pairs with at least one turn are left alone,
# pairs with less than a quarter are slowed by 8](../figures/02_yarn.svg)
#
# The published 32 and 1 turns are for long contexts: 32 turns in 64 tokens are 3.14 radians a token, more
# than the fastest pair's 1, so that all pairs but the first would be slowed. We take 1 turn and a quarter.


# %%
def yarn(frequencies, scaling, theta):
    """Frequencies (D/2,) after YaRN's ramp, which runs between whole pairs."""

    def pair(turns):  # the number of the pair, as a fraction, that turns so often over the old length
        radians = 2 * math.pi * turns / scaling.original_max_position_embeddings
        return -len(frequencies) * math.log(radians) / math.log(theta)

    first = max(math.floor(pair(scaling.beta_fast)), 0)
    last = min(math.ceil(pair(scaling.beta_slow)), len(frequencies) - 1)
    ramp = ((torch.arange(len(frequencies)) - first) / (last - first)).clamp(0, 1)
    return frequencies * (1 - ramp + ramp / scaling.factor)


plain = model.config.replace(max_position_embeddings=512)
full = RopeScaling(8, 64, beta_fast=1, beta_slow=0.25, attention_factor=0.1 * math.log(8) + 1)
frequencies = 300.0 ** (-torch.arange(32) / 32)
turned = 64 * frequencies / (2 * math.pi)
whole, quarter = int((turned >= 1).sum()), int((turned >= 0.25).sum())
print(f"in 64 tokens, {whole} of 32 pairs complete a turn, {32 - quarter} not even a quarter")

# %% [markdown]
# Two equalities again: our frequencies with the package's, and logits of 512 tokens with transformers'.


# %%
def stretched(scaling):
    """The trained weights in a model that reads 512 tokens."""
    longer = MiniMind(plain.replace(rope_scaling=scaling))
    longer.load_state_dict(model.state_dict())
    return longer.eval()


both = [full, RopeScaling(8, 64, 32, 1)]  # ours, and the published turns
ours = torch.stack([rope_frequencies(plain.replace(rope_scaling=scaling)) for scaling in both])
paper = torch.stack([yarn(frequencies, scaling, 300.0) for scaling in both])
worst = difference(paper / ours, torch.ones(2, 32))
claims.record("ch02.yarn", worst, at_most=1e-5, source="relative difference from the package's frequencies")
ids, longer = torch.tensor([held_out[:512]]), stretched(full)
with torch.inference_mode():
    worst = difference(longer(ids).logits, longer.to_transformers()(ids).logits)
claims.record("ch02.yarn_logits", worst, at_most=1e-3, source="difference from transformers, 512 tokens")

# %% [markdown]
# Now the loss by position, up to eight times the trained length, on windows that move on by 32 tokens: each
# block of 32 positions is measured on almost the same text. YaRN's two halves are also taken apart. (A factor
# of 1 slows nothing down.)

# %% tags=["nbval-ignore-output"]
windows = torch.tensor(held_out).unfold(0, 512, 32)[:96]
halves = {
    "slower pairs only": RopeScaling(8, 64, 1, 0.25),
    "sharper softmax only": RopeScaling(1, 64, 1, 0.25, full.attention_factor),
}
losses = {}
for name, scaling in {"plain": None, **halves, "YaRN, both": full}.items():
    longer = stretched(scaling)
    with torch.inference_mode():
        pieces = [
            F.cross_entropy(longer(one).logits[:, :-1].transpose(1, 2), one[:, 1:], reduction="none")
            for one in windows.split(16)
        ]
    losses[name] = torch.cat(pieces).mean(dim=0)  # (511,)
figure, axes = figures.new_figure(7.5, 3.8)
for name, loss in losses.items():
    axes.plot(torch.arange(17, 512, 32), loss[1:].unfold(0, 30, 32).mean(dim=1), label=name)
axes.axvline(64, color=figures.GREY, linestyle=":")
axes.axhline(floor, color=figures.INK, linestyle="--", label="floor")
axes.set(
    xlabel="position in the text",
    ylabel="loss (nats a token)",
    title="Trained on 64 tokens, left of the dotted line",
)
with figures.style():
    axes.legend(loc="upper left", bbox_to_anchor=(0.15, 1))
figures.show(figure, "loss by position up to 512: plain rises steadily after 64, YaRN rises less")

# %% [markdown]
# Nothing falls off a cliff. The plain model loses more the further it is from what it was trained on. Far
# out, YaRN takes part of that away without any training, and it costs little inside the old length. At this
# size the sharper softmax alone removes more than the slower pairs alone. Whether both together do better
# than the softmax alone depends on the seed. (YaRN's authors also train briefly at the new length, which we
# do not.)

# %% tags=["nbval-ignore-output"]
inside = {name: float(loss[32:63].mean()) for name, loss in losses.items()}
far = {name: float(loss[384:].mean()) for name, loss in losses.items()}
for name in losses:
    print(f"{name:22} {inside[name]:.3f} at 33 to 63, {far[name]:.3f} at 385 to 511")
excess = far["plain"] - inside["plain"]
repaired = (far["plain"] - far["YaRN, both"]) / excess
broken = far["plain"] / inside["plain"]
claims.record("ch02.break", broken, at_least=1.2, source="plain loss, far / inside the trained length")
claims.record("ch02.yarn_repairs", repaired, at_least=0.2, source="share of the far excess that YaRN removes")
cost = inside["YaRN, both"] / inside["plain"]
claims.record("ch02.yarn_inside", cost, at_most=1.1, source="loss inside, YaRN / plain")
halves = (far["slower pairs only"] - far["sharper softmax only"]) / excess
claims.record("ch02.yarn_halves", halves, at_least=0.05, source="share removed by the softmax - by slowing")
alone = far["sharper softmax only"] / far["plain"]
claims.record("ch02.yarn_softmax", alone, at_most=0.95, source="far loss, sharper softmax alone / plain")

# %% [markdown]
# ## A break: the mask forgotten
#
# Without the causal mask a token sees its successor, which it should predict. We train a one-layer model with
# this notebook's `forward`, once with and once without the mask.


# %%
def short_run(causal, steps=120):
    """The mean loss of the last ten steps, and then, with the mask, that of fresh rows."""
    torch.manual_seed(0)
    shape = ModelConfig.preset("edu", **sizes, hidden_size=64, num_hidden_layers=1)
    weights, history = dict(MiniMind(shape).named_parameters()), []
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2, betas=(0.9, 0.95))
    lines = torch.tensor(train_ids[: len(train_ids) // 64 * 64]).view(-1, 64)

    def loss_of(batch, causal):
        logits = forward(weights, shape, batch, causal)[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    for batch in lines[: 16 * steps].split(16):
        loss = loss_of(batch, causal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return sum(history[-10:]) / 10, loss_of(lines[-64:], True).item()


# %% tags=["nbval-ignore-output"]
(with_mask, fresh_with), (without_mask, fresh_without) = short_run(True), short_run(False)
print(f"with the mask {with_mask:.2f}, without {without_mask:.2f}, floor {floor:.2f} nats a token")
print(f"on fresh rows, where the mask counts again: {fresh_with:.2f} and {fresh_without:.2f}")
claims.record("ch02.mask_kept", with_mask / floor, at_least=1.0, at_most=6, source="loss / floor, causal")
claims.record("ch02.mask_forgotten", without_mask / floor, at_most=0.8, source="loss / floor, no mask")
claims.record("ch02.mask_useless", fresh_without / fresh_with, at_least=1.2, source="fresh rows, masked")

# %% [markdown]
# The broken model looks brilliant and is useless: at writing time there is no successor to copy. The floor
# gives it away. **Over enough fresh text, no honest model gets below the entropy of the
# data.**

# %% [markdown]
# ## Exercises
#
# Write the body, run both cells. `show_solution("ch02.rope")`, from `minimind_edu.course.exercises`, shows an
# answer.
#
# **1.** RoPE with real numbers only.


# %%
def rope(x, positions, theta):
    """Turn the pairs (x[i], x[i + D/2]) of x (T, D); row t stands at positions[t]. Returns (T, D).

    rope(torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([1]), 100.0) is about [[-1.984, 1.591, 2.462, 4.180]]
    """
    raise NotImplementedError


# %%
check("ch02.rope", rope)

# %% [markdown]
# **2.** Attention of one text, with groups and a causal mask.


# %%
def grouped_attention(query, key, value):
    """Causal attention of query (H, T, D) to key and value (G, T, D), H a multiple of G. Returns (H, T, D).

    With query and key of zeros and values 1, 2, 6 (H = G = D = 1) the result is 1, 1.5, 3.
    """
    raise NotImplementedError


# %%
check("ch02.grouped_attention", grouped_attention)

# %% [markdown]
# **3.** The way back: from rotate-half to interleaved.


# %%
def to_interleaved(weight, heads):
    """Rows of a q or k projection (heads * D, C), from rotate-half to the interleaved layout, the same shape.

    With one head, rows 0 1 2 3 4 5 become 0 3 1 4 2 5.
    """
    raise NotImplementedError


# %%
check("ch02.to_interleaved", to_interleaved)

# %% [markdown]
# ## Claims

# %% tags=["nbval-ignore-output"]
claims.table()

# %% [markdown]
# ## At full scale
#
# The same code builds the published sizes. The data must be files of your own in MiniMind's formats; these
# commands measure the speed of your machine, then train two models of the zoo:
#
# ```
# minimind-edu bench --preset minimind2-small --max_seq_len 512
# minimind-edu pretrain --preset minimind2-small --vocab_size 6400 --max_seq_len 512 --epochs 1 \
#     --data_path pretrain_hq.jsonl --out_dir out/minimind2-small
# minimind-edu pretrain --preset minimind2 --vocab_size 6400 --max_seq_len 512 --epochs 1 \
#     --data_path pretrain_hq.jsonl --out_dir out/minimind2
# ```
#
# MiniMind's author reports, for one epoch of `pretrain_hq.jsonl` (1.6 GB) on an RTX 3090 with the original
# code, about 1.1 hours for minimind2-small and 3.9 hours for minimind2. We have not measured these.
#
# ## References
#
# - RMSNorm: Zhang and Sennrich, [Root Mean Square Layer Normalization](https://arxiv.org/abs/1910.07467)
#   (2019)
# - RoPE: Su et al., [RoFormer](https://arxiv.org/abs/2104.09864) (2021)
# - YaRN: Peng et al., [YaRN: Efficient Context Window Extension of Large Language
#   Models](https://arxiv.org/abs/2309.00071) (2023); position interpolation: Chen et al., [Extending Context
#   Window](https://arxiv.org/abs/2306.15595) (2023)
# - GQA: Ainslie et al., [GQA: Training Generalized Multi-Query Transformer
#   Models](https://arxiv.org/abs/2305.13245) (2023); MQA: Shazeer, [Fast Transformer
#   Decoding](https://arxiv.org/abs/1911.02150) (2019)
# - SwiGLU: Shazeer, [GLU Variants Improve Transformer](https://arxiv.org/abs/2002.05202) (2020)
# - LLaMA: Touvron et al., [LLaMA](https://arxiv.org/abs/2302.13971) (2023); Qwen3: [Qwen3 Technical
#   Report](https://arxiv.org/abs/2505.09388) (2025)
# - [MiniMind](https://github.com/jingyaogong/minimind), whose shapes and names this course keeps
