"""``minimind-edu hardware``: will it fit, and how long will it take?"""

import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.advice import Advice, command_line, ways
from minimind_edu.hardware.cards import Card, in_words
from minimind_edu.hardware.estimate import Estimate, estimate, estimate_work
from minimind_edu.hardware.reported import FILES, REPORTED, Reported, is_laptop
from minimind_edu.hardware.table import as_csv, estimated, measured, reported
from minimind_edu.stages.setup import progress_callback

WIDTH = 80
MOST_CHANGES = 3  # the least harmful ones


@dataclass
class HardwareConfig:
    """Estimate memory, time and cost of a stage before it is run.

    Args:
        preset: shape of the model.
        card: a card, such as 3090 or "RTX 5060"; auto is this machine, cpu its CPU.
        stage: what is trained.
        rows: rows of an epoch (dpo: pairs, grpo: prompts), each of max_seq_len tokens, padding included; 0
            asks about one step only.
        tokens: tokens of an epoch without padding, if known: tells how much is padding.
        max_seq_len: tokens in a row; 0 takes 512, or the length of a published file that has so many rows.
        batch_size: rows in one forward pass; 0 takes 32, or what is usual for the stage.
        accumulation_steps: forward passes in a step; 0 takes 1, for grpo as many as the answers need.
        epochs: passes over the rows.
        dtype: number format; auto is what training chooses on that card.
        optimizer: adamw or muon.
        gradient_checkpointing: 1 computes activations anew in the backward pass.
        teacher: distill: shape of the teacher; empty means the same as the student's.
        price_per_hour: of the card, in yuan; default a price that has a source, if there is one.
        table: file to write the whole table of measured, reported and estimated rows to (.csv), instead of an
            answer.
    """

    preset: str = "minimind2-small"
    card: str = "auto"
    stage: Literal["pretrain", "sft", "lora", "dpo", "distill", "reason", "grpo"] = "pretrain"
    rows: int = 0
    tokens: int = 0
    max_seq_len: int = 0
    batch_size: int = 0
    accumulation_steps: int = 0
    epochs: int = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    optimizer: Literal["adamw", "muon"] = "adamw"
    gradient_checkpointing: int = 0
    teacher: str = ""
    price_per_hour: float | None = None
    table: str = ""

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        for name in ("rows", "tokens", "max_seq_len", "batch_size", "accumulation_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 1 or more (0 for the default), not {getattr(self, name)}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be 1 or more, not {self.epochs}")
        if self.max_seq_len == 1:
            raise ValueError("max_seq_len must be 2 or more, not 1")
        if self.gradient_checkpointing not in (0, 1):
            raise ValueError(f"gradient_checkpointing must be 0 or 1, not {self.gradient_checkpointing}")
        if self.tokens and not self.rows:
            raise ValueError("tokens are of use only with --rows")
        if self.teacher and self.stage != "distill":
            raise ValueError(f"teacher belongs to the stage distill, not to {self.stage}")


def run_hardware(config: HardwareConfig) -> None:
    config.validate()
    if config.table:
        _write_table(Path(config.table))
        return
    found = answer(config)
    _print(f"{config.preset}, {config.stage}, on {describe(found.card)}")
    _print(_settings(found))
    for line in found.summary().splitlines():
        _print(line)
    changes = list(itertools.islice(ways(found.work, found.card), MOST_CHANGES))
    if not found.fits and not changes:
        _print("None of the changes that we know makes it fit: take a smaller model or a larger card.")
    for change in changes:
        _print_advice(change, found)
    if found.fits:
        _print("command:")
        _print_command(command_line(found.work))
    for row in _reported_rows(found.card, config.preset, config.stage):
        _print(_as_text(row))


def answer(config: HardwareConfig) -> Estimate:
    """The estimate that the options ask for.

    Raises:
        ValueError: a setting makes no sense, or an unknown preset or card.
    """
    more: dict[str, object] = {
        "gradient_checkpointing": bool(config.gradient_checkpointing),
        "accumulation_steps": config.accumulation_steps or None,
        "optimizer": config.optimizer,
        "teacher": ModelConfig.preset(config.teacher) if config.teacher else None,
    }
    return estimate(
        config.preset, config.stage, config.batch_size or None, config.max_seq_len or None, config.dtype,
        config.card, config.rows or None, config.epochs, real_tokens=config.tokens or None,
        price_per_hour=config.price_per_hour, **more,
    )  # fmt: skip


def describe(card: Card) -> str:
    """A card in words: what it has, and what of it a program gets."""
    text = f"{card.name}: {in_words(card.memory)}, of which {in_words(card.usable)} are usable"
    if card.peak:
        best = max(card.peak, key=lambda dtype: (card.peak[dtype], dtype == card.auto_dtype))
        text += f", {card.peak[best] / 1e12:.1f} TFLOP/s in {best}, {card.bandwidth / 1e9:,.0f} GB/s"
    return f"{text}{f' ({card.note})' if card.note else ''}"


def _settings(found: Estimate) -> str:
    work = found.work
    parts = [f"batch {work.batch_size} x {work.seq_len} tokens"]
    if work.accumulation_steps > 1:
        parts.append(f"{work.accumulation_steps} accumulation steps")
    parts += [work.dtype, work.optimizer]
    if work.gradient_checkpointing:
        parts.append("gradient checkpointing")
    return ", ".join(parts)


def _print_advice(way: Advice, found: Estimate) -> None:
    changed = estimate_work(way.work, found.card)
    facts = [f"needs {in_words(changed.memory.total)}"]
    if found.step_seconds:
        facts.append(f"{_seconds_a_token(changed) / _seconds_a_token(found):.1f} times the time a token")
    _print(f"change: {way.change} ({', '.join(facts)}; harm: {way.harm})")
    _print_command(way.command)


def _seconds_a_token(one: Estimate) -> float:
    return one.step_seconds[1] / (one.work.tokens * one.work.accumulation_steps)


def _reported_rows(card: Card, preset: str, stage: str) -> list[Reported]:
    return [row for row in REPORTED if row.preset == preset and row.stage == stage and row.card in card.name]


def _as_text(row: Reported) -> str:
    file = FILES.get(row.file)
    size = f"{row.file}, {file.size / 1e9:.1f} GB" if file else "data unknown"
    machine = f"{row.card} with {row.cpu}{' (a laptop)' if is_laptop(row) else ''}"
    time = "does not run" if row.hours is None else f"{row.hours:.3g} h for one epoch of {size}"
    holes = "; ".join(hole for hole in row.holes if "laptop" not in hole)
    return f"{row.source}: {machine}, {time}{f' ({holes})' if holes else ''}"


def _write_table(path: Path) -> None:
    if path.suffix != ".csv":
        raise ValueError(f"{path}: the table is written as .csv")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is not a folder")
    with progress_callback("estimating", True) as report:
        rows = [*measured(), *reported(), *estimated(progress=report)]
    path.write_text(as_csv(rows), encoding="utf-8")
    kinds = ", ".join(
        f"{sum(row['kind'] == kind for row in rows):,} {kind}"
        for kind in ("measured", "reported", "estimated")
    )
    print(f"{len(rows):,} rows ({kinds}) are in {path}")


def _print(text: str) -> None:
    print(textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _print_command(line: str) -> None:
    """A command over several lines that a shell reads as one; an option stays with its value."""
    kept = line.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}--", " --")
    lines = textwrap.wrap(
        kept, WIDTH - 2, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    print(" \\\n".join(lines).replace("\N{NO-BREAK SPACE}", " "))
