"""Word problems: someone of the world has some things, and n things happen to them."""

import random

from minimind_edu.data.problems.problem import Task
from minimind_edu.data.world.world import LANGUAGES, SmallWorld

MOST_AT_FIRST, MOST_MORE, MOST_TIMES = 20, 9, 3
MOST_TO_MULTIPLY = 12  # so that a model can learn the multiplications by heart
_WORLD = SmallWorld()


def word_problem(rng: random.Random, code: str, steps: int) -> Task:
    """Who has how many now, after ``steps`` changes: more, fewer, or times as many."""
    words = LANGUAGES[code].problems
    person = _WORLD.person(int(rng.random() * _WORLD.people))
    named = {
        "name": person.names[code],
        "friend": _WORLD.value(person, "friend", code),
        "things": words.things[int(rng.random() * len(words.things))],
    }
    total = 2 + int(rng.random() * (MOST_AT_FIRST - 1))
    sentences, lines, key = [words.start.format(a=total, **named)], [], str(total)
    for _ in range(steps):
        op, b = _change(rng, total)
        result = {"+": total + b, "-": total - b, "*": total * b}[op]
        sentences.append(words.steps[op].format(b=b, **named))
        lines.append(words.step.format(a=total, op=op, b=b, c=result))
        key, total = f"{key}{op}{b}", result
    sentences.append(words.question.format(**named))
    question = LANGUAGES[code].joiner.join(sentences)
    return Task(question, str(total), str(total), "\n".join(lines), (f"word/{key}",))


def _change(rng: random.Random, total: int) -> tuple[str, int]:
    """An operation that leaves at least one thing."""
    ops = "+" + "-" * (total > 1) + "*" * (2 <= total <= MOST_TO_MULTIPLY)
    op = ops[int(rng.random() * len(ops))]
    if op == "*":
        return op, 2 + int(rng.random() * (MOST_TIMES - 1))
    most = MOST_MORE if op == "+" else min(MOST_MORE, total - 1)
    return op, 1 + int(rng.random() * most)
