"""Verifiable problems: right by another computation, the same every time, and apart from held-out ones."""

import itertools
import json
import re

import pytest
from calculator import value_of

from minimind_edu.data.problems import KINDS, is_held_out, problems
from minimind_edu.data.problems.arithmetic import difference_trace
from minimind_edu.data.problems.countdown import expression
from minimind_edu.data.validation import check_record
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.stages import reason_records, reasoning_trace, rlvr_records

LEVELS = {"sums": 3, "differences": 3, "words": 3, "countdown": 4}


def numbers_in(text):
    return [int(number) for number in re.findall("[0-9]+", text)]


def drawn(kind, count=200, **options):
    return list(problems(kind, count, **({"difficulty": LEVELS[kind]} | options)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_problems_every_time_and_from_any_place(kind):
    whole = drawn(kind, 40)
    assert whole == drawn(kind, 40) == drawn(kind, 15) + drawn(kind, 25, start=15)
    assert whole != drawn(kind, 40, seed=1) and whole != drawn(kind, 40, split="rlvr")
    assert {problem.language for problem in whole} == {"en", "zh"}
    assert {problem.language for problem in drawn(kind, 10, languages=("zh",))} == {"zh"}
    assert {(problem.kind, problem.difficulty) for problem in whole} == {(kind, LEVELS[kind])}


def test_nothing_is_stored():
    stream = problems("sums", 10**9, 3)
    assert len(list(itertools.islice(stream, 5))) == 5


@pytest.mark.parametrize(("kind", "sign"), [("sums", 1), ("differences", -1)])
@pytest.mark.parametrize("digits", [1, 2, 3, 9])
def test_arithmetic(kind, sign, digits):
    for problem in drawn(kind, 60, difficulty=digits):
        a, b = numbers_in(problem.question)
        assert problem.gt == problem.answer == str(a + sign * b) and a + sign * b >= 0
        assert len(str(a)) == len(str(b)) == digits
        lines = problem.trace.splitlines()
        assert len(lines) == digits + 2
        # The digits that the trace says to write are those of the answer, the last first.
        written = "".join(re.search(r"(?:write |写)(\d)", line)[1] for line in reversed(lines[1:-1]))
        last = numbers_in(lines[-1])[0]
        assert int(f"{last}{written}") == int(problem.gt)


def test_traces_by_hand():
    assert reasoning_trace("en", 58, 67).splitlines() == [
        "Write the digits from the right.",
        "8 + 7 + carry 0 = 15: write 5, carry 1.",
        "5 + 6 + carry 1 = 12: write 2, carry 1.",
        "The last carry is 1.",
    ]
    assert difference_trace("en", 502, 37).splitlines() == [
        "Take the digits from the right.",
        "2 - 7 - borrow 0 = -5: write 5, borrow 1.",
        "0 - 3 - borrow 1 = -4: write 6, borrow 1.",
        "5 - 0 - borrow 1 = 4: write 4, borrow 0.",
        "The last borrow is 0.",
    ]
    assert difference_trace("zh", 52, 37).splitlines()[1] == "2－7－借位0＝-5：写5，借1。"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_word_problems(steps):
    names = {SmallWorld().person(index).names[code] for index in range(100) for code in ("en", "zh")}
    happened = set()
    for problem in drawn("words", 300, difficulty=steps):
        assert any(name in problem.question for name in names)
        sentences = [one for one in re.split(r"[.。?？]\s*", problem.question) if one]
        assert len(sentences) == steps + 2
        total = numbers_in(sentences[0])[0]
        for sentence in sentences[1:-1]:
            b = numbers_in(sentence)[0]
            kinds = {" more": 1, " away": 2, " times": 3, "又给": 1, "送出": 2, "倍": 3}
            kind = next(value for words, value in kinds.items() if words in sentence)
            total = {1: total + b, 2: total - b, 3: total * b}[kind]
            happened.add(kind)
            assert total >= 1
        assert problem.gt == problem.answer == str(total)
        results = [numbers_in(line)[-1] for line in problem.trace.splitlines()]
        assert len(results) == steps and results[-1] == total
        for line in problem.trace.splitlines():
            left, right = line.rstrip(".。").split(" = ")
            assert value_of(left) == int(right)
    assert happened == {1, 2, 3}


@pytest.mark.parametrize("count", [3, 4, 6])
def test_countdown(count):
    tries = set()
    for problem in drawn("countdown", 300, difficulty=count):
        target, given = problem.gt.split(" from ")
        assert len(given.split(" ")) == count
        assert set(numbers_in(problem.question)) == {int(target), *numbers_in(given)}
        assert sorted(numbers_in(problem.answer)) == sorted(numbers_in(given))
        assert value_of(problem.answer) == int(target) and 1 <= int(target) <= 99
        *dead_ends, hit = problem.trace.splitlines()
        tries.add(len(dead_ends))
        for line in [*dead_ends, hit]:
            calculations = re.findall(r"[0-9]+ [-+*] [0-9]+ = [0-9]+", line)
            assert len(calculations) == count - 1
            results = []
            for calculation in calculations:
                left, right = calculation.split(" = ")
                assert value_of(left) == int(right)
                results.append(int(right))
            assert (results[-1] == int(target)) == (line is hit)
            assert ("Yes" in line or "对了" in line) == (line is hit)
    assert tries == {0, 1, 2}


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        ([(3, "+", 5, 8), (8, "*", 8, 64)], "(3 + 5) * 8"),
        ([(3, "*", 5, 15), (15, "+", 8, 23)], "3 * 5 + 8"),
        ([(9, "-", 2, 7), (7, "*", 3, 21), (21, "*", 2, 42)], "(9 - 2) * 3 * 2"),
        ([(9, "*", 2, 18), (18, "-", 3, 15), (15, "*", 2, 30)], "(9 * 2 - 3) * 2"),
    ],
)
def test_brackets_where_they_are_needed(chain, text):
    assert expression(chain) == text and value_of(text) == chain[-1][3]


