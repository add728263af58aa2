"""DPO: the stage from a file of pairs to a model."""

import json
import math

import numpy as np
import pytest
import torch
from pair_models import make_model
from small_stages import state

from minimind_edu.data.records import load_records
from minimind_edu.stages import reference as reference_module
from minimind_edu.stages.dpo import DPOConfig, dpo, preference_rows
from minimind_edu.stages.reference import reference_logprobs
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, read_metrics

LN2 = math.log(2)


@pytest.fixture(scope="module")
def start(tokenizer, world_pairs, tmp_path_factory):
    """A folder with a model to start from, and a file of pairs."""
    folder = tmp_path_factory.mktemp("start")
    save_model(make_model(tokenizer, dropout=0.1), tokenizer, folder / "model")
    (folder / "dpo.jsonl").write_text("\n".join(map(json.dumps, world_pairs)), encoding="utf-8")
    return folder


def settings(start, out_dir, **changes):
    plain = {
        "data_path": str(start / "dpo.jsonl"), "cache_dir": str(start / "cache"), "out_dir": str(out_dir),
        "from_weight": str(start), "batch_size": 4, "epochs": 2, "device": "cpu", "dtype": "float32",
        "log_interval": 1, "warmup_iters": 0, "val_fraction": 0.2,
    }  # fmt: skip
    return DPOConfig(**(plain | changes))


def test_a_run_from_a_file_to_a_model(start, tmp_path):
    result = dpo(settings(start, tmp_path, sft_weight=0.0, epochs=6, learning_rate=3e-3), progress=False)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert lines[0]["loss"] == lines[0]["preference_loss"] == pytest.approx(LN2, abs=1e-5) and lines[0][
        "margin"
    ] == pytest.approx(0, abs=1e-4)
    assert {"accuracy", "chosen_logp", "rejected_logp", "chosen_reward", "rejected_reward"} <= set(lines[0])
    assert lines[-1]["loss"] < 0.3 and lines[-1]["margin"] > 1 and result.fit.tokens == 6 * 19
    assert 0 < result.fit.validation_loss < 2  # on five pairs; held-out loss falls on real data, below
    model, tokenizer = load_model(tmp_path)
    assert torch.equal(state(model), state(result.model)) and model.config.dropout == 0.1
    before, _ = load_model(start)
    assert not torch.equal(state(before), state(model))


def test_the_reference_is_computed_once(start, tmp_path, monkeypatch):
    calls, compute = [], reference_module.reference_logprobs
    monkeypatch.setattr(
        reference_module, "reference_logprobs", lambda *a, **k: (calls.append(len(a[1])), compute(*a, **k))[1]
    )
    cache = {"cache_dir": str(tmp_path / "cache"), "max_steps": 2}
    first = dpo(settings(start, tmp_path / "one", **cache), progress=False)
    assert calls == [19, 5]
    second = dpo(settings(start, tmp_path / "two", **cache), progress=False)
    assert calls == [19, 5] and torch.equal(state(first.model), state(second.model))
    dpo(settings(start, tmp_path / "beta", beta=0.5, **cache), progress=False)
    assert calls == [19, 5]  # the settings of the loss do not change it
    other = tmp_path / "other"
    save_model(make_model(first.tokenizer, num_hidden_layers=1), first.tokenizer, other / "model")
    for change in ({"from_weight": str(other)}, {"max_seq_len": 100}, {"dtype": "bfloat16"}):
        calls.clear()
        dpo(settings(start, tmp_path / str(len(str(change))), **cache, **change), progress=False)
        assert calls == [19, 5], change


def test_cached_numbers_equal_computed_ones(start, tmp_path):
    config = settings(start, tmp_path)
    records = load_records(config.data_path, "dpo", cache_dir=config.cache_dir)
    model, tokenizer = load_model(start)
    for _ in range(2):
        data = preference_rows(config, records, model, tokenizer, False)
        fresh = reference_logprobs(model, data.train, batch_size=3)
        cached = np.stack([data.train.pair(place)["reference_logprobs"].numpy() for place in range(19)])
        np.testing.assert_allclose(cached, fresh, rtol=1e-5)


