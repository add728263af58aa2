"""The command line: its options, what it refuses in one line, and evaluations, tokenizers and data."""

import os
import re
import subprocess
import sys

import pytest
import torch
from small_files import SENTENCES, TINY, write_lines

from minimind_edu.cli import main, parse
from minimind_edu.commands import COMMANDS
from minimind_edu.course import build as build_module
from minimind_edu.course.build import BuildConfig
from minimind_edu.course.sweeps import SweepConfig
from minimind_edu.stages.setup import load_model
from minimind_edu.tokenizer import load_tokenizer

# --- options ---


@pytest.mark.parametrize("command", ["", *COMMANDS, "data", "tokenizer", "eval", "course"])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    out, errors = capsys.readouterr()
    assert stop.value.code == 0 and "usage: minimind-edu" in out and not errors


def test_every_option_has_an_explanation(capsys):
    """The help comes from the docstrings; an option without a line there is an option nobody understands."""
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        text = capsys.readouterr().out
        entries = re.split(r"\n  (?=-)", text.partition("options:")[2])[1:]
        for entry in entries:
            name, _, explanation = " ".join(entry.split()).partition(" ")
            plain = re.sub(r"\(type: .*\)|\{.*?\}", "", explanation).strip()
            assert len(plain.split()) > 2 or name == "-h,", f"{command}: {entry}"


MINIMIND_NAMES = """--data_path --out_dir --epochs --batch_size --learning_rate --accumulation_steps
--grad_clip --warmup_iters --log_interval --save_interval --max_seq_len --dtype --device --num_workers
--use_wandb --from_weight --from_resume --seed""".split()
SHAPE_NAMES = "--hidden_size --num_hidden_layers --use_moe --dropout".split()


@pytest.mark.parametrize(
    ("command", "names"), [("pretrain", MINIMIND_NAMES + SHAPE_NAMES), ("sft", MINIMIND_NAMES)]
)
def test_options_keep_minimind_names(capsys, command, names):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert set(names) <= set(re.findall(r"--\w+", capsys.readouterr().out))


@pytest.mark.parametrize(
    "words",
    [
        "", "frobnicate", "tokenizer", "data", "eval", "eval nothing", "pretrain stray", "pretrain --nope 1",
        "pretrain --epochs", "pretrain --epochs x", "pretrain --epochs 1.5", "pretrain --epochs=",
        "pretrain --epo 2", "pretrain --learning_rate abc", "pretrain --lr_schedule fast",
        "pretrain --use_moe yes",
        "pretrain --dtype int8", "pretrain --logger paper", "pretrain --on_bad_record ignore",
        "sft --hidden_size 16", "generate --top_k 1.5", "generate --temperature warm", "chat --remember some",
        "eval perplexity --batch_size many", "tokenizer train --vocab_size big", "data build --people all",
        "pretrain --seed 1 2", "--epochs 1 pretrain", "pretrain -e 1", "bench --vs keras",
        "course", "course read 02", "course build 02 03", "course build --chapter 02",
        "course build --fresh x", "course build --fresh", "course sweep",
        "course sweep --chapter 03", "course sweep 03 --overwrite",
    ],
)  # fmt: skip
def test_wrong_words_are_refused_in_one_line(refused, words):
    message = refused(*words.split())
    assert "--help" in message


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("--epochs=0", "epochs"), ("--batch_size=-1", "batch_size"), ("--learning_rate=0", "learning_rate"),
        ("--max_seq_len=1", "max_seq_len"), ("--val_fraction=1", "val_fraction"), ("--dropout=1", "dropout"),
        ("--hidden_size=15", "hidden_size"), ("--hidden_size=-8", "hidden_size"),
        ("--vocab_size=9", "vocab_size"),
        ("--num_attention_heads=3", "num_attention_heads"), ("--preset=gpt9", "gpt9"),
        ("--device=tpu", "tpu"),
        ("--dtype=float16", "float16"), ("--tokenizer_path=nowhere", "nowhere"),
        ("--from_resume=2", "from_resume"),
        ("--from_weight=nowhere", "nowhere"), ("--seed=99999999999999999999", "seed"),
    ],
)  # fmt: skip
def test_values_without_sense_are_refused(refused, files, tmp_path, option, part):
    out_dir = tmp_path / "run"
    message = refused(
        "pretrain", *TINY, f"--data_path={files / 'pretrain.jsonl'}", f"--out_dir={out_dir}", option
    )
    assert part in message and not (out_dir / "model").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("course build", BuildConfig("all", 0)), ("course build 02", BuildConfig("02", 0)),
        ("course build 02 --fresh 1", BuildConfig("02", 1)),
        ("course build --fresh=1 all", BuildConfig("all", 1)),
        ("course sweep 03", SweepConfig("03", 0)), ("course sweep 03 --overwrite 1", SweepConfig("03", 1)),
    ],
)  # fmt: skip
def test_a_chapter_is_given_without_the_options_name(words, expected):
    """Its number stays a text: 02 is not 2."""
    name, config = parse(words.split(), COMMANDS)
    assert (name, config) == (" ".join(words.split()[:2]), expected)


