"""What to change where a stage does not fit, the least harmful first, each with the command that does it."""

import dataclasses
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.cards import Card
from minimind_edu.hardware.estimate import SETTINGS, largest_batch, needed, workload
from minimind_edu.hardware.workload import Workload
from minimind_edu.stages.grpo import GRPOConfig
from minimind_edu.stages.lora import LoRAConfig
from minimind_edu.stages.pretrain import PretrainConfig, ShapeConfig
from minimind_edu.stages.setup import StageConfig

SHORTEST = 128  # tokens; shorter rows hold too little of a text
LORA_RANK = 8


@dataclass(frozen=True)
class Advice:
    """A change that makes a stage fit.

    Attributes:
        change: what is changed, in words.
        harm: what it costs.
        work: the changed step.
        command: the command line that trains so.
    """

    change: str
    harm: str
    work: Workload
    command: str


def advice(work: Workload, card: Card) -> list[Advice]:
    """Changes that make a step fit a card, from the least harmful to the most; empty where it fits.

    A smaller batch with more accumulation steps gives the same gradients. Checkpointing gives the same
    weights for about a third more time. Sixteen bits round more. Shorter rows cut longer texts. LoRA trains
    few weights only, and is no way to pretrain. Each change but the first keeps what is needed of the earlier
    ones. A list with nothing in it, for a step that does not fit, says that no change of these is enough.
    """
    return list(ways(work, card))


def ways(work: Workload, card: Card) -> Iterator[Advice]:
    """``advice``, one after another: for those who want the first only."""
    if needed(work).total <= card.usable:
        return
    for words, harm, changed in _variants(work, card):
        fitting = _fitted(changed, work, card)
        if fitting:
            said = [words] if words else []
            if fitting.batch_size != work.batch_size:
                said.insert(0, _batch_words(fitting))
            yield Advice(", ".join(said), harm, fitting, command_line(fitting))


