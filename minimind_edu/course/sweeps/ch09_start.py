"""Chapter 9: cold starts. Thinking against answering at once, weighted tags, and the start of GRPO.

All are about sums of up to three digits in both languages. Sums that models are tested on are held out: no
training record asks for them, not the other way round either.
"""

import dataclasses
import json
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from minimind_edu.course import artifacts
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.data.cache import cached_folder
from minimind_edu.data.problems import Problem, problems
from minimind_edu.data.records import load_records
from minimind_edu.data.world.stages import conversation
from minimind_edu.model.transformer import MiniMind
from minimind_edu.sampling import Sampling
from minimind_edu.stages.reasoning import ReasonConfig, TagPositions, tagged, weighted_lm_loss
from minimind_edu.stages.setup import fit_stage, load_model, model_digest, packed_rows, save_model
from minimind_edu.stages.solving import accuracy, format_share, solve
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import FitResult

SEEDS = (1, 2, 3)
LONGEST = 160  # tokens of an answer; a whole one of three digits has about 125
THINK = {True: {"max_steps": 300}, False: {"max_steps": 380}}  # answers at once get more tokens
TAG_WEIGHTS, TAG_FIRST, TAG_STEPS, TAG_RATE = (1, 3, 10, 30), 16, 50, 5e-3
BARE_STEPS, LAYOUT = 150, {"first": 40, "last": 96, "every": 8}  # a start without tags; steps to look at
ROWS = 8  # of 512 tokens, in a step of a cold start
CARELESS, START_STEPS = 0.6, 360  # share of the start's records with a wrong answer; its steps


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
    model: MiniMind, tokenizer: Tokenizer, thinking: bool | None = None, digits: int = 3, count: int = 200
) -> dict[str, float]:
    """Greedy answers to held-out sums: share of right ones, share in R1's layout, mean tokens.

    Answers without thoughts are not in that layout, whatever they are worth.
    """
    found = solve(model, tokenizer, held_out(count, digits), thinking=thinking, max_new_tokens=LONGEST)
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
    tags = [torch.from_numpy(find(one.input_ids, one.assistant_mask)) for one in encoded]
    ids, is_tag = (
        pad_sequence(rows, batch_first=True)
        for rows in ([torch.tensor(one.input_ids) for one in encoded], tags)
    )
    was_training = model.training
    likeliest = model.eval()(ids).logits[:, :-1].argmax(dim=-1)
    model.train(was_training)
    right = (likeliest == ids[:, 1:]) | ~is_tag[:, 1:]
    return round(float(right.all(dim=1).float().mean()), 4)


def bare(problem: Problem) -> dict:
    """A record with the thoughts and the answer, and without a tag."""
    return {"conversations": conversation(problem.question, f"{problem.trace}\n{problem.answer}")}


def fluent_model(progress: bool = False) -> tuple[MiniMind, Tokenizer]:
    """A model that can think, and knows no tag; made once, then found in the cache."""

    def build(folder: Path) -> dict:
        model, tokenizer = artifacts.base_model(progress)
        records = map(bare, problems("sums", 4_000, 2))
        result = cold_start(model, tokenizer, records, progress=progress, tag_weight=1, max_steps=BARE_STEPS)
        save_model(model, tokenizer, folder / "model")
        return {"steps": result.step}

    base, _ = artifacts.base_model(progress)
    return load_model(
        cached_folder(None, f"sweep-09-fluent-{BARE_STEPS}-{model_digest(base)[:16]}", build)[0]
    )


def learn_layout(weight: float, seed: int, count: int = 96) -> dict[str, object]:
    """The first steps of a cold start of a model that already thinks: two-digit sums, AdamW, small batches.

    Returns:
        `steps`, and at each of them the shares of `greedy` and of `sampled` answers in the layout of R1.
    """
    model, tokenizer = fluent_model()
    asked = held_out(count, 2)
    seen: dict[str, list[float]] = {"steps": [], "greedy": [], "sampled": []}

    def look(line: dict[str, float]) -> None:
        if "loss" not in line or line["step"] < LAYOUT["first"]:
            return
        seen["steps"].append(line["step"])
        model.eval()
        for name, sampling in (("greedy", Sampling()), ("sampled", Sampling(1.0))):
            found = solve(model, tokenizer, asked, 1, sampling, max_new_tokens=110)
            seen[name].append(round(format_share(found), 4))
        model.train()

    records = (one.record() for one in problems("sums", 4_000, 2))
    cold_start(
        model, tokenizer, records, look, tag_weight=weight, seed=seed, batch_size=4, optimizer="adamw",
        learning_rate=1e-3, lr_schedule="constant", max_steps=LAYOUT["last"], log_interval=LAYOUT["every"],
    )  # fmt: skip
    return seen


def slip(problem: Problem) -> dict:
    """A record whose thoughts are right, and whose answer has one wrong digit."""
    rng, answer = random.Random(problem.question), problem.answer
    at = rng.randrange(len(answer))
    wrong = rng.choice([digit for digit in "0123456789" if digit != answer[at] and (at or digit != "0")])
    return dataclasses.replace(problem, answer=answer[:at] + wrong + answer[at + 1 :]).record()


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
