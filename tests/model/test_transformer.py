"""The model itself: losses, packing, padding, cache, numerics, checks on its input."""

import math

import pytest
import torch
import torch.nn.functional as F

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.config import RopeScaling
from minimind_edu.model.attention import KVCache, attention_bias, plain_attention
from minimind_edu.model.rope import apply_rope, rope_frequencies, rope_table
from minimind_edu.model.transformer import RMSNorm, next_token_loss

SHAPES = {
    "dense": {},
    "llama": {"qk_norm": False, "rms_norm_eps": 1e-5},
    "qwen2": {"qk_norm": False, "attention_bias": True, "tie_word_embeddings": False},
    "moe": {"use_moe": True, "num_shared_experts": 1, "seq_aux": True, "moe_intermediate_size": 32},
    "wide-heads": {"head_dim": 32, "num_key_value_heads": 4},
}


def make_model(seed=0, **changes):
    """A small model with weights large enough that its logits differ clearly, in evaluation mode."""
    sizes = {"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = ModelConfig(**(sizes | {"num_key_value_heads": 2, "intermediate_size": 64} | changes))
    torch.manual_seed(seed)
    model = MiniMind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=float(parameter.dim() == 1), std=0.1)
    return model


@pytest.fixture(params=SHAPES)
def model(request):
    return make_model(**SHAPES[request.param])


def tokens(*shape, seed=1):
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(seed))


def test_output_shapes_and_names(model):
    out = model(tokens(2, 7))
    assert out.logits.shape == (2, 7, 97)
    assert out.loss is None and out.aux_loss.shape == ()
    assert (out.aux_loss > 0) == model.config.use_moe
    hidden, _ = model.hidden_states(tokens(2, 7))
    torch.testing.assert_close(model.head(hidden), out.logits)


def test_causal(model):
    ids = tokens(1, 12)
    changed = ids.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 97
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :8], after[:, :8], atol=1e-5, rtol=0)
    assert (before[:, 8:] - after[:, 8:]).abs().max() > 1e-2


def test_loss_is_the_shifted_mean_cross_entropy(model):
    ids = tokens(3, 9)
    labels = ids.clone()
    labels[0, :5] = -100
    labels[2] = -100
    out = model(ids, labels)
    logprobs = out.logits.log_softmax(dim=-1)
    terms = [
        -logprobs[b, t, labels[b, t + 1]] for b in range(3) for t in range(8) if int(labels[b, t + 1]) != -100
    ]
    torch.testing.assert_close(out.loss, torch.stack(terms).mean())


def test_a_batch_without_labels_has_loss_zero_and_zero_gradients(model):
    ids = tokens(2, 5)
    loss = model(ids, torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or bool((p.grad == 0).all()) for p in model.parameters())
    assert model(ids[:, :1], ids[:, :1]).loss.item() == 0.0  # one token has no next one


