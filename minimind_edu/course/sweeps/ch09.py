"""The long experiments of chapter 9: thinking against answering at once, weighted tags, and GRPO.

All of them are about sums of up to three digits in both languages. Sums that models are tested on are held
out: no training record asks for them, not the other way round either.
"""

import dataclasses
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from minimind_edu.course import artifacts
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.data.cache import cached_folder
from minimind_edu.data.problems import Problem, problems
from minimind_edu.data.records import load_records
from minimind_edu.model.transformer import MiniMind
from minimind_edu.sampling import Sampling
from minimind_edu.stages.grpo import Group, GRPOConfig, train_grpo
from minimind_edu.stages.reasoning import ReasonConfig, TagPositions, tagged, weighted_lm_loss
from minimind_edu.stages.setup import fit_stage, load_model, model_digest, packed_rows, save_model
from minimind_edu.stages.solving import Solved, accuracy, format_share, mean_pass_at_k, solve
from minimind_edu.stages.verify import extract_answer, loose_verify, rewards, verify
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import FitResult

SEEDS = (1, 2, 3)
LONGEST = 160  # tokens of an answer; a whole one of three digits has about 125
THINK = {True: {"max_steps": 300}, False: {"max_steps": 380}}  # answers at once get more tokens
TAG_WEIGHTS, TAG_FIRST, TAG_STEPS, TAG_RATE = (1, 3, 10, 30), 16, 50, 5e-3
ROWS = 8  # of 512 tokens, in a step of a cold start
CARELESS, START_STEPS = 0.6, 360  # share of the start's records with a wrong answer; its steps
RL = {"prompts_per_step": 16, "group_size": 8, "learning_rate": 1e-4, "max_steps": 40, "dtype": "auto"}
HEDGING_STEPS = 60
BETA = 1e-3  # so small that it only measures the KL
VARIANTS = ("grpo", "dr_grpo", "dapo", "cispo")
SAMPLES = 8
KS = (1, 2, 4, 8)

CELLS = [
    *({"experiment": "reason", "thinking": thinking, "seed": seed} for seed in SEEDS for thinking in THINK),
    *({"experiment": "tags", "weight": weight, "seed": seed} for seed in SEEDS for weight in TAG_WEIGHTS
      if seed == 1 or weight in (1, 10)),
    *({"experiment": "grpo", "seed": seed} for seed in SEEDS),
    *({"experiment": "variant", "variant": variant, "seed": 1} for variant in VARIANTS),
    *({"experiment": "fool", "check": check, "seed": 1} for check in ("loose", "exact")),
    {"experiment": "weak", "digits": 4, "seed": 1},
]  # fmt: skip


def run_cell(experiment: str, seed: int, **settings: Any) -> dict[str, object]:
    """Train one model and measure it; what comes out depends on the experiment (see the functions below)."""
    run = {
        "reason": think,
        "tags": weigh_tags,
        "grpo": partial(reinforce, beta=BETA),
        "variant": partial(reinforce, updates_per_rollout=4, max_steps=24),
        "fool": fool,
        "weak": weak,
    }
    return run[experiment](seed=seed, **settings)


# -- cold starts ---------------------------------------------------------------------------------------------


