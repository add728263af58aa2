"""Problems, the cold start, and the switch of thinking, from the command line."""

import json
import subprocess
import sys

import pytest
import torch
from small_files import write_lines

from minimind_edu.commands import talking
from minimind_edu.commands.problems import ProblemsConfig
from minimind_edu.data.problems import problems
from minimind_edu.data.records import load_records
from minimind_edu.stages.setup import load_model
from minimind_edu.stages.verify import verify

FEW = ["--batch_size=4", "--max_steps=3", "--device=cpu", "--dtype=float32"]


def on(trained, folder, path=None):
    """The options of a stage that starts from a model, on a file (the world's own without)."""
    return [f"--from_weight={trained}", f"--out_dir={folder}", *([f"--data_path={path}"] if path else [])]


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def write(run, tmp_path):
    def call(*words):
        path = tmp_path / "problems.jsonl"
        code, out, errors = run("data", "problems", f"--out_path={path}", "--overwrite=1", *words)
        assert code == 0, errors
        assert str(path) in out
        return path

    return call


@pytest.mark.parametrize("kind", ["sums", "differences", "words", "countdown", "sums,words"])
def test_problems_are_written_in_every_form(write, kind, tmp_path):
    path = write(f"--kind={kind}", "--count=8", "--difficulty=3")
    thinking = [record["conversations"][1]["content"] for record in lines_of(path)]
    assert len(load_records(path, "sft", cache_dir=tmp_path)) == 8
    direct = [
        record["conversations"][1]["content"]
        for record in lines_of(write(f"--kind={kind}", "--count=8", "--difficulty=3", "--thinking=off"))
    ]
    mixed = [
        record["conversations"][1]["content"]
        for record in lines_of(write(f"--kind={kind}", "--count=8", "--difficulty=3", "--thinking=mixed"))
    ]
    prompts = lines_of(write(f"--kind={kind}", "--count=8", "--difficulty=3", "--form=rlvr"))
    for number, record in enumerate(prompts):
        assert verify(thinking[number], record["gt"]) and verify(direct[number], record["gt"])
        assert mixed[number] in (thinking[number], direct[number])
        assert record["kind"] == kind.split(",")[number % len(kind.split(","))]
    assert sum(one in direct for one in mixed) == 4
    assert all("<think>\n\n</think>" in one for one in direct) and not set(direct) & set(thinking)


def test_problems_are_those_of_the_package(write):
    path = write(
        "--kind=sums", "--count=5", "--difficulty=2,4", "--split=held-out", "--seed=3", "--languages=zh"
    )
    expected = problems("sums", 5, (2, 4), "held-out", ("zh",), seed=3)
    assert lines_of(path) == [problem.record() for problem in expected]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("--kind=riddles", "riddles"), ("--kind=sums,riddles", "riddles"), ("--difficulty=x", "difficulty"),
        ("--difficulty=99", "difficult"), ("--count=0", "count"), ("--languages=de", "languages"),
        ("--split=test", "split"), ("--thinking=maybe", "thinking"),
    ],
)  # fmt: skip
def test_problems_without_sense(refused, tmp_path, options, part):
    path = tmp_path / "p.jsonl"
    assert part in refused("data", "problems", f"--out_path={path}", options)
    assert not path.exists()


def test_a_file_is_not_replaced_by_accident(refused, write):
    path = write("--count=2")
    before = path.read_bytes()
    assert "overwrite" in refused("data", "problems", "--count=3", f"--out_path={path}")
    assert path.read_bytes() == before
    beside = path.parent / "a file" / "p.jsonl"
    beside.parent.write_text("x")
    assert "cannot write" in refused("data", "problems", f"--out_path={beside}")


