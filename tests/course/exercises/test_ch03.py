"""The exercises of chapter 3 agree with the layer they explain."""

import torch

from minimind_edu import ModelConfig
from minimind_edu.course.exercises.ch03 import COMBINE, TOP_K_WEIGHTS, combine, top_k_weights
from minimind_edu.course.exercises.checking import PASSED, examine
from minimind_edu.model.moe import MoEFeedForward


def test_the_solutions_make_the_layer():
    for k, normalise in ((1, False), (2, True), (2, False)):
        config = ModelConfig(
            hidden_size=8,
            use_moe=True,
            num_experts_per_tok=k,
            norm_topk_prob=normalise,
            moe_intermediate_size=6,
        )
        layer, x = MoEFeedForward(config), torch.randn(10, 8)
        weights = top_k_weights(layer.gate(x), k, normalise)
        token, expert = weights.nonzero(as_tuple=True)
        outputs = torch.stack([layer.experts[e](x[t]) for t, e in zip(token, expert, strict=True)])
        ours = combine(outputs, weights[token, expert], token, 10)
        torch.testing.assert_close(ours, layer(x[None])[0][0], atol=1e-6, rtol=1e-4)


def test_unforeseen_answers_get_a_hint_of_what_is_missing():
    def columns_swapped(logits, k, normalise):
        return top_k_weights(logits, k, normalise).flip(-1)

    assert "k largest" in examine(TOP_K_WEIGHTS, columns_swapped, 0)

    def compact(logits, k, normalise):
        return logits.softmax(-1).topk(k).values

    assert "(N, E)" in examine(TOP_K_WEIGHTS, compact, 0)

    def shifted(outputs, weights, token, num_tokens):
        return combine(outputs, weights, token, num_tokens).roll(1, 0)

    assert "token[i]" in examine(COMBINE, shifted, 0)


def test_a_loop_is_a_right_answer_too():
    def loop(outputs, weights, token, num_tokens):
        result = [torch.zeros(outputs.shape[1]) for _ in range(num_tokens)]
        for output, weight, place in zip(outputs, weights, token.tolist(), strict=True):
            result[place] = result[place] + weight * output
        return torch.stack(result)

    assert examine(COMBINE, loop, 3) == PASSED
