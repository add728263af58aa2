"""Mixed rows: exact shares, evenly spread, everything of the one and in turn everything of the other."""

import copy

import pytest
import torch

from minimind_edu.data.mixing import MixedDataset
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.tokenized import TokenizedDocuments


def rows_of(first, count, length=8):
    """`count` rows of one document each; document d of them is made of the token first + d."""
    return PackedDataset(TokenizedDocuments.from_lists([[first + d] * length for d in range(count)]), length)


def mixed(share, main=30, replay=20, seed=0):
    return MixedDataset(rows_of(1, main), rows_of(1001, replay), share, seed, first_record=main)


def tokens(data):
    return [int(data[row]["input_ids"][0]) for row in range(len(data))]


@pytest.mark.parametrize(
    ("share", "replayed"), [(0.1, 3), (0.25, 10), (0.5, 30), (0.75, 90), (0.03, 1), (0.9, 270)]
)
def test_the_share_of_the_rows(share, replayed):
    data = mixed(share)
    assert data.replayed == replayed and len(data) == 30 + replayed
    assert sum(token > 1000 for token in tokens(data)) == replayed
    assert replayed / len(data) == pytest.approx(share, abs=0.5 / len(data) + 1e-9)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_every_stretch_of_rows_has_its_share(share):
    data = mixed(share)
    flags = [data.is_replayed(row) for row in range(len(data))]
    exact = data.replayed / len(data)
    for size in (8, 16, 25):
        for start in range(len(flags) - size + 1):
            assert abs(sum(flags[start : start + size]) - exact * size) <= 1


def test_each_epoch_has_all_main_rows_once():
    data = mixed(0.4)
    orders = []
    for epoch in range(3):
        data.set_epoch(epoch)
        main = [token for token in tokens(data) if token < 1000]
        assert sorted(main) == list(range(1, 31))
        orders.append(main)
    assert orders[0] != orders[1] != orders[2]


def test_replay_goes_on_until_every_row_was_seen():
    data, seen = mixed(0.25, replay=25), []  # 10 an epoch: the third epoch begins the second round
    for epoch in range(5):
        data.set_epoch(epoch)
        seen += [token - 1001 for token in tokens(data) if token > 1000]
    assert sorted(seen[:25]) == sorted(seen[25:50]) == list(range(25))
    assert seen[:25] != seen[25:50] and seen[:25] != list(range(25))


def test_more_replay_in_an_epoch_than_there_is():
    data = mixed(0.75, replay=20)  # 90 replayed rows an epoch
    counts = torch.bincount(torch.tensor([token - 1001 for token in tokens(data) if token > 1000]))
    assert counts.tolist().count(5) == 10 and counts.tolist().count(4) == 10


def test_rows_follow_from_seed_and_epoch_alone():
    data, other = mixed(0.3), mixed(0.3)
    for epoch in (2, 0, 1):
        data.set_epoch(epoch)
    other.set_epoch(1)
    assert tokens(data) == tokens(other) == tokens(copy.deepcopy(data))
    reseeded = mixed(0.3, seed=1)
    reseeded.set_epoch(1)
    assert [token for token in tokens(reseeded) if token > 1000] != [t for t in tokens(data) if t > 1000]


def test_records_are_told_apart():
    data = mixed(0.5)
    for row in range(len(data)):
        (record,) = data.record_ids(row)
        token = int(data[row]["input_ids"][0])
        assert record == (token - 1001 + 30 if token > 1000 else token - 1)


def test_what_makes_no_sense():
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            mixed(share)
    with pytest.raises(ValueError, match="less than one row"):
        mixed(0.01)
    with pytest.raises(ValueError, match="no rows"):
        MixedDataset(rows_of(1, 3), [], 0.5)
    for row in (-1, 60):
        with pytest.raises(IndexError, match=f"row {row} of 60"):
            mixed(0.5)[row]
