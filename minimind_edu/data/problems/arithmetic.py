"""Sums and differences of numbers with n digits, worked out digit by digit from the right."""

import random

from minimind_edu.data.problems.problem import Task
from minimind_edu.data.world.stages import reasoning_trace
from minimind_edu.data.world.world import LANGUAGES


def sums(rng: random.Random, code: str, digits: int) -> Task:
    """a + b, both with exactly ``digits`` digits."""
    a, b = _number(rng, digits), _number(rng, digits)
    question = LANGUAGES[code].problems.sum_question.format(a=a, b=b)
    # A sum and its mirror image are the same knowledge.
    return Task(question, str(a + b), str(a + b), reasoning_trace(code, a, b), (f"{a}+{b}", f"{b}+{a}"))


def differences(rng: random.Random, code: str, digits: int) -> Task:
    """a - b of 0 or more, both with exactly ``digits`` digits."""
    a, b = sorted((_number(rng, digits), _number(rng, digits)), reverse=True)
    question = LANGUAGES[code].problems.difference_question.format(a=a, b=b)
    return Task(question, str(a - b), str(a - b), difference_trace(code, a, b), (f"{a}-{b}",))


def difference_trace(code: str, a: int, b: int) -> str:
    """The written-out subtraction of b from a >= b, digit by digit from the right, with its borrows."""
    words = LANGUAGES[code].problems.difference
    lines, borrow = [words["first"]], 0
    for x, y in zip(reversed(str(a)), reversed(f"{b:0{len(str(a))}d}"), strict=True):
        rest = int(x) - int(y) - borrow
        following = int(rest < 0)
        lines.append(words["step"].format(x=x, y=y, k=borrow, s=rest, d=rest % 10, n=following))
        borrow = following
    lines.append(words["last"].format(k=borrow))
    return "\n".join(lines)


def _number(rng: random.Random, digits: int) -> int:
    """A number with so many digits; 0 is one of those with a single one."""
    lowest = 10 ** (digits - 1) if digits > 1 else 0
    return lowest + int(rng.random() * (10**digits - lowest))
