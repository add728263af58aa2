"""Fine-tuning: where the head is applied, batches without labels, replayed documents, and real files."""

import json
import math
import signal

import pytest
import torch
import torch.nn.functional as F

from minimind_edu.config import ModelConfig
from minimind_edu.data.errors import DataError
from minimind_edu.data.packing import PackedDataset, collate
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import TokenizedDocuments, tokenize
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages import sft as sft_module
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import save_model
from minimind_edu.stages.sft import SFTConfig, sft, sft_rows
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, Interrupted, TrainConfig, fit, read_metrics

PEOPLE = [f"{first} {last}" for first in ("Ada", "Ben", "Cleo", "Dan") for last in ("Ash", "Birch", "Elm")]
TOWNS = ("Oakton", "Rye", "Stow")


def small_model(vocab_size, **changes):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return MiniMind(ModelConfig(vocab_size=vocab_size, num_key_value_heads=1, **(shape | changes)))


def write_lines(path, records):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Files of conversations and of documents, and a random model with a tokenizer for both."""
    folder = tmp_path_factory.mktemp("world")
    texts, chats = [], []
    for number, name in enumerate(PEOPLE):
        town = TOWNS[number % 3]
        texts += [f"{name} lives in {town}, and {name} likes it.", f"The home of {name} is {town}."]
        chats.append((f"Where does {name} live?", f"In {town}."))
    conversations = [
        {"conversations": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in chats
    ]
    write_lines(folder / "chats.jsonl", conversations)
    write_lines(folder / "texts.jsonl", [{"text": text} for text in texts])
    tokenizer = train_fast(texts + [text for chat in chats for text in chat], 320)
    save_model(small_model(tokenizer.vocab_size), tokenizer, folder / "base")
    return folder


def settings(world, out_dir, **changes):
    plain = {
        "data_path": str(world / "chats.jsonl"), "replay_path": str(world / "texts.jsonl"),
        "replay_share": 0.5, "from_weight": str(world / "base"), "out_dir": str(out_dir),
        "cache_dir": str(world / "cache"), "max_seq_len": 48, "batch_size": 4, "epochs": 3,
        "val_fraction": 0.1, "device": "cpu", "dtype": "float32", "log_interval": 1,
    }  # fmt: skip
    return SFTConfig(**(plain | changes))


def state(model):
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


# --- the loss ---


def test_the_head_is_applied_to_labelled_positions_only(monkeypatch):
    model, seen = small_model(50), []
    head = model.head
    monkeypatch.setattr(model, "head", lambda hidden: seen.append(hidden.detach().clone()) or head(hidden))
    mask = [[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0, 1, 1]]
    docs = TokenizedDocuments.from_lists([list(range(3, 11)), list(range(20, 28))], mask)
    batch = collate([PackedDataset(docs, 8)[row] for row in range(2)])
    _, numbers = causal_lm_loss(model, batch)
    assert numbers["tokens"] == 6 and [tuple(hidden.shape) for hidden in seen] == [(6, 32)]
    everywhere, _ = model.hidden_states(batch["input_ids"], document_ids=batch["document_ids"])
    predicts = F.pad(batch["labels"][:, 1:], (0, 1), value=-100) != -100
    torch.testing.assert_close(seen[0], everywhere[predicts])


class Given:
    """Rows that are given; what `fit` asks of a dataset."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]

    def set_epoch(self, epoch):
        pass

    def record_ids(self, row):
        return [row]


def row(labels):
    ids = torch.arange(3, 3 + len(labels))
    return {"input_ids": ids, "labels": torch.tensor(labels), "document_ids": torch.zeros_like(ids)}


