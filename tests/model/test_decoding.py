"""Decoding with rearranged weights: the same numbers as the model's own forward pass."""

import pytest
import torch
from random_models import make_model

from minimind_edu.model.attention import KVCache
from minimind_edu.model.decoding import DecodingStep, SharedPrompts, can_rearrange
from minimind_edu.stages.lora import apply_lora

SHAPES = [
    {},
    {"qk_norm": False},
    {"qk_norm": False, "attention_bias": True},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1, "head_dim": 24},
    {"use_moe": True, "moe_intermediate_size": 24, "num_shared_experts": 1},
    {"tie_word_embeddings": False},
]


def filled_cache(model, ids, mask):
    cache = KVCache(model.config, len(ids), 40, dtype=model.compute_dtype())
    with torch.no_grad():
        model(ids, attention_mask=mask, cache=cache)
    return cache


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("changes", SHAPES)
def test_equals_the_forward_pass(changes, padded):
    model = make_model(**changes)
    ids = torch.randint(0, 61, (3, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 9, dtype=torch.int64)
    if padded:
        mask[0, :4] = 0
        mask[2, :1] = 0
    ours, theirs = (filled_cache(model, ids[:, :9], mask) for _ in range(2))
    step = DecodingStep(model)
    for column in range(9, 17):
        with torch.no_grad():
            expected = model.hidden_states(ids[:, column : column + 1], cache=theirs)[0][:, 0]
        found = step(ids[:, column], ours)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not found.requires_grad
    assert ours.length == theirs.length == 17 and torch.equal(ours.position, theirs.position)
    for layer in range(2):
        torch.testing.assert_close(
            ours.keys[layer][:, :, :17], theirs.keys[layer][:, :, :17], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("changes", SHAPES)
def test_shared_prompts_equal_prompts_of_ones_own(changes, padded):
    model = make_model(**changes)
    random = torch.Generator().manual_seed(1)
    prompts, new = (
        torch.randint(0, 61, (4, 9), generator=random),
        torch.randint(0, 61, (7, 6), generator=random),
    )
    mask = torch.ones(4, 9, dtype=torch.int64)
    if padded:
        mask[0, :4] = 0
        mask[3, :1] = 0
    sources, step = [1, 0, 0, 3, 2, 0, 3], DecodingStep(model)
    rows = torch.tensor(sources)
    whole, prompt_cache = (filled_cache(model, prompts, mask) for _ in range(2))
    whole.keep_rows(rows)
    shared, own = SharedPrompts(prompt_cache, sources), KVCache(model.config, 7, 6)
    own.position = whole.position.clone()
    for column in range(6):
        expected = step(new[:, column], whole)
        torch.testing.assert_close(step(new[:, column], own, shared), expected, rtol=1e-4, atol=1e-5)
        gone = {1: [0, 4], 3: [1, 3, 4]}.get(column)  # all rows of two prompts, then of a third
        if gone:
            orders = [cache.drop_rows(gone) for cache in (whole, own)]
            assert orders[0] == orders[1]
            shared.keep_rows(orders[0])
            new = new[orders[0]]
    assert shared.prompts.batch_size == 1  # prompts without rows were let go


def test_half_precision_and_autocast():
    ids = torch.randint(0, 61, (3, 10), generator=torch.Generator().manual_seed(1))
    exact = make_model()(ids).logits[:, -1]
    for model in (make_model().bfloat16(), make_model()):
        with torch.autocast("cpu", torch.bfloat16, enabled=model.lm_head is None):
            cache = filled_cache(model, ids[:, :9], None)
            logits = model.head(DecodingStep(model)(ids[:, 9], cache)).float()
        assert (logits - exact).abs().max() < 0.1 * exact.abs().max()


def test_weights_are_those_at_the_time():
    model = make_model()
    step, ids = DecodingStep(model), torch.ones(1, 5, dtype=torch.int64)
    cache = filled_cache(model, ids, None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(ids[:, 0], cache)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_adapters_and_hooks_are_left_to_the_model():
    assert can_rearrange(make_model())
    adapted, hooked = make_model(), make_model()
    apply_lora(adapted, rank=2, alpha=4, targets=["q_proj"])
    hooked.model.layers[1].mlp.register_forward_hook(lambda module, given, output: output * 0)
    for model in (adapted, hooked):
        assert not can_rearrange(model)
        with pytest.raises(ValueError, match="only a plain model"):
            DecodingStep(model)
