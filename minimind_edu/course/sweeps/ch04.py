"""The long experiments of chapter 4: learning rates, schedules, sizes, and how often a fact must be seen."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from matplotlib.figure import Figure

from minimind_edu.config import ModelConfig
from minimind_edu.course import figures
from minimind_edu.course.artifacts import tokenizer
from minimind_edu.course.experiments import train_on_world
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world import Person, SmallWorld
from minimind_edu.data.world.english import ENGLISH
from minimind_edu.data.world.grammar import draw
from minimind_edu.generation import complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import TrainConfig, fit

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BEST_RATE = {"adamw": 3e-3, "muon": 1e-2}
RATE_STEPS = 150
WIDTHS = (32, 64, 128, 192)
TRAINED_STEPS = (50, 100, 200)
EXPOSURES = (1, 4, 16, 64, 256)  # biographies of one person in the training file
PEOPLE_PER_GROUP = 30
FACTS = ("home", "trade", "food", "pet")  # each has ten values, so chance is about a tenth

CELLS = [
    *(
        {"experiment": "rate", "optimizer": optimizer, "learning_rate": rate, "seed": seed}
        for optimizer in ("adamw", "muon")
        for rate in RATES
        for seed in ((1, 2, 3) if rate == BEST_RATE[optimizer] else (1,))
    ),
    *(
        {"experiment": "schedule", "lr_schedule": schedule, "seed": seed}
        for schedule in ("wsd", "constant")
        for seed in (1, 2, 3)
    ),
    *(
        {"experiment": "size", "hidden_size": width, "steps": steps}
        for width in WIDTHS
        for steps in TRAINED_STEPS
    ),
    *({"experiment": "exposure", "seed": seed} for seed in (1, 2, 3)),
]


def run_cell(experiment: str, **settings: object) -> dict[str, object]:
    """Train one model; see the functions below for what comes back."""
    runs = {"rate": rate_run, "schedule": schedule_run, "size": size_run, "exposure": exposure_run}
    return runs[experiment](**settings)


def rate_run(optimizer: str, learning_rate: float, seed: int) -> dict[str, object]:
    """The `edu` shape, trained with one optimizer at one peak rate."""
    return _world_run(
        new_model(128, seed), RATE_STEPS, seed, optimizer=optimizer, learning_rate=learning_rate
    )


def schedule_run(lr_schedule: str, seed: int) -> dict[str, object]:
    """The `edu` shape, trained with another schedule than the cosine of `rate_run`."""
    return _world_run(
        new_model(128, seed), RATE_STEPS, seed, learning_rate=BEST_RATE["muon"], lr_schedule=lr_schedule
    )


def size_run(hidden_size: int, steps: int) -> dict[str, object]:
    """A model of another width, trained with `pretrain`'s settings for some steps."""
    return _world_run(new_model(hidden_size, seed=1), steps, seed=1)


