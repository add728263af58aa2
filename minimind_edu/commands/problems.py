"""The command that writes verifiable problems; apart from the others, since it needs no torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minimind_edu.data.errors import DataError
from minimind_edu.data.problems import Problem, problems
from minimind_edu.data.world.stages import Record


@dataclass
class ProblemsConfig:
    """Write verifiable problems of the small world.

    Args:
        kind: sums, differences, words or countdown, or several with commas between.
        difficulty: digits of sums and differences, steps of word problems, numbers of a countdown; several
            with commas between.
        count: how many problems, all kinds together.
        split: train, rlvr, or held-out, whose problems occur in neither of the others.
        languages: en, zh, or en,zh.
        form: reason (conversations to learn from) or rlvr (prompts with their right answers).
        thinking: whether answers of form reason think first; mixed means every second one.
        seed: another seed draws other problems.
        out_path: the file to write.
        overwrite: 1 replaces a file that is there.
    """

    kind: str = "sums"
    difficulty: str = "3"
    count: int = 3000
    split: Literal["train", "rlvr", "held-out"] = "train"
    languages: str = "en,zh"
    form: Literal["reason", "rlvr"] = "reason"
    thinking: Literal["on", "off", "mixed"] = "on"
    seed: int = 0
    out_path: str = "out/problems.jsonl"
    overwrite: int = 0


def run_data_problems(config: ProblemsConfig) -> None:
    if config.count < 1:
        raise ValueError(f"count must be 1 or more, not {config.count}")
    found = _problems(config)
    path = Path(config.out_path)
    if path.exists() and not config.overwrite:
        raise ValueError(f"{path} exists: choose another --out_path, or --overwrite 1")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for number, problem in enumerate(found):
                file.write(json.dumps(_record(config, problem, number), ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot write here ({error.strerror})") from None
    command = "reason" if config.form == "reason" else "grpo"
    print(f"{config.count:,} problems are in {path}\nnext: minimind-edu {command} --data_path {path}")


def _problems(config: ProblemsConfig) -> Iterator[Problem]:
    """The kinds in turn, so that any part of the file has all of them."""
    try:
        levels = [int(level) for level in config.difficulty.split(",")]
    except ValueError:
        what = f"difficulty must be a number, or several with commas, not {config.difficulty!r}"
        raise ValueError(what) from None
    kinds, languages = config.kind.split(","), config.languages.split(",")
    streams = [problems(kind, config.count, levels, config.split, languages, config.seed) for kind in kinds]
    return (next(streams[number % len(streams)]) for number in range(config.count))


def _record(config: ProblemsConfig, problem: Problem, number: int) -> Record:
    if config.form == "rlvr":
        return problem.rlvr()
    # All kinds once with thoughts, then all of them once without.
    thinks = {"on": True, "off": False, "mixed": number // len(config.kind.split(",")) % 2 == 0}
    return problem.record(thinks[config.thinking])