def test_a_batch_without_labels_is_skipped_and_counted(tmp_path):
    """A plain mean over it is NaN, and so is every weight after a step on it."""
    empty, good = row([-100] * 6), row([-100, -100, 5, 6, -100, 8])
    # The first label has no token before it that could predict it: this row has nothing to learn either.
    unpredicted = row([3, *[-100] * 5])
    model = small_model(50)
    logits = model(empty["input_ids"][None]).logits[:, :-1].flatten(0, 1)
    assert torch.isnan(F.cross_entropy(logits, empty["labels"][1:]))
    config = TrainConfig(
        out_dir=str(tmp_path / "a"), batch_size=1, device="cpu", dtype="float32", warmup_iters=0
    )
    before = state(model).clone()
    result = fit(model, causal_lm_loss, Given([empty, unpredicted]), config, progress=False)
    assert (result.skipped_batches, result.tokens) == (2, 0) and torch.equal(state(model), before)
    config.out_dir, config.accumulation_steps = str(tmp_path / "b"), 3
    result = fit(model, causal_lm_loss, Given([empty, good, unpredicted, good]), config, progress=False)
    assert (result.skipped_batches, result.tokens, result.step) == (2, 6, 2)
    assert torch.isfinite(state(model)).all() and not torch.equal(state(model), before)


def test_skipped_batches_are_reported(world, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sft_module, "causal_lm_loss", lambda model, batch: causal_lm_loss(model, without_labels(batch))
    )
    result = sft(settings(world, tmp_path, epochs=1), progress=False)
    batches = math.ceil(len(sft_rows(settings(world, tmp_path), result.tokenizer, False).train) / 4)
    assert result.fit.skipped_batches == batches and result.fit.tokens == 0
    assert f"{batches} batches had no labelled token and were skipped" in result.notes


def without_labels(batch):
    return batch | {"labels": torch.full_like(batch["labels"], -100)}


# --- replayed documents ---


def test_replayed_documents_are_learned_whole_and_chats_by_their_answers(world, tmp_path, monkeypatch):
    batches = []

    def watching(model, batch):
        if model.training:
            batches.append(batch)
        return causal_lm_loss(model, batch)

    monkeypatch.setattr(sft_module, "causal_lm_loss", watching)
    result = sft(settings(world, tmp_path), progress=False)
    replayed = plain = 0
    for batch in batches:
        for ids, labels, numbers in zip(*batch.values(), strict=True):
            begins = torch.cat((torch.tensor([True]), numbers[1:] != numbers[:-1]))
            all_learned = bool((labels[~begins & (numbers >= 0)] != -100).all())
            is_chat = "user" in result.tokenizer.decode(ids.tolist())
            assert all_learned != is_chat
            replayed, plain = replayed + all_learned, plain + is_chat
    assert replayed == plain > 0
    text = next(note for note in result.notes if "pretraining documents" in note)
    assert f"{replayed // 3} of {(replayed + plain) // 3} rows of an epoch" in text


def test_the_note_tells_the_share_of_the_labels(world, tmp_path):
    config = settings(world, tmp_path)
    _, tokenizer = sft_module.load_model(config.from_weight)
    data = sft_rows(config, tokenizer, show=False)
    labels = torch.stack([data.train[row]["labels"][1:] for row in range(len(data.train))]) != -100
    replayed = torch.tensor([data.train.is_replayed(row) for row in range(len(data.train))])
    assert (
        f"with {int(labels[replayed].sum()) / int(labels.sum()):.0%} of the labelled tokens" in data.notes[-1]
    )
    assert type(data.validation) is PackedDataset  # on conversations alone


def test_without_replay_nothing_is_read_of_it(world, tmp_path):
    config = settings(world, tmp_path, replay_share=0.0, replay_path="")
    _, tokenizer = sft_module.load_model(config.from_weight)
    data = sft_rows(config, tokenizer, show=False)
    assert type(data.train) is PackedDataset and data.notes == () and "replayed" not in data.identity


def test_stopped_and_resumed_with_replay(world, tmp_path, monkeypatch):
    options = {"replay_share": 0.6, "save_interval": 1, "batch_size": 2}
    whole = sft(settings(world, tmp_path / "whole", **options), progress=False)
    calls = []

    def stopping(model, batch):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return causal_lm_loss(model, batch)

    monkeypatch.setattr(sft_module, "causal_lm_loss", stopping)
    with pytest.raises(Interrupted):
        sft(settings(world, tmp_path / "parts", **options), progress=False)
    monkeypatch.undo()
    parts = sft(settings(world, tmp_path / "parts", from_resume=1, **options), progress=False)
    assert torch.equal(state(parts.model), state(whole.model))
    other = settings(world, tmp_path / "parts", from_resume=1, **(options | {"replay_share": 0.5}))
    with pytest.raises(CheckpointError, match="data was .* and is now"):
        sft(other, progress=False)


