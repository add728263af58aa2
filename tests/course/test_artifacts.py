"""What chapters need from earlier ones is built once, whole, and then loaded."""

import functools
import json
import shutil
import signal

import pytest
import torch

from minimind_edu.course import artifacts
from minimind_edu.data.cache import default_cache_dir
from minimind_edu.stages.pretrain import PretrainConfig
from minimind_edu.training import Interrupted, loop

SENTENCES = [f"the {animal} lives in the {place}. 猫 {n}" for n in range(20) for animal in ("cat", "dog")
             for place in ("tree", "house", "barn")]  # fmt: skip
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "max_seq_len": 32, "vocab_size": 300, "batch_size": 4,
        "max_steps": 6, "device": "cpu", "dtype": "float32"}  # fmt: skip


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """An empty cache, a small text, and a small model."""
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pretrain.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES), encoding="utf-8")
    monkeypatch.setattr(artifacts, "default_file", lambda name: path)
    monkeypatch.setattr(
        artifacts, "PretrainConfig", functools.partial(PretrainConfig, data_path=str(path), **TINY)
    )


@pytest.fixture
def trained(monkeypatch):
    """How often a tokenizer and a model's step were trained."""
    counts = {"tokenizers": 0, "steps": 0}
    train_fast, take_step = artifacts.train_fast, loop.Run.take_step

    def counted_tokenizer(*arguments, **options):
        counts["tokenizers"] += 1
        return train_fast(*arguments, **options)

    def counted_step(self, *arguments):
        counts["steps"] += 1
        return take_step(self, *arguments)

    monkeypatch.setattr(artifacts, "train_fast", counted_tokenizer)
    monkeypatch.setattr(loop.Run, "take_step", counted_step)
    return counts


def test_the_tokenizer_is_trained_once(trained):
    first, second = artifacts.tokenizer(300, progress=False), artifacts.tokenizer(300, progress=False)
    assert trained["tokenizers"] == 1
    assert first.vocab_size == second.vocab_size == 300
    assert first.encode(SENTENCES[0]) == second.encode(SENTENCES[0])
    assert second.decode(second.encode(SENTENCES[0])) == SENTENCES[0]


def test_another_vocabulary_is_another_tokenizer(trained):
    sizes = {artifacts.tokenizer(size, progress=False).vocab_size for size in (300, 310)}
    assert sizes == {300, 310} and trained["tokenizers"] == 2


def test_its_digits_are_tokens_of_their_own():
    tokenizer = artifacts.tokenizer(300, progress=False)
    assert len(tokenizer.encode("1234")) == 4


def test_a_bar_is_shown_only_when_asked_for(capsys):
    artifacts.tokenizer(300, progress=False)
    assert capsys.readouterr() == ("", "")
    shutil.rmtree(default_cache_dir())
    artifacts.tokenizer(300)
    assert "training a tokenizer" in capsys.readouterr().err


def test_the_model_is_trained_once_and_then_loaded(trained):
    (model, tokenizer), (again, _) = (
        artifacts.base_model(progress=False),
        artifacts.base_model(progress=False),
    )
    assert trained["steps"] == 6
    assert model.config.hidden_size == 16 and model.config.vocab_size == tokenizer.vocab_size
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    left = [path.name for path in default_cache_dir().iterdir() if path.name.endswith((".run", ".building"))]
    assert left == [], "what was only needed for training is gone"


def test_a_build_that_was_stopped_goes_on(trained, monkeypatch):
    learning_rate_at = loop.learning_rate_at

    def interrupt(*arguments):
        if trained["steps"] == 3:
            signal.raise_signal(signal.SIGINT)
        return learning_rate_at(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_at", interrupt)
        with pytest.raises(Interrupted):
            artifacts.base_model(progress=False)
    stopped_after = trained["steps"]
    assert 0 < stopped_after < 6
    model, _ = artifacts.base_model(progress=False)
    assert trained["steps"] == 6, "no step twice"
    shutil.rmtree(default_cache_dir())
    whole, _ = artifacts.base_model(progress=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_a_new_version_is_built_anew(trained, monkeypatch):
    artifacts.tokenizer(300, progress=False)
    monkeypatch.setattr(artifacts, "VERSION", artifacts.VERSION + 1)
    artifacts.tokenizer(300, progress=False)
    monkeypatch.setattr(artifacts, "WORLD_VERSION", artifacts.WORLD_VERSION + 1)
    artifacts.tokenizer(300, progress=False)
    assert trained["tokenizers"] == 3


def test_the_chat_model_is_the_base_model_fine_tuned(trained, tmp_path, monkeypatch):
    path = tmp_path / "sft.jsonl"
    turns = [{"role": "user", "content": "cat?"}, {"role": "assistant", "content": "the tree."}]
    path.write_text((json.dumps({"conversations": turns}) + "\n") * 20, encoding="utf-8")
    settings = {name: TINY[name] for name in ("max_seq_len", "batch_size", "max_steps", "device", "dtype")}
    monkeypatch.setattr(
        artifacts, "SFTConfig", functools.partial(artifacts.SFTConfig, data_path=str(path), **settings)
    )
    chat, tokenizer = artifacts.chat_model(progress=False)
    assert trained["steps"] == 12, "six steps of the base model, six of its fine-tuning"
    base, _ = artifacts.base_model(progress=False)
    again, _ = artifacts.chat_model(progress=False)
    assert trained["steps"] == 12
    assert not torch.equal(chat.model.norm.weight, base.model.norm.weight)
    assert all(torch.equal(a, b) for a, b in zip(chat.parameters(), again.parameters(), strict=True))
    prompt = tokenizer.encode_chat(turns).input_ids
    with torch.no_grad():
        losses = [model(torch.tensor([prompt]), labels=torch.tensor([prompt])).loss for model in (base, chat)]
    assert losses[1] < losses[0]
