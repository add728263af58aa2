"""Problems by kind, difficulty, language and split, one at a time."""

import random
from collections.abc import Callable, Iterator, Sequence

from minimind_edu.data.problems.arithmetic import differences, sums
from minimind_edu.data.problems.countdown import countdown
from minimind_edu.data.problems.problem import Problem, Task, is_held_out
from minimind_edu.data.problems.stories import word_problem
from minimind_edu.data.world.world import LANGUAGES

# Kind -> (how one is made, the difficulties it can have).
KINDS: dict[str, tuple[Callable[[random.Random, str, int], Task], range]] = {
    "sums": (sums, range(1, 16)),
    "differences": (differences, range(1, 16)),
    "words": (word_problem, range(1, 7)),
    "countdown": (countdown, range(3, 7)),
}
SPLITS = ("train", "rlvr", "held-out")


def problems(
    kind: str,
    count: int,
    difficulty: int | Sequence[int] = 3,
    split: str = "train",
    languages: Sequence[str] = ("en", "zh"),
    seed: int = 0,
    start: int = 0,
) -> Iterator[Problem]:
    """Problems number ``start`` to ``start + count`` of a split; nothing is stored.

    Which calculations are held out does not depend on anything but themselves (`is_held_out`), so "held-out"
    problems never occur in the other splits, whatever the seed, also not in the other language, about other
    people or the other way round (b + a). Problems are drawn with replacement: short sums come again.

    Args:
        kind: one of `KINDS`.
        difficulty: digits of sums and differences, steps of word problems ("words"), numbers of a
            "countdown"; several are drawn from evenly.
        split: "train", "rlvr" (other draws, for reinforcement learning) or "held-out".
        languages: drawn from evenly.

    Raises:
        ValueError: an unknown kind, split or language, or a difficulty that the kind does not have.
    """
    levels = (difficulty,) if isinstance(difficulty, int) else tuple(difficulty)
    if kind not in KINDS:
        raise ValueError(f"unknown kind of problems {kind!r}: use one of {', '.join(KINDS)}")
    possible = KINDS[kind][1]
    if not levels or any(level not in possible for level in levels):
        raise ValueError(f"{kind} have difficulties from {possible[0]} to {possible[-1]}, not {difficulty}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if not languages or any(code not in LANGUAGES for code in languages):
        raise ValueError(f"languages must be a choice of {tuple(LANGUAGES)}, not {tuple(languages)}")
    # A generator of its own, so that faulty arguments fail here and not at the first problem.
    return _draw(kind, range(start, start + count), levels, split, tuple(languages), seed)


def _draw(
    kind: str, indices: range, levels: tuple[int, ...], split: str, languages: tuple[str, ...], seed: int
) -> Iterator[Problem]:
    make = KINDS[kind][0]
    for index in indices:
        rng = random.Random(f"{seed}/problems/{split}/{kind}/{index}")
        code = languages[int(rng.random() * len(languages))]
        level = levels[int(rng.random() * len(levels))]
        task = make(rng, code, level)
        while not _belongs(task, split):
            task = make(rng, code, level)
        yield Problem(task.question, task.gt, task.answer, task.trace, code, kind, level)


def _belongs(task: Task, split: str) -> bool:
    """Training sees no held-out problem, nor the mirror image of one."""
    if split == "held-out":
        return is_held_out(task.keys[0])
    return not any(map(is_held_out, task.keys))
