"""Short training runs, as chapters and sweeps use them, on a small text."""

import json

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import experiments
from minimind_edu.course.experiments import held_out_loss, train_on_world, world_rows
from minimind_edu.evaluation import perplexity
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import PretrainConfig
from minimind_edu.tokenizer import train_fast

SENTENCES = [f"the {animal} lives in the {place}, number {n}." for n in range(40)
             for animal in ("cat", "dog") for place in ("tree", "house", "barn")]  # fmt: skip


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    """Some sentences in place of the world's documents."""
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path / "cache"))
    records = {
        "pretrain.jsonl": [{"text": text} for text in SENTENCES],
        "eval_pretrain.jsonl": [{"text": text, "log_probability": -9.0} for text in SENTENCES[::10]],
    }
    for name, lines in records.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.setattr(experiments, "default_file", lambda name: tmp_path / name)


@pytest.fixture(scope="module")
def tokenizer():
    return train_fast(SENTENCES, 300, split_digits=True)


def new_model(tokenizer, seed=0):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    return MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=512, **shape))


SETTINGS = {"max_seq_len": 32, "progress": False, "device": "cpu", "dtype": "float32", "batch_size": 4}


def test_a_run_trains_the_model_and_measures_it(tokenizer):
    model = new_model(tokenizer)
    before = held_out_loss(model, tokenizer)
    run = train_on_world(model, tokenizer, steps=30, log_interval=10, **SETTINGS)
    assert run.fit.step == 30 and run.fit.tokens == pytest.approx(30 * 4 * 32, rel=0.2)
    assert [line["step"] for line in run.metrics if "loss" in line] == [10, 20, 30]
    assert run.held_out.loss < before.loss - 0.5, "the model itself was trained"
    assert run.held_out.loss == held_out_loss(model, tokenizer).loss
    assert run.held_out.floor == before.floor > 0


def test_the_floor_is_that_of_the_held_out_file(tokenizer, tmp_path):
    model = new_model(tokenizer)
    expected = perplexity(model, tokenizer, tmp_path / "eval_pretrain.jsonl")
    assert held_out_loss(model, tokenizer) == expected
    assert expected.floor == pytest.approx(9.0 * len(SENTENCES[::10]) / expected.tokens)


def test_lines_come_as_they_are_written_and_the_last_is_of_held_out_documents(tokenizer):
    lines = []
    run = train_on_world(
        new_model(tokenizer), tokenizer, steps=4, log_interval=2, on_log=lines.append, **SETTINGS
    )
    assert lines[:-1] == run.metrics and lines[-1] == {"step": 4, "validation_loss": run.held_out.loss}


def test_the_same_start_gives_the_same_run(tokenizer):
    losses = []
    for seed in (5, 5, 6):
        run = train_on_world(new_model(tokenizer, seed), tokenizer, steps=3, log_interval=1, **SETTINGS)
        losses.append([line.get("loss") for line in run.metrics])
    assert losses[0] == losses[1] != losses[2]


def test_defaults_are_pretrains_and_can_be_changed(tokenizer, monkeypatch):
    seen = []

    def watch(model, loss, rows, config, **options):
        seen.append((config, rows))
        raise InterruptedError

    monkeypatch.setattr(experiments, "fit", watch)
    for settings in ({}, {"learning_rate": 0.5, "optimizer": "adamw"}):
        with pytest.raises(InterruptedError):
            train_on_world(new_model(tokenizer), tokenizer, steps=7, progress=False, **settings)
    (plain, rows), (changed, _) = seen
    for name in ("optimizer", "learning_rate", "min_lr_ratio", "batch_size"):
        assert getattr(plain, name) == getattr(PretrainConfig, name)
    assert plain.max_steps == 7 and len(rows[0]["input_ids"]) == PretrainConfig.max_seq_len
    assert (changed.learning_rate, changed.optimizer, changed.batch_size) == (0.5, "adamw", plain.batch_size)


def test_nothing_is_kept_on_the_disk(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    train_on_world(new_model(tokenizer), tokenizer, steps=1, **SETTINGS)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cache", "eval_pretrain.jsonl", "pretrain.jsonl", "temporary",
    ]  # fmt: skip


def test_rows_are_tokenized_once(tokenizer, monkeypatch):
    rows = world_rows(tokenizer, 32)
    monkeypatch.setattr(type(tokenizer), "encode_batch", None, raising=False)
    monkeypatch.setattr(type(tokenizer), "encode", None)
    again = world_rows(tokenizer, 32)
    assert len(rows) == len(again) > 100 and torch.equal(rows[0]["input_ids"], again[0]["input_ids"])
