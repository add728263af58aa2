"""How many problems a model solves: accuracy by kind of problem, and pass@k.

pass@k, the chance that at least one of k samples is right, tells what a model can do at all from what it does
at once: reinforcement learning may raise the second and leave the first as it is (chapter 9).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minimind_edu.data.problems import Problem
from minimind_edu.generation import complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.sampling import Sampling
from minimind_edu.stages.verify import follows_format, verify
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.tokenizer.thinking import prompt_ids, whole_answer


@dataclass(frozen=True)
class Solved:
    """What a model wrote to one problem.

    Attributes:
        texts: its answers, whole: a block of thoughts that the prompt began is included.
        right: for each, whether `verify` accepts it.
        tokens: for each, how many tokens the model wrote.
    """

    problem: Problem
    texts: tuple[str, ...]
    right: tuple[bool, ...]
    tokens: tuple[int, ...]


def solve(
    model: MiniMind,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    samples: int = 1,
    sampling: Sampling | None = None,
    thinking: bool | None = None,
    max_new_tokens: int = 256,
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Solved]:
    """Let a model solve problems.

    Args:
        samples: answers to each problem; more than one needs a temperature in ``sampling``.
        sampling: default greedy.
        thinking: the switch of `prompt_ids`.
        max_new_tokens: longer answers are cut, and then wrong.
        batch_size: answers at a time.
        progress: called with (answers done, answers in all).

    Raises:
        ValueError: samples or a batch size below 1, or several greedy samples.
    """
    sampling = sampling or Sampling()
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples ({samples}) and batch_size ({batch_size}) must be 1 or more")
    if samples > 1 and sampling.temperature == 0:
        raise ValueError("greedy samples are all the same: several need a temperature above 0")
    asked = [
        prompt_ids(tokenizer, [{"role": "user", "content": problem.question}], thinking)
        for problem in problems
    ]
    jobs = [number for number in range(len(asked)) for _ in range(samples)]
    found: list[tuple[str, int]] = []
    for start in range(0, len(jobs), batch_size):
        batch = [asked[number] for number in jobs[start : start + batch_size]]
        completions = complete(
            model,
            batch,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            eos_token_id=tokenizer.eos_token_id,
            seed=seed + start,
        )
        for prompt, one in zip(batch, completions, strict=True):
            found.append((whole_answer(tokenizer, prompt, one.tokens), len(one.tokens)))
        progress(len(found), len(jobs))
    return [
        _judged(problem, found[number * samples : (number + 1) * samples])
        for number, problem in enumerate(problems)
    ]


def _judged(problem: Problem, found: Sequence[tuple[str, int]]) -> Solved:
    texts, tokens = zip(*found, strict=True)
    return Solved(problem, texts, tuple(verify(text, problem.gt) for text in texts), tokens)


def accuracy(solved: Sequence[Solved], *by: str) -> dict[tuple[object, ...], float]:
    """Share of right answers for every combination of the problems' attributes in ``by``; all together, as
    ``()``, without any.

    Raises:
        AttributeError: problems have no such attribute (they have language, kind, difficulty).
    """
    groups: dict[tuple[object, ...], list[bool]] = {}
    for one in solved:
        groups.setdefault(tuple(getattr(one.problem, name) for name in by), []).extend(one.right)
    return {group: sum(right) / len(right) for group, right in sorted(groups.items())}


def format_share(solved: Sequence[Solved]) -> float:
    """Share of answers that follow the layout of R1."""
    texts = [text for one in solved for text in one.texts]
    return sum(map(follows_format, texts)) / len(texts)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate, from n samples of which c are right, of the chance that one of k is right.

    1 - C(n - c, k) / C(n, k): the share of the choices of k samples that have a right one among them (Chen et
    al., 2021, "Evaluating Large Language Models Trained on Code", equation 1).

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k}: there must be 0 <= c <= n right ones and 1 <= k <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def mean_pass_at_k(solved: Sequence[Solved], k: int) -> float:
    """`pass_at_k`, a mean over problems.

    Raises:
        ValueError: k is larger than the number of samples, or there is no problem.
    """
    if not solved:
        raise ValueError("there is no problem to take a mean over")
    return sum(pass_at_k(len(one.right), sum(one.right), k) for one in solved) / len(solved)