def _variants(work: Workload, card: Card) -> Iterator[tuple[str, str, Workload]]:
    """(words, harm, changed work), before the batch is made smaller."""
    yield "", "none: the same gradients in more forward passes", work
    if not work.gradient_checkpointing:
        work = work.replace(gradient_checkpointing=True)
        yield "gradient checkpointing", "about a third more time; the same weights", work
    if work.dtype == "float32" and card.auto_dtype != "float32":
        work = work.replace(dtype=card.auto_dtype)
        yield f"checkpointing and {work.dtype}", "products are rounded to 16 bits", work
    shorter = work
    while shorter.seq_len // 2 >= SHORTEST:
        shorter = _with_length(shorter, shorter.seq_len // 2)
        words = f"checkpointing and rows of {shorter.seq_len} tokens"
        if _fitted(shorter, work, card):
            yield words, "longer texts are cut", shorter
            break
    if work.stage in ("sft", "reason"):
        adapter = {"rank": LORA_RANK, "targets": ("all-linear",), "optimizer": "adamw", "labelled": None}
        adapted = work.replace(stage="lora", **adapter)
        yield f"LoRA of rank {LORA_RANK}", "only adapters are trained, about 1% of the weights", adapted


def _with_length(work: Workload, length: int) -> Workload:
    if work.stage != "grpo":
        return work.replace(seq_len=length)
    return work.replace(seq_len=length, new_tokens=min(work.new_tokens, length // 2), labelled=None)


def _fitted(changed: Workload, asked: Workload, card: Card) -> Workload | None:
    """As many rows a step as were asked for, in forward passes that fit; None where not even one row does."""
    if needed(changed).total <= card.usable:
        return changed
    # Several passes add to gradients that stay in memory meanwhile, so they are part of the search.
    several = changed.replace(accumulation_steps=max(2, changed.accumulation_steps))
    rows = largest_batch(several, card, most=asked.batch_size)
    if not rows:
        return None
    if changed.stage == "grpo":
        return changed.replace(batch_size=rows, accumulation_steps=math.ceil(changed.rollout_rows / rows))
    total = asked.batch_size * asked.accumulation_steps
    # A divisor keeps the number of rows in a step, unless it is a small one, as of a prime number.
    batch = max(size for size in range(1, rows + 1) if total % size == 0)
    if batch <= rows // 2:
        batch = rows
    return changed.replace(batch_size=batch, accumulation_steps=math.ceil(total / batch))


def _batch_words(work: Workload) -> str:
    if work.stage == "grpo":
        return f"batch {work.batch_size}"
    return f"batch {work.batch_size} with {work.accumulation_steps} accumulation steps"


# -- command lines -----------------------------------------------------------------------------------------


def command_line(work: Workload) -> str:
    """The command that trains so: options that differ from the command's defaults.

    Stages after pretraining take the model from the folder of an earlier run: its shape is no option there.
    """
    defaults = SETTINGS[work.stage]()
    wanted: dict[str, object] = {
        "batch_size": work.batch_size,
        "max_seq_len": work.seq_len,
        "optimizer": work.optimizer,
        "gradient_checkpointing": int(work.gradient_checkpointing),
    }
    if work.stage == "grpo":
        wanted["max_new_tokens"] = work.new_tokens
        wanted["group_size"] = work.group_size
        wanted["prompts_per_step"] = max(1, round(work.rollout_rows / work.group_size))
    else:
        wanted["accumulation_steps"] = work.accumulation_steps
    if work.stage == "lora":
        wanted |= {"rank": work.rank, "targets": ",".join(work.targets)}
    options = shape_options(work.config) if work.stage in ("pretrain", "distill") else []
    if work.stage == "pretrain" and work.config.vocab_size != PretrainConfig.vocab_size:
        options.append(("vocab_size", work.config.vocab_size))
    options += [(name, value) for name, value in wanted.items() if getattr(defaults, name) != value]
    options.append(("dtype", work.dtype))
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in options]
    return " ".join(["minimind-edu", work.stage, *words])


def preset_of(config: ModelConfig) -> str:
    """The preset with this shape, whatever length of texts it allows; empty where there is none."""
    return next((name for name, one in ModelConfig.presets().items() if _alike(one, config)), "")


def shape_options(config: ModelConfig) -> list[tuple[str, object]]:
    """Options of ``minimind-edu pretrain`` that give a shape: a preset, or one with changed sizes.

    Raises:
        ValueError: no preset can be changed into this shape by the command's options.
    """
    if name := preset_of(config):
        return [("preset", name)]
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = {name: getattr(config, name) for name in names}
    for preset, base in ModelConfig.presets().items():
        changes = {name: size for name, size in sizes.items() if getattr(base, name) != size}
        changes |= {"dropout": config.dropout} if config.dropout != base.dropout else {}
        if _alike(base.replace(vocab_size=config.vocab_size, **changes), config):
            return [("preset", preset), *changes.items()]
    raise ValueError("no preset becomes this shape by the options of the command: train it from Python")


def _alike(one: ModelConfig, other: ModelConfig) -> bool:
    return dataclasses.replace(one, max_position_embeddings=1) == dataclasses.replace(
        other, max_position_embeddings=1
    )


def from_settings(name: str, settings: StageConfig, config: ModelConfig, card: Card) -> Workload:
    """The step that a command with these settings takes: the inverse of ``command_line``.

    Args:
        name: the command.
        settings: its options, as the command line gives them.
        config: the model's shape, where the command does not give it.
    """
    if isinstance(settings, ShapeConfig):
        config = settings.model_config(getattr(settings, "vocab_size", config.vocab_size))
    more: dict[str, object] = {}
    if isinstance(settings, GRPOConfig):
        more["rollout_rows"] = settings.prompts_per_step * settings.group_size
        more |= {"group_size": settings.group_size, "new_tokens": settings.max_new_tokens}
    else:
        more["accumulation_steps"] = settings.accumulation_steps
    if isinstance(settings, LoRAConfig):
        more |= {"rank": settings.rank, "targets": tuple(settings.targets.split(","))}
    return workload(
        config, name, card, settings.batch_size, settings.max_seq_len, settings.dtype,
        optimizer=settings.optimizer, gradient_checkpointing=bool(settings.gradient_checkpointing), **more,
    )  # fmt: skip
