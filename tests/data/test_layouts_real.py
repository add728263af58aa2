"""Files of other projects: loaded as they are, and what is then trained on."""

import json

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.records import load_records
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import packed_rows, save_model
from minimind_edu.stages.sft import SFTConfig, sft
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import evaluate_loss

ALPACA = {"sft/instruction-data.json": 1_100, "sft/identity.json": 91, "sft/alpaca_zh_demo.json": 1_000}
ALPACA_PAIRS, SHAREGPT_PAIRS = (
    "preference/instruction-data-with-preference.json",
    "preference/dpo_zh_demo.json",
)
TIES = 6  # pairs of the first file whose answers are the same


@pytest.fixture
def real(shared, tmp_path):
    """Load a file of the samples; returns what the file holds and what was made of it."""

    def load_real(name, kind, **options):
        path = shared / "data" / name
        if not path.is_file():
            pytest.skip(f"{path} is not on this machine")
        return json.loads(path.read_bytes()), load_records(path, kind, cache_dir=tmp_path, **options)

    return load_real


def asked_of(item):
    return item["instruction"] + ("\n" + item["input"] if item["input"] else "")


@pytest.mark.parametrize("name, count", ALPACA.items())
def test_real_alpaca_files(real, name, count):
    items, loaded = real(name, "sft")
    assert len(items) == len(loaded) == count and loaded.dropped == 0
    for item, record in zip(items, loaded, strict=True):
        user, assistant = record["conversations"]
        assert user == {"role": "user", "content": asked_of(item)}
        assert assistant == {"role": "assistant", "content": item["output"]}


def test_a_real_file_of_alpaca_preferences(real):
    items, loaded = real(ALPACA_PAIRS, "dpo", on_bad_record="skip")
    different = [item for item in items if item["chosen"] != item["rejected"]]
    assert len(items) == 1_100 and len(different) == len(loaded) == 1_100 - TIES and loaded.dropped == TIES
    assert all("identical: there is nothing to prefer" in fault.what for fault in loaded.faults)
    for item, record in zip(different, loaded, strict=True):
        for side in ("chosen", "rejected"):
            asked = {"role": "user", "content": asked_of(item)}
            assert record[side] == [asked, {"role": "assistant", "content": item[side]}]
    assert len(real(ALPACA_PAIRS, "sft")[1]) == 1_100, "its outputs can be imitated, too"


def test_a_real_file_of_sharegpt_preferences(real):
    items, loaded = real(SHAREGPT_PAIRS, "dpo")
    assert len(items) == len(loaded) == 300 and loaded.dropped == 0
    for item, record in zip(items, loaded, strict=True):
        said = [message["value"] for message in item["conversations"]]
        for side in ("chosen", "rejected"):
            assert [message["content"] for message in record[side]] == [*said, item[side]["value"]]
            assert [message["role"] for message in record[side]][-2:] == ["user", "assistant"]
            assert (record[side][0]["role"] == "system") == (item["conversations"][0]["from"] == "system")
    assert sum(record["chosen"][0]["role"] == "system" for record in loaded) == 64


@pytest.mark.parametrize(
    "name, kind", [*((name, "sft") for name in ALPACA), (SHAREGPT_PAIRS, "dpo"), (ALPACA_PAIRS, "dpo")]
)
def test_the_mask_of_converted_files_audited_by_decoding(real, name, kind):
    """What is supervised is the answer with its end token, and nothing else."""
    _, loaded = real(name, kind, on_bad_record="skip")
    sides = ("conversations",) if kind == "sft" else ("chosen", "rejected")
    chats = [record[side] for record in loaded for side in sides]
    tokenizer = train_fast([message["content"] for chat in chats[:400] for message in chat], 1_000)
    for chat in chats:
        encoded = tokenizer.encode_chat(chat)
        supervised = [i for i, bit in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if bit]
        said = [message["content"] for message in chat if message["role"] == "assistant"]
        assert tokenizer.decode(supervised) == "".join(text + tokenizer.eos_token for text in said)
        assert supervised.count(tokenizer.eos_token_id) == len(said) == 1


def test_training_on_a_real_alpaca_file(real, shared, tmp_path):
    """From the file as it is to a lower loss on the records held back, for three seeds."""
    name = "sft/instruction-data.json"
    _, loaded = real(name, "sft")
    tokenizer = train_fast([m["content"] for record in loaded for m in record["conversations"]], 600)
    for seed in range(3):
        torch.manual_seed(seed)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, num_key_value_heads=1, **shape))
        save_model(model, tokenizer, tmp_path / f"base{seed}")
        config = SFTConfig(
            data_path=str(shared / "data" / name), from_weight=str(tmp_path / f"base{seed}"), seed=seed,
            out_dir=str(tmp_path / f"run{seed}"), cache_dir=str(tmp_path), max_seq_len=128, batch_size=8,
            val_fraction=0.1, epochs=1, max_steps=60, learning_rate=1e-2, device="cpu", dtype="float32",
        )  # fmt: skip
        held_out = packed_rows(config, "sft", loaded, tokenizer, show=False).validation
        before = evaluate_loss(model, causal_lm_loss, held_out, 8)
        after = sft(config, progress=False).fit.validation_loss
        assert after < 0.8 * before, (seed, before, after)
