"""The verifier: what is right is accepted, and nothing else, however it is dressed up."""

import random
import re
import time

import pytest
from calculator import value_of
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_edu.data.problems import KINDS, problems
from minimind_edu.stages.verify import (
    DEEPEST_BRACKETS,
    LONGEST_ANSWER,
    expression_value,
    extract_answer,
    follows_format,
    loose_verify,
    rewards,
    verify,
)

GOOD = "<think>\n1 + 2 = 3.\n</think>\n<answer>\n46\n</answer>"


def written(answer, thoughts="x"):
    return f"<think>\n{thoughts}\n</think>\n<answer>\n{answer}\n</answer>"


@pytest.mark.parametrize(
    ("text", "laid_out"),
    [
        (GOOD, True),
        (GOOD + "\n", True),
        ("\n" + GOOD + " \n\t", True),
        (GOOD.replace("</think>\n", "</think>\n\n"), True),
        (written("46", "several\n\nlines, 45, < 47, a < b > c"), True),
        (written(" 46 "), True),
        ("<answer>\n46\n</answer>", False),  # right, but no thoughts
        ("<think>\n\n</think>\n\n<answer>\n46\n</answer>", False),
        ("<think>x</think><answer>46</answer>", False),  # right, but not on lines of its own
    ],
)
def test_right_answers(text, laid_out):
    assert verify(text, "46") and extract_answer(text) == "46"
    assert follows_format(text) is laid_out
    assert not verify(text, "64") and not verify(text, "4") and not verify(text, "460")


SMUGGLED = {
    "in the thoughts": "<think>\n46\n</think>\n<answer>\n12\n</answer>",
    "in the thoughts, no answer": "<think>\nThe answer is 46.\n</think>",
    "answer inside of the thoughts": "<think>\n<answer>\n46\n</answer>\n</think>",
    "answer in the thoughts, then another": "<think>\n<answer>46</answer>\n</think>\n<answer>\n12\n</answer>",
    "answer in the thoughts and outside": "<think>\n<answer>46</answer>\n</think>\n<answer>\n46\n</answer>",
    "two answers": "<think>\nx\n</think>\n<answer>\n12\n</answer>\n<answer>\n46\n</answer>",
    "two answers, right one first": "<think>\nx\n</think>\n<answer>\n46\n</answer>\n<answer>\n12\n</answer>",
    "twice the same answer": "<think>\nx\n</think>\n<answer>\n46\n</answer>\n<answer>\n46\n</answer>",
    "nested": "<think>\nx\n</think>\n<answer>\n<answer>\n46\n</answer>\n</answer>",
    "nested, one end": "<think>\nx\n</think>\n<answer>\n<answer>\n46\n</answer>",
    "two thoughts": "<think>\nx\n</think>\n<think>\ny\n</think>\n<answer>\n46\n</answer>",
    "thoughts inside of thoughts": "<think>\n<think>\nx\n</think>\n</think>\n<answer>\n46\n</answer>",
    "thoughts in the answer": "<answer>\n<think>\nx\n</think>\n46\n</answer>",
    "thoughts after the answer": "<answer>\n46\n</answer>\n<think>\nx\n</think>",
    "thoughts around the answer": "<think>\nx\n<answer>\n46\n</answer>\n</think>",
    "crossed": "<think>\nx\n<answer>\n</think>\n46\n</answer>",
    "text after": GOOD + "\nor 47",
    "a dot after": GOOD + ".",
    "text before": "Sure! " + GOOD,
    "text between": GOOD.replace("</think>\n", "</think>\nSo:\n"),
    "the prompt echoed": "What is 3 + 43? <answer>46</answer>\n" + GOOD,
    "a prompt with the answer": "user\nsay <answer>46</answer>",
    "no end of the answer": "<think>\nx\n</think>\n<answer>\n46\n",
    "no end of the thoughts": "<think>\nx\n<answer>\n46\n</answer>",
    "no start of the answer": "<think>\nx\n</think>\n46\n</answer>",
    "no start of the thoughts": "x\n</think>\n<answer>\n46\n</answer>",
    "ends only": "</think></answer>46",
    "other case": "<THINK>\nx\n</THINK>\n<ANSWER>\n46\n</ANSWER>",
    "one in other case": "<think>\nx\n</think>\n<Answer>\n46\n</Answer>",
    "a second one in other case": GOOD.replace("1 + 2", "<ANSWER>12</ANSWER>"),
    "a second one with spaces": GOOD.replace("1 + 2", "< answer >12< / answer >"),
    "a closed one": GOOD.replace("1 + 2", "<answer/>"),
    "other brackets": "<think>\nx\n</think>\n＜answer＞\n46\n＜/answer＞",
    "escaped": "<think>\nx\n</think>\n&lt;answer&gt;46&lt;/answer&gt;",
    "only the number": "46",
    "boxed": "<think>\nx\n</think>\n\\boxed{46}",
    "empty": "",
    "a zero-width space in a tag": "<think>\nx\n</think>\n<ans\u200bwer>\n46\n</answer>",
    "a control character between": "<think>\nx\n</think>\x00<answer>\n46\n</answer>",
    "a vertical tab after": GOOD + "\x0b",
    "a wide space before": "\u3000" + GOOD,
    "a byte order mark before": "\ufeff" + GOOD,
}


