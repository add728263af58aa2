"""Generation: greedy equality, sampling distributions, batches, streams, and wrong arguments."""

import math
from collections import Counter

import pytest
import torch
import transformers
from random_models import VOCABULARY, make_model

from minimind_edu import MiniMind
from minimind_edu.config import RopeScaling
from minimind_edu.generation import (
    Sampling,
    complete,
    generate,
    penalise_repetition,
    sampling_probabilities,
    stream,
)
from minimind_edu.sampling import draw_tokens
from minimind_edu.stages.lora import apply_lora


@pytest.fixture(scope="module")
def model():
    return make_model()


PROMPTS = [[5, 9, 2], [7] * 9, [1], [30, 31, 32, 33, 34]]


@pytest.mark.parametrize("changes", [{}, {"qk_norm": False}, {"use_moe": True, "moe_intermediate_size": 24}])
@pytest.mark.parametrize(
    "options", [{}, {"repetition_penalty": 1.4}, {"temperature": 0.8, "top_k": 20, "seed": 4}]
)
def test_with_and_without_cache_and_alone_or_together(changes, options):
    model = make_model(**changes)
    options = options | {"max_new_tokens": 25, "eos_token_id": [3, 4, 11, 20]}
    together = generate(model, PROMPTS, **options)
    assert together == generate(model, PROMPTS, use_cache=False, **options)
    assert len({len(row) for row in together}) > 1  # some row stopped early
    if "temperature" not in options:
        assert together == [generate(model, [prompt], **options)[0] for prompt in PROMPTS]


@pytest.mark.parametrize("penalty", [1.0, 1.5, 0.8])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qk_norm": False},
        {"qk_norm": False, "attention_bias": True},
        {"use_moe": True},
        {"rope_scaling": RopeScaling(factor=4.0, original_max_position_embeddings=32)},
    ],
)
def test_greedy_equals_transformers(changes, penalty):
    model = make_model(**changes)
    ids = torch.randint(0, VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(2))
    hf_model = model.to_transformers()
    options = {"max_new_tokens": 30, "repetition_penalty": penalty}
    expected = hf_model.generate(ids, do_sample=False, eos_token_id=[9, 13], pad_token_id=0, **options)
    ours = generate(model, ids, eos_token_id=[9, 13], pad_token_id=0, **options)
    assert torch.equal(ours, expected)


