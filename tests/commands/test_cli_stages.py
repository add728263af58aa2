"""The stages after pretraining, and the data they need, from the command line."""

import json

import pytest
import torch
from small_files import SENTENCES, A, U, write_lines

from minimind_edu.commands import loading
from minimind_edu.stages.lora import ADAPTER_FOLDER, load_adapter
from minimind_edu.stages.setup import load_model

FEW = ["--batch_size=4", "--max_steps=3", "--max_seq_len=32", "--device=cpu", "--dtype=float32"]

LONGER = "--max_seq_len=96"  # a pair's answers must differ within it


@pytest.fixture
def pairs(tmp_path):
    records = [{"chosen": [U, A], "rejected": [U, A | {"content": text}]} for text in SENTENCES]
    return write_lines(tmp_path / "pairs.jsonl", records)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_lora_writes_an_adapter_and_a_merged_model(run, files, trained, tmp_path):
    words = ["lora", *FEW, f"--from_weight={trained}", f"--data_path={files / 'sft.jsonl'}", "--rank=2"]
    code, out, errors = run(*words, f"--out_dir={tmp_path / 'lora'}")
    assert code == 0, errors
    assert f"{tmp_path / 'lora'}/{ADAPTER_FOLDER}" in out and "parameters were trained" in out
    merged, _ = load_model(tmp_path / "lora")
    base, _ = load_model(trained)
    assert not same_weights(merged, base)
    ids = torch.arange(12)[None]
    with_adapter = load_adapter(base, tmp_path / "lora" / ADAPTER_FOLDER)
    torch.testing.assert_close(with_adapter(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", ["nothing_proj", "q_proj,w_proj", ""])
def test_lora_on_nothing_is_refused(refused, files, trained, tmp_path, targets):
    words = ["lora", *FEW, f"--from_weight={trained}", f"--data_path={files / 'sft.jsonl'}"]
    message = refused(*words, f"--out_dir={tmp_path / 'x'}", f"--targets={targets}")
    assert "target" in message or "no linear layer" in message
    assert not (tmp_path / "x" / "model").exists()


@pytest.fixture
def two_adapters(run, files, trained, tmp_path):
    folders = []
    for name, rate in (("one", 0.3), ("two", 0.6)):
        folders.append(tmp_path / name)
        words = ["lora", *FEW, f"--from_weight={trained}", f"--data_path={files / 'sft.jsonl'}"]
        assert run(*words, f"--learning_rate={rate}", f"--out_dir={folders[-1]}")[0] == 0
    return ",".join(map(str, folders))


def test_a_chat_switches_between_adapters(run, trained, two_adapters, monkeypatch):
    lines = iter(["hello", "/adapter two", "hello", "/adapter none", "hello", "/adapter three", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    used = []
    real = loading.set_adapter

    def noted(model, name):
        used.append(name)
        return real(model, name)

    monkeypatch.setattr("minimind_edu.commands.talking.set_adapter", noted)
    code, out, errors = run(
        "chat", f"--from_weight={trained}", f"--adapter={two_adapters}", "--max_new_tokens=4"
    )
    assert code == 0, errors
    assert used == ["two", None, "three"]
    assert "one, two, or none. Now: one" in out and "no adapter is called 'three'" in out
    assert out.count("model  >") == 3, "a switch is no question"


@pytest.mark.parametrize(
    "words", [["generate", "--prompt=the"], ["eval", "perplexity"], ["eval", "answers"]], ids=" ".join
)
def test_other_commands_take_an_adapter(run, refused, files, trained, two_adapters, words):
    path = files / ("questions.jsonl" if words[-1] == "answers" else "pretrain.jsonl")
    data = [f"--data_path={path}"] if words[0] == "eval" else ["--max_new_tokens=3"]
    plain = run(*words, *data, f"--from_weight={trained}")
    adapted = run(*words, *data, f"--from_weight={trained}", f"--adapter={two_adapters}")
    assert plain[0] == adapted[0] == 0, adapted[2]
    if words[-1] == "perplexity":
        assert plain[1] != adapted[1]
    assert "holds no adapter" in refused(*words, *data, f"--from_weight={trained}", f"--adapter={trained}")


def test_dpo_prefers_what_was_chosen(run, trained, pairs, tmp_path):
    words = ["dpo", *FEW, LONGER, f"--from_weight={trained}", f"--data_path={pairs}", "--beta=0.5"]
    code, out, errors = run(*words, f"--out_dir={tmp_path / 'dpo'}")
    assert code == 0, errors
    assert "3 steps" in out and f"minimind-edu chat --from_weight {tmp_path / 'dpo'}" in out
    lines = [json.loads(line) for line in (tmp_path / "dpo" / "metrics.jsonl").read_text().splitlines()]
    assert any(0 < line.get("preference_loss", -1) < 2 for line in lines)


@pytest.mark.parametrize(
    ("option", "part"),
    [("--beta=0", "beta"), ("--beta=-1", "beta"), ("--label_smoothing=0.5", "label_smoothing"),
     ("--loss_type=orpo", "loss_type")],
)  # fmt: skip
def test_preferences_without_sense(refused, trained, pairs, tmp_path, option, part):
    words = ["dpo", *FEW, LONGER, f"--from_weight={trained}", f"--data_path={pairs}"]
    assert part in refused(*words, f"--out_dir={tmp_path / 'dpo'}", option)


@pytest.mark.parametrize("kind", ["pretrain", "sft"])
@pytest.mark.parametrize("top_k", [0, 3])
def test_distill_trains_a_student_of_another_shape(run, files, trained, tmp_path, kind, top_k):
    words = ["distill", *FEW, f"--teacher={trained}", f"--data_kind={kind}", f"--top_k={top_k}"]
    data = f"--data_path={files / f'{kind}.jsonl'}"
    code, out, errors = run(*words, data, f"--out_dir={tmp_path / 'student'}")
    assert code == 0, errors
    student, _ = load_model(tmp_path / "student")
    teacher, _ = load_model(trained)
    assert student.num_parameters() < teacher.num_parameters()
    assert f"minimind-edu {'sft' if kind == 'pretrain' else 'chat'} --from_weight" in out


@pytest.mark.parametrize(
    ("option", "part"),
    [("--alpha=1.5", "alpha"), ("--temperature=0", "temperature"), ("--top_k=-1", "top_k"),
     ("--direction=sideways", "direction"), ("--teacher=nowhere", "nowhere")],
)  # fmt: skip
def test_distillation_without_sense(refused, files, trained, tmp_path, option, part):
    words = ["distill", *FEW, f"--data_path={files / 'pretrain.jsonl'}", f"--out_dir={tmp_path / 's'}"]
    assert part in refused(*words, f"--teacher={trained}", option)


def test_answers_of_a_teacher_are_data_for_a_student(run, files, trained, tmp_path):
    path = tmp_path / "answers.jsonl"
    words = ["data", "answers", f"--from_weight={trained}", f"--data_path={files / 'sft.jsonl'}"]
    options = ["--temperature=1.5", "--max_new_tokens=60", f"--out_path={path}"]
    code, out, errors = run(*words, *options)
    if code:  # hardly trained, it may not end any answer
        assert "came to an end" in errors
    else:
        answered = [json.loads(line)["conversations"] for line in path.read_text().splitlines()]
        assert all(chat[0] == U and chat[1]["content"].strip() for chat in answered)
        assert f"--data_path {path}" in out


def test_a_sample_is_written_and_described(run, refused, files, tmp_path):
    path = tmp_path / "sample.jsonl"
    words = ["data", "sample", f"--data_path={files / 'sft.jsonl'}", f"--out_path={path}"]
    code, out, errors = run(*words, "--count=10")
    assert code == 0, errors
    lines, source = path.read_text().splitlines(), (files / "sft.jsonl").read_text().splitlines()
    assert len(set(lines)) == 10 and set(lines) <= set(source) and str(path) in out
    first = path.read_bytes()
    assert "overwrite" in refused(*words, "--count=10")
    assert run(*words, "--count=10", "--overwrite=1")[0] == 0 and path.read_bytes() == first
    assert run(*words, "--count=10", "--overwrite=1", "--seed=7")[0] == 0 and path.read_bytes() != first
    assert run(*words, "--target_mb=0.001", "--overwrite=1")[0] == 0 and 800 < path.stat().st_size <= 1000


@pytest.mark.parametrize(
    "options", ["", "--count=3 --target_mb=1", "--ratio=0.1", "--count=-1", "--count=3 --near_duplicates=2"]
)
def test_samples_without_sense(refused, files, tmp_path, options):
    words = ["data", "sample", f"--data_path={files / 'sft.jsonl'}", f"--out_path={tmp_path / 's.jsonl'}"]
    refused(*words, *options.split())
