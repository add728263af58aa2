"""The grid of chapter 5: its record is whole, its amounts are what they are called, its faults are faults."""

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import sweeps
from minimind_edu.course.sweeps import ch05
from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset, collate
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import answer_questions, exact_match
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("05").cells] == ch05.CELLS


def test_amounts_are_shares_of_the_tokens_read_in_pretraining():
    grid = sweeps.load("05")
    for cell, numbers in grid.select(experiment="amount"):
        rows = cell["amount"] * 4981  # rows of the pretraining file, without what is held back
        assert abs(numbers["tokens"] / 256 - rows) <= ch05.BATCH / 2 + 1e-6
        assert 0.15 * numbers["tokens"] < numbers["labelled"] < 0.3 * numbers["tokens"]
    for cell, numbers in grid.select(experiment="replay"):
        rows = cell.get("amount", 0.1) * 4981 / (1 - cell["share"])
        assert abs(numbers["tokens"] / 256 - rows) <= ch05.BATCH / 2 + 1e-6
    tokens = {count: [n["file_tokens"] for _, n in grid.select(count=count)] for count in ch05.COUNTS}
    assert all(0.0009 < one / (4981 * 256) < 0.0012 for one in tokens[36])
    assert all(0.009 < one / (4981 * 256) < 0.012 for one in tokens[360])


def test_the_same_part_of_each_group_is_asked(monkeypatch):
    class Knows:
        """Answers whatever is asked about people SFT teaches, and nothing else."""

    monkeypatch.setattr("minimind_edu.evaluation.reply", lambda model, tokenizer, chats: [""] * len(chats))
    asked = answer_questions(Knows(), None, default_file("eval_facts.jsonl"), keep=ch05.is_asked)
    assert 0.35 < len(asked) / 1000 < 0.45
    sizes = dict.fromkeys(exact_match(asked, "seen", "language"), 0)
    for answer in asked:
        sizes[answer.record["seen"], answer.record["language"]] += 1
    assert len(sizes) == 4 and min(sizes.values()) >= 80


def packed():
    mask = [[0, 0, 1, 1], [0, 1, 1], [0, 0, 0, 1]]
    documents = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15]]
    rows = PackedDataset(TokenizedDocuments.from_lists(documents, mask), 12, fill=False)
    return collate([rows[number] for number in range(len(rows))])


def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return MiniMind(ModelConfig(vocab_size=20, num_key_value_heads=1, **shape)).eval()


def test_without_the_mask_every_token_but_the_first_of_a_document_is_learned():
    batch, tested = packed(), model()
    _, numbers = ch05.loss_on_all_tokens(tested, batch)
    assert numbers["tokens"] == 3 + 2 + 3 and causal_lm_loss(tested, batch)[1]["tokens"] == 5
    assert int((batch["labels"] != IGNORE_INDEX).sum()) == 5  # the batch itself is unchanged
    whole = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15]]
    rows = PackedDataset(TokenizedDocuments.from_lists(whole), 12, fill=False)
    wanted, _ = causal_lm_loss(tested, collate([rows[0]]))
    torch.testing.assert_close(ch05.loss_on_all_tokens(tested, batch)[0], wanted, rtol=0, atol=1e-5)


def test_without_boundaries_a_document_sees_those_before_it():
    batch, tested = packed(), model()
    order = batch["document_ids"][0].tolist()
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    changed["input_ids"][0, 0] = 19  # in the first document
    assert order[0] == 0 and len(batch["input_ids"]) == 1
    only_last = batch["labels"].masked_fill(batch["document_ids"] < 2, IGNORE_INDEX)
    losses = {
        name: [float(loss(tested, {**one, "labels": only_last})[0].detach()) for one in (batch, changed)]
        for name, loss in (("right", causal_lm_loss), ("wrong", ch05.loss_across_documents))
    }
    assert losses["right"][0] == losses["right"][1]
    assert abs(losses["wrong"][0] - losses["wrong"][1]) > 1e-6