def test_left_padded_tensor_equals_transformers(model):
    ids = torch.tensor([[0, 0, 0, 5, 6], [8, 1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    expected = model.to_transformers().generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=12, pad_token_id=0
    )
    ours = generate(model, ids, attention_mask=mask, max_new_tokens=12)
    assert torch.equal(ours, expected)
    assert ours[0, 3:].tolist() == generate(model, [[5, 6]], max_new_tokens=12)[0]


def warped(logits, temperature, top_k, top_p):
    """The distribution according to transformers' own processors."""
    processors = transformers.LogitsProcessorList([transformers.TemperatureLogitsWarper(temperature)])
    if top_k:
        processors.append(transformers.TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(transformers.TopPLogitsWarper(top_p))
    return processors(torch.zeros(len(logits), 1, dtype=torch.int64), logits).softmax(-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 100])
@pytest.mark.parametrize("top_p", [1e-6, 0.2, 0.9, 1.0])
def test_probabilities_equal_transformers(temperature, top_k, top_p):
    logits = 3 * torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    ours = sampling_probabilities(logits, temperature, top_k, top_p)
    torch.testing.assert_close(ours, warped(logits, temperature, top_k, top_p), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.sum(-1), torch.ones(40))


def test_probabilities_by_hand():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert sampling_probabilities(logits, temperature=0).tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(sampling_probabilities(logits), logits.exp())
    expected = torch.tensor([0.625, 0.375, 0, 0])
    torch.testing.assert_close(sampling_probabilities(logits, top_k=2), expected)
    torch.testing.assert_close(sampling_probabilities(logits, top_p=0.6), expected)
    # Top-p looks at what top-k left: 0.625 reaches 0.6 alone.
    assert sampling_probabilities(logits, top_k=2, top_p=0.6).tolist() == [1, 0, 0, 0]
    tied = sampling_probabilities(torch.zeros(4), temperature=0)
    assert tied.tolist() == [1, 0, 0, 0]


def test_probabilities_leave_the_logits_alone():
    logits = torch.randn(2, 9)
    copy = logits.clone()
    sampling_probabilities(logits, 0.5, 3, 0.5)
    penalise_repetition(logits, torch.ones(2, 9, dtype=torch.bool), 2.0)
    assert torch.equal(logits, copy)


def test_repetition_penalty_equals_transformers():
    logits, ids = torch.randn(3, 20), torch.randint(0, 20, (3, 7))
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter(1, ids, True)
    expected = transformers.RepetitionPenaltyLogitsProcessor(1.7)(ids, logits)
    torch.testing.assert_close(penalise_repetition(logits, seen, 1.7), expected)


def test_samples_follow_the_distribution(model):
    rows = 3000
    options = Sampling(temperature=1.5, top_k=6)
    drawn = complete(model, [[5, 9]] * rows, max_new_tokens=1, sampling=options, seed=0)
    logits = model(torch.tensor([[5, 9]])).logits[0, -1]
    probabilities = sampling_probabilities(logits, 1.5, 6)
    counts = Counter(completion.tokens[0] for completion in drawn)
    assert set(counts) <= set(probabilities.nonzero().flatten().tolist())
    for token, probability in enumerate(probabilities.tolist()):
        sigma = math.sqrt(rows * probability * (1 - probability))
        assert abs(counts[token] - rows * probability) <= 4 * sigma + 1e-6


@pytest.mark.parametrize("vocabulary", [1, 7, 61, 64, 300, 2000])
def test_draws_equal_a_search_in_the_whole_cumulative_sum(vocabulary):
    random = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(500, vocabulary, generator=random)
    probabilities = sampling_probabilities(logits, 1.0, top_k=40)
    uniform = torch.rand(500, generator=random, dtype=torch.float64)
    uniform[:3] = torch.tensor([0.0, 1 - 2.0**-53, 0.5], dtype=torch.float64)
    sums = probabilities.double().cumsum(dim=-1)
    drawn = draw_tokens(probabilities, uniform)
    assert bool((probabilities.gather(1, drawn[:, None]) > 0).all())
    # The number lies in the token's own interval, up to rounding of the sums in float32.
    goal = uniform * sums[:, -1]
    end = sums.gather(1, drawn[:, None])[:, 0]
    start = end - probabilities.gather(1, drawn[:, None])[:, 0].double()
    assert bool((start - 1e-6 <= goal).all()) and bool((goal <= end + 1e-6).all())


def test_very_small_probabilities_are_drawn_as_often_as_they_should():
    """A thousand tokens of 1e-9 each: in float32 sums near 1 they would vanish."""
    probabilities = torch.full((1, 1001), 1e-9)
    probabilities[0, 0] = 1 - 1e-6
    for share in (0.0, 0.25, 0.5, 0.999):
        uniform = torch.tensor([1 - 1e-6 + share * 1e-6], dtype=torch.float64)
        assert abs(int(draw_tokens(probabilities, uniform)) - 1 - 1000 * share) <= 60


def test_rows_with_one_prompt_read_it_once(model, monkeypatch):
    seen = []
    original = MiniMind.hidden_states

    def counting(self, input_ids, **options):
        seen.append(tuple(input_ids.shape))
        return original(self, input_ids, **options)

    monkeypatch.setattr(MiniMind, "hidden_states", counting)
    rows = [prompt for prompt in PROMPTS for _ in range(3)]
    options = {"max_new_tokens": 10, "temperature": 1.0, "seed": 3}
    together = generate(model, rows, **options)
    assert seen == [(4, 9)]
    assert together == generate(model, rows, use_cache=False, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qk_norm": False, "attention_bias": True},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"use_moe": True, "moe_intermediate_size": 24},
    ],
)
def test_shared_prompts_change_no_result(changes):
    """Groups of uneven sizes in mixed order, whose rows leave until few prompts are left."""
    model = make_model(**changes)
    rows = [PROMPTS[number] for number in (2, 0, 1, 0, 3, 1, 2, 2, 0, 1, 1, 0, 2, 2, 0)]
    options = {
        "max_new_tokens": 30,
        "sampling": Sampling(1.0, top_k=20),
        "seed": 3,
        "eos_token_id": [3, 4, 11],
    }
    together = complete(model, rows, **options)
    alone = complete(model, rows, use_cache=False, **options)
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert len({len(one.tokens) for one in together}) > 4
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", ["adapter", "hook"])
def test_adapters_and_hooks_decide_in_generation(kind):
    model = make_model()
    plain = generate(model, PROMPTS, max_new_tokens=10)
    if kind == "adapter":
        apply_lora(model, rank=2, alpha=64, targets=["v_proj"])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora" in name:
                    parameter.normal_(std=0.5)
    else:
        model.model.layers[0].mlp.register_forward_hook(lambda module, given, output: -output)
    changed = generate(model, PROMPTS, max_new_tokens=10)
    assert changed != plain
    assert changed == generate(model, PROMPTS, max_new_tokens=10, use_cache=False)


def test_logprobs_are_those_of_the_sampled_distribution(model):
    sampling = Sampling(temperature=0.9, top_k=10, top_p=0.95, repetition_penalty=1.2)
    for prompt, completion in zip(
        PROMPTS, complete(model, PROMPTS, max_new_tokens=12, sampling=sampling, seed=1), strict=True
    ):
        assert len(completion.logprobs) == len(completion.tokens) == 12
        text = list(prompt)
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            logits = model(torch.tensor([text])).logits[:, -1]
            seen = torch.zeros(1, VOCABULARY, dtype=torch.bool)
            seen[0, text] = True
            probabilities = sampling_probabilities(penalise_repetition(logits, seen, 1.2), 0.9, 10, 0.95)
            assert logprob == pytest.approx(probabilities[0, token].log().item(), abs=1e-4)
            text.append(token)
    assert complete(model, [[1]], max_new_tokens=4)[0].logprobs == [0.0] * 4


def test_seeds_generators_and_rows(model):
    def sample(prompts, **options):
        return generate(model, prompts, max_new_tokens=15, temperature=1.5, **options)

    assert sample(PROMPTS, seed=1) == sample(PROMPTS, seed=1)
    assert sample(PROMPTS, seed=1) != sample(PROMPTS, seed=2)
    assert sample(PROMPTS[:2], seed=1) == sample(PROMPTS, seed=1)[:2]  # other rows do not matter
    same_prompt = sample([[5]] * 8, seed=1)
    assert len({tuple(row) for row in same_prompt}) == 8
    first, second = (sample(PROMPTS, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert first == second
    torch.manual_seed(3)
    first = sample(PROMPTS)
    assert first != sample(PROMPTS)
    torch.manual_seed(3)
    assert first == sample(PROMPTS)


def test_stop_tokens_and_finish_reasons(model):
    free = generate(model, [[5, 9, 2]], max_new_tokens=10)[0][3:]
    stop = free[4]
    length = free.index(stop) + 1
    done = complete(model, [[5, 9, 2]], max_new_tokens=10, eos_token_id=stop)[0]
    assert (done.tokens, done.finish_reason) == (free[:length], "stop")
    cut = complete(model, [[5, 9, 2]], max_new_tokens=2)[0]
    assert (cut.tokens, cut.finish_reason) == (free[:2], "length")


def test_tensor_rows_that_stop_early_are_padded(model):
    ids = torch.tensor([[5, 9, 2], [7, 7, 7]])
    free = generate(model, ids, max_new_tokens=8)
    stop = int(free[0, 4])
    out = generate(model, ids, max_new_tokens=8, eos_token_id=stop, pad_token_id=60)
    row = out[0, 3:].tolist()
    end = row.index(stop)
    assert row[end + 1 :] == [60] * (len(row) - end - 1)
    assert out.dtype == ids.dtype


def test_a_row_ends_at_the_last_position_whatever_its_mates_do(model):
    prompts = [[1] * 60, [2]]
    rows = generate(model, prompts, max_new_tokens=100)
    assert [len(row) for row in rows] == [64, 64]
    assert rows[0] == generate(model, prompts[:1], max_new_tokens=100)[0]
    assert rows[1] == generate(model, prompts[1:], max_new_tokens=100)[0]


def test_stream_yields_the_same_tokens_one_by_one(model):
    options = {"max_new_tokens": 9, "sampling": Sampling(temperature=1.0), "seed": 5}
    expected = complete(model, [[5, 9]], **options)[0].tokens
    assert list(stream(model, [5, 9], **options)) == expected
    tokens = stream(model, [5, 9], **options)
    assert next(tokens) == expected[0]
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    tokens.close()


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(training):
    model = make_model(dropout=0.5).train(training)
    assert generate(model, [[1, 2]], max_new_tokens=5) == generate(model, [[1, 2]], max_new_tokens=5)
    list(stream(model, [1, 2], max_new_tokens=3))
    next(unfinished := stream(model, [1, 2], max_new_tokens=3))
    unfinished.close()
    assert model.training is training


def test_results_can_be_trained_on(model):
    out = generate(model, torch.tensor([[1, 2, 3]]), max_new_tokens=4)
    model(out, out).loss.backward()  # inference tensors would refuse
    model.zero_grad()


def test_works_under_autocast_and_in_half_precision(model):
    with torch.autocast("cpu", torch.bfloat16):
        assert len(generate(model, PROMPTS, max_new_tokens=5)[0]) == 8
    assert len(generate(make_model().bfloat16(), PROMPTS, max_new_tokens=5)[0]) == 8


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "no prompt"),
        ([[1], []], {}, "prompt 1 is empty"),
        (torch.zeros(1, 0, dtype=torch.int64), {}, "empty"),
        (torch.zeros(3, dtype=torch.int64), {}, r"shape \(B, T\)"),
        ([1, 2], {}, "list of prompts"),
        ("text", {}, "list of prompts"),
        ([[1] * 64], {}, "max_position_embeddings=64"),
        ([[VOCABULARY]], {}, f"vocabulary has {VOCABULARY}"),
        ([[-1]], {}, "vocabulary"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens=0"),
        ([[1]], {"max_new_tokens": 2.5}, "max_new_tokens=2.5"),
        ([[1]], {"temperature": -1}, "temperature=-1"),
        ([[1]], {"temperature": float("nan")}, "temperature"),
        ([[1]], {"top_k": -1}, "top_k=-1"),
        ([[1]], {"top_k": 1.5}, "top_k=1.5"),
        ([[1]], {"top_p": 0.0}, "top_p=0.0"),
        ([[1]], {"top_p": 1.1}, "top_p=1.1"),
        ([[1]], {"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ([[VOCABULARY]], {"repetition_penalty": 1.2}, "vocabulary"),
    ],
)
def test_wrong_arguments_are_named(model, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, **options)


def test_damaged_weights_are_an_error_and_not_an_endless_text():
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        generate(model, [[1]])
