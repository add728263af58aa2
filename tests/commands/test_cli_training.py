"""The command line: pretrain and sft, and folders they read and write."""

import re
import shlex
import shutil
import signal
import sys

import pytest
from small_files import TINY

from minimind_edu.stages.setup import load_model
from minimind_edu.training import loop


def test_plain_text_needs_no_other_option(run, files, tmp_path):
    """The default shape; only the number of steps is cut short."""
    out_dir = tmp_path / "a run"
    code, out, _ = run(
        "pretrain", "--data_path", files / "plain.txt", "--out_dir", out_dir, "--max_steps", "1"
    )
    assert code == 0 and "validation loss" in out and str(out_dir / "model") in out
    model, tokenizer = load_model(out_dir)
    assert model.config.hidden_size == 128 and tokenizer.decode(tokenizer.encode("猫 cat 7")) == "猫 cat 7"


def test_minimind_forms_of_options(run, files, tmp_path, monkeypatch):
    """``--use_moe 1``, ``--from_resume 1`` and a bare ``--use_wandb``, as in MiniMind's own commands."""

    class StandIn:
        lines = []

        def init(self, project, config):
            return self

        def log(self, line, step):
            self.lines.append(step)

    monkeypatch.setitem(sys.modules, "wandb", StandIn())
    words = ["pretrain", "--data_path", files / "pretrain.jsonl", "--out_dir", tmp_path, *TINY]
    words += ["--use_moe", "1", "--log_interval", "1", "--use_wandb"]
    assert run(*words)[0] == 0
    assert StandIn.lines == [1, 2, 2] and load_model(tmp_path)[0].config.use_moe
    code, out, _ = run(*words, "--from_resume", "1")
    assert code == 0 and "2 steps" in out


def test_sft_then_every_command_that_uses_the_model(run, files, trained, tmp_path):
    out_dir = tmp_path / "sft"
    code, out, _ = run(
        "sft", f"--from_weight={trained}", f"--data_path={files / 'sft.jsonl'}", f"--out_dir={out_dir}",
        "--max_steps=2", "--max_seq_len=64", "--dtype=float32", "--device=cpu",
    )  # fmt: skip
    assert code == 0 and f"next: minimind-edu chat --from_weight {out_dir}" in out
    code, out, _ = run(
        "eval", "answers", f"--from_weight={out_dir}", f"--data_path={files / 'questions.jsonl'}"
    )
    assert (
        code == 0
        and len(out.splitlines()) == 3
        and "seen True" in out
        and out.startswith("exact match 0.000")
    )
    code, out, _ = run(
        "eval", "perplexity", f"--from_weight={out_dir}", f"--data_path={files / 'pretrain.jsonl'}"
    )
    assert code == 0 and re.match(
        r"loss +\d\.\d{4} nats a token \([\d,]+ tokens\)\nperplexity +\d+\.\d{3}\n$", out
    )
    code, out, _ = run(
        "generate", f"--from_weight={out_dir}", "--prompt=who?", "--chat", "--max_new_tokens=2"
    )
    assert code == 0 and not out.startswith("who?")


def test_an_existing_run_is_refused_resumed_and_replaced(run, refused, files, tmp_path):
    words = ["pretrain", f"--data_path={files / 'pretrain.jsonl'}", f"--out_dir={tmp_path}", *TINY]
    assert run(*words)[0] == 0
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert "--from_resume 1" in refused(*words)
    assert "max_steps was 2 and is now 3" in refused(*words, "--max_steps=3", "--from_resume=1")
    assert "dropout was 0.0 and is now 0.3" in refused(*words, "--dropout=0.3", "--from_resume=1")
    assert "max_seq_len 16" in refused(*words, "--max_seq_len=16", "--from_resume=1")
    assert run(*words, "--from_resume=1")[0] == 0
    assert run(*words, "--overwrite=1")[0] == 0
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def damage_model(folder, name, content):
    (folder / "model" / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""), ("config.json", b"{}x"), ("config.json", b'{"hidden_size": "wide"}'),
        ("config.json", b"[1]"), ("config.json", b"\xff\xfe"), ("model.safetensors", b""),
        ("model.safetensors", b"\x00" * 64), ("tokenizer.json", b""), ("tokenizer.json", b'{"model": 3}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["sft", "generate"])
def test_a_damaged_model_is_refused(refused, files, trained, tmp_path, command, name, content):
    shutil.copytree(trained, tmp_path / "run")
    damage_model(tmp_path / "run", name, content)
    words = {
        "sft": ["--data_path", files / "sft.jsonl", "--out_dir", tmp_path / "out"],
        "generate": ["--prompt=x"],
    }
    message = refused(command, "--from_weight", tmp_path / "run", *words[command])
    assert "model" in message or "tokenizer" in message
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("command", ["sft", "generate", "chat", "eval perplexity", "eval answers"])
def test_no_model_there(refused, tmp_path, command, files):
    data = {"sft": ["--data_path", files / "sft.jsonl"]}.get(command, [])
    assert "no model here" in refused(*command.split(), "--from_weight", tmp_path, *data)


def test_folders_that_cannot_be_written(refused, files, trained, tmp_path):
    (tmp_path / "file").write_text("in the way")
    blocked = tmp_path / "file" / "run"
    data = f"--data_path={files / 'pretrain.jsonl'}"
    assert "not a directory" in refused("pretrain", *TINY, data, f"--out_dir={blocked}").lower()
    assert "cache" in refused(
        "pretrain", *TINY, data, f"--cache_dir={blocked}", f"--out_dir={tmp_path / 'x'}"
    )
    assert "cannot" in refused("tokenizer", "train", data, f"--out_dir={blocked}", "--vocab_size=300")
    assert "cannot write" in refused("data", "build", "--people=3", "--documents=5", f"--out_dir={blocked}")


def test_the_resume_command_can_be_pasted(run, files, tmp_path, monkeypatch):
    """Paths with spaces and quotes come back as the shell needs them."""
    real = loop.Run.take_step

    def interrupted(self, window, learning_rate):
        signal.raise_signal(signal.SIGINT)
        return real(self, window, learning_rate)

    out_dir = tmp_path / "it's a run"
    words = [
        "pretrain",
        *TINY,
        "--data_path",
        files / "pretrain.jsonl",
        "--out_dir",
        out_dir,
        "--overwrite",
        "1",
    ]
    monkeypatch.setattr(loop.Run, "take_step", interrupted)
    code, _, errors = run(*words)
    monkeypatch.undo()
    assert code == 130 and "stopped after step 1 of 2" in errors
    advice = shlex.split(errors.strip().splitlines()[-1].partition("To go on: minimind-edu ")[2])
    assert "--overwrite" not in advice and advice[-2:] == ["--from_resume", "1"] and str(out_dir) in advice
    code, out, _ = run(*advice)
    assert code == 0 and "2 steps" in out