def new_model(hidden_size: int, seed: int) -> MiniMind:
    """The `edu` shape at another width, with heads of 64 as there (narrower models have one head)."""
    torch.manual_seed(seed)
    heads = {"num_attention_heads": max(1, hidden_size // 64), "num_key_value_heads": 1}
    vocab_size = tokenizer(progress=False).vocab_size
    return MiniMind(ModelConfig.preset("edu", hidden_size=hidden_size, vocab_size=vocab_size, **heads))


def _world_run(model: MiniMind, steps: int, seed: int, **settings: object) -> dict[str, object]:
    run = train_on_world(
        model, tokenizer(progress=False), steps, progress=False, seed=seed, device="cpu", **settings
    )
    return {
        "parameters": model.num_parameters(),
        "tokens": run.fit.tokens,
        "seconds": round(run.fit.seconds, 1),
        "loss": round(run.held_out.loss, 4),
        "ratio": round(run.held_out.ratio, 4),
        "curve": [[line["step"], round(line["loss"], 4)] for line in run.metrics if "loss" in line],
    }


def exposure_run(seed: int) -> dict[str, object]:
    """Read biographies once, some people's more often than others', then ask for every fact.

    Returns:
        `recall`: for each of `EXPOSURES` the share of facts that the model completes rightly.
    """
    trained = tokenizer(progress=False)
    groups = exposure_groups(seed)
    model = new_model(128, seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "biographies.jsonl"
        lines = (json.dumps({"text": text}) + "\n" for text in biographies(groups, seed))
        path.write_text("".join(lines), encoding="utf-8")
        records = load_records(path, "pretrain", cache_dir=folder)
        rows = PackedDataset(tokenize(records, trained, "pretrain", folder), 256, seed=seed)
        config = TrainConfig(
            out_dir=folder, batch_size=16, optimizer="muon", learning_rate=1e-2, min_lr_ratio=0.0,
            save_interval=0, seed=seed, device="cpu",
        )  # fmt: skip
        result = fit(model, causal_lm_loss, rows, config, progress=False)
    world = SmallWorld(len(EXPOSURES) * PEOPLE_PER_GROUP, seed=seed, languages=("en",))
    recall = [round(recalled(model, trained, world, people), 4) for people in groups.values()]
    return {"recall": recall, "documents": len(records), "steps": result.step, "tokens": result.tokens}


def exposure_groups(seed: int) -> dict[int, list[Person]]:
    """For each number of biographies, the people who get so many."""
    world = SmallWorld(len(EXPOSURES) * PEOPLE_PER_GROUP, seed=seed, languages=("en",))
    people = [world.person(index) for index in range(world.people)]
    Random(seed).shuffle(people)
    return {
        count: people[group * PEOPLE_PER_GROUP : (group + 1) * PEOPLE_PER_GROUP]
        for group, count in enumerate(EXPOSURES)
    }


def biographies(groups: dict[int, list[Person]], seed: int) -> list[str]:
    """All biographies, each in wordings and an order of its own."""
    world = SmallWorld(len(EXPOSURES) * PEOPLE_PER_GROUP, seed=seed, languages=("en",))
    rng = Random(seed)
    return [
        draw(world.biography(person, "en"), rng)[0]
        for count, people in groups.items()
        for person in people
        for _ in range(count)
    ]


def recalled(model: MiniMind, trained: Tokenizer, world: SmallWorld, people: Sequence[Person]) -> float:
    """Share of facts that greedy completion gets right: the value after every wording's beginning."""
    prompts, values = [], []
    for person in people:
        for fact in FACTS:
            for wording in ENGLISH.facts[fact].wordings:
                beginning = wording.split("{value}")[0].format(name=person.names["en"])
                prompts.append([trained.bos_token_id, *trained.encode(beginning.rstrip())])
                values.append(" " + world.value(person, fact, "en"))
    written = complete(model, prompts, max_new_tokens=6)
    right = [trained.decode(one.tokens).startswith(value) for one, value in zip(written, values, strict=True)]
    return sum(right) / len(right)


# -- figures of the record -----------------------------------------------------------------------------------


def rate_figure(grid: SweepRecord) -> Figure:
    """Loss over floor by peak learning rate for each optimizer: a point a run, lines through their means."""
    figure, axes = figures.new_figure(7.5, 3.4)
    for optimizer, colour in zip(BEST_RATE, figures.COLOURS, strict=False):
        means = []
        for rate in RATES:
            runs = grid.select(experiment="rate", optimizer=optimizer, learning_rate=rate)
            ratios = [numbers["ratio"] for _, numbers in runs]
            axes.plot([rate] * len(ratios), ratios, "o", color=colour)
            means.append(sum(ratios) / len(ratios))
        axes.plot(RATES, means, color=colour, label=optimizer)
    axes.set(
        xscale="log", yscale="log", xlabel="peak learning rate", ylabel=f"loss / floor, {RATE_STEPS} steps"
    )
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    figures.plain_log_ticks(axes, 1.0, max(numbers["ratio"] for _, numbers in grid.select(experiment="rate")))
    axes.legend()
    return figure


def exposure_figure(grid: SweepRecord) -> Figure:
    """Share of facts recalled by how many biographies of the person were read, for each seed."""
    figure, axes = figures.new_figure(7.5, 3.2)
    for cell, numbers in grid.select(experiment="exposure"):
        axes.plot(EXPOSURES, numbers["recall"], "o-", label=f"seed {cell['seed']}")
    axes.axhline(0.1, linestyle="--", color=figures.GREY, label="chance")
    axes.set(
        xscale="log", xlabel="biographies of the person", ylabel="facts completed rightly", ylim=(0, 1.05)
    )
    axes.set_xticks(EXPOSURES, [str(count) for count in EXPOSURES])
    axes.minorticks_off()
    axes.legend()
    return figure


def size_figure(grid: SweepRecord) -> Figure:
    """What the loss has above its floor by tokens, for each width."""
    figure, axes = figures.new_figure(7.5, 3.6)
    for width in WIDTHS:
        runs = [numbers for _, numbers in grid.select(experiment="size", hidden_size=width)]
        label = f"{runs[0]['parameters'] / 1e6:.2f}M parameters"
        axes.plot(
            [run["tokens"] / 1e3 for run in runs], [run["ratio"] - 1 for run in runs], "o-", label=label
        )
    axes.set(xscale="log", yscale="log", xlabel="thousand tokens trained on", ylabel="loss / floor - 1")
    ticks = [round(run["tokens"] / 1e3) for run in runs]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.legend()
    return figure
