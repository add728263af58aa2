"""A number puzzle: reach a target from some numbers, each used at most once, with + - * and brackets.

The trace is a search: chains of calculations that miss the target, then one that hits it. Every chain takes
the numbers in some order and works on from each result, so that a line needs no brackets; the answer, one
expression, may.
"""

import random
from collections.abc import Sequence

from minimind_edu.data.problems.problem import Task
from minimind_edu.data.world.language import ProblemWords
from minimind_edu.data.world.world import LANGUAGES

LARGEST_NUMBER, LARGEST_RESULT = 9, 99
MOST_DEAD_ENDS = 2

Step = tuple[int, str, int, int]  # a, operator, b, result


def countdown(rng: random.Random, code: str, numbers: int) -> Task:
    """A puzzle of so many numbers that has a solution."""
    words = LANGUAGES[code].problems
    given = [1 + int(rng.random() * LARGEST_NUMBER) for _ in range(numbers)]
    solution = _chain(rng, given)
    target = solution[-1][3]
    dead_ends: list[list[Step]] = []
    for _ in range(int(rng.random() * (MOST_DEAD_ENDS + 1))):
        tried = _chain(rng, given)
        if target not in [step[3] for step in tried] and tried not in dead_ends:
            dead_ends.append(tried)
    trace = [_line(words, chain, 0) for chain in dead_ends] + [_line(words, solution, 1)]
    shown = " ".join(map(str, given))
    question = words.countdown.format(target=target, numbers=shown)
    key = f"countdown/{target} from {' '.join(map(str, sorted(given)))}"
    return Task(question, f"{target} from {shown}", expression(solution), "\n".join(trace), (key,))


def expression(chain: Sequence[Step]) -> str:
    """The one expression that a chain of calculations comes to, with brackets where they are needed."""
    text, is_sum = str(chain[0][0]), False
    for _, op, b, _ in chain:
        text = f"({text}) * {b}" if op == "*" and is_sum else f"{text} {op} {b}"
        is_sum = op != "*"
    return text


def _chain(rng: random.Random, given: Sequence[int]) -> list[Step]:
    """The numbers in random order with random operators; results stay from 1 to `LARGEST_RESULT`."""
    left = list(given)
    total = left.pop(int(rng.random() * len(left)))
    steps = []
    while left:
        b = left.pop(int(rng.random() * len(left)))
        results = {"+": total + b, "-": total - b, "*": total * b}
        # One is always possible: up to 9 there is room for a sum, and from 10 on for a difference.
        ops = [op for op, result in results.items() if 1 <= result <= LARGEST_RESULT]
        op = ops[int(rng.random() * len(ops))]
        steps.append((total, op, b, results[op]))
        total = results[op]
    return steps


def _line(words: ProblemWords, chain: Sequence[Step], is_hit: int) -> str:
    calculations = (f"{a} {op} {b} = {result}" for a, op, b, result in chain)
    return words.attempt.format(chain=words.comma.join(calculations), verdict=words.verdicts[is_hit])