def test_problems_are_written_without_torch(tmp_path):
    words = ["data", "problems", "--count", "3", "--out_path", str(tmp_path / "problems.jsonl")]
    code = (
        f"import sys\nfrom minimind_edu.cli import main\nassert main({words!r}) == 0\n"
        "print('loaded:', [name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert len(lines_of(tmp_path / "problems.jsonl")) == 3 < ProblemsConfig.count


def test_reason_trains_on_written_problems(run, write, trained, tmp_path):
    path = write("--count=40", "--difficulty=1", "--thinking=mixed")
    words = on(trained, tmp_path / "reason", path)
    code, out, errors = run("reason", *FEW, *words, "--tag_weight=3")
    assert code == 0, errors
    assert "3 steps" in out and f"minimind-edu grpo --from_weight {tmp_path / 'reason'}" in out
    before, after = (load_model(folder)[0].state_dict() for folder in (trained, tmp_path / "reason"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_reason_on_the_worlds_file(run, trained, tmp_path):
    words = ["reason", *FEW, *on(trained, tmp_path / "reason")]
    code, out, errors = run(*words, "--max_steps=1")
    assert code == 0, errors
    assert "note: no answer" not in out


def test_reason_on_real_problems(run, shared, trained, tmp_path):
    path = shared / "data" / "math" / "gsm8k_test.jsonl"
    words = on(trained, tmp_path / "gsm", path)
    code, out, errors = run("reason", *FEW, *words, "--max_seq_len=512")
    assert code == 0, errors
    assert "3 steps" in out and "no answer has" not in out


@pytest.mark.parametrize("option", ["--tag_weight=0.5", "--tag_weight=nan", "--tag_weight=many"])
def test_cold_starts_without_sense(refused, trained, tmp_path, option):
    words = ["reason", *FEW, *on(trained, tmp_path / "r")]
    assert "tag_weight" in refused(*words, option)


# -- reinforcement -------------------------------------------------------------------------------------------

ROLLOUTS = ["--prompts_per_step=2", "--group_size=2", "--max_new_tokens=12", "--max_steps=2", "--device=cpu"]


def metrics(folder):
    return [line for line in lines_of(folder / "metrics.jsonl") if "reward" in line]


def test_grpo_trains_on_written_problems(run, write, trained, tmp_path):
    path = write("--count=12", "--difficulty=1", "--form=rlvr", "--split=rlvr")
    words = on(trained, tmp_path / "rl", path)
    code, out, errors = run("grpo", *ROLLOUTS, *words, "--variant=dr_grpo", "--beta=0.01")
    assert code == 0, errors
    assert "2 steps" in out and "mean reward" in out
    assert f"minimind-edu chat --from_weight {tmp_path / 'rl'}" in out
    assert [line["step"] for line in metrics(tmp_path / "rl")] == [1, 2]
    assert load_model(tmp_path / "rl")[0].num_parameters() == load_model(trained)[0].num_parameters()


def test_grpo_computes_rewards_of_real_problems(run, shared, trained, tmp_path):
    path = shared / "data" / "math" / "gsm8k_train.jsonl"
    words = on(trained, tmp_path / "rl", path)
    code, out, errors = run("grpo", *ROLLOUTS, *words, "--max_seq_len=400", "--thinking=on")
    assert code == 0, errors
    assert all(0 <= line["reward"] <= 1.2 for line in metrics(tmp_path / "rl")) and "mean reward" in out


@pytest.mark.parametrize(
    ("option", "part"),
    [("--group_size=1", "group_size"), ("--variant=ppo", "variant"), ("--beta=-1", "beta"),
     ("--temperature=0", "temperature"), ("--thinking=maybe", "thinking")],
)  # fmt: skip
def test_reinforcement_without_sense(refused, trained, tmp_path, option, part):
    words = ["grpo", *ROLLOUTS, *on(trained, tmp_path / "rl")]
    assert part in refused(*words, option)


# -- the switch ----------------------------------------------------------------------------------------------


@pytest.fixture
def prompts(monkeypatch):
    """What the model is given, and an answer that needs no trained model."""
    seen = []

    def stream(model, ids, **options):
        seen.append(ids)
        yield 300

    monkeypatch.setattr(talking, "stream", stream)
    return seen


@pytest.mark.parametrize(
    ("thinking", "ending"),
    [([], ""), (["default"], ""), (["on"], "<think>\n"), (["off"], "<think>\n\n</think>\n\n")],
)
def test_generate_begins_as_the_switch_says(run, trained, prompts, thinking, ending):
    words = [f"--thinking={value}" for value in thinking]
    code, out, errors = run("generate", f"--from_weight={trained}", "--chat", "--prompt=who is it?", *words)
    assert code == 0, errors
    _, tokenizer = load_model(trained)
    assert tokenizer.decode(prompts[0]).endswith(f"<|im_start|>assistant\n{ending}")
    assert out.startswith("<think>\n") == (thinking == ["on"])
    words = [word for value in thinking for word in ("--thinking", value)]
    assert run("generate", f"--from_weight={trained}", "--chat", "--prompt=who is it?", *words)[1] == out


def test_chat_keeps_to_the_switch_in_every_turn(run, trained, prompts, monkeypatch):
    for thinking, ending in (("on", "<think>\n"), ("off", "</think>\n\n")):
        lines = iter(["who is it?", "and who else?", ""])
        monkeypatch.setattr("builtins.input", lambda prompt, lines=lines: next(lines))
        code, _, errors = run("chat", f"--from_weight={trained}", f"--thinking={thinking}", "--remember=1")
        assert code == 0, errors
        _, tokenizer = load_model(trained)
        texts = [tokenizer.decode(ids) for ids in prompts[-2:]]
        assert all(text.endswith(ending) for text in texts)
        # What the prompt had opened is part of the remembered answer; an empty block is not.
        assert texts[1].count("<think>") == (2 if thinking == "on" else 1)


def test_a_switch_without_a_chat_is_refused(refused, trained):
    assert "--chat" in refused("generate", f"--from_weight={trained}", "--prompt=x", "--thinking=on")


def test_an_unknown_position_is_refused(refused, trained):
    assert "thinking" in refused("generate", f"--from_weight={trained}", "--chat", "--thinking=perhaps")


def test_files_of_pairs_are_no_cold_start(refused, trained, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [{"question": "a", "answer": "b\n#### many"}] * 3)
    words = ["reason", *FEW, *on(trained, tmp_path / "r", path)]
    assert "'many'" in refused(*words, lines=4)
