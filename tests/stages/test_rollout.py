"""Rollouts: groups of samples, and log-probabilities of the distribution that they were drawn from."""

import pytest
import torch
from random_models import make_model as random_model

from minimind_edu.generation import Sampling, complete
from minimind_edu.sampling import sampling_probabilities
from minimind_edu.stages.rollout import Sample, action_logprobs, as_batch, sample_groups

STOP = 3
PROMPTS = [[5, 9, 2], [7] * 9, [1], [30, 31, 32, 33, 34]]
SAMPLINGS = [
    Sampling(1.0),
    Sampling(0.7),
    Sampling(1.3, top_k=20),
    Sampling(1.0, top_p=0.9),
    Sampling(0.7, top_k=20, top_p=0.9),
]


def make_model(**changes):
    """In training mode, as a step of training finds it."""
    return random_model(**changes).train()


def roll(model, sampling=SAMPLINGS[0], seed=0):
    return sample_groups(model, PROMPTS, 6, sampling, STOP, 30, seed)


def flat(groups):
    return [sample for group in groups for sample in group]


def test_groups_are_completions_in_order():
    model = make_model()
    groups = roll(model, SAMPLINGS[2], seed=5)
    rows = [prompt for prompt in PROMPTS for _ in range(6)]
    options = {"max_new_tokens": 30, "sampling": SAMPLINGS[2], "eos_token_id": STOP, "seed": 5}
    expected = complete(model, rows, **options)
    assert [len(group) for group in groups] == [6] * 4
    assert [list(one.prompt) for one in flat(groups)] == rows
    assert [list(one.tokens) for one in flat(groups)] == [one.tokens for one in expected]
    assert {one.finish_reason for one in flat(groups)} == {"stop", "length"}
    for one in flat(groups):
        assert len(one.tokens) == len(one.logprobs)
        assert (one.tokens[-1] == STOP) == (one.finish_reason == "stop")
    assert len({one.tokens for one in groups[0]}) > 1


@pytest.mark.parametrize("changes", [{}, {"use_moe": True, "moe_intermediate_size": 24}, {"dropout": 0.4}])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_ratio_is_one_right_after_sampling(sampling, changes):
    model = make_model(**changes)
    batch = as_batch(flat(roll(model, sampling)))
    scores = action_logprobs(model, batch, sampling)
    assert scores.logprobs.requires_grad and not scores.entropy.requires_grad
    ratio = (scores.logprobs - batch["old_logprobs"]).exp()
    assert float((ratio - 1).detach().abs().max()) < 1e-4
    assert int(batch["action_mask"].sum()) == sum(len(one.tokens) for one in flat(roll(model, sampling)))


def test_the_ratio_to_the_wrong_distribution_is_not_one():
    """What "a wrong old policy" does: sampled with temperature and top-p, scored without."""
    model = make_model()
    batch = as_batch(flat(roll(model, SAMPLINGS[4])))
    wrong = action_logprobs(model, batch, Sampling(1.0)).logprobs
    ratio = (wrong - batch["old_logprobs"]).exp()[batch["action_mask"]]
    assert float(ratio.detach().mean()) < 0.9


@pytest.mark.parametrize("sampling", SAMPLINGS)
@torch.no_grad()
def test_logprobs_and_entropy_equal_a_loop(sampling):
    model = make_model().eval()
    samples = flat(roll(model, sampling))[::5]
    batch = as_batch(samples)
    scores = action_logprobs(model, batch, sampling)
    for row, one in enumerate(samples):
        for t, token in enumerate(one.tokens):
            text = torch.tensor([[*one.prompt, *one.tokens[:t]]])
            logits = model(text).logits[0, -1]
            options = (sampling.temperature, sampling.top_k, sampling.top_p)
            probabilities = sampling_probabilities(logits, *options).double()
            place = len(one.prompt) - 1 + t
            expected = float(probabilities[token].log())
            assert float(scores.logprobs[row, place]) == pytest.approx(expected, abs=1e-4)
            entropy = float(torch.special.entr(probabilities).sum())
            assert float(scores.entropy[row, place]) == pytest.approx(entropy, abs=1e-3)
    assert not scores.logprobs[~batch["action_mask"]].any()


def test_a_batch_by_hand():
    samples = [Sample((5, 6), (7, 3), (-1.0, -2.0), "stop"), Sample((8,), (9,), (-0.5,), "length")]
    batch = as_batch(samples)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 3], [8, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["action_mask"].tolist() == [[False, True, True], [True, False, False]]
    assert batch["old_logprobs"].tolist() == [[0.0, -1.0, -2.0], [-0.5, 0.0, 0.0]]
    assert as_batch(samples, width=9)["input_ids"].shape == (2, 9)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_gradients_equal_those_of_the_whole_softmax(sampling):
    model = make_model().double()
    batch = as_batch(flat(roll(make_model(), sampling))[::4])
    scores = action_logprobs(model, batch, sampling)
    logits = model(batch["input_ids"]).logits[:, :-1].float()
    kept = sampling_probabilities(logits, sampling.temperature, sampling.top_k, sampling.top_p) > 0
    kept.scatter_(2, batch["input_ids"][:, 1:, None], True)
    whole = (logits / sampling.temperature).masked_fill(~kept, -1e30).log_softmax(-1)
    expected = whole.gather(2, batch["input_ids"][:, 1:, None])[..., 0] * batch["action_mask"]
    torch.testing.assert_close(scores.logprobs, expected, atol=1e-5, rtol=1e-5)
    weight = model.model.layers[0].self_attn.q_proj.weight
    ours, theirs = (torch.autograd.grad(one.sum(), weight)[0] for one in (scores.logprobs, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_token_that_left_the_top_k_keeps_its_gradient():
    model = make_model()
    sampling = Sampling(1.0, top_k=2)
    batch = as_batch(flat(roll(model, sampling)))
    with torch.no_grad():  # another model, whose two likeliest tokens are others
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    logprobs = action_logprobs(model, batch, sampling).logprobs
    assert bool(torch.isfinite(logprobs).all())
    logprobs.sum().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())


def test_wrong_arguments_are_named():
    model = make_model()
    with pytest.raises(ValueError, match="group_size must be 1 or more"):
        sample_groups(model, PROMPTS, 0, Sampling(1.0), STOP, 5, 0)
    with pytest.raises(ValueError, match="temperature above 0"):
        sample_groups(model, PROMPTS, 2, Sampling(), STOP, 5, 0)
    with pytest.raises(ValueError, match="repetition penalty"):
        action_logprobs(model, {}, Sampling(1.0, repetition_penalty=1.1))
