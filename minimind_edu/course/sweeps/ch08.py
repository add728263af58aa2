"""The long experiments of chapter 8: what a student learns from labels, from its teacher, and from both.

The teacher is the course's base model, which read 30,000 documents four times. Its student has half the width
and half the layers, and sees 1,000 of these documents about fifteen times: too few to learn the world from
labels alone.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts, figures
from minimind_edu.course.experiments import held_out_loss, train_on_world
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.data.cache import MANIFEST, cached_folder
from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset, collate
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.files import default_file
from minimind_edu.generation import Sampling, complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.distill import DistillConfig, distill
from minimind_edu.stages.divergence import divergence_of, full_divergence
from minimind_edu.stages.setup import StageResult, load_model, model_digest, save_model
from minimind_edu.tokenizer import Tokenizer

SEEDS = (1, 2, 3)
DOCUMENTS, STEPS, BATCH = 1_000, 300, 8  # documents there are; steps of so many rows of 256 tokens
WRITTEN = 5_000  # documents that the teacher writes in black-box distillation
MOE_STEPS = 150
SECOND_STEPS, SECOND_RATE = 100, 3e-3  # for a student that goes on after its first lesson
LESSONS = {
    "labels": {"alpha": 1.0},
    "teacher": {"alpha": 0.0},
    "both": {"alpha": 0.5},
    "written": {"alpha": 1.0},  # on documents that the teacher wrote
}
FEWER_AND_MORE = (3_000, 10_000)
LONGER = 750  # steps of a label-only student: more seconds than a teacher costs in 300

CELLS = [
    *(
        {"experiment": "lesson", "lesson": lesson, "seed": seed}
        for seed in SEEDS
        for lesson in LESSONS
        if seed == 1 or lesson != "both"
    ),
    *({"experiment": "longer", "lesson": "labels", "steps": LONGER, "seed": seed} for seed in SEEDS),
    *(
        {"experiment": "documents", "lesson": lesson, "documents": documents, "seed": 1}
        for documents in FEWER_AND_MORE
        for lesson in ("labels", "teacher")
    ),
    {"experiment": "documents", "lesson": "labels", "documents": 10_000, "steps": LONGER, "seed": 1},
    *(
        {"experiment": "direction", "lesson": "teacher", "direction": "reverse", "seed": seed}
        for seed in SEEDS
    ),
    *({"experiment": "second", "lesson": "labels", "seed": seed} for seed in SEEDS),
    {"experiment": "kept", "lesson": "teacher", "top_k": 16, "seed": 1},
    {"experiment": "temperature", "lesson": "teacher", "temperature": 2.0, "seed": 1},
    {"experiment": "dropout", "lesson": "labels", "dropout": 0.1, "seed": 1},
    {"experiment": "moe", "lesson": "teacher", "seed": 1},
]


def run_cell(experiment: str, lesson: str, seed: int, **changes: object) -> dict[str, object]:
    """Train one student and measure it on held-out documents.

    Returns:
        `loss`, `ratio` (to the floor), `entropy` of the student's predictions, `forward` and `reverse` KL to
        its teacher, all on held-out documents; `teacher_loss`, `teacher_entropy`; `seconds` of training and
        `teacher_seconds` that the teacher took before it; `train_loss`, `tokens`, `parameters`. For the
        experiment "second" what `both_ways` returns, with this student as the start.
    """
    teacher, tokenizer = moe_teacher() if experiment == "moe" else artifacts.base_model(progress=False)
    result, asked = train_student(teacher, tokenizer, lesson, seed, **changes)
    if experiment == "second":
        return both_ways(result.model, teacher, tokenizer, seed)
    held_out = held_out_loss(result.model, tokenizer)
    return {
        "loss": round(held_out.loss, 4),
        "ratio": round(held_out.ratio, 4),
        **predictions(result.model, teacher, tokenizer),
        "teacher_loss": round(held_out_loss(teacher, tokenizer).loss, 4),
        "train_loss": round(result.fit.train_loss, 4),
        "seconds": round(result.fit.seconds, 1),
        "teacher_seconds": round(asked, 1),
        "tokens": result.fit.tokens,
        "parameters": result.model.num_parameters(),
    }


def train_student(
    teacher: MiniMind,
    tokenizer: Tokenizer,
    lesson: str,
    seed: int,
    documents: int = DOCUMENTS,
    steps: int = STEPS,
    on_log: Callable[[dict[str, float]], None] | None = None,
    **changes: object,
) -> tuple[StageResult, float]:
    """A student of one lesson, and the seconds that its teacher took before training began.

    Args:
        documents: how many of the world's documents there are to learn from.
        on_log: as for `distill`.
        changes: fields of `DistillConfig`.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        written = written_documents() if lesson == "written" else None
        config = DistillConfig(
            teacher=str(save_model(teacher, tokenizer, Path(folder) / "teacher")),
            data_path=str(written or some_documents(documents, Path(folder))),
            cache_dir=f"{folder}/cache", out_dir=f"{folder}/run", max_steps=steps, batch_size=BATCH,
            save_interval=0, seed=seed, device="cpu", **(LESSONS[lesson] | changes),
        )  # fmt: skip
        result = distill(config, progress=False, on_log=on_log)
        manifests = (
            [written.parent / MANIFEST] if written else Path(folder).glob(f"cache/teacher-*/{MANIFEST}")
        )
        asked = sum(json.loads(path.read_text())["facts"]["seconds"] for path in manifests)
    return result, asked