def cold_start(
    model: MiniMind,
    tokenizer: Tokenizer,
    records: Iterable[dict],
    on_log: Callable[[dict[str, float]], None] | None = None,
    progress: bool = False,
    **changes: object,
) -> FitResult:
    """Fine-tune a model in place on conversations, as `minimind-edu reason` does.

    Args:
        changes: fields of `ReasonConfig`.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "records.jsonl"
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        path.write_text("".join(lines), encoding="utf-8")
        config = ReasonConfig(
            data_path=str(path), out_dir=f"{folder}/run", cache_dir=f"{folder}/cache", val_fraction=0.005,
            save_interval=0, device="cpu", **{"batch_size": ROWS, "epochs": 100} | changes,
        )  # fmt: skip
        found = load_records(path, "sft", cache_dir=config.cache_dir)
        data = tagged(packed_rows(config, "sft", found, tokenizer, show=progress), tokenizer, config)
        return fit_stage(config, data, model, weighted_lm_loss, progress, on_log)[0]


def training_records(thinking: bool, count: int) -> list[dict]:
    """Three-digit sums, worked out digit by digit or answered at once."""
    return [problem.record(thinking) for problem in problems("sums", count, 3)]


def held_out(count: int, digits: int = 3) -> list[Problem]:
    """Sums that no training saw."""
    return list(problems("sums", count, digits, split="held-out", seed=1))


def greedy(
    model: MiniMind, tokenizer: Tokenizer, thinking: bool | None = None, count: int = 200
) -> dict[str, float]:
    """Greedy answers to held-out three-digit sums: share of right ones, share in the layout, mean tokens."""
    found = solve(model, tokenizer, held_out(count), thinking=thinking, max_new_tokens=LONGEST)
    tokens = sum(sum(one.tokens) for one in found) / count
    return {
        "accuracy": round(accuracy(found)[()], 4),
        "format": round(format_share(found), 4),
        "tokens": round(tokens, 1),
    }


def think(thinking: bool, seed: int) -> dict[str, object]:
    """The base model after learning to think first, or to answer at once."""
    model, tokenizer = artifacts.base_model(progress=False)
    records = training_records(thinking, 12_000)
    result = cold_start(
        model, tokenizer, records, tag_weight=1, seed=seed, log_interval=1000, **THINK[thinking]
    )
    # A direct answer follows an empty block of thoughts, as in its training.
    measured = greedy(model, tokenizer, thinking=None if thinking else False)
    seconds = round(result.seconds, 1)
    return measured | {"labelled": result.tokens, "steps": result.step, "seconds": seconds}


def weigh_tags(weight: float, seed: int, progress: bool = False) -> dict[str, object]:
    """The first steps of a cold start with one tag weight: what they teach of the layout, and of the rest.

    Returns:
        `steps`, and at each of them `tags` (see `tags_known`), and `cross_entropy` of a training batch, every
        token counted once; at the end `sampled`, the share of such answers in the layout.
    """
    model, tokenizer = artifacts.base_model(progress=False)
    seen: dict[str, list[float]] = {"steps": [], "tags": [], "cross_entropy": []}

    def look(line: dict[str, float]) -> None:
        if "loss" in line and line["step"] >= TAG_FIRST:
            seen["steps"].append(line["step"])
            seen["tags"].append(tags_known(model, tokenizer))
            seen["cross_entropy"].append(round(line.get("cross_entropy", line["loss"]), 4))

    cold_start(
        model, tokenizer, training_records(True, 3_000), look, progress, tag_weight=weight, seed=seed,
        max_steps=TAG_STEPS, log_interval=2, lr_schedule="constant", learning_rate=TAG_RATE,
    )  # fmt: skip
    drawn = solve(model, tokenizer, held_out(100), 2, Sampling(1.0), max_new_tokens=LONGEST)
    return seen | {"sampled": round(format_share(drawn), 4)}


@torch.no_grad()
def tags_known(model: MiniMind, tokenizer: Tokenizer, count: int = 48) -> float:
    """Share of held-out answers whose every tag the model would write, if shown the text before it."""
    find = TagPositions(tokenizer)
    encoded = [tokenizer.encode_chat(one.record()["conversations"]) for one in held_out(count)]
    tags = [torch.from_numpy(find(one.input_ids, one.assistant_mask)[0]) for one in encoded]
    ids, is_tag = (
        pad_sequence(rows, batch_first=True)
        for rows in ([torch.tensor(one.input_ids) for one in encoded], tags)
    )
    was_training = model.training
    likeliest = model.eval()(ids).logits[:, :-1].argmax(dim=-1)
    model.train(was_training)
    right = (likeliest == ids[:, 1:]) | ~is_tag[:, 1:]
    return round(float(right.all(dim=1).float().mean()), 4)


def slip(problem: Problem) -> dict:
    """A record whose thoughts are right, and whose answer has one wrong digit."""
    rng, answer = random.Random(problem.question), problem.answer
    at = rng.randrange(len(answer))
    wrong = rng.choice([digit for digit in "0123456789" if digit != answer[at] and (at or digit != "0")])
    return dataclasses.replace(problem, answer=answer[:at] + wrong + answer[at + 1 :]).record()


# -- reinforcement learning ----------------------------------------------------------------------------------


def start_model(progress: bool = False) -> tuple[MiniMind, Tokenizer]:
    """The model that reinforcement learning starts from: it can add, but has learned to answer carelessly.

    Made once, then found in the cache; about three minutes on one core.
    """

    def build(folder: Path) -> dict:
        model, tokenizer = artifacts.base_model(progress)
        rng = random.Random(0)
        asked = problems("sums", 12_000, (2, 3))
        records = [slip(one) if rng.random() < CARELESS else one.record() for one in asked]
        result = cold_start(model, tokenizer, records, progress=progress, tag_weight=1, max_steps=START_STEPS)
        save_model(model, tokenizer, folder / "model")
        return {"steps": result.step}

    base, _ = artifacts.base_model(progress)
    key = f"reasoning-{CARELESS}-{START_STEPS}-{model_digest(base)[:16]}"
    return load_model(cached_folder(None, key, build)[0])


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


# -- for the chapter -----------------------------------------------------------------------------------------


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


def tag_gain(grid: SweepRecord) -> float:
    """Share of answers whose tags are known, mean over steps: weight 10 minus 1, least of three seeds."""
    pairs = (_by_weight(grid, "tags", seed) for seed in SEEDS)
    return min(heavy - light for heavy, light in pairs)


def tag_cost(grid: SweepRecord) -> float:
    """Loss of all tokens, a mean over the steps: weight 10 over weight 1, least of three seeds."""
    pairs = (_by_weight(grid, "cross_entropy", seed) for seed in SEEDS)
    return min(heavy / light for heavy, light in pairs)


def layout_by_weight(grid: SweepRecord) -> dict[int, list[float]]:
    """Share of sampled answers in the layout after the last step, for every weight a list of runs."""
    shares: dict[int, list[float]] = {}
    for cell, numbers in grid.select(experiment="tags"):
        shares.setdefault(cell["weight"], []).append(numbers["sampled"])
    return shares


def _by_weight(grid: SweepRecord, name: str, seed: int) -> list[float]:
    found = (grid.find(experiment="tags", weight=weight, seed=seed)[name] for weight in (10, 1))
    return [sum(values) / len(values) for values in found]
