"""The exercises of chapter 5 agree with the package, and unforeseen wrong answers get a hint that fits."""

import pytest
import torch

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch05 import labels, may_attend
from minimind_edu.course.exercises.ch05_mix import mix
from minimind_edu.course.exercises.checking import examine
from minimind_edu.data.mixing import MixedDataset
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.model.attention import attention_bias


def test_labels_are_those_of_packed_rows():
    random_masks = torch.Generator().manual_seed(0)
    documents = [list(range(10 * n + 5, 10 * n + 5 + n % 5 + 2)) for n in range(20)]
    masks = [(torch.rand(len(ids), generator=random_masks) < 0.5).tolist() for ids in documents]
    masks = [[*mask[:-1], True] for mask in masks]
    of_token = {
        token: bit
        for ids, mask in zip(documents, masks, strict=True)
        for token, bit in zip(ids, mask, strict=True)
    }
    rows = PackedDataset(TokenizedDocuments.from_lists(documents, masks), 12, fill=False)
    for row in (rows[number] for number in range(len(rows))):
        learned = torch.tensor([of_token.get(token, True) for token in row["input_ids"].tolist()])
        assert torch.equal(labels(row["input_ids"], learned, row["document_ids"]), row["labels"])


def test_attention_is_that_of_the_model():
    documents = torch.tensor([0, 0, 0, 1, 2, 2, -1, -1])
    bias = attention_bias(8, 8, document_ids=documents[None], device="cpu", dtype=torch.float32)
    allowed, real = (bias == 0).reshape(8, 8), documents >= 0
    assert torch.equal(may_attend(documents)[real], allowed[real])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.7])
def test_mixed_rows_are_those_of_the_package(share):
    chats, texts = (
        PackedDataset(TokenizedDocuments.from_lists([[first + n] * 4 for n in range(count)]), 4)
        for first, count in ((1, 20), (101, 60))
    )
    data = MixedDataset(chats, texts, share)
    tokens = [int(data[row]["input_ids"][0]) for row in range(len(data))]
    order = [[token for token in tokens if (token > 100) == replayed] for replayed in (False, True)]
    assert mix(order[0], order[1] + [999] * 5, share) == tokens


def test_unforeseen_answers_get_a_hint_that_fits():
    row, attention, mixing = (exercise(f"ch05.{name}") for name in ("labels", "may_attend", "mix"))
    assert "keep its id" in examine(row, lambda i, m, d: torch.full_like(i, -100), 0)
    padded = examine(row, lambda i, m, d: torch.where(d < 0, i, labels(i, m, d)), 0)
    assert "padding" in padded
    assert "bool" in examine(attention, lambda d: may_attend(d).long() * 2, 0)
    assert "earlier" in examine(attention, lambda d: may_attend(d).triu(-1), 0)
    assert "order" in examine(mixing, lambda c, t, s: mix(c[::-1], t, s), 0)
    assert "every chat" in examine(mixing, lambda c, t, s: mix(c[1:], t, s), 0)
