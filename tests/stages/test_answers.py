"""Black-box distillation: what a teacher writes is a file that `sft` reads."""

import json

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.records import load_records
from minimind_edu.generation import complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.answers import write_answers
from minimind_edu.stages.setup import save_model
from minimind_edu.stages.sft import SFTConfig, sft
from minimind_edu.tokenizer import train_fast

CHATS = [
    [{"role": "user", "content": f"Who likes {food} {n}?"}, {"role": "assistant", "content": f"Person {n}."}]
    for n in range(5)
    for food in ("tea", "rice")
]


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A folder with a file of questions, and a teacher that has learned to answer them."""
    folder = tmp_path_factory.mktemp("school")
    lines = "\n".join(json.dumps({"conversations": chat}) for chat in CHATS)
    (folder / "sft.jsonl").write_text(lines, encoding="utf-8")
    tokenizer = train_fast([message["content"] for chat in CHATS for message in chat], 300)
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2)
    save_model(MiniMind(shape), tokenizer, folder / "start")
    result = sft(settings(folder, folder / "teacher", epochs=60), progress=False)
    return folder, result.model.eval(), tokenizer


def settings(folder, out_dir, **changes):
    plain = {
        "data_path": str(folder / "sft.jsonl"), "cache_dir": str(folder / "cache"), "out_dir": str(out_dir),
        "from_weight": str(folder / "start"), "max_seq_len": 64, "batch_size": 2, "device": "cpu",
        "dtype": "float32", "learning_rate": 3e-3, "val_fraction": 0.1,
    }  # fmt: skip
    return SFTConfig(**(plain | changes))


def written(path):
    return [json.loads(line)["conversations"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_teachers_own_answers_in_a_file_for_sft(school, tmp_path):
    folder, teacher, tokenizer = school
    result = write_answers(
        teacher, tokenizer, folder / "sft.jsonl", tmp_path / "new" / "answers.jsonl", cache_dir=tmp_path
    )
    chats = written(tmp_path / "new" / "answers.jsonl")
    assert result.answers == len(chats) == len(CHATS) - result.skipped >= 8
    for chat in chats:
        prompt = tokenizer.encode_chat(chat[:-1], add_generation_prompt=True).input_ids
        (alone,) = complete(teacher, [prompt], max_new_tokens=128, eos_token_id=tokenizer.eos_token_id)
        assert chat[:-1] in [original[:-1] for original in CHATS] and chat[-1]["role"] == "assistant"
        assert chat[-1]["content"] == tokenizer.decode(alone.tokens, skip_special_tokens=True)
    assert len(load_records(tmp_path / "new" / "answers.jsonl", "sft", cache_dir=tmp_path)) == len(chats)
    student = sft(settings(folder, tmp_path / "student", data_path=str(tmp_path / "new" / "answers.jsonl")))
    assert student.fit.validation_loss is not None


def test_batches_and_seeds(school, tmp_path):
    folder, teacher, tokenizer = school

    def answers(name, **options):
        path = tmp_path / f"{name}.jsonl"
        write_answers(teacher, tokenizer, folder / "sft.jsonl", path, cache_dir=tmp_path, **options)
        return path.read_text(encoding="utf-8")

    assert answers("a", batch_size=1) == answers("b", batch_size=64)
    sampled = {"temperature": 1.5, "answers_per_prompt": 3, "max_new_tokens": 40}
    assert answers("c", **sampled) == answers("d", **sampled) != answers("e", **sampled, seed=1)
    assert len(set(map(json.dumps, written(tmp_path / "c.jsonl")))) > len(CHATS)


def test_answers_without_an_end_are_left_out(school, tmp_path):
    folder, teacher, tokenizer = school
    path = tmp_path / "short.jsonl"
    path.write_text("from before")
    with pytest.raises(ValueError, match="came to an end within 1 tokens"):
        write_answers(teacher, tokenizer, folder / "sft.jsonl", path, max_new_tokens=1, cache_dir=tmp_path)
    assert path.read_text() == "from before" and [p.name for p in tmp_path.glob("*.tmp")] == []


def test_a_prompt_without_room_is_left_out(school, tmp_path):
    folder, teacher, tokenizer = school
    long = [{"role": "user", "content": "tea " * 3000}, CHATS[0][1]]
    lines = "\n".join(json.dumps({"conversations": chat}) for chat in (long, *CHATS))
    (tmp_path / "in.jsonl").write_text(lines, encoding="utf-8")
    result = write_answers(
        teacher, tokenizer, tmp_path / "in.jsonl", tmp_path / "out.jsonl", cache_dir=tmp_path
    )
    assert result.skipped >= 1 and result.answers + result.skipped == len(CHATS) + 1
    assert all(len(chat[0]["content"]) < 100 for chat in written(tmp_path / "out.jsonl"))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"answers_per_prompt": 0}, {"answers_per_prompt": 2}])
def test_settings_without_sense(school, tmp_path, options):
    folder, teacher, tokenizer = school
    with pytest.raises(ValueError, match="answer|batch_size"):
        write_answers(teacher, tokenizer, folder / "sft.jsonl", tmp_path / "out.jsonl", **options)
