"""The long experiments of chapter 5: how much fine-tuning, at which rate, with what replayed, on which base.

All start from a base model that read the pretraining file once (1.28M tokens), so that an amount of
fine-tuning can be stated as a share of the pretraining tokens: tokens in the rows that were read, in both.
The file of conversations has 0.08M tokens; it is read as often as an amount takes, in batches of 5 rows of
256 tokens, which are 0.1% of the pretraining tokens.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random

import torch
from matplotlib.figure import Figure

from minimind_edu.config import ModelConfig
from minimind_edu.course import figures
from minimind_edu.course.artifacts import tokenizer
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.data.cache import cached_folder
from minimind_edu.data.packing import IGNORE_INDEX
from minimind_edu.data.records import load_records
from minimind_edu.data.sampling import SampleConfig, sample
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.files import WORLD_VERSION, default_file
from minimind_edu.evaluation import answer_questions, exact_match, perplexity
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import PretrainConfig, causal_lm_loss
from minimind_edu.stages.setup import StageData, fit_stage, packed_rows, save_model
from minimind_edu.stages.sft import SFTConfig, sft_rows
from minimind_edu.training import Batch, LossFunction

AMOUNTS = (0.001, 0.01, 0.1, 1.0)  # tokens read in fine-tuning over tokens read in pretraining
RATES = (1e-5, 1e-4, 1e-3, 5e-3)
USUAL_RATE = 1e-3
BATCH = 5  # rows
SHARES = (0.1, 0.5)  # of the rows, replayed
COUNTS = (36, 360)  # conversations in a small file: 0.1% and 1% of the pretraining tokens
QUESTIONS = 0.4  # part of the questions that are asked
DOCUMENTS = 300  # held-out documents that the pretraining loss is measured on
GROUPS = ("untrained en", "untrained zh", "trained en", "trained zh")

CELLS = [
    *(
        {"experiment": "amount", "amount": amount, "learning_rate": rate, "seed": seed}
        for amount in AMOUNTS
        for rate in RATES
        for seed in ((1, 2, 3) if rate >= USUAL_RATE and amount <= 0.1 else (1,))
    ),
    *(
        {"experiment": "amount", "amount": amount, "learning_rate": USUAL_RATE, "seed": seed}
        for amount, seeds in ((0.03, (1, 2, 3)), (0.3, (1,)))
        for seed in seeds
    ),
    *({"experiment": "replay", "share": share, "seed": seed} for share in SHARES for seed in (1, 2, 3)),
    *(
        {"experiment": "broken", "part": part, "seed": seed}
        for part in ("mask", "boundaries")
        for seed in (1, 2, 3)
    ),
    *({"experiment": "file", "count": count, "seed": seed} for count in COUNTS for seed in (1, 2, 3)),
    *({"experiment": "base", "seed": seed} for seed in (1, 2, 3)),
    {"experiment": "replay", "share": 0.1, "seed": 1, "amount": 1.0},
]


def run_cell(experiment: str, **settings: object) -> dict[str, object]:
    """Fine-tune one model; see the functions below for what comes back."""
    runs = {
        "amount": amount_run,
        "replay": replay_run,
        "broken": broken_run,
        "file": file_run,
        "base": base_run,
    }
    return runs[experiment](**settings)


def amount_run(amount: float, learning_rate: float, seed: int) -> dict[str, object]:
    """Fine-tuning with an amount of tokens at a rate.

    Returns:
        `before` and `after`, `measure` of the model; `tokens` in the rows that were read, `labelled` of them.
    """
    model, facts = one_epoch_base()
    return {"before": facts["measured"]} | tuned(
        model, facts["rows"], amount, seed, learning_rate=learning_rate
    )


def replay_run(share: float, seed: int, amount: float = 0.1) -> dict[str, object]:
    """A share of the rows replayed, on top of the amount: as many conversations as without."""
    model, facts = one_epoch_base()
    return {"before": facts["measured"]} | tuned(model, facts["rows"], amount, seed, replay_share=share)


def broken_run(part: str, seed: int) -> dict[str, object]:
    """The amount of 10% with the loss on all tokens, or with documents that see those before them."""
    model, facts = one_epoch_base()
    return {"before": facts["measured"]} | tuned(model, facts["rows"], 0.1, seed, loss=BROKEN_LOSSES[part])


def loss_on_all_tokens(model: MiniMind, batch: Batch) -> tuple[torch.Tensor, Mapping[str, object]]:
    """`causal_lm_loss` where the loss mask was forgotten: questions and headers are learned too."""
    documents, labels = batch["document_ids"], batch["input_ids"].clone()
    labels[documents < 0] = IGNORE_INDEX  # padding
    labels[:, 1:][documents[:, 1:] != documents[:, :-1]] = IGNORE_INDEX  # the first token of a document
    return causal_lm_loss(model, batch | {"labels": labels})


def loss_across_documents(model: MiniMind, batch: Batch) -> tuple[torch.Tensor, Mapping[str, object]]:
    """`causal_lm_loss` where the document mask was forgotten: a document sees those before it in the row."""
    return causal_lm_loss(model, batch | {"document_ids": torch.zeros_like(batch["document_ids"])})


BROKEN_LOSSES = {"mask": loss_on_all_tokens, "boundaries": loss_across_documents}


def file_run(count: int, seed: int) -> dict[str, object]:
    """The amount of 10% read from a file of so many conversations, sampled from the whole one.

    Returns:
        As `amount_run`, and `file_tokens`: of the conversations in the sample.
    """
    model, facts = one_epoch_base()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/sample.jsonl"
        sample(SampleConfig(out_path=path, count=count, seed=seed))
        records = load_records(path, "sft", cache_dir=folder)
        tokens = tokenize(records, tokenizer(progress=False), "sft", folder).num_tokens
        numbers = tuned(model, facts["rows"], 0.1, seed, data_path=path, cache_dir=folder)
    return {"before": facts["measured"], "file_tokens": tokens} | numbers


def base_run(seed: int) -> dict[str, object]:
    """The amount of 100% for a base with random weights, which never read a document."""
    model = new_model(seed)
    rows = one_epoch_base()[1]["rows"]
    return {"before": measure(model)} | tuned(model, rows, 1.0, seed, batch_size=16)


def tuned(
    model: MiniMind,
    pretraining_rows: int,
    amount: float,
    seed: int,
    batch_size: int = BATCH,
    learning_rate: float = USUAL_RATE,
    replay_share: float = 0.0,
    loss: LossFunction = causal_lm_loss,
    **files: str,
) -> dict[str, object]:
    """Fine-tune a model in place and measure it.

    Args:
        amount: rows of conversations to read, as a share of `pretraining_rows`. Replayed rows come on top.
        files: settings of `SFTConfig` that say where data are.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        config = SFTConfig(
            out_dir=folder, batch_size=batch_size, learning_rate=learning_rate, replay_share=replay_share,
            seed=seed, save_interval=0, device="cpu", **files,
        )  # fmt: skip
        data = sft_rows(config, tokenizer(progress=False), show=False)
        rows = amount * pretraining_rows / (1 - replay_share)
        config.max_steps = max(1, round(rows / batch_size))
        config.warmup_iters = min(20, config.max_steps // 10)
        result, _ = fit_stage(config, without_validation(data), model, loss, False, None)
    return {
        "after": measure(model),
        "steps": result.step,
        "tokens": result.step * batch_size * config.max_seq_len,
        "labelled": result.tokens,
        "seconds": round(result.seconds, 1),
    }


def without_validation(data: StageData) -> StageData:
    """The same training rows; the sweep measures for itself."""
    return dataclasses.replace(data, validation=None)


def measure(model: MiniMind) -> dict[str, float]:
    """Exact match in each of `GROUPS`, and `loss`: that on pretraining documents over its floor."""
    trained = tokenizer(progress=False)
    asked = answer_questions(model, trained, default_file("eval_facts.jsonl"), keep=is_asked)
    groups = exact_match(asked, "seen", "language")
    right = {group: groups[group.startswith("trained"), group.split()[1]] for group in GROUPS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.jsonl"
        with default_file("eval_pretrain.jsonl").open(encoding="utf-8") as lines:
            path.write_text("".join(line for _, line in zip(range(DOCUMENTS), lines, strict=False)), "utf-8")
        ratio = perplexity(model, trained, path, cache_dir=folder).ratio
    return {name: round(value, 4) for name, value in (right | {"loss": ratio}).items()}


def is_asked(record: Mapping[str, object]) -> bool:
    """Whether a question is one of those that are asked: the same choice in every cell."""
    return Random(record["conversations"][0]["content"]).random() < QUESTIONS


# -- base models ---------------------------------------------------------------------------------------------


def one_epoch_base(progress: bool = False) -> tuple[MiniMind, dict[str, object]]:
    """A model that read the pretraining file once; how many `rows` those were, and what it `measured`.

    It is built the first time, in about a minute on two cores, and kept in the user's cache folder.
    """

    def build(folder: Path) -> dict:
        model, trained = new_model(PretrainConfig.seed), tokenizer(progress=False)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as run:
            config = PretrainConfig(out_dir=run, epochs=1, save_interval=0, device="cpu")
            records = load_records(default_file("pretrain.jsonl"), "pretrain")
            data = packed_rows(config, "pretrain", records, trained, show=False)
            fit_stage(config, without_validation(data), model, causal_lm_loss, progress, None)
        save_model(model, trained, folder / "model")
        return {"rows": len(data.train), "measured": measure(model)}

    folder, facts = cached_folder(None, f"chapter-5-base-world{WORLD_VERSION}-v2", build)
    return MiniMind.from_pretrained(folder / "model"), facts


def new_model(seed: int) -> MiniMind:
    """A model of the same shape with random weights."""
    torch.manual_seed(seed)
    return MiniMind(ModelConfig.preset("edu", vocab_size=tokenizer(progress=False).vocab_size))


# -- figures and tables of the record ------------------------------------------------------------------------


def untrained(numbers: Mapping[str, dict[str, float]]) -> float:
    """Exact match on the people who were never asked about, both languages alike."""
    return (numbers["after"]["untrained en"] + numbers["after"]["untrained zh"]) / 2


def trained(numbers: Mapping[str, dict[str, float]]) -> float:
    """Exact match on the people whom the conversations ask about, both languages alike."""
    return (numbers["after"]["trained en"] + numbers["after"]["trained zh"]) / 2


def lost(numbers: Mapping[str, dict[str, float]]) -> float:
    """Loss over floor on pretraining documents."""
    return numbers["after"]["loss"]


MEASURES = {"untrained people": untrained, "trained people": trained, "loss / floor on documents": lost}


def replayed(grid: SweepRecord, share: float) -> list[dict]:
    """The runs of the three seeds with a share of replayed rows (0: none), at the amount of 10%."""
    if not share:
        runs = grid.select(experiment="amount", amount=0.1, learning_rate=USUAL_RATE)
    else:
        runs = [one for one in grid.select(experiment="replay", share=share) if "amount" not in one[0]]
    return [numbers for _, numbers in runs]


def amount_figure(grid: SweepRecord) -> Figure:
    """Answers gained and loss lost by the amount of fine-tuning: a point a run, lines through their means."""
    figure, axes = figures.new_figure(7.8, 3.5, columns=3)
    for panel, (name, measured) in zip(axes, MEASURES.items(), strict=True):
        for rate, colour in zip(RATES, figures.COLOURS, strict=False):
            runs = grid.select(experiment="amount", learning_rate=rate)
            points = sorted((cell["amount"], measured(numbers)) for cell, numbers in runs)
            panel.plot(*zip(*points, strict=True), "o", color=colour, markersize=4)
            amounts = sorted({amount for amount, _ in points})
            groups = [[value for amount, value in points if amount == one] for one in amounts]
            panel.plot(
                amounts, [sum(group) / len(group) for group in groups], color=colour, label=f"{rate:g}"
            )
        panel.set(xscale="log", xlabel="tokens, % of pretraining")
        panel.set_title(name, fontsize=10)
        panel.set_xticks(AMOUNTS, [f"{amount:.1%}".replace(".0%", "%") for amount in AMOUNTS])
        panel.minorticks_off()
    for panel in axes[:2]:
        panel.set_ylim(-0.04, 1.04)
    axes[0].set_ylabel("exact match")
    axes[2].set_yscale("log")
    axes[2].set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes[2].minorticks_off()
    with figures.style():
        axes[2].legend(title="learning rate", fontsize=8, title_fontsize=8)
    return figure


def replay_figure(grid: SweepRecord) -> Figure:
    """The same measures by the share of replayed rows, for three seeds."""
    figure, axes = figures.new_figure(7.8, 2.8, columns=3)
    shares = (0.0, *SHARES)
    for panel, (name, measured) in zip(axes, MEASURES.items(), strict=True):
        runs = [[measured(numbers) for numbers in replayed(grid, share)] for share in shares]
        for seed in range(3):
            panel.plot(range(3), [group[seed] for group in runs], "o-", label=f"seed {seed + 1}")
        panel.set(xlabel="rows replayed")
        panel.set_title(name, fontsize=10)
        panel.set_xticks(range(3), [f"{share:.0%}" for share in shares])
    for panel in axes[:2]:
        panel.set_ylim(0, 1.04)
    axes[2].set_ylim(bottom=1)
    axes[0].set_ylabel("exact match")
    with figures.style():
        axes[2].legend()
    return figure
