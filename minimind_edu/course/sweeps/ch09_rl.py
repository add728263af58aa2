"""Chapter 9: GRPO from starts of all kinds, with verifiers that can be fooled and that cannot."""

import dataclasses
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minimind_edu.course.sweeps.ch09_start import LONGEST, cold_start, held_out, slip, start_model
from minimind_edu.data.cache import cached_folder
from minimind_edu.data.problems import Problem, problems
from minimind_edu.model.transformer import MiniMind
from minimind_edu.sampling import Sampling
from minimind_edu.stages.grpo import Group, GRPOConfig, train_grpo
from minimind_edu.stages.setup import load_model, model_digest, save_model
from minimind_edu.stages.solving import Solved, accuracy, mean_pass_at_k, solve
from minimind_edu.stages.verify import extract_answer, loose_verify, rewards, verify
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import FitResult

RL = {"prompts_per_step": 16, "group_size": 8, "learning_rate": 1e-4, "max_steps": 40, "dtype": "auto"}
HEDGING_STEPS = 60
SHARES, SPARSE_STEPS = (0.0, 0.1, 0.3, 0.6, 0.8, 0.97), 60  # of guessed answers in other starts; steps
SAMPLES = 8
KS = (1, 2, 4, 8)


def train(
    model: MiniMind,
    tokenizer: Tokenizer,
    seed: int,
    digits: int | Sequence[int] = 3,
    reward: Callable[[str, str], float] | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_rollout: Callable[[int, list[Group]], None] | None = None,
    progress: bool = False,
    **changes: object,
) -> FitResult:
    """GRPO on sums, in place, with the settings of this chapter.

    Args:
        changes: fields of `GRPOConfig`.
    """
    asked = [problem.rlvr() for problem in problems("sums", 4_000, digits, split="rlvr", seed=seed)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = {"max_new_tokens": LONGEST, "batch_size": 32, "save_interval": 0, "device": "cpu", **RL}
        config = GRPOConfig(out_dir=folder, seed=seed, **settings | changes)
        return train_grpo(model, tokenizer, asked, config, reward, on_log, on_rollout, progress)


def longest(digits: int) -> int:
    """Tokens that an answer may have; a line of thoughts has about 30."""
    return LONGEST + 40 * max(digits - 3, 0)


def sampled(model: MiniMind, tokenizer: Tokenizer, digits: int = 3, count: int = 96) -> dict[str, object]:
    """Eight sampled answers to each of some held-out sums: accuracy, pass@k, tokens; and greedy accuracy."""
    asked = held_out(count, digits)
    most = longest(digits)
    found = solve(model, tokenizer, asked, SAMPLES, Sampling(1.0), max_new_tokens=most)
    best = solve(model, tokenizer, asked, max_new_tokens=most)
    return {
        "accuracy": round(accuracy(found)[()], 4),
        "greedy": round(accuracy(best)[()], 4),
        "pass": [round(mean_pass_at_k(found, k), 4) for k in KS],
        "tokens": round(sum(sum(one.tokens) for one in found) / (count * SAMPLES), 1),
    }


CURVES = ("reward", "accuracy", "answer_tokens", "entropy", "kl", "dead_groups", "clip_share")


def reinforce(
    seed: int, start: Callable[[], tuple[MiniMind, Tokenizer]] | None = None, **changes: Any
) -> dict[str, object]:
    """The start model after GRPO: `before` and `after` as `sampled` has them, and `curves` by step."""
    model, tokenizer = (start or start_model)()
    before, lines = sampled(model, tokenizer, changes.get("digits", 3)), []
    result = train(model, tokenizer, seed, on_log=lines.append, **changes)
    steps = [line for line in lines if "reward" in line]
    curves = {name: [round(float(line[name]), 4) for line in steps if name in line] for name in CURVES}
    after = sampled(model, tokenizer, changes.get("digits", 3))
    return {"before": before, "after": after, "curves": curves, "seconds": round(result.seconds, 1)}


def weak(seed: int, digits: int) -> dict[str, object]:
    """The same on sums that the start model was never taught."""
    return reinforce(seed, digits=digits, max_new_tokens=longest(digits), max_steps=15)


def guess(problem: Problem) -> dict:
    """A record whose thoughts are right, and whose answer is any number of as many digits."""
    rng, lowest = random.Random(problem.question), 10 ** (len(problem.answer) - 1)
    return dataclasses.replace(problem, answer=str(rng.randrange(lowest, 10 * lowest))).record()


def sparse(seed: int, guessed: float) -> dict[str, object]:
    """GRPO from the start model after some more steps, on records of which a share has a guessed answer."""

    def start() -> tuple[MiniMind, Tokenizer]:
        model, tokenizer = start_model()
        rng = random.Random(0)
        asked = problems("sums", 4_000, 3, seed=8)
        records = [guess(one) if rng.random() < guessed else one.record() for one in asked]
        cold_start(model, tokenizer, records, tag_weight=1, max_steps=SPARSE_STEPS, learning_rate=5e-3)
        return model, tokenizer

    return reinforce(seed, start=start, max_steps=25)


# -- a verifier that can be fooled ---------------------------------------------------------------------------


def hedged(problem: Problem) -> dict:
    """A record that works a sum out, answers it rightly, and adds another number."""
    other = int(problem.gt) + random.Random(problem.question).choice((-100, -10, -1, 1, 10, 100))
    return dataclasses.replace(problem, answer=f"{problem.gt} {max(other, 0)}").record()


def hedging_model() -> tuple[MiniMind, Tokenizer]:
    """The start model after some more examples, a part of which hedge; made once, then found in the cache."""

    def build(folder: Path) -> dict:
        model, tokenizer = start_model()
        kinds = (hedged, slip, hedged, slip, Problem.record)
        asked = problems("sums", 4_000, 3, seed=9)
        records = [kinds[number % len(kinds)](one) for number, one in enumerate(asked)]
        cold_start(model, tokenizer, records, tag_weight=1, max_steps=HEDGING_STEPS, learning_rate=3e-3)
        save_model(model, tokenizer, folder / "model")
        return {"steps": HEDGING_STEPS}

    key = f"sweep-09-hedging-{HEDGING_STEPS}-{model_digest(start_model()[0])[:16]}"
    return load_model(cached_folder(None, key, build)[0])


def fool(seed: int, check: str) -> dict[str, object]:
    """The hedging model after GRPO with one of the verifiers.

    Returns:
        What `reinforce` does; `cheats`, by step the share of answers that are taken and are wrong;
        and `examples`, some of the last step: [answer, right answer].
    """
    accepts = {"loose": loose_verify, "exact": verify}[check]
    cheats: list[float] = []
    examples: list[list[str]] = []

    def watch(step: int, groups: list[Group]) -> None:
        pairs = [(text, group.gt) for group in groups for text in group.texts]
        wrong = [pair for pair in pairs if accepts(*pair) and not verify(*pair)]
        cheats.append(round(len(wrong) / len(pairs), 4))
        examples[:] = [[str(extract_answer(text)), gt] for text, gt in wrong[:40:5]]

    reward = rewards(check=accepts)
    numbers = reinforce(seed, start=hedging_model, reward=reward, on_rollout=watch, max_steps=25)
    return numbers | {"cheats": cheats, "examples": examples}


def by_digits(model: MiniMind, tokenizer: Tokenizer, count: int = 48) -> dict[int, dict[str, list[Solved]]]:
    """Held-out sums of two to four digits, each answered eight times by sampling and once greedily."""
    found = {}
    for digits in (2, 3, 4):
        asked, most = held_out(count, digits), longest(digits)
        found[digits] = {
            "sampled": solve(model, tokenizer, asked, SAMPLES, Sampling(1.0), max_new_tokens=most),
            "greedy": solve(model, tokenizer, asked, max_new_tokens=most),
        }
    return found