def both_ways(
    start: MiniMind, teacher: MiniMind, tokenizer: Tokenizer, seed: int
) -> dict[str, dict[str, float]]:
    """Teach a trained student further with the forward and with the reverse divergence.

    Returns:
        By direction the held-out `loss` of the taught student, and its `predictions`.
    """
    taught = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        weights = str(save_model(start, tokenizer, Path(folder) / "start"))
        for way in ("forward", "reverse"):
            settings = {"steps": SECOND_STEPS, "learning_rate": SECOND_RATE, "direction": way}
            result, _ = train_student(teacher, tokenizer, "teacher", seed, from_weight=weights, **settings)
            loss = round(held_out_loss(result.model, tokenizer).loss, 4)
            taught[way] = {"loss": loss, **predictions(result.model, teacher, tokenizer)}
    return taught


def some_documents(count: int, folder: Path) -> Path:
    """A file in `folder` with the first documents of the world."""
    path = folder / "documents.jsonl"
    with default_file("pretrain.jsonl").open(encoding="utf-8") as file:
        path.write_text("".join(line for line, _ in zip(file, range(count), strict=False)), encoding="utf-8")
    return path


def written_documents() -> Path:
    """A file of documents that the base model wrote; made once, then found in the cache."""
    teacher, tokenizer = artifacts.base_model(progress=False)

    def build(folder: Path) -> dict:
        started = time.perf_counter()
        texts = write_documents(teacher, tokenizer, WRITTEN)
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
        return {"seconds": time.perf_counter() - started}

    key = f"sweep-08-written-{WRITTEN}-{model_digest(teacher)[:16]}"
    return cached_folder(None, key, build)[0] / "documents.jsonl"


def write_documents(teacher: MiniMind, tokenizer: Tokenizer, count: int, seed: int = 1) -> list[str]:
    """Documents sampled from a teacher, each from the start token alone."""
    texts: list[str] = []
    while len(texts) < count:
        seed += 1
        done = complete(
            teacher, [[tokenizer.bos_token_id]] * min(256, count - len(texts)), max_new_tokens=200,
            sampling=Sampling(temperature=1.0), eos_token_id=tokenizer.eos_token_id, seed=seed,
        )  # fmt: skip
        ended = [one.tokens for one in done if one.finish_reason == "stop"]
        texts += [text for ids in ended if (text := tokenizer.decode(ids, skip_special_tokens=True)).strip()]
    return texts