def test_the_first_loss_is_ln_2_in_bfloat16_too(start, tmp_path):
    dpo(settings(start, tmp_path, dtype="bfloat16", max_steps=1), progress=False)
    first = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert first["preference_loss"] == pytest.approx(LN2, abs=5e-3)  # rounding, by which rows shared a batch


def test_resume_refuses_another_loss(start, tmp_path):
    dpo(settings(start, tmp_path, max_steps=1), progress=False)
    for change in ({"beta": 0.2}, {"loss_type": "hinge"}, {"label_smoothing": 0.1}, {"sft_weight": 9.0}):
        with pytest.raises(CheckpointError, match="data was .* and is now"):
            dpo(settings(start, tmp_path, max_steps=1, from_resume=1, **change), progress=False)


def test_a_resumed_run_ends_at_the_same_weights(start, tmp_path):
    whole = dpo(settings(start, tmp_path / "whole"), progress=False)
    kept = settings(start, tmp_path / "parts", save_interval=1, keep_checkpoints=99)
    dpo(kept, progress=False)
    for checkpoint in sorted((tmp_path / "parts" / "checkpoints").iterdir())[3:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    parts = dpo(settings(start, tmp_path / "parts", from_resume=1), progress=False)
    assert torch.equal(state(whole.model), state(parts.model))


def test_what_the_user_should_know(start, tmp_path, world_pairs):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    bad = {"chosen": chat, "rejected": [{"role": "user", "content": "??"}, chat[1]]}
    first = world_pairs[0]
    more = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "That is all."}]
    also = [{"role": "user", "content": "So?"}, {"role": "assistant", "content": "No."}]
    diverging = {"chosen": first["chosen"] + more, "rejected": first["rejected"] + also}
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(map(json.dumps, [bad, *[diverging] * 4, *world_pairs])), encoding="utf-8")
    with pytest.raises(ValueError, match="1 records are no pairs"):
        dpo(settings(start, tmp_path / "run", data_path=str(path), max_steps=1), progress=False)
    config = settings(
        start, tmp_path / "run", data_path=str(path), max_steps=1, on_bad_record="skip", max_seq_len=40
    )
    notes = "\n".join(dpo(config, progress=False).notes)
    assert "1 pairs have no prompt in common and were left out" in notes
    assert "the first that was none: record:0: chosen and rejected differ first in message 1" in notes
    assert "4 pairs go on with different questions after their first answers" in notes
    assert "longer than 40 tokens and were cut" in notes


@pytest.mark.parametrize(
    ("name", "count"),
    [("preference/instruction-data-with-preference.json", 300), ("preference/dpo_zh_demo.json", 120)],
)
def test_loss_falls_on_held_out_real_pairs(shared, name, count, tmp_path):
    found = load_records(shared / "data" / name, "dpo", on_bad_record="skip", cache_dir=tmp_path)
    lines = [json.dumps(found[place]) for place in range(count)]
    (tmp_path / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = [m["content"] for place in range(count) for side in found[place].values() for m in side]
    tokenizer = train_fast(texts, 1_000)
    save_model(make_model(tokenizer), tokenizer, tmp_path / "start" / "model")
    config = DPOConfig(
        data_path=str(tmp_path / "some.jsonl"), cache_dir=str(tmp_path / "cache"),
        out_dir=str(tmp_path / "run"), from_weight=str(tmp_path / "start"), max_steps=40, batch_size=16,
        learning_rate=1e-3, val_fraction=0.3, device="cpu", dtype="float32", max_seq_len=128,
        sft_weight=0.0, log_interval=1,
    )  # fmt: skip
    result = dpo(config, progress=False)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[0]["loss"] == pytest.approx(LN2, abs=1e-4)
    assert result.fit.validation_loss < 0.97 * LN2
