"""Token ids on the disk: right, complete, found again, and never half written."""

import copy
import multiprocessing
import os
import pickle
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minimind_edu.data.errors import DataError
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import Records, load_records, train_val_split
from minimind_edu.data.tokenized import TokenizedDocuments, tokenize


class CharacterTokenizer:
    """A stand-in: one id a character (its code point), chats as role letter, content, end token."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def __init__(self, vocab_size=60_000, name="characters"):
        self.vocab_size, self.fingerprint, self.calls = vocab_size, name, 0

    def encode_batch(self, texts):
        self.calls += 1
        return [[ord(character) for character in text] for text in texts]

    def encode_chat(self, messages, tools=None):
        self.calls += 1
        ids, mask = [ord("T")] * len(tools or []), [False] * len(tools or [])
        for message in messages:
            content = [ord(character) for character in message["content"]]
            ids += [ord(message["role"][0]), *content, self.eos_token_id]
            mask += [False] + [message["role"] == "assistant"] * (len(content) + 1)
        return SimpleNamespace(input_ids=ids, assistant_mask=mask)


def chat(question, answer):
    return {
        "conversations": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    }


def text_of(ids):
    return "".join(chr(i) for i in ids if i > 2)


def test_pretraining_documents_have_begin_and_end(tmp_path):
    texts = [f"text {n} 中文" * (n % 7 + 1) for n in range(2_345)]  # more than two batches
    docs = tokenize(
        Records.from_list([{"text": t} for t in texts], "pretrain"),
        CharacterTokenizer(),
        "pretrain",
        tmp_path,
    )
    assert len(docs) == len(texts) and docs.mask is None
    for number in (0, 1, 999, 1000, 2344, -1):
        ids, mask = docs[number]
        assert mask is None and (ids[0], ids[-1]) == (1, 2) and text_of(ids) == texts[number]
    assert docs.lengths.tolist() == [len(t) + 2 for t in texts]
    assert docs.num_tokens == sum(docs.lengths)
    assert docs.tokens.dtype == np.uint16 and isinstance(docs.tokens, np.memmap)
    assert docs.record_numbers.tolist() == list(range(len(texts)))
    with pytest.raises(IndexError):
        docs[len(texts)]


def test_large_vocabularies_need_32_bits(tmp_path):
    records = Records.from_list([{"text": "\U0001f600"}], "pretrain")
    docs = tokenize(records, CharacterTokenizer(2**21, "large"), "pretrain", tmp_path / "b")
    assert docs.tokens.dtype == np.uint32 and text_of(docs[0][0]) == "\U0001f600"


def test_chats_carry_their_mask(tmp_path):
    records = Records.from_list([chat("q1", "answer"), chat("question", "a")], "sft")
    docs = tokenize(records, CharacterTokenizer(), "sft", tmp_path)
    ids, mask = docs[0]
    assert (
        text_of(ids) == "uq1aanswer"
        and text_of(ids[mask == 1]) == "answer"
        and ids[-1] == 2
        and mask[-1] == 1
    )
    assert docs.first_targets.tolist() == [5, 11]
    row = PackedDataset(docs, 32, fill=False)[0]
    assert text_of(t for t in row["labels"].tolist() if t > 0) in ("answera", "aanswer")


def test_tools_reach_the_template(tmp_path):
    conversation = [
        {"role": "system", "content": "", "tools": '[{"name": "f"}, {"name": "g"}]'},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "four"},
    ]
    docs = tokenize(
        Records.from_list([{"conversations": conversation}], "sft"), CharacterTokenizer(), "sft", tmp_path
    )
    assert text_of(docs[0][0]) == "TTsuqat4afour"


def test_a_stream_is_one_document(tmp_path):
    text = "".join(f"line {n} of a text\n" for n in range(400))
    (tmp_path / "a.txt").write_text(text)
    records = load_records(tmp_path / "a.txt", "pretrain", cache_dir=tmp_path)
    docs = tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)
    assert len(docs) == 1 and text_of(docs[0][0]) == text
    train, validation = train_val_split(records)
    parts = [
        text_of(tokenize(part, CharacterTokenizer(), "pretrain", tmp_path)[0][0])
        for part in (train, validation)
    ]
    assert "".join(parts) == text and len(parts[1]) >= 256


def test_two_streams_are_two_documents(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"text {name}\n" * 100)
    records = load_records([tmp_path / "a.txt", tmp_path / "b.txt"], "pretrain", cache_dir=tmp_path)
    docs = tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)
    assert [text_of(docs[n][0]) for n in range(len(docs))] == ["text a\n" * 100, "text b\n" * 100]


def test_record_numbers_survive_a_split(tmp_path):
    records = Records.from_list([{"text": f"record {n}"} for n in range(100)], "pretrain")
    for part in train_val_split(records, 0.2, seed=5):
        docs = tokenize(part, CharacterTokenizer(), "pretrain", tmp_path)
        for document, number in enumerate(docs.record_numbers):
            assert text_of(docs[document][0]) == f"record {number}"


def test_the_cache_is_keyed_by_content_tokenizer_and_kind(tmp_path):
    records = Records.from_list([{"text": "a"}, {"text": "b"}], "pretrain")
    tokenizer = CharacterTokenizer()
    tokenize(records, tokenizer, "pretrain", tmp_path)
    same = Records.from_list([{"text": "a"}, {"text": "b"}], "pretrain")
    tokenize(same, tokenizer, "pretrain", tmp_path)
    assert tokenizer.calls == 1
    tokenize(Records.from_list([{"text": "a"}, {"text": "c"}], "pretrain"), tokenizer, "pretrain", tmp_path)
    assert tokenizer.calls == 2
    other = CharacterTokenizer(name="others")
    tokenize(records, other, "pretrain", tmp_path)
    assert other.calls == 1


def test_a_damaged_cache_is_built_again(tmp_path):
    records = Records.from_list([{"text": "a" * 1000}], "pretrain")
    tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    with open(folder / "tokens.npy", "r+b") as file:
        file.truncate(500)
    assert text_of(tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)[0][0]) == "a" * 1000
    (folder / "manifest.json").write_text("{")
    assert text_of(tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)[0][0]) == "a" * 1000


class SlowTokenizer(CharacterTokenizer):
    def encode_batch(self, texts):
        time.sleep(0.05)
        return super().encode_batch(texts)


def _tokenize_slowly(folder, count):
    records = Records.from_list([{"text": f"text {n}"} for n in range(count)], "pretrain")
    tokenize(records, SlowTokenizer(), "pretrain", folder)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_builder_leaves_nothing_that_is_used(tmp_path):
    context = multiprocessing.get_context("fork")
    for delay in (0.05, 0.15, 0.3):
        process = context.Process(target=_tokenize_slowly, args=(tmp_path, 20_000))
        process.start()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not any(
            (path / "manifest.json").exists() for path in tmp_path.glob("tokens-*") if path.suffix == ""
        )
    records = Records.from_list([{"text": f"text {n}"} for n in range(20_000)], "pretrain")
    docs = tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)
    assert len(docs) == 20_000 and text_of(docs[-1][0]) == "text 19999"
    assert not list(tmp_path.glob("*.building"))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_tokenize_slowly, args=(tmp_path, 3_000)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("tokens-*/manifest.json"))) == 1


def test_pickling_maps_the_files_again(tmp_path):
    records = Records.from_list([{"text": "x" * 100_000}], "pretrain")
    docs = tokenize(records, CharacterTokenizer(), "pretrain", tmp_path)
    assert len(pickle.dumps(docs)) < 2_000
    # `copy` goes through `__reduce__`, as sending to a worker process does, and loads no pickle.
    assert copy.copy(docs)[0][0].tolist() == docs[0][0].tolist()
    small = TokenizedDocuments.from_lists([[1, 2], [3]], [[0, 1], [1]], pad_token_id=7)
    twin = copy.copy(small)
    assert twin[0][1].tolist() == [0, 1] and twin.pad_token_id == 7


def test_progress_reaches_the_end(tmp_path):
    seen = []
    records = Records.from_list([{"text": "a"}] * 2_500, "pretrain")
    tokenize(records, CharacterTokenizer(), "pretrain", tmp_path, progress=lambda *step: seen.append(step))
    assert seen == [(1_000, 2_500), (2_000, 2_500), (2_500, 2_500)]


def test_refusals(tmp_path):
    records = Records.from_list([{"text": "a"}], "pretrain")
    with pytest.raises(ValueError, match="'dpo'"):
        tokenize(records, CharacterTokenizer(), "dpo", tmp_path)
    with pytest.raises(ValueError, match="are pretrain records"):
        tokenize(records, CharacterTokenizer(), "sft", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot use this folder as cache"):
        tokenize(records, CharacterTokenizer(), "pretrain", tmp_path / "file")
    with pytest.raises(ValueError, match="lengths"):
        TokenizedDocuments.from_lists([[1, 2]], [[1]])


def test_with_the_real_tokenizer(tmp_path, shared):
    from minimind_edu.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(shared / "data" / "tokenizers" / "minimind3")
    folder = shared / "data" / "minimind_format"
    docs = tokenize(
        load_records(folder / "sft_data.jsonl", "sft", cache_dir=tmp_path), tokenizer, "sft", tmp_path
    )
    first = load_records(folder / "sft_data.jsonl", "sft", cache_dir=tmp_path)[0]["conversations"]
    expected = tokenizer.encode_chat(first)
    ids, mask = docs[0]
    assert ids.tolist() == expected.input_ids and mask.tolist() == [
        int(bit) for bit in expected.assistant_mask
    ]
    spoken = tokenizer.decode(ids[mask == 1].tolist())
    assert "我很好，谢谢！你呢？<|im_end|>" in spoken and "你好吗" not in spoken
    records = load_records(shared / "data" / "text" / "tang300.txt", "pretrain", cache_dir=tmp_path)
    docs = tokenize(records, tokenizer, "pretrain", tmp_path)
    text = (shared / "data" / "text" / "tang300.txt").read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    assert tokenizer.decode(docs[0][0].tolist(), skip_special_tokens=True).strip() == text.strip()
    row = PackedDataset(docs, 128)[0]
    assert row["input_ids"].dtype == torch.int64 and int(row["input_ids"].max()) < tokenizer.vocab_size
