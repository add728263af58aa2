"""LoRA: the stage from a file to an adapter."""

import json

import pytest
import torch
from lora_models import logits, make

from minimind_edu.data.records import Records, load_records
from minimind_edu.data.world.files import default_file
from minimind_edu.stages.lora import (
    LoRAConfig,
    count_trainable,
    load_adapter,
    lora,
    lora_parameters,
    with_replay,
)
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, read_metrics

CHATS = [
    [
        {"role": "user", "content": f"what does number {n} like?"},
        {"role": "assistant", "content": f"tea {n % 3}"},
    ]
    for n in range(40)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a small random model and a file of chats."""
    folder = tmp_path_factory.mktemp("base")
    texts = [message["content"] for chat in CHATS for message in chat]
    tokenizer = train_fast(texts, 300, split_digits=True)
    save_model(make(vocab_size=tokenizer.vocab_size), tokenizer, folder / "model")
    lines = [json.dumps({"conversations": chat}) for chat in CHATS]
    (folder / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def config(base, out_dir, **changes):
    plain = {
        "data_path": str(base / "chats.jsonl"), "cache_dir": str(base / "cache"), "out_dir": str(out_dir),
        "from_weight": str(base), "max_seq_len": 64, "epochs": 4, "device": "cpu", "dtype": "float32",
        "log_interval": 1, "lora_dropout": 0.1, "warmup_iters": 2, "rank": 4,
        "targets": "q_proj,v_proj,up_proj",
    }  # fmt: skip
    return LoRAConfig(**(plain | changes))


def test_the_stage_leaves_an_adapter_and_a_merged_model(base, tmp_path):
    result = lora(config(base, tmp_path), progress=False)
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    merged, tokenizer = load_model(tmp_path)
    assert tokenizer.fingerprint == result.tokenizer.fingerprint
    assert torch.equal(logits(merged), logits(result.model.eval()))
    start, _ = load_model(base)
    assert not torch.allclose(logits(start), logits(merged), atol=1e-2)
    load_adapter(start, tmp_path / "adapter")
    assert (logits(start) - logits(merged)).abs().max() < 1e-5
    trainable, total = count_trainable(start)
    assert any(f"{trainable:,} of {total:,} parameters" in note for note in result.notes)


def test_the_stage_trains_the_rows_of_new_tokens(base, tmp_path):
    model, tokenizer = load_model(base)
    ids = sorted(set(tokenizer.encode("tea 2")))
    with torch.no_grad():  # as if these had never been seen
        model.model.embed_tokens.weight[ids] = torch.ones(32)
    save_model(model, tokenizer, tmp_path / "model")
    start = {"from_weight": str(tmp_path / "model"), "epochs": 1}
    result = lora(config(base, tmp_path / "with", **start), progress=False)
    rows = load_adapter(model, tmp_path / "with" / "adapter")
    assert lora_parameters(rows)["model.embed_tokens.lora_rows"].shape == (len(ids), 32)
    assert f"{len(ids)} rows of the embedding" in result.notes[-1]
    without = lora(config(base, tmp_path / "without", new_tokens=0, **start), progress=False)
    assert torch.equal(without.model.model.embed_tokens.weight[ids], torch.ones(len(ids), 32))
    with pytest.raises(ValueError, match="new_tokens must be"):
        lora(config(base, tmp_path / "x", new_tokens=2), progress=False)


def test_earlier_conversations_are_mixed_in(base, tmp_path):
    def records(answer, count):
        chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
        return Records.from_list([{"conversations": chat}] * count, "sft")

    new, earlier = records("new", 4), records("old", 9)
    both = with_replay(new, earlier, 3, seed=0)
    answers = [record["conversations"][1]["content"] for record in both]
    assert answers == ["new"] * 4 + ["old"] * 3
    assert both.fingerprint == with_replay(new, earlier, 3, seed=0).fingerprint
    assert both.fingerprint != with_replay(new, earlier, 3, seed=1).fingerprint != new.fingerprint
    assert len(with_replay(new, earlier, 100, seed=0)) == 13

    replay = {"replay_records": 20, "replay_path": str(base / "chats.jsonl"), "max_steps": 1}
    alone = lora(config(base, tmp_path / "alone", max_steps=1), progress=False)
    mixed = lora(config(base, tmp_path / "mixed", **replay), progress=False)
    lines = [read_metrics(tmp_path / name / "metrics.jsonl")[0] for name in ("alone", "mixed")]
    assert alone.fit.step == mixed.fit.step == 1 and lines[0]["loss"] != lines[1]["loss"]
    for wrong in ({"replay_records": -1}, {"replay_path": "x.jsonl"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            lora(config(base, tmp_path / "x", **wrong), progress=False)


def test_a_stopped_run_goes_on_to_the_same_adapter(base, tmp_path):
    def pull_the_plug(line):
        if line["step"] == 5:
            raise KeyboardInterrupt

    whole = lora(config(base, tmp_path / "whole"), progress=False)
    with pytest.raises(KeyboardInterrupt):
        lora(config(base, tmp_path / "run", save_interval=2), progress=False, on_log=pull_the_plug)
    with pytest.raises(CheckpointError, match="alpha=2"):
        lora(config(base, tmp_path / "run", from_resume=1, save_interval=2, lora_alpha=2.0), progress=False)
    again = lora(config(base, tmp_path / "run", from_resume=1, save_interval=2), progress=False)
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))
    files = [
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("whole", "run")
    ]
    assert files[0] == files[1]


def test_the_stage_refuses_before_it_works(base, tmp_path):
    with pytest.raises(ValueError, match="rank must be"):
        lora(config(base, tmp_path, rank=0), progress=False)
    with pytest.raises(ValueError, match="no linear layer is called 'wq'"):
        lora(config(base, tmp_path, targets="wq"), progress=False)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an adapter"):
        lora(config(base, tmp_path), progress=False)
    assert (tmp_path / "adapter" / "diary.txt").read_text() == "mine"


def test_the_default_file_is_the_clinic(base, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("minimind_edu.stages.lora.read_records", lambda *a: seen.append(a[1:3]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lora(config(base, tmp_path, data_path=""), progress=False)
    assert seen == [("sft", "lora_clinic.jsonl")]
    assert len(load_records(default_file("lora_clinic.jsonl"), "sft", cache_dir=tmp_path)) > 100


def test_real_conversations(shared, tmp_path):
    """The loss on held-out lines of MiniMind's own LoRA sample falls, from random weights."""
    source = shared / "data" / "minimind_format" / "lora_data.jsonl"
    texts = [
        m["content"]
        for record in load_records(source, "sft", cache_dir=tmp_path)
        for m in record["conversations"]
    ]
    tokenizer = train_fast(texts, 600)
    save_model(
        make(vocab_size=tokenizer.vocab_size, max_position_embeddings=256), tokenizer, tmp_path / "model"
    )
    lines = []
    settings = config(
        tmp_path, tmp_path / "out", data_path=str(source), from_weight=str(tmp_path / "model"), epochs=30,
        val_fraction=0.2, eval_interval=1, targets="all-linear", max_seq_len=256,
    )  # fmt: skip
    lora(settings, progress=False, on_log=lines.append)
    held_out = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert held_out[-1] < held_out[0] - 0.3