@pytest.mark.parametrize("text", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_smuggled_answers(text):
    assert not verify(text, "46")
    assert follows_format(text) == (text == SMUGGLED["in the thoughts"])
    assert rewards(0.5, 1.0)(text, "46") in (0, 0.5)


@pytest.mark.parametrize(
    "answer",
    [
        "- 46", "46 or 47", "+46", "46.0", "46.", "046", "0046", "4 6", "4,6", "46e0", "0x2e", "4.6e1",
        "--46", "-46", "46-",
        "４６", "4６", "٤٦", "४६", "৪৬", "四十六", "④⑥", "⁴⁶", "4\u200b6", "46\u200b", "\u202e64", "46\x00",
        "\x0046", "46\x1f", "46\u00a0", "46\u3000", "46\x0b", "4\n6", "46\n46", "46 46", "46!", "=46",
        "3 + 43 = 46", "3 + 43", "46%", "$46", "46 apples", "forty-six", "'46'", "<b>46</b>", "46;", "(46)",
        "46" + " " * LONGEST_ANSWER, "46" + "\n" * 10_000, "0" * 9_998 + "46", "46" * 5_000, "9" * 10_000, "",
        " ", "-", "None", "nan", "__import__('os')", "46 if True else 0", "4**2+30", "9**9**9",
    ],
)  # fmt: skip
def test_a_number_is_written_in_one_way(answer):
    for text in (written(answer), f"<answer>{answer}</answer>"):
        assert not verify(text, "46")


def test_numbers_below_zero_and_zero():
    assert verify(written("-7"), "-7") and verify(written("0"), "0")
    for answer, expected in (("7", "-7"), ("-7", "7"), ("-0", "0"), ("00", "0"), ("−7", "-7"), ("", "0")):
        assert not verify(written(answer), expected)


def test_an_empty_ground_truth_is_never_reached():
    for expected in ("", " ", "\n"):
        for answer in ("", " ", "46"):
            assert not verify(written(answer), expected)


def test_a_text_is_compared_as_it_is():
    truth = "The home of Ada is in Oakton."
    assert verify(written(truth), truth) and verify(written(f"  {truth}"), truth)
    assert not verify(written(truth.lower()), truth) and not verify(written(truth + "!"), truth)


@given(st.text(max_size=60), st.integers(-2000, 2000))
@settings(max_examples=300, deadline=None)
def test_only_the_number_itself_is_right(answer, number):
    assert verify(written(answer), str(number)) == (answer.strip(" \t\r\n") == str(number))


PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "\n", "46", "12", " ", "x", "<Answer>", "</ answer>",
    "\u200b",
    "<think>\n", "\n</think>\n", "<answer>\n46\n</answer>", "<", ">",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=1500, deadline=None)
def test_any_arrangement_of_tags(text):
    """Against another way to say it: a grammar of the whole text, with no tag inside of a block."""
    inner = r"(?:(?!<\s*/?\s*(?:think|answer)\s*/?\s*>)[\s\S])*"
    right = (
        rf"[ \t\r\n]*(?:<think>{inner}</think>[ \t\r\n]*)?<answer>[ \t\r\n]*46[ \t\r\n]*</answer>[ \t\r\n]*"
    )
    assert verify(text, "46") == bool(re.fullmatch(right, text, re.IGNORECASE) and text == lowered(text))
    if follows_format(text):
        assert extract_answer(text) is not None


def lowered(text):
    return re.sub(r"<[^<>]*>", lambda tag: tag[0].lower(), text)


@given(st.text(max_size=40), st.integers(0, len(GOOD)))
@settings(max_examples=500, deadline=None)
def test_nothing_can_be_put_into_a_wrong_answer_to_make_it_right(added, place):
    wrong = GOOD.replace("46", "12")
    text = wrong[:place] + added + wrong[place:]
    answered = extract_answer(text)
    assert verify(text, "46") == (answered == "46")
    assert answered != "46" or "46" in added or added.startswith(("46", "4", "6")), text


@pytest.mark.parametrize(
    "text",
    [
        "<" + " " * 200_000,
        "<think" + " " * 200_000,
        "< / " * 50_000,
        "<think>" * 30_000,
        "</think>\n" * 30_000,
        "<think>\n" + "\n</think>\n" * 20_000 + "<answer>\n46",
        "<think>\n" + "\n" * 200_000 + "</think>\n<answer>\n46\n</answer>x",
        written("46", "</think" * 50_000),
        written("(" * 100_000),
        " " * 300_000,
    ],
    ids=range(10),
)
def test_long_texts_take_no_time(text):
    """Work grows with the length, not with its square, which would be minutes here."""
    begun = time.process_time()
    for expected in ("46", "24 from 3 5 8"):
        verify(text, expected)
    follows_format(text)
    assert time.process_time() - begun < 5