@pytest.mark.parametrize("command", ["course build", "course sweep"])
def test_the_help_explains_the_chapter(capsys, command):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "positional arguments: chapter a chapter's number, such as 02" in text or (
        "positional arguments: chapter the chapter's number, such as 03" in text
    )


@pytest.mark.parametrize("command", ["build", "sweep"])
def test_chapters_that_are_not_there(refused, command):
    assert "97" in refused("course", command, "97")


def test_a_chapter_that_cannot_be_built_is_one_line(refused, monkeypatch, tmp_path):
    """The message of the failing cell; --debug shows the cell itself."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "97_x.py").write_text("# %%\n1 / 0\n")
    monkeypatch.setattr(build_module, "CHAPTERS", tmp_path)
    message = refused("course", "build", "97")
    assert message == "minimind-edu: 97_x.py, cell 97-000: ZeroDivisionError: division by zero\n"


def test_debug_shows_the_traceback(run):
    for words in (
        ["pretrain", "--data_path=nowhere.txt", "--debug"],
        ["--debug", "pretrain", "--data_path=nowhere.txt"],
    ):
        code, _, errors = run(*words)
        assert (
            code == 2
            and "Traceback" in errors
            and errors.splitlines()[-1].startswith("minimind-edu: nowhere.txt")
        )


def test_the_installed_command_says_one_line(tmp_path):
    """In a process of its own, so that warnings of libraries would show."""
    words = [sys.executable, "-m", "minimind_edu.cli", "pretrain", "--data_path", "nowhere.jsonl"]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "minimind-edu: nowhere.jsonl:1: no such file\n"
    assert list(tmp_path.iterdir()) == []


# --- the other commands ---


@pytest.mark.parametrize("command", ["perplexity", "answers"])
@pytest.mark.parametrize("option", ["--batch_size=0", "--batch_size=-1"])
def test_batch_sizes_of_evaluations(refused, files, trained, command, option):
    path = files / {"perplexity": "pretrain.jsonl", "answers": "questions.jsonl"}[command]
    assert "batch_size must be 1 or more" in refused(
        "eval", command, f"--from_weight={trained}", f"--data_path={path}", option
    )


def test_perplexity_by_hand(run, files, trained, tmp_path):
    """Each document with its start and end token; one at a time, no packing."""
    model, tokenizer = load_model(trained)
    total, count = 0.0, 0
    for text in SENTENCES:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text), tokenizer.eos_token_id]])
        with torch.no_grad():
            total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    out = run("eval", "perplexity", f"--from_weight={trained}", f"--data_path={files / 'pretrain.jsonl'}")[1]
    assert float(out.split()[1]) == pytest.approx(total / count, abs=1e-4) and f"({count:,} tokens)" in out
    records = [{"text": text, "log_probability": -12.5} for text in SENTENCES]
    path = write_lines(tmp_path / "floor.jsonl", records)
    out = run("eval", "perplexity", f"--from_weight={trained}", f"--data_path={path}")[1]
    floor = 12.5 * len(SENTENCES) / count
    assert f"floor       {floor:.4f}" in out and f"loss/floor  {total / count / floor:.4f}" in out


def test_both_tokenizers_learn_the_same(run, files, tmp_path):
    for name, extra in (("fast", []), ("readable", ["--readable"])):
        words = ["tokenizer", "train", f"--data_path={files / 'plain.txt'}", "--vocab_size=320", *extra]
        code, out, _ = run(*words, f"--out_dir={tmp_path / name}")
        assert code == 0 and "320 tokens learned" in out
    fast, readable = (load_tokenizer(tmp_path / name) for name in ("fast", "readable"))
    for text in (*SENTENCES[:3], "nothing like it 🐈‍⬛ \x00 ß", "", "   "):
        assert fast.encode(text) == readable.encode(text)


def test_data_build_writes_what_the_other_commands_read(run, tmp_path):
    words = ["data", "build", "--people=6", "--documents=40"]
    for name in ("a", "b"):
        code, out, _ = run(*words, f"--out_dir={tmp_path / name}")
        assert code == 0 and "pretrain.jsonl" in out
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), "the same bytes every time"
    data = f"--data_path={tmp_path / 'a' / 'pretrain.jsonl'}"
    assert run("pretrain", *TINY, "--vocab_size=600", data, f"--out_dir={tmp_path / 'run'}")[0] == 0


@pytest.mark.parametrize(
    "option", ["--people=0", "--people=-3", "--documents=-1", "--languages=fr", "--languages=en,"]
)
def test_worlds_that_cannot_be(refused, tmp_path, option):
    name = option.removeprefix("--").partition("=")[0]
    assert name in refused("data", "build", "--people=4", "--documents=5", f"--out_dir={tmp_path}", option)
