"""The command line: generate and chat."""

import io
import sys

import pytest

from minimind_edu.generation import generate
from minimind_edu.stages.setup import load_model
from minimind_edu.tokenizer import load_tokenizer


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
