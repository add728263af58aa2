"""Chapter 6: an adapter against full fine-tuning on the clinic, and what each costs in old answers.

Every run starts from the chat model, takes the same number of steps on the same rows, and is asked the
clinic's held-out questions and the questions about people.
"""

import copy
import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from minimind_edu.course import artifacts, figures
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import answer_questions, exact_match, reply
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages import lora
from minimind_edu.stages.lora_layers import ALL_LINEAR
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training import TrainConfig, fit

STEPS, LONGER = 600, 1500
MLP = ("gate_proj", "up_proj", "down_proj")
TARGETS = {"mlp": MLP, "all": ALL_LINEAR}
RATES = {"full": (3e-4, 1e-3, 3e-3), "lora": (1e-2, 2e-2, 4e-2)}
BEST = {"full": 1e-3, "lora": 2e-2}
RANK, SEEDS = 2, (1, 2, 3)
HIGHER = (4, 8, 32)

FULL = {
    "method": "full", "learning_rate": BEST["full"], "rank": 0, "targets": "",
    "rows": True, "replay": 0, "steps": STEPS,
}  # fmt: skip
PLAIN = FULL | {"method": "lora", "learning_rate": BEST["lora"], "rank": RANK, "targets": "mlp"}
WIDER = PLAIN | {"learning_rate": 1e-2, "rank": 8, "targets": "all"}
CELLS = [
    *(best | {"seed": seed} for best in (FULL, PLAIN, WIDER) for seed in SEEDS),
    PLAIN | {"rows": False, "seed": 1},
    *(best | {"replay": 128, "seed": 1} for best in (FULL, WIDER)),
    *(
        best | {"learning_rate": rate, "seed": 1}
        for best in (FULL, PLAIN)
        for rate in RATES[best["method"]]
        if rate != best["learning_rate"]
    ),
    PLAIN | {"steps": LONGER, "seed": 1},
    PLAIN | {"rank": 1, "targets": "all", "seed": 1},  # the other way to spend 2%
    *(WIDER | {"rank": rank, "seed": 1} for rank in HIGHER if rank != WIDER["rank"]),
    *(WIDER | {"targets": "mlp", "seed": seed} for seed in SEEDS),
]


def run_cell(**settings: Any) -> dict[str, Any]:
    """Train one model of the grid and question it."""
    return train(**settings)[1]


