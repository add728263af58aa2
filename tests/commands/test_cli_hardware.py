"""``minimind-edu hardware``: the answer, its width, and what it refuses."""

import csv
import dataclasses

import pytest
import torch

from minimind_edu.commands import hardware
from minimind_edu.commands.hardware import HardwareConfig, answer
from minimind_edu.hardware.table import DATASETS, estimated


def ask(run, *words):
    code, out, errors = run("hardware", *words)
    assert code == 0, errors
    assert max(len(line) for line in out.splitlines()) <= 80
    return out


def test_the_question_of_the_readme(run):
    out = ask(run, "--preset", "minimind2", "--card", "RTX 3090", "--stage", "pretrain", "--rows", "1270238")
    flat = " ".join(out.split())
    assert flat.startswith("minimind2, pretrain, on GeForce RTX 3090: 24.0 GB, of which 23.2 GB are usable")
    assert "fits: needs" in flat and "the largest batch is" in flat
    assert "1 epoch of 1,270,238 rows x 340 (431.9M tokens, 24% padding)" in flat
    assert "time estimated from" in flat and "reported runs on RTX 3090" in flat
    assert "1.3 yuan an hour" in flat
    assert "reported by MiniMind's author" in flat and "3.9 h for one epoch of pretrain_hq" in flat
    assert "minimind-edu pretrain --preset minimind2 --vocab_size 6400" in flat


def test_what_does_not_fit_comes_with_changes(run):
    out = ask(run, "--preset=minimind2", "--card=1650", "--stage=sft", "--rows=1000", "--price_per_hour=0.5")
    flat = " ".join(out.split())
    assert "does not fit: needs" in flat and "change: batch" in flat and "harm: none" in flat
    assert "--accumulation_steps" in flat and "times the time a token" in flat
    assert "0.5 yuan an hour (as given)" in flat and "no tensor cores" in flat
    assert out.count("change: ") == 3


def test_what_can_not_be_helped(run):
    flat = " ".join(ask(run, "--preset=minimind2-272m", "--card=1650").split())
    assert "even one row is too much" in flat and "take a smaller model or a larger card" in flat


def test_commands_survive_being_pasted(run):
    """Lines end in a backslash, and no option is separated from its value."""
    out = ask(run, "--preset=minimind2", "--card=A40", "--batch_size=7", "--gradient_checkpointing=1")
    command = out[out.index("  minimind-edu pretrain") :].splitlines()
    lines = [command[0]]
    while lines[-1].endswith("\\"):
        lines.append(command[len(lines)])
    words = " ".join(line.rstrip("\\") for line in lines).split()
    assert words[:2] == ["minimind-edu", "pretrain"] and "\N{NO-BREAK SPACE}" not in out
    assert all(line.rstrip(" \\").split()[0].startswith(("--", "minimind-edu")) for line in lines)
    assert words[words.index("--batch_size") + 1] == "7" and "--gradient_checkpointing" in words


@pytest.mark.parametrize("card", ["auto", "cpu"])
def test_this_machine(run, card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = ask(run, "--preset=edu", f"--card={card}", "--batch_size=2", "--max_seq_len=32", "--rows=100")
    assert "fits: needs" in out and "command:" in out


@pytest.mark.parametrize("stage", ["lora", "dpo", "distill", "reason", "grpo"])
def test_every_stage_is_answered(run, stage):
    out = ask(run, "--preset=edu", "--card=3060", f"--stage={stage}", "--rows=500", "--epochs=2")
    assert f"minimind-edu {stage}" in out and "2 epochs of 500" in " ".join(out.split())


def test_options_reach_the_estimate():
    config = HardwareConfig(
        preset="edu", card="A40", stage="distill", rows=100, tokens=3000, max_seq_len=64, batch_size=3,
        accumulation_steps=2, epochs=4, dtype="float32", optimizer="muon", gradient_checkpointing=1,
        teacher="minimind2-small", price_per_hour=3.0,
    )  # fmt: skip
    found = answer(config)
    work = found.work
    assert (work.batch_size, work.seq_len, work.accumulation_steps, work.dtype) == (3, 64, 2, "float32")
    assert work.optimizer == "muon" and work.gradient_checkpointing and work.teacher.hidden_size == 512
    assert (found.rows, found.epochs, found.real_tokens, found.price.yuan) == (100, 4, 3000, 3.0)
    assert found.padding == pytest.approx(1 - 3000 / 6400)


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("--card=3080", "unknown card '3080': use auto, cpu, GeForce GTX 1650"),
        ("--card=A100", "A100 40 GB or"), ("--preset=gpt", "gpt"), ("--stage=rlhf", "stage"),
        ("--rows=-1", "rows must be"), ("--batch_size=-2", "batch_size must"), ("--epochs=0", "epochs must"),
        ("--max_seq_len=1", "max_seq_len must"), ("--dtype=int8", "dtype"), ("--optimizer=sgd", "optimizer"),
        ("--gradient_checkpointing=2", "gradient_checkpointing must be 0 or 1"), ("--vram=24", "vram"),
        ("--price_per_hour=-1", "price_per_hour must be"), ("--price_per_hour=nan", "price_per_hour"),
        ("--price_per_hour=cheap", "price_per_hour"), ("--tokens=5", "tokens are of use only with --rows"),
        ("--teacher=edu", "teacher belongs to the stage distill"), ("--teacher=nobody", "teacher"),
        ("--table=hours.txt", ".csv"), ("--table=/nowhere/at/all.csv", "not a folder"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(refused, option, part):
    card = [] if option.startswith("--card") else ["--card=3090"]
    assert part in refused("hardware", *card, option)


def test_a_format_that_the_card_lacks(refused):
    assert "use float16" in refused("hardware", "--card=1650", "--dtype=bfloat16")


def test_help_explains_every_option(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("hardware", "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for field in dataclasses.fields(HardwareConfig):
        assert f"--{field.name} " in out
    assert "None" not in out.replace("null", "")


def test_the_table_is_written(run, tmp_path, monkeypatch):
    few = estimated(("A40",), ("edu",), ("lora",), DATASETS)
    monkeypatch.setattr(hardware, "estimated", lambda progress: few)
    path = tmp_path / "hours.csv"
    code, out, errors = run("hardware", "--table", path)
    assert code == 0, errors
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert "17 reported, 1 estimated" in out and rows[-1]["preset"] == "edu"
