"""The long experiments of chapter 8: what a student learns from labels, from its teacher, and from both.

The teacher is the course's base model, which read 30,000 documents four times. Its student has half the width
and half the layers, and sees 1,000 of these documents about fifteen times: too few to learn the world from
labels alone.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts
from minimind_edu.course.experiments import held_out_loss, train_on_world
from minimind_edu.data.cache import MANIFEST, cached_folder
from minimind_edu.data.packing import IGNORE_INDEX, PackedDataset, collate
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.files import default_file
from minimind_edu.generation import Sampling, complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.distill import DistillConfig, distill
from minimind_edu.stages.divergence import full_divergence
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.stages.teacher import model_digest
from minimind_edu.tokenizer import Tokenizer

SEEDS = (1, 2, 3)
DOCUMENTS, STEPS, BATCH = 1_000, 300, 8  # documents there are; steps of so many rows of 256 tokens
WRITTEN = 5_000  # documents that the teacher writes in black-box distillation
MOE_STEPS = 150
LESSONS = {
    "labels": {"alpha": 1.0},
    "teacher": {"alpha": 0.0},
    "both": {"alpha": 0.5},
    "written": {"alpha": 1.0},  # on documents that the teacher wrote
}
FEWER_AND_MORE = (3_000, 10_000)
KEPT = (1, 16, 128)
TEMPERATURES = (2.0, 4.0)
LONGER = 750  # steps of a label-only student: more seconds than a teacher costs in 300
TUNED = ({"learning_rate": 3e-2}, {"dropout": 0.1})

CELLS = [
    *({"experiment": "lesson", "lesson": lesson, "seed": seed} for seed in SEEDS for lesson in LESSONS),
    *({"experiment": "longer", "lesson": "labels", "steps": LONGER, "seed": seed} for seed in SEEDS),
    *(
        {"experiment": "documents", "lesson": lesson, "documents": documents, "seed": 1}
        for documents in FEWER_AND_MORE
        for lesson in ("labels", "teacher")
    ),
    *(
        {"experiment": "direction", "lesson": "teacher", "direction": "reverse", "seed": seed}
        for seed in SEEDS
    ),
    *({"experiment": "kept", "lesson": "teacher", "top_k": k, "seed": 1} for k in KEPT),
    *({"experiment": "temperature", "lesson": "teacher", "temperature": t, "seed": 1} for t in TEMPERATURES),
    {"experiment": "moe", "lesson": "teacher", "seed": 1},
    *({"experiment": "tuned", "lesson": "labels", "seed": 1, **change} for change in TUNED),
]


def run_cell(
    experiment: str, lesson: str, seed: int, documents: int = DOCUMENTS, steps: int = STEPS, **changes: object
) -> dict[str, object]:
    """Train one student and measure it on held-out documents.

    Args:
        documents: how many of the world's documents there are to learn from.
        changes: fields of `DistillConfig`.

    Returns:
        `loss`, `ratio` (to the floor), `entropy` of the student's predictions, `forward` and `reverse` KL to
        its teacher, all on held-out documents; `seconds` of training, `teacher_seconds` that the teacher took
        before it; `teacher_loss`; `train_loss`, `tokens`, `parameters`.
    """
    teacher_folder = moe_teacher() if experiment == "moe" else artifacts._base_folder(False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        written = written_documents() if lesson == "written" else None
        config = DistillConfig(
            teacher=str(teacher_folder), data_path=str(written or some_documents(documents, Path(folder))),
            cache_dir=f"{folder}/cache", out_dir=f"{folder}/run", max_steps=steps, batch_size=BATCH,
            save_interval=0, seed=seed, device="cpu", **(LESSONS[lesson] | changes),
        )  # fmt: skip
        result = distill(config, progress=False)
        asked = sum(facts["seconds"] for facts in _facts(Path(folder) / "cache"))
    if written:
        asked = json.loads((written.parent / MANIFEST).read_text())["facts"]["seconds"]
    teacher, tokenizer = load_model(teacher_folder)
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


def moe_teacher() -> Path:
    """The folder of a mixture of experts, trained for a while; made once, then found in the cache."""

    def build(folder: Path) -> dict:
        tokenizer = artifacts.tokenizer(progress=False)
        torch.manual_seed(0)
        model = MiniMind(ModelConfig.preset("edu-moe", vocab_size=tokenizer.vocab_size))
        train_on_world(model, tokenizer, MOE_STEPS, progress=False, device="cpu")
        save_model(model, tokenizer, folder / "model")
        return {"parameters": model.num_parameters()}

    return cached_folder(None, f"sweep-08-moe-{MOE_STEPS}", build)[0]


@torch.inference_mode()
def predictions(student: MiniMind, teacher: MiniMind, tokenizer: Tokenizer) -> dict[str, float]:
    """Mean entropy of both models' predictions on held-out documents, and the KL between them both ways."""
    records = load_records(default_file("eval_pretrain.jsonl"), "pretrain")
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


def _facts(cache: Path) -> Iterator[dict]:
    for folder in cache.glob("teacher-*/"):
        yield json.loads((folder / MANIFEST).read_text())["facts"]


def closed(student: float, labels: float, teacher: float) -> float:
    """Which part of the gap between the label-only student's loss and the teacher's a student closes."""
    return (labels - student) / (labels - teacher)
