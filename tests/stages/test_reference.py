"""Log-probabilities of answers against a loop, those of the reference, and KL to it."""

import numpy as np
import pytest
import torch
from pair_models import batch_of, make_model, make_rows, one_answer

from minimind_edu.stages.reference import mean_kl, reference_logprobs, sequence_logprobs

# -- log-probabilities of answers --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"use_moe": True}, {"tie_word_embeddings": False, "qk_norm": False}])
def test_summed_logprobs_equal_a_loop(shape, world_pairs, tokenizer, tmp_path):
    model = make_model(tokenizer, **shape).eval()
    batch = batch_of(make_rows(world_pairs, tokenizer, tmp_path), range(0, 24, 4))
    ids, labels = batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1)
    scored = sequence_logprobs(model, ids, labels)
    expected = torch.stack([one_answer(model, *pair) for pair in zip(ids, labels, strict=True)])
    torch.testing.assert_close(scored.total, expected, rtol=1e-5, atol=1e-4)
    assert scored.tokens.tolist() == (labels != -100).sum(1).tolist()
    ours = torch.autograd.grad(scored.total.sum(), list(model.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), list(model.parameters()), allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-6)


def test_the_head_sees_labelled_positions_only(world_pairs, tokenizer, tmp_path, monkeypatch):
    model = make_model(tokenizer)
    batch = batch_of(make_rows(world_pairs, tokenizer, tmp_path), range(4))
    seen, calls, head, hidden = [], [], model.head, model.hidden_states
    monkeypatch.setattr(model, "head", lambda x: (seen.append(x.shape[0]), head(x))[1])
    monkeypatch.setattr(
        model, "hidden_states", lambda *a, **k: (calls.append(a[0].shape), hidden(*a, **k))[1]
    )
    sequence_logprobs(model, batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1))
    assert seen == [int((batch["labels"] != -100).sum())]
    last = int((batch["labels"] != -100).flatten(0, 1).any(0).nonzero().max())
    assert calls == [(8, last + 1)]  # one forward pass for both sides, without what nobody scores


def test_padding_changes_nothing(world_pairs, tokenizer, tmp_path):
    for shape in ({}, {"use_moe": True}):
        model = make_model(tokenizer, **shape).eval()
        batch = batch_of(make_rows(world_pairs, tokenizer, tmp_path), range(4))
        ids, labels = batch["input_ids"].flatten(0, 1), batch["labels"].flatten(0, 1)
        together = sequence_logprobs(model, ids, labels)
        other = ids.clone()
        last = (labels != -100).long().cumsum(1).argmax(1)
        for row, end in enumerate(last.tolist()):
            other[row, end + 1 :] = 7  # another token instead of the padding
        assert torch.equal(sequence_logprobs(model, other, labels).total, together.total)
        alone = torch.cat([sequence_logprobs(model, ids[[r]], labels[[r]]).total for r in range(8)])
        torch.testing.assert_close(alone, together.total, rtol=1e-5, atol=1e-4)


# -- the reference -----------------------------------------------------------------------------------------


def test_reference_logprobs_equal_a_loop_and_need_no_gradient(world_pairs, tokenizer, tmp_path):
    model = make_model(tokenizer, dropout=0.5).train()
    rows = make_rows(world_pairs, tokenizer, tmp_path)
    found = reference_logprobs(model, rows, batch_size=5)
    assert found.shape == (24, 2) and found.dtype == np.float32 and model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for place in range(0, 24, 5):
        row = rows.pair(place)
        with torch.no_grad():
            each = [float(one_answer(model, row["input_ids"][s], row["labels"][s])) for s in (0, 1)]
        assert found[place].tolist() == pytest.approx(each, rel=1e-4)


# -- KL to the reference -----------------------------------------------------------------------------------


def test_kl_is_zero_to_itself_and_exact_for_one_token(tokenizer):
    model, other = make_model(tokenizer).eval(), make_model(tokenizer, num_hidden_layers=1).eval()
    prompts = [[5, 6, 7], [8, 9]]
    assert mean_kl(model, model, prompts, tokenizer.eos_token_id) == pytest.approx(0, abs=1e-5)
    kl = mean_kl(model, other, prompts, tokenizer.eos_token_id, max_new_tokens=1)
    exact = []
    with torch.no_grad():
        for prompt in prompts:
            p, q = (m(torch.tensor([prompt])).logits[0, -1].log_softmax(-1) for m in (model, other))
            exact.append(float((p.exp() * (p - q)).sum()))
    assert kl == pytest.approx(sum(exact) / 2, rel=1e-4) and kl > 0.01