def train(
    method: str,
    learning_rate: float,
    rank: int,
    targets: str,
    rows: bool,
    replay: int,
    steps: int,
    seed: int,
    progress: bool = False,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[MiniMind, dict[str, Any]]:
    """As `run_cell`, but it returns the model too (with its adapter attached), and can show the training.

    Args:
        method: "full", or "lora" with `rank` in the matrices that `targets` names: "mlp" or "all".
        rows: whether LoRA also trains the embedding rows of tokens that the model never met.
        replay: how many old conversations are mixed in.
    """
    model, tokenizer = artifacts.chat_model(progress=progress)
    data = clinic_rows(tokenizer, replay, order=seed - 1)
    torch.manual_seed(seed)
    if method == "lora":
        tokens = new_tokens(tokenizer) if rows else ()
        lora.apply_lora(model, rank, 2.0 * rank, TARGETS[targets], tokens=tokens)
    trainable, total = lora.count_trainable(model)
    loss = fit_rows(model, data, steps, learning_rate, seed, progress, on_log)
    numbers = {"trainable": trainable, "total": total, "loss": loss}
    return model, numbers | question(model, tokenizer)


def clinic_rows(tokenizer: Tokenizer, replay: int = 0, order: int = 0) -> PackedDataset:
    """The clinic's 128 conversations in rows, with so many of the old ones among them; `order` is a seed."""
    records = load_records(default_file("lora_clinic.jsonl"), "sft")
    if replay:
        records = lora.with_replay(records, load_records(default_file("sft.jsonl"), "sft"), replay, seed=0)
    return PackedDataset(tokenize(records, tokenizer, "sft"), 256, seed=order)


def predicted(tokenizer: Tokenizer, kind: str) -> set[int]:
    """The tokens that are ever the target of a prediction in the world's "pretrain" or "sft" file."""
    docs = tokenize(load_records(default_file(f"{kind}.jsonl"), kind), tokenizer, kind)
    return set(np.unique(docs.tokens if docs.mask is None else docs.tokens[docs.mask == 1]).tolist())


def clinic_tokens(tokenizer: Tokenizer) -> set[int]:
    """All tokens of the clinic's conversations."""
    return set(np.unique(clinic_rows(tokenizer).docs.tokens).tolist())


def new_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The clinic's tokens that the chat model never had to predict: it cannot tell them apart."""
    known = predicted(tokenizer, "pretrain") | predicted(tokenizer, "sft")
    return tuple(sorted(clinic_tokens(tokenizer) - known))


def question(model: MiniMind, tokenizer: Tokenizer, every: int = 1) -> dict[str, float]:
    """Exact match on the clinic's held-out questions and on (every n-th of) the facts about people.

    By language, and as "clinic" and "facts" the mean over the languages.
    """
    numbers: dict[str, float] = {}
    for name, step in (("clinic", 1), ("facts", every)):
        order = itertools.count()
        answers = answer_questions(
            model,
            tokenizer,
            default_file(f"eval_{name}.jsonl"),
            keep=lambda _, order=order, step=step: next(order) % step == 0,
        )
        right = {key[0]: value for key, value in exact_match(answers, "language").items()}
        numbers |= {f"{name}_{language}": value for language, value in right.items()}
        numbers[name] = sum(right.values()) / len(right)
    return numbers


def updates(tuned: MiniMind, start: MiniMind) -> dict[str, torch.Tensor]:
    """What training added to every matrix inside the layers, by name: (out, in) each."""
    before = start.state_dict()
    return {
        name: tensor - before[name]
        for name, tensor in tuned.state_dict().items()
        if name.endswith("_proj.weight")
    }


def kept_by_rank(update: torch.Tensor) -> np.ndarray:
    """The share of an update's squared norm that its best approximation of rank 1, 2, … keeps."""
    energy = torch.linalg.svdvals(update).square().cumsum(dim=0)
    return (energy / energy[-1]).numpy()


def cut_to_rank(tuned: MiniMind, start: MiniMind, rank: int) -> MiniMind:
    """The tuned model with every update inside the layers replaced by its best approximation of some rank."""
    model, before = copy.deepcopy(tuned), start.state_dict()
    state = model.state_dict()
    for name, update in updates(tuned, start).items():
        left, values, right = torch.linalg.svd(update, full_matrices=False)
        state[name].copy_(before[name] + left[:, :rank] * values[:rank] @ right[:rank])
    return model


def rate_figure(record: SweepRecord) -> Figure:
    """New and old answers by learning rate, for both methods."""
    figure, axes = figures.new_figure(7.5, 3.2, columns=2, sharey=True)
    for best, colour in ((FULL, figures.BLUE), (PLAIN, figures.ORANGE)):
        for axis, name in zip(axes, ("clinic", "facts"), strict=True):
            rates = RATES[best["method"]]
            values = [record.find(**(best | {"learning_rate": rate, "seed": 1}))[name] for rate in rates]
            label = "full" if best is FULL else f"LoRA, rank {RANK}"
            axis.plot(rates, values, "o-", color=colour, label=label)
    for axis, title in zip(axes, ("new answers (clinic)", "old answers (people)"), strict=True):
        axis.set(title=title, xscale="log", xlabel="learning rate", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("exact match")
    axes[0].legend()
    return figure


def spectrum_figure(tuned: MiniMind, start: MiniMind) -> Figure:
    """The share of an update that each rank keeps: a line for each kind of matrix, the mean over layers."""
    figure, axis = figures.new_figure(7.5, 3.4)
    kinds: dict[str, list[np.ndarray]] = {}
    for name, update in updates(tuned, start).items():
        kinds.setdefault(name.split(".")[-2], []).append(kept_by_rank(update))
    for kind, kept in kinds.items():
        mean = np.mean(kept, axis=0)
        axis.plot(range(1, len(mean) + 1), mean, label=kind)
    random = kept_by_rank(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)))
    axis.plot(range(1, 129), random, "--", color=figures.GREY, label="random 128 × 128")
    axis.set(xscale="log", xlabel="rank", ylabel="share of the squared norm", ylim=(0, 1.02))
    axis.set_xticks((1, 2, 4, 8, 16, 32, 64, 128), ("1", "2", "4", "8", "16", "32", "64", "128"))
    axis.minorticks_off()
    axis.legend(fontsize=8)
    return figure


def add_identity(model: MiniMind, tokenizer: Tokenizer, steps: int = 120, seed: int = 1) -> MiniMind:
    """Give a model a second adapter, "identity", trained on who the assistant is."""
    records = load_records(default_file("lora_identity.jsonl"), "sft")
    data = PackedDataset(tokenize(records, tokenizer, "sft"), 256)
    lora.set_adapter(model, None)
    torch.manual_seed(seed)
    tokens = lora.new_tokens(model, data)
    lora.apply_lora(model, RANK, 2.0 * RANK, MLP, name="identity", tokens=tokens)
    fit_rows(model, data, steps, BEST["lora"], seed)
    return model


def trained_share(model: MiniMind, tokenizer: Tokenizer, file: str) -> float:
    """Exact match on the very questions of a training file."""
    chats = [one["conversations"] for one in load_records(default_file(file), "sft")]
    given = reply(model, tokenizer, [chat[:1] for chat in chats])
    return sum(a.strip() == chat[1]["content"] for a, chat in zip(given, chats, strict=True)) / len(chats)


def fit_rows(
    model: MiniMind,
    data: PackedDataset,
    steps: int,
    learning_rate: float,
    seed: int,
    progress: bool = False,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> float:
    """Train a model in place on rows; it is left on the CPU, in evaluation mode. Returns the last loss."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        config = TrainConfig(
            out_dir=folder, max_steps=steps, batch_size=4, learning_rate=learning_rate, min_lr_ratio=0.0,
            weight_decay=0.0, save_interval=0, seed=seed,
        )  # fmt: skip
        result = fit(model, causal_lm_loss, data, config, progress=progress, on_log=on_log)
    model.cpu().eval()
    return result.train_loss
