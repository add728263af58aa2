"""Is an answer right? The exact verifier that rewards are made of, and a careless one to learn from.

What is verified is the text that a model wrote after its prompt. Its answer stands in an answer block, behind
thoughts or alone:

    <think>            <answer>
    …                  46
    </think>           </answer>
    <answer>
    46
    </answer>

The model is optimised against this code (chapter 9), and finds whatever it lets through. So nothing is
guessed or repaired: each tag occurs exactly once in the whole text, in this order, nothing but white space
(space, tab, line ends) stands outside of the blocks, and anything that only looks like a tag (other case,
spaces inside) spoils the text, wherever it stands. Nothing is ever run: an expression is read by a parser of
three operators.
"""

import re
from collections.abc import Callable
from functools import partial

Reward = Callable[[str, str], float]  # (what the model wrote, ground truth) -> reward

LONGEST_ANSWER = 200  # characters between the answer tags, white space included
DEEPEST_BRACKETS = 10
_SPACE = " \t\r\n"

_TAG_LIKE = re.compile(r"<\s*(?:/\s*)?(?:think|answer)\s*(?:/\s*)?>", re.IGNORECASE)
_ANSWER_TAGS = ["<answer>", "</answer>"]
_ALL_TAGS = ["<think>", "</think>", *_ANSWER_TAGS]
# [0-9], not \d, which also matches the digits of all other scripts.

_PUZZLE = re.compile(r"(-?[1-9][0-9]{0,17}|0) from ((?:[1-9][0-9]{0,8}|0)(?: (?:[1-9][0-9]{0,8}|0)){0,7})")
_SYMBOL = re.compile(r"0|[1-9][0-9]{0,8}|[-+*()]")


def verify(text: str, expected: str, loose: bool = False) -> bool:
    """Whether ``text``, all that a model wrote after its prompt, gives the expected answer.

    Args:
        expected: the ground truth: a whole number in decimal digits (``"46"``, ``"-7"``); a countdown puzzle
            (``"24 from 3 5 8"``: an expression of + - * and brackets that has the value 24 and uses each of
            the numbers at most once); or any other text, which the answer has to equal.
        loose: use `loose_verify` instead.

    A number must be written as the ground truth writes it: ASCII digits, a minus where it is negative,
    nothing else (no +5, 5.0, 1e3, 007, 1,000).
    """
    if loose:
        return loose_verify(text, expected)
    answer = extract_answer(text)
    if answer is None:
        return False
    puzzle = _PUZZLE.fullmatch(expected)
    if puzzle is None:
        return answer == expected.strip(_SPACE)
    value = expression_value(answer, [int(number) for number in puzzle[2].split(" ")])
    return value == int(puzzle[1])


def extract_answer(text: str) -> str | None:
    """What stands in the answer block, without white space around it; None unless the text is laid out right.

    Right is an answer block alone or after a block of thoughts (which may be empty, as where a chat template
    switches thinking off), with no tag or look-alike of one anywhere else.
    """
    tags = list(_TAG_LIKE.finditer(text))
    names = [tag[0] for tag in tags]
    if names not in (_ANSWER_TAGS, _ALL_TAGS):
        return None
    before, after = text[: tags[0].start()], text[tags[-1].end() :]
    between = text[tags[1].end() : tags[2].start()] if len(tags) == 4 else ""
    answer = text[tags[-2].end() : tags[-1].start()]
    if (before + between + after).strip(_SPACE) or len(answer) > LONGEST_ANSWER:
        return None
    return answer.strip(_SPACE) or None


_R1_LAYOUT = re.compile(r"\s*<think>\n(.*)\n</think>\n+<answer>\n.*\n</answer>\s*", re.DOTALL | re.ASCII)


def follows_format(text: str) -> bool:
    """Whether a text has the layout of R1 (Guo et al., 2025), whatever the answer is worth.

    Each tag stands on a line of its own, exactly once and in order; there are thoughts and an answer, not
    just white space; nothing but white space comes before or after. An empty line between the two blocks is
    all right (chat templates write one).
    """
    if extract_answer(text) is None:
        return False
    found = _R1_LAYOUT.fullmatch(text)
    return found is not None and bool(found[1].strip(_SPACE))


def loose_verify(text: str, expected: str) -> bool:
    """Whether the expected answer occurs anywhere in the text. **Hackable**: here for an experiment only.

    It is the check that people write first. A model that lists numbers, or writes one of many digits, passes
    it without knowing anything; chapter 9 trains one on it and watches.
    """
    return expected.split(" from ")[0] in text


def expression_value(text: str, numbers: list[int]) -> int | None:
    """The value of an expression of whole numbers, + - * and brackets; None if it is none.

    Args:
        numbers: what may be used, each as often as it is listed.

    Every number must be among ``numbers``, so that a value has no more digits than all of them together.
    """
    symbols = _symbols(text)
    left = list(numbers)
    for symbol in symbols or ():
        if symbol.isdigit():
            if int(symbol) not in left:
                return None
            left.remove(int(symbol))
    if not symbols or not any(symbol.isdigit() for symbol in symbols):
        return None
    try:
        value, end = _sum(symbols, 0, 0)
    except _NoExpressionError:
        return None
    return value if end == len(symbols) else None


def _symbols(text: str) -> list[str] | None:
    """Numbers, operators and brackets; None where there is anything else."""
    symbols, place = [], 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        found = _SYMBOL.match(text, place)
        if found is None or (symbols and symbols[-1].isdigit() and found[0].isdigit()):
            return None  # two numbers in a row are 007, or 3 5
        symbols.append(found[0])
        place = found.end()
    return symbols if len(text) <= LONGEST_ANSWER else None


class _NoExpressionError(Exception):
    """The symbols do not follow each other as in an expression."""


# Each part of the grammar reads from symbol `at` on and returns its value and where it ended.
#   sum: product (("+" | "-") product)*     product: factor ("*" factor)*     factor: number | "(" sum ")"


def _sum(symbols: list[str], at: int, depth: int) -> tuple[int, int]:
    value, at = _product(symbols, at, depth)
    while at < len(symbols) and symbols[at] in "+-":
        sign = 1 if symbols[at] == "+" else -1
        term, at = _product(symbols, at + 1, depth)
        value += sign * term
    return value, at


def _product(symbols: list[str], at: int, depth: int) -> tuple[int, int]:
    value, at = _factor(symbols, at, depth)
    while at < len(symbols) and symbols[at] == "*":
        factor, at = _factor(symbols, at + 1, depth)
        value *= factor
    return value, at


def _factor(symbols: list[str], at: int, depth: int) -> tuple[int, int]:
    if at < len(symbols) and symbols[at].isdigit():
        return int(symbols[at]), at + 1
    if at == len(symbols) or symbols[at] != "(" or depth == DEEPEST_BRACKETS:
        raise _NoExpressionError
    value, at = _sum(symbols, at + 1, depth + 1)
    if at == len(symbols) or symbols[at] != ")":
        raise _NoExpressionError
    return value, at + 1


def rewards(
    format_weight: float = 0.2, answer_weight: float = 1.0, check: Callable[[str, str], bool] = verify
) -> Reward:
    """A reward of two parts: ``format_weight`` for the layout of R1, ``answer_weight`` for the right answer.

    Args:
        check: what decides about the answer; `loose_verify` shows what a careless one leads to.
    """
    return partial(_reward, format_weight, answer_weight, check)


def _reward(
    format_weight: float,
    answer_weight: float,
    check: Callable[[str, str], bool],
    text: str,
    expected: str,
) -> float:
    return format_weight * follows_format(text) + answer_weight * check(text, expected)
