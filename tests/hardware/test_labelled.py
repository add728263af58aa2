"""The shares of labelled positions are those of the embedded world's files."""

import itertools
import json

import pytest

from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset
from minimind_edu.data.pairs import PairRows, tokenize_pairs
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.hardware.workload import LABELLED
from minimind_edu.tokenizer import train_fast

COUNT = 300  # records of each file


@pytest.fixture(scope="module")
def tokenizer(datasets):
    lines = itertools.islice((datasets / "pretrain.jsonl").open(encoding="utf-8"), 3000)
    return train_fast((json.loads(line)["text"] for line in lines), 2000, split_digits=True)


@pytest.fixture(scope="module")
def datasets(pytestconfig):
    return pytestconfig.rootpath / "datasets"


def records(datasets, name, kind, folder):
    lines = itertools.islice((datasets / f"{name}.jsonl").open(encoding="utf-8"), COUNT)
    part = folder / f"{name}.jsonl"
    part.write_text("".join(lines), encoding="utf-8")
    return load_records(part, kind, cache_dir=folder / "cache")


@pytest.mark.parametrize(
    ("stage", "name", "kind", "length"),
    [
        ("pretrain", "pretrain", "pretrain", 256),
        ("sft", "sft", "sft", 256),
        ("lora", "lora_clinic", "sft", 256),
        ("reason", "reason", "sft", 512),
    ],
)
def test_packed_rows(stage, name, kind, length, datasets, tokenizer, tmp_path):
    part = records(datasets, name, kind, tmp_path)
    rows = PackedDataset(tokenize(part, tokenizer, kind, tmp_path / "cache"), length)
    labels = [row["labels"] for row in (rows[number] for number in range(len(rows)))]
    found = sum(int((one[1:] != IGNORE_INDEX).sum()) for one in labels) / sum(map(len, labels))
    assert LABELLED[stage] == pytest.approx(found, abs=0.07)


def test_pairs(datasets, tokenizer, tmp_path):
    pairs = tokenize_pairs(records(datasets, "dpo", "dpo", tmp_path), tokenizer, tmp_path / "cache")
    labels = [PairRows(pairs, 256).pair(number)["labels"] for number in range(100)]
    found = sum(int((one[:, 1:] != IGNORE_INDEX).sum()) for one in labels) / sum(
        one.numel() for one in labels
    )
    assert LABELLED["dpo"] == pytest.approx(found, abs=0.07)
