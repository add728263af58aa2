"""The grid of chapter 6: both methods see the same rows, and what is measured of an update is right."""

import copy

import pytest
import torch

from minimind_edu import MiniMind, ModelConfig
from minimind_edu.course import artifacts, sweeps
from minimind_edu.course.sweeps import ch06
from minimind_edu.data.rows import raw_records
from minimind_edu.data.world.files import default_file
from minimind_edu.stages.lora import apply_lora, lora_parameters, remove_lora

SHAPE = ModelConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64)


@pytest.fixture
def models():
    """A model, and the same after an update of rank 3 in every layer."""
    torch.manual_seed(0)
    start = MiniMind(SHAPE)
    tuned = apply_lora(copy.deepcopy(start), rank=3, targets="all-linear")
    for parameter in lora_parameters(tuned).values():
        parameter.data.normal_()
    return start, remove_lora(tuned)


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("06").cells] == ch06.CELLS


def test_every_rate_is_tried_and_the_best_has_three_seeds():
    for method, best in ch06.BEST.items():
        rates = {cell["learning_rate"] for cell in ch06.CELLS if cell["method"] == method}
        assert rates == set(ch06.RATES[method]) and min(rates) < best < max(rates)
        chosen = ch06.PLAIN if method == "lora" else ch06.FULL
        assert [cell for cell in ch06.CELLS if chosen.items() <= cell.items()] == [
            chosen | {"seed": seed} for seed in ch06.SEEDS
        ]


def test_a_seed_decides_the_order_of_the_same_rows():
    tokenizer = artifacts.tokenizer(progress=False)
    first, again, other = (ch06.clinic_rows(tokenizer, order=order) for order in (0, 0, 1))
    ids = [
        [rows[number]["input_ids"].tolist() for number in range(len(rows))] for rows in (first, again, other)
    ]
    assert ids[0] == ids[1] != ids[2]
    assert first.docs.tokens.tolist() == other.docs.tokens.tolist()


def test_replay_adds_old_conversations():
    tokenizer = artifacts.tokenizer(progress=False)
    assert len(ch06.clinic_rows(tokenizer).docs) == 128
    assert len(ch06.clinic_rows(tokenizer, replay=30).docs) == 158


def test_new_tokens_are_those_that_were_never_a_target():
    tokenizer = artifacts.tokenizer(progress=False)
    new = set(ch06.new_tokens(tokenizer))
    assert new < ch06.clinic_tokens(tokenizer)
    texts = [record["text"] for record in raw_records(default_file("pretrain.jsonl"))][:2_000]
    chats = [record["conversations"] for record in raw_records(default_file("sft.jsonl"))]
    texts += [message["content"] for chat in chats for message in chat if message["role"] == "assistant"]
    met = {token for text in texts for token in tokenizer.encode(text)}
    assert len(new) > 20 and not new & met
    asked = {token for chat in chats for token in tokenizer.encode(chat[0]["content"])}
    assert new & asked  # these were read, but never had to be predicted


def test_the_rank_of_an_update(models):
    start, tuned = models
    found = ch06.updates(tuned, start)
    assert len(found) == 14
    for update in found.values():
        kept = ch06.kept_by_rank(update)
        assert kept[1] < 0.9999 and kept[2] == pytest.approx(1, abs=1e-4) == kept[-1]


def test_cutting_at_the_rank_changes_nothing_and_below_it_does(models):
    start, tuned = models
    ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        right = tuned(ids).logits
        assert (ch06.cut_to_rank(tuned, start, 3)(ids).logits - right).abs().max() < 1e-3
        assert (ch06.cut_to_rank(tuned, start, 1)(ids).logits - right).abs().max() > 0.1
        assert torch.equal(tuned(ids).logits, right)
        ours = ch06.cut_to_rank(tuned, start, 0)(ids).logits
        assert (ours - start(ids).logits).abs().max() < 1e-5