@pytest.mark.parametrize("length", [300, 40])
def test_packed_documents_equal_separate_ones(model, length):
    cuts = [0, length // 5, length // 2, length // 2 + 1, length]
    ids = tokens(2, length)
    documents = torch.zeros_like(ids)
    for number, (start, end) in enumerate(zip(cuts, cuts[1:], strict=False)):
        documents[:, start:end] = number
    packed = model(ids, document_ids=documents).logits
    for start, end in zip(cuts, cuts[1:], strict=False):
        separate = model(ids[:, start:end]).logits
        torch.testing.assert_close(packed[:, start:end], separate, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, side):
    lengths = [11, 1, 6]
    ids = torch.zeros(3, 11, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    columns = [slice(0, n) if side == "right" else slice(11 - n, 11) for n in lengths]
    for row, column in enumerate(columns):
        ids[row, column] = tokens(lengths[row], seed=row)
        mask[row, column] = 1
    logits = model(ids, attention_mask=mask).logits
    assert torch.isfinite(logits).all()
    for row, column in enumerate(columns):
        alone = model(ids[row : row + 1, column]).logits[0]
        torch.testing.assert_close(logits[row, column], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunks", [[1] * 12, [12], [5, 1, 1, 5], [3, 9]])
def test_cache_equals_no_cache(model, chunks):
    ids = tokens(2, 12)
    cache = KVCache(model.config, batch_size=2, max_length=16)
    parts = [model(part, cache=cache).logits for part in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits, atol=1e-5, rtol=0)


def test_cache_with_left_padding_and_rows_that_leave(model):
    rows = [tokens(n, seed=n) for n in (9, 4, 6)]
    ids = torch.stack([F.pad(row, (9 - len(row), 0)) for row in rows])
    mask = torch.stack([F.pad(torch.ones_like(row), (9 - len(row), 0)) for row in rows])
    cache = KVCache(model.config, batch_size=3, max_length=20)
    model(ids, attention_mask=mask, cache=cache)
    cache.keep_rows(torch.tensor([1, 2]))
    for step in range(3):
        new = tokens(2, 1, seed=50 + step)
        logits = model(new, cache=cache).logits[:, -1]
        rows = [None, torch.cat((rows[1], new[0])), torch.cat((rows[2], new[1]))]
        alone = torch.stack([model(row[None]).logits[0, -1] for row in rows[1:]])
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gone", [[0], [3], [1, 4], [0, 1, 2], [4, 0], [0, 1, 2, 3, 4]])
def test_rows_that_are_dropped_in_place(model, gone):
    ids, new = tokens(5, 6), tokens(5, 1, seed=2)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    cache, other = (KVCache(model.config, batch_size=5, max_length=9) for _ in range(2))
    for one in (cache, other):
        model(ids, attention_mask=mask, cache=one)
    order = cache.drop_rows(gone)
    assert sorted(order) == [row for row in range(5) if row not in gone] and cache.batch_size == len(order)
    if order:
        other.keep_rows(torch.tensor(order))
        found, expected = (model(new[order], cache=one).logits for one in (cache, other))
        assert torch.equal(found, expected)


def test_rows_of_a_cache_can_be_repeated_in_a_longer_one(model):
    ids = tokens(2, 5)
    cache = KVCache(model.config, batch_size=2, max_length=5)
    model(ids, cache=cache)
    cache.keep_rows(torch.tensor([1, 0, 1]), max_length=8)
    assert cache.max_length == 8 and cache.batch_size == 3
    new = tokens(3, 3, seed=1)
    expected = model(torch.cat((ids[[1, 0, 1]], new), dim=1)).logits[:, -3:]
    torch.testing.assert_close(model(new, cache=cache).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_full_cache_is_an_error():
    model = make_model()
    cache = KVCache(model.config, batch_size=1, max_length=4)
    model(tokens(1, 3), cache=cache)
    with pytest.raises(ValueError, match="holds 4 tokens"):
        model(tokens(1, 2), cache=cache)


def test_position_ids_are_used():
    model = make_model()
    ids = tokens(1, 6)
    shifted = model(ids, position_ids=torch.arange(10, 16)[None]).logits
    torch.testing.assert_close(shifted, model(ids).logits, atol=1e-5, rtol=0)  # only distances count
    stretched = model(ids, position_ids=torch.arange(0, 12, 2)[None]).logits
    assert (stretched - shifted).abs().max() > 1e-3


def test_wrong_inputs_are_named():
    model = make_model(max_position_embeddings=8)
    ids = tokens(2, 6)
    cases = {
        "vocabulary has 97": {"input_ids": ids + 97},
        "max_position_embeddings=8": {"input_ids": tokens(2, 9)},
        r"shape \(B, T\)": {"input_ids": ids[0]},
        "T of 1 or more": {"input_ids": ids[:, :0]},
        "int64": {"input_ids": ids.float()},
        "labels must have shape": {"input_ids": ids, "labels": ids[:, 1:]},
        "attention_mask": {"input_ids": ids, "attention_mask": ids[:, 1:]},
        "document_ids": {"input_ids": ids, "document_ids": ids[:1]},
        "position_ids": {"input_ids": ids, "position_ids": torch.full_like(ids, -1)},
        "the cache has 1 rows": {"input_ids": ids, "cache": KVCache(model.config, 1, 8)},
        "cannot be combined": {"input_ids": ids, "document_ids": ids, "cache": KVCache(model.config, 2, 8)},
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=message):
            model(**arguments)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointing_keeps_less_and_changes_no_gradient(model, dropout):
    config = model.config.replace(dropout=dropout, num_hidden_layers=4)
    ids = torch.randint(config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(1))
    gradients, kept = {}, {}
    for checkpointing in (False, True):
        torch.manual_seed(5)
        trained = MiniMind(config).train()
        trained.gradient_checkpointing = checkpointing
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            loss = trained(ids, labels=ids).loss
        loss.backward()
        gradients[checkpointing] = [parameter.grad for parameter in trained.parameters()]
        kept[checkpointing] = sum(sizes)
    for one, other in zip(gradients[False], gradients[True], strict=True):
        assert torch.equal(one, other)
    assert kept[True] < kept[False] / 3


def test_checkpointing_leaves_a_cache_alone(model):
    """Writing answers in training mode, as a rollout could, fills the cache once."""
    model.train().gradient_checkpointing = True
    try:
        cache = KVCache(model.config, 1, 8)
        with torch.no_grad():
            plain = model(torch.tensor([[1, 2, 3]]))
        cached = model(torch.tensor([[1, 2, 3]]), cache=cache)
        assert torch.allclose(plain.logits, cached.logits, atol=1e-5) and cache.length == 3
    finally:
        model.eval().gradient_checkpointing = False


def test_padding_takes_no_positions():
    model = make_model(max_position_embeddings=8)
    ids, mask = tokens(1, 12), torch.tensor([[0] * 5 + [1] * 7])
    alone = model(ids[:, 5:]).logits
    torch.testing.assert_close(model(ids, attention_mask=mask).logits[:, 5:], alone, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_model():
    config = ModelConfig(vocab_size=50, hidden_size=32)
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(MiniMind(config).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["model.embed_tokens.weight"], states[2]["model.embed_tokens.weight"])


def test_initialisation():
    torch.manual_seed(0)
    model = MiniMind(ModelConfig.preset("edu", attention_bias=True))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
    ids = torch.randint(0, 1600, (2, 64))
    assert model(ids, ids).loss.item() == pytest.approx(math.log(1600), abs=0.3)


def test_dropout_acts_in_training_only():
    model = make_model(dropout=0.3)
    ids = tokens(1, 8)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("autocast", [True, False])
def test_bf16_stays_close_to_float32(autocast):
    model = make_model()
    ids = tokens(2, 20)
    exact = model(ids, ids)
    documents = torch.zeros_like(ids)
    if not autocast:
        model = model.bfloat16()
        assert model.model.cos.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rough = model(ids, ids, document_ids=documents)
        cache = KVCache(model.config, 2, 20, dtype=model.compute_dtype())
        cached = torch.cat([model(part, cache=cache).logits for part in ids.split(7, dim=1)], dim=1)
    assert (rough.logits.float() - exact.logits).abs().max() < 0.1 * exact.logits.abs().max()
    assert (cached.float() - exact.logits).abs().max() < 0.1 * exact.logits.abs().max()
    assert rough.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    rough.loss.backward()


def test_rms_norm_by_hand():
    norm = RMSNorm(2, eps=0.0)
    torch.testing.assert_close(norm(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 4.0]) / math.sqrt(12.5))
    tiny = torch.full((4,), 1e-4)
    torch.testing.assert_close(RMSNorm(4, eps=1e-5)(tiny), tiny / math.sqrt(1e-8 + 1e-5))


@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (4, 2), (3, 3)])
def test_plain_attention_equals_the_fused_kernel(heads, groups):
    torch.manual_seed(0)
    query = torch.randn(2, heads, 5, 8)
    key, value = torch.randn(2, 2, groups, 9, 8).unbind(0)
    bias = attention_bias(5, 9, key_is_token=torch.rand(2, 9) < 0.7)
    fused = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)
    torch.testing.assert_close(plain_attention(query, key, value, bias), fused, atol=1e-6, rtol=1e-5)


def test_short_and_long_texts_agree():
    """Around 256 tokens the CPU changes from plain matrix products to the fused kernel."""
    model = make_model()
    ids = tokens(1, 258)
    torch.testing.assert_close(model(ids).logits[:, :250], model(ids[:, :250]).logits, atol=1e-5, rtol=0)


def test_rope_turns_pairs_by_position_times_frequency():
    config = ModelConfig(hidden_size=8, num_attention_heads=2, rope_theta=100.0)
    cos, sin = rope_table(config)
    x = torch.randn(1, 6, 2, 4, generator=torch.Generator().manual_seed(0))
    turned = apply_rope(x, cos[:6, None], sin[:6, None])
    for position in range(6):
        for pair, frequency in enumerate((1.0, 0.1)):
            number = torch.complex(x[0, position, :, pair], x[0, position, :, pair + 2])
            expected = number * torch.exp(torch.tensor(1j * position * frequency))
            torch.testing.assert_close(turned[0, position, :, pair], expected.real)
            torch.testing.assert_close(turned[0, position, :, pair + 2], expected.imag)


def yarn_by_hand(dim, theta, factor, original, fast, slow):
    """YaRN pair by pair in plain Python."""

    def index(turns):
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(index(fast)), 0), min(math.ceil(index(slow)), dim // 2 - 1)
    result = []
    for i in range(dim // 2):
        share = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        base = theta ** (-2 * i / dim)
        result.append(base * (1 - share) + base / factor * share)
    return torch.tensor(result)


@pytest.mark.parametrize(("dim", "theta"), [(64, 1e6), (96, 1e6), (48, 1e4), (8, 500.0), (2, 1e4)])
def test_yarn_frequencies(dim, theta):
    values = {
        "hidden_size": dim,
        "num_attention_heads": 1,
        "rope_theta": theta,
        "rope_scaling": RopeScaling(),
    }
    long = ModelConfig(max_position_embeddings=32768, **values)
    expected = yarn_by_hand(dim, theta, 16, 2048, 32, 1)
    torch.testing.assert_close(rope_frequencies(long), expected, rtol=1e-5, atol=0)
    short = ModelConfig(max_position_embeddings=2048, **values)
    plain = theta ** (-torch.arange(0, dim, 2) / dim)
    torch.testing.assert_close(rope_frequencies(short), plain, rtol=1e-5, atol=0)


def test_yarn_attention_factor_scales_the_table():
    scaling = RopeScaling(original_max_position_embeddings=64, attention_factor=1.5)
    cos, _ = rope_table(ModelConfig(max_position_embeddings=128, rope_scaling=scaling))
    assert (cos[0] == 1.5).all()


def test_next_token_loss_of_uniform_logits_is_log_vocabulary():
    loss = next_token_loss(torch.zeros(2, 5, 11), torch.zeros(2, 5, dtype=torch.int64))
    assert loss.item() == pytest.approx(math.log(11))