def test_replay_settings_without_sense(world, tmp_path):
    for change, message in (
        ({"replay_share": 1.0}, "replay_share must be 0 or more and below 1"),
        ({"replay_share": -0.5}, "replay_share must be"),
        ({"replay_share": 0.0}, "replay_path is of use only with"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(world, tmp_path, **change).validate()
    with pytest.raises(DataError, match="absent.jsonl"):
        sft(settings(world, tmp_path, replay_path="absent.jsonl"), progress=False)
    with pytest.raises(DataError, match="pretrain|text"):
        sft(settings(world, tmp_path, replay_path=str(world / "chats.jsonl")), progress=False)


# --- real files ---

LONG = 1_024  # tokens: the longest answers of these files are cut all the same
REAL = (
    "minimind_format/sft_demo.jsonl",
    "minimind_format/sft_data.jsonl",
    "sft/instruction-data.json",
    "sft/identity.json",
    "sft/alpaca_zh_demo.json",
)


def real_records(shared, name, folder):
    path = shared / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path, load_records(path, "sft", cache_dir=folder)


def spoken(records):
    """All texts of a file's messages, to train a tokenizer on."""
    return [message["content"] for messages, _ in records.chats() for message in messages]


@pytest.mark.parametrize("name", REAL)
def test_the_mask_of_a_real_file_audited_by_decoding(shared, tmp_path, name):
    """The labelled tokens of a packed document are the assistant's words and end tokens, and nothing else."""
    _, records = real_records(shared, name, tmp_path)
    tokenizer = train_fast(spoken(records), 1_000)
    rows = PackedDataset(tokenize(records, tokenizer, "sft", tmp_path), LONG, fill=False)
    end, wanted = "<|im_end|>", {}
    for number, (messages, _) in enumerate(records.chats()):
        said = [message["content"] + end for message in messages if message["role"] == "assistant"]
        wanted[number] = "".join(said)
    audited = 0
    for place in range(len(rows)):
        row = rows[place]
        for document, number in enumerate(rows.record_ids(place)):
            here = row["document_ids"] == document
            ids, labels = row["input_ids"][here], row["labels"][here]
            assert torch.equal(labels[labels != -100], ids[labels != -100])
            text = tokenizer.decode(labels[labels != -100].tolist())
            if len(ids) == LONG and text != wanted[number]:  # cut at its end
                assert wanted[number].startswith(text.rstrip("\N{REPLACEMENT CHARACTER}"))
            else:
                assert text == wanted[number]
            audited += 1
    assert audited == len(records) - rows.dropped and audited >= 0.9 * len(records)


@pytest.mark.parametrize("name", ("minimind_format/sft_demo.jsonl", "sft/instruction-data.json"))
def test_loss_falls_on_held_out_lines_of_a_real_file(shared, tmp_path, name):
    path, records = real_records(shared, name, tmp_path)
    tokenizer = train_fast(spoken(records), 600)
    save_model(small_model(tokenizer.vocab_size), tokenizer, tmp_path / "base")
    config = SFTConfig(
        data_path=str(path), from_weight=str(tmp_path / "base"), out_dir=str(tmp_path / "run"),
        cache_dir=str(tmp_path), max_seq_len=128, val_fraction=0.1, batch_size=4, epochs=1, max_steps=120,
        learning_rate=5e-3, device="cpu", dtype="float32",
    )  # fmt: skip
    result = sft(config, progress=False)
    first = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line][0]
    assert result.fit.validation_loss < 0.75 * math.log(tokenizer.vocab_size)
    assert result.fit.validation_loss < 0.85 * first
