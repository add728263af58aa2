"""Copying shared key/value heads, as packed training on a GPU does, changes no result."""

import pytest
import torch

from minimind_edu.model.attention import attention_bias, fused_attention, plain_attention


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_repeated_heads_give_the_same_result_and_gradients(heads):
    torch.manual_seed(0)
    documents = torch.arange(12).div(5, rounding_mode="floor").expand(2, 12)
    bias = attention_bias(12, 12, document_ids=documents)
    found = []
    for call in (
        lambda *inputs: fused_attention(*inputs, bias),
        lambda *inputs: fused_attention(*inputs, bias, repeats=True),
        lambda *inputs: plain_attention(*inputs, bias),
    ):
        torch.manual_seed(1)
        inputs = [
            torch.randn(2, count, 12, 8, requires_grad=True) for count in (heads[0], heads[1], heads[1])
        ]
        result = call(*inputs)
        found.append([result, *torch.autograd.grad(result.square().sum(), inputs)])
    for other in found[1:]:
        for expected, tensor in zip(found[0], other, strict=True):
            torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-5)


def test_without_a_mask_it_is_causal():
    query, key, value = (torch.randn(1, 2, 5, 4) for _ in range(3))
    changed = value.clone()
    changed[:, :, 4] += 1
    before, after = (fused_attention(query, key, one, None) for one in (value, changed))
    assert torch.equal(before[:, :, :4], after[:, :, :4]) and not torch.equal(before[:, :, 4], after[:, :, 4])