def moe_teacher() -> tuple[MiniMind, Tokenizer]:
    """A mixture of experts, trained for a while; made once, then found in the cache."""

    def build(folder: Path) -> dict:
        tokenizer = artifacts.tokenizer(progress=False)
        torch.manual_seed(0)
        model = MiniMind(ModelConfig.preset("edu-moe", vocab_size=tokenizer.vocab_size))
        train_on_world(model, tokenizer, MOE_STEPS, progress=False, device="cpu")
        save_model(model, tokenizer, folder / "model")
        return {"parameters": model.num_parameters()}

    return load_model(cached_folder(None, f"sweep-08-moe-{MOE_STEPS}", build)[0])


@torch.inference_mode()
def predictions(
    student: MiniMind, teacher: MiniMind, tokenizer: Tokenizer, path: Path | None = None
) -> dict[str, float]:
    """Mean entropy of both models' predictions on held-out documents, and the KL between them both ways."""
    records = load_records(path or default_file("eval_pretrain.jsonl"), "pretrain")
    rows = PackedDataset(tokenize(records, tokenizer, "pretrain"), 256, fill=False)
    sums, tokens = torch.zeros(4), 0
    for start in range(0, len(rows), 16):
        batch = collate([rows[row] for row in range(start, min(start + 16, len(rows)))])
        labelled = batch["labels"][:, 1:] != IGNORE_INDEX
        q, p = (_logits(model, batch, labelled) for model in (student.eval(), teacher.eval()))
        sums += torch.stack((
            entropy(q).sum(), entropy(p).sum(),
            full_divergence(q, p, 1.0, "forward").sum(), full_divergence(q, p, 1.0, "reverse").sum(),
        ))  # fmt: skip
        tokens += int(labelled.sum())
    names = ("entropy", "teacher_entropy", "forward", "reverse")
    return {name: round(value, 4) for name, value in zip(names, (sums / tokens).tolist(), strict=True)}


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats (N,) of softmax(logits), (N, V)."""
    log_probs = logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def _logits(model: MiniMind, batch: dict[str, torch.Tensor], labelled: torch.Tensor) -> torch.Tensor:
    hidden, _ = model.hidden_states(batch["input_ids"], document_ids=batch["document_ids"])
    return model.head(hidden[:, :-1][labelled])


def closed(student: float, labels: float, teacher: float) -> float:
    """Which part of the gap between the label-only student's loss and the teacher's a student closes."""
    return (labels - student) / (labels - teacher)


# -- a toy: a teacher with two modes, a student that has one -------------------------------------------------

PLACES = 21
MEANS, WIDTHS = torch.arange(0, 20.5, 0.5), torch.arange(0.6, 8.1, 0.2)


def peak(mean: float, width: float) -> torch.Tensor:
    """Log-probabilities of `PLACES` tokens in a row: one bell of this mean and width."""
    return (-((torch.arange(PLACES) - mean) ** 2) / (2 * width**2)).log_softmax(dim=-1)


def two_modes() -> torch.Tensor:
    """Log-probabilities of half a bell at token 5 and half a bell at token 15."""
    return torch.stack((peak(5.0, 1.0), peak(15.0, 1.0))).logsumexp(dim=0) - math.log(2)


def best_peak(direction: str) -> tuple[float, float]:
    """Mean and width of the single bell with the least KL to `two_modes`, of all on a grid."""
    grid = [(float(mean), float(width)) for mean in MEANS for width in WIDTHS]
    log_q = torch.stack([peak(*bell) for bell in grid])
    divergences = divergence_of(two_modes().expand_as(log_q), log_q, direction)
    return grid[int(divergences.argmin())]


# -- figures of the record -----------------------------------------------------------------------------------


def column(grid: SweepRecord, name: str, **settings: object) -> list[float]:
    """One of the numbers of every cell with these settings."""
    return [numbers[name] for _, numbers in grid.select(**settings)]


def shares_closed(grid: SweepRecord, **settings: object) -> list[float]:
    """Which part of its gap each student with these settings closes, to the student of labels of its seed."""
    shares = []
    for cell, numbers in grid.select(**settings):
        labels = grid.find(experiment="lesson", lesson="labels", seed=cell["seed"])["loss"]
        shares.append(closed(numbers["loss"], labels, numbers["teacher_loss"]))
    return shares


def live_figure(lines: dict[str, list[dict]], losses: dict[str, float], floor: float) -> Figure:
    """Cross-entropy on training documents by step for each lesson, and on held-out ones after the last.

    Args:
        lines: what `train_student` logged, by lesson.
        losses: held-out loss by lesson.
    """
    figure, axes = figures.new_figure(7.5, 3.8)
    lowest, highest = floor, floor
    for (name, log), colour in zip(lines.items(), figures.COLOURS, strict=False):
        curve = [(line["step"], line.get("cross_entropy", line["loss"])) for line in log if "loss" in line]
        axes.plot(*zip(*curve, strict=True), color=colour, label=f"{name}: training documents")
        axes.plot(curve[-1][0], losses[name], "o", color=colour, label=f"{name}: held-out documents")
        lowest, highest = (
            pick((limit, *(y for _, y in curve))) for pick, limit in ((min, lowest), (max, highest))
        )
    axes.axhline(floor, color=figures.GREEN, linestyle="--", label="floor")
    axes.set(yscale="log", xlabel="step", ylabel="cross-entropy (nats a token)")
    figures.plain_log_ticks(axes, lowest, highest)
    with figures.style():
        axes.legend()
    return figure


def lesson_figure(grid: SweepRecord, floor: float) -> Figure:
    """Held-out loss of every student by what it learned from, with the teacher's and the floor."""
    figure, axes = figures.new_figure(7.5, 3.2)
    for place, lesson in enumerate(LESSONS):
        runs = [numbers["loss"] for _, numbers in grid.select(experiment="lesson", lesson=lesson)]
        axes.plot([place] * len(runs), runs, "o", color=figures.COLOURS[place], markersize=7)
    teacher = grid.find(experiment="lesson", lesson="labels", seed=1)["teacher_loss"]
    axes.axhline(teacher, color=figures.GREY, label="teacher")
    axes.axhline(floor, color=figures.GREEN, linestyle="--", label="floor")
    names = ("labels", "teacher's\ndistribution", "both", f"{WRITTEN:,} documents\nby the teacher")
    axes.set_xticks(range(len(LESSONS)), names)
    axes.set(ylabel="held-out loss (nats a token)", xlim=(-0.5, len(LESSONS) - 0.5))
    with figures.style():
        axes.legend()
    return figure


def documents_figure(grid: SweepRecord, floor: float) -> Figure:
    """Held-out loss by how many documents there are, from labels and from the teacher."""
    figure, axes = figures.new_figure(7.5, 3.2)
    for lesson, colour in (("labels", figures.COLOURS[0]), ("teacher", figures.COLOURS[1])):
        losses = by_documents(grid, lesson)
        axes.plot(list(losses), list(losses.values()), "o-", color=colour, label=f"from the {lesson}")
    axes.axhline(floor, color=figures.GREEN, linestyle="--", label="floor")
    counts = list(losses)
    axes.set(xscale="log", xlabel="documents", ylabel="held-out loss (nats a token)")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    with figures.style():
        axes.legend()
    return figure


def by_documents(grid: SweepRecord, lesson: str) -> dict[int, float]:
    """Held-out loss by number of documents, seed 1."""
    losses = {DOCUMENTS: grid.find(experiment="lesson", lesson=lesson, seed=1)["loss"]}
    for cell, numbers in grid.select(experiment="documents", lesson=lesson):
        if "steps" not in cell:
            losses[cell["documents"]] = numbers["loss"]
    return dict(sorted(losses.items()))
