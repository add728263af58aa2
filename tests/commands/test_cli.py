"""The command line: what it accepts, what it refuses in one line, and what it prints."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from small_files import SENTENCES, TINY, A, U, write_lines

from minimind_edu.cli import main, parse
from minimind_edu.commands import COMMANDS
from minimind_edu.course import build as build_module
from minimind_edu.course.build import BuildConfig
from minimind_edu.course.sweeps import SweepConfig
from minimind_edu.generation import generate
from minimind_edu.stages.setup import load_model
from minimind_edu.tokenizer import load_tokenizer
from minimind_edu.training import loop

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


# --- pretrain and sft ---


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


# --- malformed data ---

LONE = b'{"text": "\\ud83d"}'
PRETRAIN_FAULTS = [
    (b"", 1), (b"\n\n \n", 1), (b"{}", 1), (b"[]", 1), (b"7", 1), (b'"text"', 1), (b"null", 1),
    (b"{'text': 'a'}", 1), (b'{"text": "a"', 1), (b'{"text": "a",}', 1), (b'{"text": "a"} {"text": "b"}', 1),
    (b'{"text": NaN}', 1), (b'{"text": null}', 1), (b'{"text": ""}', 1), (b'{"text": " \\n\\t"}', 1),
    (b'{"text": 3}', 1), (b'{"text": ["a"]}', 1), (b'{"Text": "a"}', 1), (b'{"text": "a", "text": "b"}', 1),
    (b'{"text": "\xff\xfe"}', 1), (LONE, 1), (b'{"text": "a\\u0000b"}', 1), (b'{"text": "a\tb"}', 1),
    (b"\x1f\x8b\x08\x00broken", 1), ('{"text": "a"}'.encode("utf-16"), 1), (b"PK\x03\x04", 1),
    (b"[" * 100_000, 1), (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", 1),
    (b'{"text": "fine"}\n{"text": "cut', 2), (b'{"text": "fine"}\n\n\n{"text": 1}', 4),
    (b'{"conversations": []}', 1),
]  # fmt: skip
GOOD_CHAT = json.dumps({"conversations": [U, A]}).encode()
SFT_FAULTS = [
    {}, {"text": "a"}, {"conversations": None}, {"conversations": []}, {"conversations": "hi"},
    {"conversations": [3]}, {"conversations": [{}]}, {"conversations": [U]}, {"conversations": [A]},
    {"conversations": [A, U]}, {"conversations": [U, U, A]}, {"conversations": [U, A, A]},
    {"conversations": [U, {"role": "assistant"}]},
    {"conversations": [U, {"role": "assistant", "content": ""}]},
    {"conversations": [U, {"role": "assistant", "content": None}]}, {"conversations": [{"role": "king"}, A]},
    {"conversations": [U, {"role": 7, "content": "x"}]},
    {"conversations": [U, {"from": "king", "value": "x"}]},
    {"conversations": [{"role": "system", "content": "s"}]}, {"conversations": [U, A, {"role": "system"}]},
    {"messages": [U]}, {"instruction": "a", "output": ""}, {"chosen": [U, A], "rejected": [U, A]},
    {"conversations": [U, A], "gt": 3, "x": None} | {"conversations": [U]},
]  # fmt: skip


@pytest.mark.parametrize(("content", "line"), PRETRAIN_FAULTS, ids=range(len(PRETRAIN_FAULTS)))
def test_malformed_pretraining_files(run, tmp_path, content, line):
    path, out_dir = tmp_path / "bad file.jsonl", tmp_path / "run"
    path.write_bytes(content)
    code, out, errors = run("pretrain", *TINY, f"--data_path={path}", f"--out_dir={out_dir}")
    assert code == 2 and out == "" and "Traceback" not in errors
    assert (
        f"{path}:{line}: " in errors
        and len(errors.splitlines()) <= 2
        and len(errors) < 500 + 2 * len(str(path))
    )
    assert not out_dir.exists()


@pytest.mark.parametrize("record", SFT_FAULTS, ids=range(len(SFT_FAULTS)))
def test_malformed_chats(run, trained, tmp_path, record):
    path, out_dir = tmp_path / "chats.jsonl", tmp_path / "run"
    path.write_bytes(GOOD_CHAT + b"\n" + json.dumps(record).encode() + b"\n" + GOOD_CHAT)
    code, out, errors = run("sft", f"--from_weight={trained}", f"--data_path={path}", f"--out_dir={out_dir}")
    assert code == 2 and out == "" and "Traceback" not in errors
    known = errors.count("\n  ") - 1 if "unknown layout" in errors else 0
    assert f"{path}:2: " in errors and len(errors.splitlines()) == 2 + (known and known + 1)
    assert not out_dir.exists() and (known >= 5) == (record == {})


def test_the_first_ten_faults_are_listed(run, tmp_path):
    path = write_lines(tmp_path / "bad.jsonl", [{"text": 1}] * 25)
    code, _, errors = run("pretrain", f"--data_path={path}", f"--out_dir={tmp_path / 'run'}")
    lines = errors.splitlines()
    assert code == 2 and len(lines) == 12 and "25 faulty records" in lines[0] and "15 more" in lines[-1]
    assert [f":{number}:" in line for number, line in enumerate(lines[1:11], start=1)] == [True] * 10


def test_bad_records_can_be_skipped(run, tmp_path):
    """The result is that of a file without them, and the count is reported."""
    good = [{"text": text} for text in SENTENCES]
    clean = write_lines(tmp_path / "clean.jsonl", good)
    dirty = write_lines(
        tmp_path / "dirty.jsonl", [{"text": ""}, *good[:9], {"txt": "a"}, *good[9:], {"text": 5}]
    )
    for path, name in ((clean, "a"), (dirty, "b")):
        words = [
            "pretrain",
            *TINY,
            f"--data_path={path}",
            f"--out_dir={tmp_path / name}",
            "--on_bad_record=skip",
        ]
        code, out, _ = run(*words)
        assert code == 0 and ("note: 3 faulty records were skipped" in out) == (name == "b")
    assert f"{dirty}:1: " in out
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_only_bad_records(run, tmp_path):
    path = write_lines(tmp_path / "bad.jsonl", [{"text": ""}] * 3)
    code, _, errors = run(
        "pretrain", f"--data_path={path}", f"--out_dir={tmp_path / 'x'}", "--on_bad_record=skip"
    )
    assert code == 2 and "no usable record" in errors and f"{path}:1:" in errors


def test_too_little_to_hold_anything_back(refused, tmp_path):
    path = write_lines(tmp_path / "one.jsonl", [{"text": "alone"}])
    assert "too small" in refused("pretrain", *TINY, f"--data_path={path}", f"--out_dir={tmp_path / 'x'}")


def test_nothing_to_learn_within_the_length(refused, trained, tmp_path):
    chat = {"conversations": [U | {"content": "long " * 200}, A]}
    path = write_lines(tmp_path / "long.jsonl", [chat] * 4)
    words = ["sft", f"--from_weight={trained}", f"--data_path={path}", "--max_seq_len=16"]
    assert "max_seq_len=16" in refused(*words, f"--out_dir={tmp_path / 'x'}")


# --- generate and chat ---


def test_generate_continues_the_prompt(run, trained):
    model, tokenizer = load_model(trained)
    ids = [tokenizer.bos_token_id, *tokenizer.encode("the cat")]
    expected = generate(model, [ids], max_new_tokens=6, eos_token_id=tokenizer.eos_token_id)[0]
    code, out, _ = run("generate", f"--from_weight={trained}", "--prompt=the cat", "--max_new_tokens=6")
    assert code == 0 and out.rstrip("\n") == "the cat" + tokenizer.decode(
        expected[-6:], skip_special_tokens=True
    )


@pytest.mark.parametrize(
    "text", ["1", "null", "[1, 2]", "{a: b}", "-5", "true", "1e3", "# no", "猫 🐈", "a=b"]
)
def test_prompts_are_taken_as_they_are(run, trained, text):
    code, out, _ = run("generate", f"--from_weight={trained}", f"--prompt={text}", "--max_new_tokens=1")
    assert code == 0 and out.startswith(text)


def test_a_prompt_from_standard_input(run, trained, monkeypatch):
    words = ["generate", f"--from_weight={trained}", "--max_new_tokens=4"]
    by_option = run(*words, "--prompt=the bird\nin")
    monkeypatch.setattr(sys, "stdin", io.StringIO("the bird\nin"))
    assert run(*words) == by_option
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run(*words)[0] == 0


def test_sampling_is_seeded(run, trained):
    words = ["generate", f"--from_weight={trained}", "--prompt=a", "--max_new_tokens=30", "--temperature=1.5"]
    one, two, same = (run(*words, f"--seed={seed}")[1] for seed in (1, 2, 1))
    assert one == same != two


@pytest.mark.parametrize(
    "option",
    [
        "--temperature=-1", "--temperature=inf", "--top_p=0", "--top_p=1.1", "--top_k=-1",
        "--repetition_penalty=0", "--max_new_tokens=0", "--max_new_tokens=-2", "--device=cuda:77",
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_sampling_out_of_range(run, trained, monkeypatch, command, option):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    code, _, errors = run(command, f"--from_weight={trained}", option)
    name = option.removeprefix("--").partition("=")[0]
    assert code == 2 and name in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "answers"), [("", 0), ("\n", 0), ("  \n", 0), ("hi\n", 1), ("hi\nwho\n\nmore\n", 2)]
)
@pytest.mark.parametrize("remember", [0, 3])
def test_chat_reads_questions_until_an_empty_line_or_the_end(
    run, trained, monkeypatch, typed, answers, remember
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    code, out, errors = run(
        "chat", f"--from_weight={trained}", "--max_new_tokens=2", f"--remember={remember}"
    )
    assert code == 0 and errors == "" and out.count("model  >") == answers


def test_chat_remembers_as_many_turns_as_asked(run, trained, monkeypatch):
    seen = []
    kind = type(load_tokenizer(trained / "model"))
    real = kind.encode_chat

    def watching(self, messages, **options):
        seen.append([message["content"] for message in messages])
        return real(self, messages, **options)

    monkeypatch.setattr(kind, "encode_chat", watching)
    for remember in (0, 1):
        monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\nthree\n"))
        run(
            "chat",
            f"--from_weight={trained}",
            "--max_new_tokens=1",
            f"--remember={remember}",
            "--system=be kind",
        )
    assert all(contents[0] == "be kind" for contents in seen)
    assert [len(contents) for contents in seen] == [2, 2, 2, 2, 4, 4] and seen[-1][1] == "two"


@pytest.mark.parametrize("command", ["chat", "generate"])
def test_without_any_standard_input(run, trained, monkeypatch, command):
    """As a service is started: nothing is there to read from."""
    monkeypatch.setattr(sys, "stdin", None)
    code, _, errors = run(command, f"--from_weight={trained}")
    assert code == 2 and len(errors.splitlines()) == 1 and "Traceback" not in errors


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