PUZZLE = "24 from 3 5 8"


@pytest.mark.parametrize("answer", ["3 * 8", "8*3", "(3) * (8)", "((3*8))", " 8 * 3 "])
def test_countdown_solutions(answer):
    assert verify(written(answer), PUZZLE)
    assert not verify(written(answer), "25 from 3 5 8")


@pytest.mark.parametrize(
    "answer",
    [
        "24", "3 * 8 = 24", "4 * 6", "3 * 8 * 1", "8 + 8 + 8", "3 * 3 + 3 * 5", "3 + 5 + 8", "3 * 8 + 5 - 5",
        "3 ** 8", "3 // 8", "24 / 1", "38", "3 8", "03 * 8", "3 * 08", "-3 * -8", "+3 * 8", "3 * (8",
        "3 * 8)",
        "()", "(3)(8)", "3 *", "* 8", "3 * * 8", "3 x 8", "3 × 8", "３ * ８", "3\n* 8", "3 * 8;", "3 * 8 # 5",
        "9**9**9", "(" * 90 + "3 * 8" + ")" * 90, "3" * 150, "__import__('os').getcwd()", "[3][0] * 8",
        "3 * 8.0",
        "3e0 * 8", "0x3 * 8", "abs(3) * 8", "3 if 1 else 8", "lambda: 24", "3\u200b * 8",
        "(3 * 8" + " " * 200 + ")",
    ],
)  # fmt: skip
def test_countdown_answers_that_are_none(answer):
    assert not verify(written(answer), PUZZLE)


def test_brackets_have_a_limit():
    for depth, value in ((DEEPEST_BRACKETS, 3), (DEEPEST_BRACKETS + 1, None)):
        assert expression_value("(" * depth + "3" + ")" * depth, [3]) == value


def test_a_number_may_be_used_as_often_as_it_is_given():
    assert expression_value("8 * 8 - 8", [8, 8, 8]) == 56 and expression_value("8 * 8 - 8", [8, 8]) is None


@st.composite
def expressions(draw, depth=0):
    if depth > 3 or draw(st.booleans()):
        return str(draw(st.integers(0, 20)))
    left, right = draw(expressions(depth=depth + 1)), draw(expressions(depth=depth + 1))
    op, space = draw(st.sampled_from("+-*")), draw(st.sampled_from(["", " "]))
    inner = f"{left}{space}{op}{space}{right}"
    return f"({inner})" if draw(st.booleans()) else inner


@given(expressions().filter(lambda text: len(text) <= LONGEST_ANSWER))
@settings(max_examples=300, deadline=None)
def test_expressions_have_pythons_values(text):
    numbers = [int(number) for number in re.findall("[0-9]+", text)]
    assert expression_value(text, numbers) == value_of(text)


@given(st.text(alphabet="0123456789+-* ()", max_size=30))
@settings(max_examples=500, deadline=None)
def test_symbols_in_any_order(text):
    """What is no expression for Python is none for us; we know fewer: no sign, no power, no leading zero."""
    numbers = [int(number) for number in re.findall("[0-9]+", text)]
    value = expression_value(text, numbers)
    if value is not None:
        assert "**" not in text and value == value_of(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_problems_own_answers_are_right(kind):
    for problem in problems(kind, 60, min(KINDS[kind][1]) + 1):
        for thinking in (True, False):
            assert verify(problem.response(thinking), problem.gt)
            assert follows_format(problem.response(thinking)) is thinking
        others = [other.gt for other in problems(kind, 20, min(KINDS[kind][1]) + 1, seed=9)]
        wrong = next(gt for gt in others if gt.split(" ")[0] != problem.gt.split(" ")[0])
        assert not verify(problem.response(), wrong)


def test_the_loose_verifier_can_be_hacked():
    everything = "<answer>" + " ".join(map(str, range(100))) + "</answer>"
    for expected in ("46", "12", "99", PUZZLE):
        assert loose_verify(everything, expected) and verify(everything, expected, loose=True)
        assert not verify(everything, expected)
    assert not loose_verify("45", "46") and loose_verify(GOOD, "46")


def test_rewards_are_made_of_two_parts():
    reward = rewards(format_weight=0.25, answer_weight=2.0)
    assert reward(GOOD, "46") == 2.25 and reward(GOOD, "47") == 0.25
    assert reward("<answer>46</answer>", "46") == 2.0 and reward("46", "46") == 0
    hackable = rewards(0.0, 1.0, check=loose_verify)
    assert hackable("45 46 47", "46") == 1.0 and hackable("45", "46") == 0.0


def test_random_digits_are_rewarded_only_where_they_are_right():
    rng = random.Random(0)
    reward = rewards(0, 1)
    for _ in range(300):
        answer, expected = rng.randrange(50), rng.randrange(50)
        assert reward(written(answer), str(expected)) == (answer == expected)
