"""Packed rows: every token where it should be, nothing twice, nothing lost, the same on every machine."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_edu.data.errors import DataError
from minimind_edu.data.packing import PackedDataset, PaddedDataset, best_fit, collate, pack_rows
from minimind_edu.data.tokenized import TokenizedDocuments

PAD = 0


def make_docs(lengths, masks=None):
    """Documents whose token ids are all different, so that a token tells where it came from."""
    ends = np.cumsum([1, *lengths])
    return TokenizedDocuments.from_lists(
        [range(a, b) for a, b in zip(ends, ends[1:], strict=False)], masks, pad_token_id=PAD
    )


def targets_of(dataset):
    return Counter(t for row in dataset for t in row["labels"].tolist() if t != -100)


def segments_of(row):
    """The token ids of each document in a row."""
    ids, numbers = row["input_ids"], row["document_ids"]
    return [ids[numbers == n].tolist() for n in range(int(numbers.max()) + 1)]


lengths_lists = st.lists(st.integers(2, 40), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None)
@given(lengths=lengths_lists, capacity=st.integers(2, 33), seed=st.integers(0, 5), epoch=st.integers(0, 2))
def test_each_target_exactly_once_without_fill(lengths, capacity, seed, epoch):
    docs = make_docs(lengths)
    for dataset in (PackedDataset(docs, capacity, seed, fill=False), PaddedDataset(docs, capacity, seed)):
        dataset.set_epoch(epoch)
        firsts = set(docs.offsets[:-1] + 1)
        expected = Counter({token: 1 for token in range(1, docs.num_tokens + 1) if token not in firsts})
        assert targets_of(dataset) == expected
        assert dataset.fill_share == 0 and 0 <= dataset.padding_share < 1


@settings(max_examples=80, deadline=None)
@given(lengths=lengths_lists, capacity=st.integers(2, 33), seed=st.integers(0, 5), fill=st.booleans())
def test_rows_are_well_formed(lengths, capacity, seed, fill):
    docs = make_docs(lengths)
    dataset = PackedDataset(docs, capacity, seed, fill=fill)
    beginnings = {int(offset) + 1 for offset in docs.offsets[:-1]}
    for row in dataset:
        ids, labels, numbers = row["input_ids"], row["labels"], row["document_ids"]
        assert all(t.shape == (capacity,) and t.dtype == torch.int64 for t in (ids, labels, numbers))
        padding = numbers == -1
        assert (ids[padding] == PAD).all() and (labels[padding] == -100).all()
        # Documents are numbered 0, 1, 2, … in order, padding is behind them.
        steps = torch.diff(torch.where(padding, int(numbers.max()) + 1, numbers))
        assert numbers[0] == 0 and set(steps.tolist()) <= {0, 1}
        starts = torch.diff(numbers, prepend=torch.tensor([-1])) != 0
        assert ((labels == -100) == (starts | padding)).all()
        assert (labels[labels != -100] == ids[labels != -100]).all()
        for segment in segments_of(row):
            assert segment == list(range(segment[0], segment[0] + len(segment)))  # consecutive tokens
            # A document is cut only where it is longer than a row.
            document = int(np.searchsorted(docs.offsets, segment[0] - 1, side="right")) - 1
            if not fill and lengths[document] <= capacity:
                assert len(segment) == lengths[document]
            if lengths[document] <= capacity:
                assert segment[0] in beginnings


@settings(max_examples=80, deadline=None)
@given(lengths=lengths_lists, capacity=st.integers(2, 33), seed=st.integers(0, 5), epoch=st.integers(0, 2))
def test_fill_leaves_no_padding_and_loses_nothing(lengths, capacity, seed, epoch):
    docs = make_docs(lengths)
    dataset = PackedDataset(docs, capacity, seed)
    dataset.set_epoch(epoch)
    assert dataset.padding_share == 0 and 0 <= dataset.fill_share < 1
    found = targets_of(dataset)
    firsts = set(docs.offsets[:-1] + 1)
    assert set(found) == set(range(1, docs.num_tokens + 1)) - firsts
    assert all((row["document_ids"] >= 0).all() for row in dataset)
    # What is there more than once are beginnings: each filler starts a document.
    wholes = Counter(range(1, docs.num_tokens + 1))
    everything = Counter(t for row in dataset for t in row["input_ids"].tolist())
    assert not wholes - everything


def test_fillers_come_from_documents_of_other_rows():
    docs = make_docs([30, 30, 30, 30, 30])
    for seed in range(20):
        dataset = PackedDataset(docs, 64, seed)
        for row in range(len(dataset)):
            records = dataset.record_ids(row)
            assert len(set(records)) == len(records)
        assert {n for row in range(len(dataset)) for n in dataset.record_ids(row)} == set(range(5))


def test_fewer_tokens_than_one_row_repeat():
    dataset = PackedDataset(make_docs([5]), 16)
    assert len(dataset) == 1 and dataset.padding_share == 0
    assert segments_of(dataset[0]) == [[1, 2, 3, 4, 5]] * 3 + [[1]]
    padded = PackedDataset(make_docs([5]), 16, fill=False)
    assert padded[0]["input_ids"].tolist() == [1, 2, 3, 4, 5] + [PAD] * 11
    assert padded.padding_share == 11 / 16


def test_a_long_document_is_cut_with_one_token_of_overlap():
    dataset = PackedDataset(make_docs([9]), 4, fill=False)
    rows = sorted(row["input_ids"].tolist() for row in dataset)
    assert rows == [[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, PAD]]
    # A document of exactly one row, or one token more.
    assert len(PackedDataset(make_docs([4]), 4, fill=False)) == 1
    assert len(PackedDataset(make_docs([5]), 4, fill=False)) == 2


def test_documents_without_a_target_are_dropped_and_counted():
    docs = make_docs([1, 3, 1])
    dataset = PackedDataset(docs, 4, fill=False)
    assert dataset.dropped == 2 and targets_of(dataset) == Counter([3, 4])
    with pytest.raises(DataError, match="none of 2 documents"):
        PackedDataset(make_docs([1, 1]), 4)
    with pytest.raises(ValueError, match="max_seq_len is 1"):
        PackedDataset(docs, 1)


# --- chats ---

masked_documents = st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=40)


@settings(max_examples=120, deadline=None)
@given(masks=masked_documents, capacity=st.integers(2, 24), fill=st.booleans())
def test_chat_labels_are_the_masked_tokens(masks, capacity, fill):
    docs = make_docs([len(mask) for mask in masks], masks)
    expected, dropped = Counter(), 0
    for number, mask in enumerate(masks):
        ids = docs[number][0][:capacity]
        learnable = [int(t) for t, bit in zip(ids[1:], mask[1:capacity], strict=True) if bit]
        expected.update(learnable)
        dropped += not learnable
    if not expected:
        with pytest.raises(DataError):
            PackedDataset(docs, capacity, fill=fill)
        return
    dataset = PackedDataset(docs, capacity, fill=fill)
    found = targets_of(dataset)
    assert dataset.dropped == dropped
    assert found == expected if not fill else set(found) == set(expected)


def test_a_long_chat_is_cut_at_its_end():
    masks = [[0, 0, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1]]
    dataset = PackedDataset(make_docs([7, 7], masks), 4, fill=False)
    assert (dataset.dropped, dataset.truncated, len(dataset)) == (1, 1, 1)
    assert dataset[0]["labels"].tolist() == [-100, -100, 3, 4]


# --- order ---


def rows_of(dataset):
    return [row["input_ids"].tolist() for row in dataset]


def test_same_seed_same_rows_and_epochs_differ():
    docs = make_docs(np.random.default_rng(0).integers(2, 50, 300))
    first, second = PackedDataset(docs, 64, seed=1), PackedDataset(docs, 64, seed=1)
    assert rows_of(first) == rows_of(second)
    epoch_0 = rows_of(first)
    first.set_epoch(1)
    assert rows_of(first) != epoch_0 and len(first) == len(second)
    first.set_epoch(0)
    assert rows_of(first) == epoch_0
    assert rows_of(PackedDataset(docs, 64, seed=2)) != epoch_0


def test_documents_change_company_between_epochs():
    docs = make_docs(np.random.default_rng(0).integers(2, 50, 300))
    dataset = PackedDataset(docs, 64, fill=False)
    companies = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        companies.append({frozenset(dataset.record_ids(row)) for row in range(len(dataset))})
    assert len(companies[0] & companies[1]) < len(dataset) / 2


def test_the_order_is_the_same_on_any_machine():
    dataset = PackedDataset(make_docs([3, 4, 5, 6, 7, 8]), 12, seed=0)
    assert rows_of(dataset) == [
        [19, 20, 21, 22, 23, 24, 25, 8, 9, 10, 11, 12],
        [26, 27, 28, 29, 30, 31, 32, 33, 4, 5, 6, 7],
        [13, 14, 15, 16, 17, 18, 1, 2, 3, 19, 20, 21],
    ]


def test_several_pools_lose_nothing_and_stay_tight():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 200, 5_000)
    order, offsets = pack_rows(lengths, 256, rng, pool_size=500)
    assert sorted(order) == list(range(5_000))
    row_lengths = np.add.reduceat(lengths[order], offsets[:-1])
    assert row_lengths.max() <= 256 and len(row_lengths) == len(offsets) - 1
    assert row_lengths.sum() / (256 * len(row_lengths)) > 0.99


def test_best_fit_takes_the_longest_that_fits():
    assert best_fit([5, 4, 3, 3], 8) == [[0, 3], [1, 2]]
    assert best_fit([8, 1, 8], 8) == [[2], [0], [1]]
    assert best_fit([], 8) == []


def test_padding_and_fill_of_typical_documents():
    lengths = np.clip(np.random.default_rng(0).lognormal(4.3, 0.6, 3_000).astype(int), 5, 2_000)
    docs = make_docs(lengths)
    packed, padded = PackedDataset(docs, 512), PaddedDataset(docs, 512)
    assert packed.fill_share < 0.01 and padded.padding_share > 0.7
    assert len(packed) * 5 < len(padded)


def test_reading_rows():
    docs = make_docs([4, 6, 3], None)
    dataset = PackedDataset(docs, 8, fill=False)
    assert sorted(n for row in range(len(dataset)) for n in dataset.record_ids(row)) == [0, 1, 2]
    assert dataset[-1]["input_ids"].tolist() == dataset[len(dataset) - 1]["input_ids"].tolist()
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    batch = collate([dataset[0], dataset[1]])
    assert {name: tuple(t.shape) for name, t in batch.items()} == {
        "input_ids": (2, 8),
        "labels": (2, 8),
        "document_ids": (2, 8),
    }
    padded = PaddedDataset(docs, 8)
    trimmed = collate([padded[row] for row in range(3)], trim_padding=True)
    assert trimmed["input_ids"].shape == (3, 6)


def test_data_loader_with_workers_gives_the_same_rows():
    dataset = PackedDataset(make_docs([5, 9, 12, 7, 3, 30]), 16, seed=4)
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=1)
    loaded = [ids for batch in loader for ids in batch["input_ids"].tolist()]
    assert loaded == rows_of(dataset)