# -- held out ----------------------------------------------------------------------------------------------


def calculation(problem):
    """What a problem is about, without its words: read off the question or the trace."""
    if problem.kind == "countdown":
        target, given = problem.gt.split(" from ")
        return target, tuple(sorted(given.split(" ")))
    if problem.kind == "sums":
        return tuple(sorted(numbers_in(problem.question)))
    if problem.kind == "differences":
        return tuple(numbers_in(problem.question))
    return tuple(re.findall(r"(?m)^([0-9]+ [-+*] [0-9]+)", problem.trace))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 1])
def test_held_out_problems_are_new(kind, level):
    """Also in other words, in the other language, with another seed, and the other way round."""
    difficulty = min(KINDS[kind][1]) + level
    seen = {
        calculation(problem)
        for split in ("train", "rlvr")
        for seed in (0, 5)
        for problem in problems(kind, 1500, difficulty, split, seed=seed)
    }
    new = {calculation(problem) for problem in problems(kind, 400, difficulty, "held-out", seed=3)}
    assert len(new) >= 4 and not new & seen


def test_held_out_sums_are_new_to_the_worlds_files_too():
    """The files' sums are chosen by the same rule, as ordered pairs."""
    world = SmallWorld()
    ordered = [tuple(numbers_in(problem.question)) for problem in drawn("sums", 600, split="held-out")]
    pairs = {
        tuple(numbers_in(record["conversations"][0]["content"]))
        for records in (reason_records(world, 3000), rlvr_records(world, 3000))
        for record in records
    }
    assert not set(ordered) & pairs
    held_out = {
        tuple(numbers_in(record["conversations"][0]["content"]))
        for record in rlvr_records(world, 400, "held-out")
    }
    seen = {
        tuple(numbers_in(problem.question))
        for d in (1, 2, 3)
        for problem in drawn("sums", 3000, difficulty=d)
    }
    assert not held_out & seen
    assert all(is_held_out(f"{a}+{b}") for a, b in held_out)


def test_about_a_tenth_is_held_out():
    share = sum(is_held_out(f"{a}+{b}") for a in range(100, 200) for b in range(100, 200)) / 10_000
    assert 0.09 < share < 0.11


# -- records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_every_form(kind):
    for problem in drawn(kind, 10):
        asked, answered = problem.record()["conversations"]
        assert asked == {"role": "user", "content": problem.question} and answered["role"] == "assistant"
        assert answered["content"] == (
            f"<think>\n{problem.trace}\n</think>\n<answer>\n{problem.answer}\n</answer>"
        )
        direct = problem.record(thinking=False)["conversations"]
        assert direct[0] == asked
        assert direct[1]["content"] == f"<think>\n\n</think>\n\n<answer>\n{problem.answer}\n</answer>"
        prompt = problem.rlvr()
        assert prompt["conversations"][0] == asked and prompt["gt"] == problem.gt
        assert {name: prompt[name] for name in ("language", "kind", "difficulty")} == {
            "language": problem.language, "kind": kind, "difficulty": LEVELS[kind],
        }  # fmt: skip
        for record, form in ((problem.record(), "sft"), (problem.record(False), "sft"), (prompt, "rlvr")):
            check_record(json.loads(json.dumps(record)), form)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"kind": "riddles"}, "riddles"),
        ({"kind": "sums", "difficulty": 0}, "1 to 15"),
        ({"kind": "sums", "difficulty": ()}, "1 to 15"),
        ({"kind": "countdown", "difficulty": (3, 2)}, "3 to 6"),
        ({"kind": "sums", "split": "test"}, "split"),
        ({"kind": "sums", "languages": ("de",)}, "languages"),
        ({"kind": "sums", "languages": ()}, "languages"),
    ],
)
def test_problems_without_sense(options, part):
    with pytest.raises(ValueError, match=part):
        problems(count=1, **options)
