"""The teacher's top-k distributions on disk, row by row against the teacher itself."""

import copy
import pickle

import numpy as np
import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.teacher import (
    TaughtRows,
    model_digest,
    teacher_top_k,
    token_places,
    top_k_log_probabilities,
)
from minimind_edu.training.precision import resolve_precision

VOCAB, LENGTH = 23, 12
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(3)
    shape = ModelConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, max_position_embeddings=64)
    model = MiniMind(shape).eval()
    for parameter in model.parameters():
        parameter.data *= 4
    return model


def documents(masked=False):
    random = np.random.default_rng(5)
    lists = [random.integers(0, VOCAB, length).tolist() for length in (5, 30, 2, 12, 7, 3, 13, 9, 4, 1, 6)]
    masks = [(random.random(len(ids)) < 0.5).tolist() for ids in lists]
    return TokenizedDocuments.from_lists(lists, masks if masked else None)


def ask(teacher, docs, folder, k=4, temperature=1.0, identity="these", dtype="float32", **options):
    precision = resolve_precision(dtype, CPU)
    return teacher_top_k(
        teacher, docs, identity, LENGTH, k, temperature, CPU, precision, cache_dir=folder, **options
    )


def test_the_k_likeliest_by_hand():
    logits = torch.tensor([[1 / 8, 1 / 2, 1 / 8, 1 / 4]]).log()
    ids, log_probs = top_k_log_probabilities(logits, 2)
    assert ids.tolist() == [[1, 3]]
    torch.testing.assert_close(log_probs.exp(), torch.tensor([[1 / 2, 1 / 4, 1 / 4]]))
    _, softer = top_k_log_probabilities(logits, 2, temperature=2.0)
    roots = torch.tensor([2.0, 2**0.5, 2.0]) / (2 + 2**0.5 + 2)  # of 4/8, 2/8 and twice 1/8
    torch.testing.assert_close(softer.exp()[0], roots)
    whole = top_k_log_probabilities(logits, 4)[1]
    assert whole[0, -1] == -torch.inf and float(whole.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_row_brings_what_the_teacher_says_in_it(teacher, tmp_path, masked, epoch):
    """In every epoch's packing, fillers and cut documents included."""
    docs = documents(masked)
    rows = TaughtRows(docs, ask(teacher, docs, tmp_path, k=4, temperature=2.0), LENGTH, seed=9)
    rows.set_epoch(epoch)
    plain = PackedDataset(docs, LENGTH, seed=9)
    plain.set_epoch(epoch)
    compared = 0
    for number in range(len(rows)):
        row = rows[number]
        for name, tensor in plain[number].items():
            assert torch.equal(row[name], tensor)
        with torch.no_grad():
            logits = teacher(row["input_ids"][None], document_ids=row["document_ids"][None]).logits[0]
        ids, log_probs = top_k_log_probabilities(logits, 4, 2.0)
        here = torch.nonzero(row["labels"][1:] != -100).flatten()
        assert torch.equal(row["teacher_ids"][here].long(), ids[here])
        found = row["teacher_log_probs"][here].float()
        torch.testing.assert_close(found, log_probs[here], rtol=1e-3, atol=1e-3)
        compared += len(here)
    assert compared >= (20 if masked else 70)


def test_places_are_the_tokens(teacher, tmp_path):
    docs = documents()
    rows = PackedDataset(docs, LENGTH, fill=False)
    seen = []
    for row in range(len(rows)):
        places, ids = token_places(rows, row), rows[row]["input_ids"].numpy()
        is_token = rows[row]["document_ids"].numpy() >= 0
        assert ((places >= 0) == is_token).all()
        assert (docs.tokens[places[is_token]] == ids[is_token]).all()
        seen += places[is_token].tolist()
    single = docs.offsets[:-1][docs.lengths == 1]  # nothing to predict, so in no row
    assert set(seen) == set(range(docs.num_tokens)) - set(single.tolist())


def test_small_types(teacher, tmp_path):
    known = ask(teacher, documents(), tmp_path, k=3)
    assert known.ids.dtype == np.uint16 and known.log_probs.dtype == np.float16
    assert known.ids.shape == (documents().num_tokens, 3) and known.log_probs.shape[1] == known.k + 1
    assert known.num_bytes == documents().num_tokens * (2 * 3 + 2 * 4)
    assert isinstance(known.ids, np.memmap) and known.seconds > 0


def test_a_second_call_does_not_run_the_teacher(teacher, tmp_path, monkeypatch):
    docs, steps = documents(), []
    first = ask(
        teacher, docs, tmp_path, batch_size=2, progress=lambda done, total: steps.append((done, total))
    )
    assert steps[-1][0] == steps[-1][1] and len(steps) > 2

    def refuse(*_):
        raise AssertionError("the teacher ran")

    monkeypatch.setattr("minimind_edu.stages.teacher._ask", refuse)
    again = ask(teacher, docs, tmp_path)
    assert again.folder == first.folder and again.seconds == first.seconds
    assert (again.ids == first.ids).all()
    torch.manual_seed(4)
    other = MiniMind(teacher.config).eval()
    changes = [
        {"k": 5}, {"temperature": 1.5}, {"identity": "those"}, {"dtype": "bfloat16"}, {"teacher": other},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(AssertionError, match="the teacher ran"):
            ask(**({"teacher": teacher, "docs": docs, "folder": tmp_path} | change))


def test_a_teacher_that_fails_leaves_nothing_behind(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("minimind_edu.stages.teacher._ask", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(teacher, documents(), tmp_path)
    monkeypatch.undo()
    assert ask(teacher, documents(), tmp_path).seconds > 0


def test_copies_for_other_processes_map_the_files(teacher, tmp_path):
    known = ask(teacher, documents(), tmp_path)
    assert len(pickle.dumps(known)) < 2_000  # what a data-loader process is given
    # `copy` goes through `__reduce__`, as pickling does, and loads no pickle.
    assert (copy.copy(known).ids == known.ids).all()


def test_the_digest_sees_weights_and_shape(teacher):
    torch.manual_seed(0)
    one = MiniMind(ModelConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1))
    torch.manual_seed(0)
    same = MiniMind(ModelConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1))
    assert model_digest(one) == model_digest(same) != model_digest(teacher)
    same.model.norm.weight.data[0] += 1e-6
    assert model_digest(one) != model_digest(same)
    other = MiniMind(ModelConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, rope_theta=1e4))
    other.load_state_dict(one.state_dict())
    assert model_digest(one) != model_digest(other)
