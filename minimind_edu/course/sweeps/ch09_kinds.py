"""Chapter 9: other kinds of problems, and traces that a bigger model wrote."""

import dataclasses
import json
from pathlib import Path

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts
from minimind_edu.course.sweeps.ch09_start import LONGEST, cold_start, greedy, training_records
from minimind_edu.data.cache import cached_folder
from minimind_edu.data.problems import problems
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.answers import write_answers
from minimind_edu.stages.setup import load_model, model_digest, save_model
from minimind_edu.stages.solving import accuracy, solve
from minimind_edu.stages.verify import verify
from minimind_edu.tokenizer import Tokenizer

LEVELS = {"differences": (2, 3), "words": (2, 3), "countdown": (3, 4)}
KIND_STEPS, KIND_RECORDS = 300, 12_000
TEACHER = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
TEACHER_STEPS, TEACHER_RATE = 350, 1e-2
ASKED = 5_000  # problems that it writes answers to


def learn_kind(kind: str, thinking: bool, seed: int, count: int = 100) -> dict[str, object]:
    """The base model after a cold start on another kind of problems.

    Returns:
        `accuracy`: by difficulty the share of right greedy answers to held-out problems; `steps`, `labelled`
        tokens and `seconds` of the training.
    """
    model, tokenizer = artifacts.base_model(progress=False)
    records = [one.record(thinking) for one in problems(kind, KIND_RECORDS, LEVELS[kind])]
    result = cold_start(
        model, tokenizer, records, tag_weight=1, seed=seed, log_interval=1000, max_steps=KIND_STEPS
    )
    rates = {}
    for level in LEVELS[kind]:
        asked = list(problems(kind, count, level, split="held-out", seed=1))
        # A direct answer follows an empty block of thoughts, as in its training.
        switch = None if thinking else False
        found = solve(model, tokenizer, asked, thinking=switch, max_new_tokens=LONGEST)
        rates[str(level)] = round(accuracy(found)[()], 4)
    return {
        "accuracy": rates,
        "labelled": result.tokens,
        "steps": result.step,
        "seconds": round(result.seconds, 1),
    }


# -- a teacher's traces --------------------------------------------------------------------------------------


def teacher_model() -> tuple[MiniMind, Tokenizer]:
    """A model three times as big, trained on traces from random weights; made once, then in the cache."""

    def build(folder: Path) -> dict:
        tokenizer = artifacts.tokenizer(progress=False)
        torch.manual_seed(0)
        model = MiniMind(ModelConfig.preset("edu", vocab_size=tokenizer.vocab_size, **TEACHER))
        records = training_records(True, 12_000)
        cold_start(
            model, tokenizer, records, tag_weight=1, max_steps=TEACHER_STEPS, learning_rate=TEACHER_RATE
        )
        save_model(model, tokenizer, folder / "model")
        return {"steps": TEACHER_STEPS}

    return load_model(cached_folder(None, f"sweep-09-teacher-{TEACHER_STEPS}", build)[0])


def teacher_traces() -> tuple[list[dict], dict[str, float]]:
    """What the teacher wrote to problems that no model was trained on, and the verifier accepts.

    One answer to each problem, sampled at temperature 1 (rejection sampling, as for the distilled models of
    DeepSeek-R1). Made once, then found in the cache.

    Returns:
        Conversations to learn from; and `asked`, `kept` (share of the answers).
    """
    teacher, tokenizer = teacher_model()

    def build(folder: Path) -> dict:
        asked = list(problems("sums", ASKED, 3, seed=7))
        known = {one.question: one.gt for one in asked}
        questions, written = folder / "questions.jsonl", folder / "written.jsonl"
        # The answer that is there is replaced; a record must have one.
        _write(questions, [dataclasses.replace(one, answer="?").record(False) for one in asked])
        write_answers(
            teacher, tokenizer, questions, written, LONGEST, temperature=1.0, batch_size=128, cache_dir=folder
        )
        lines = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
        kept = [one for one in lines if _is_right(one["conversations"], known)]
        _write(folder / "kept.jsonl", kept)
        return {"asked": ASKED, "kept": round(len(kept) / ASKED, 4)}

    folder, facts = cached_folder(None, f"sweep-09-traces-{ASKED}-{model_digest(teacher)[:16]}", build)
    lines = (folder / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], {name: facts[name] for name in ("asked", "kept")}


def _is_right(conversation: list[dict], known: dict[str, str]) -> bool:
    asked, answered = (message["content"] for message in conversation)
    return verify(answered, known[asked])


def _write(path: Path, records: list[dict]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def learn_from_teacher(seed: int) -> dict[str, object]:
    """The base model after learning from the teacher's verified traces alone, as `think` learns from those
    of the program; and the teacher."""
    teacher, tokenizer = teacher_model()
    records, facts = teacher_traces()
    student, _ = artifacts.base_model(progress=False)
    result = cold_start(
        student, tokenizer, records, tag_weight=1, seed=seed, log_interval=1000, max_steps=300
    )
    sizes = {"teacher_parameters": teacher.num_parameters(), "parameters": student.num_parameters()}
    measured = greedy(student, tokenizer)
    return {**facts, **sizes, "teacher": greedy(teacher, tokenizer), **measured, "steps": result.step}
