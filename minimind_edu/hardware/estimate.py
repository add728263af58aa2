"""Will it fit, and how long will it take? The memory and the time model answer, and say what they rest on."""

import dataclasses
import functools
import math
from dataclasses import dataclass

from minimind_edu.config import ModelConfig
from minimind_edu.hardware.cards import Card, Price, find_card
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.memory import Memory, memory
from minimind_edu.hardware.reported import FILES, DataFile
from minimind_edu.hardware.speeds import KnownSpeed, step_time
from minimind_edu.hardware.timing import Seconds
from minimind_edu.hardware.wording import about_memory, about_time
from minimind_edu.hardware.workload import STAGES, Workload
from minimind_edu.stages.distill import DistillConfig
from minimind_edu.stages.dpo import DPOConfig
from minimind_edu.stages.grpo import GRPOConfig
from minimind_edu.stages.lora import LoRAConfig
from minimind_edu.stages.pretrain import PretrainConfig
from minimind_edu.stages.reasoning import ReasonConfig
from minimind_edu.stages.setup import StageConfig
from minimind_edu.stages.sft import SFTConfig

SETTINGS: dict[str, type[StageConfig]] = {
    "pretrain": PretrainConfig,
    "sft": SFTConfig,
    "lora": LoRAConfig,
    "dpo": DPOConfig,
    "distill": DistillConfig,
    "reason": ReasonConfig,
    "grpo": GRPOConfig,
}
# What a step is taken to be where it is not said: the full-size command lines at the chapters' ends.
FULL_SIZE: dict[str, dict[str, object]] = {
    "pretrain": {"batch_size": 32},
    "sft": {"batch_size": 32},
    "lora": {"batch_size": 64, "rank": 8, "targets": ("q_proj", "v_proj")},
    "dpo": {"batch_size": 8},
    "distill": {"batch_size": 32},
    "reason": {"batch_size": 16, "seq_len": 1024},
    "grpo": {"batch_size": 32},
}
USUAL_LENGTH = 512
MOST_ROWS = 8192  # no larger batch is looked for


@dataclass(frozen=True)
class Estimate:
    """What a stage needs of a machine, and what the machine takes for it.

    Attributes:
        work: one optimizer step.
        card: the machine.
        memory: bytes by part, at the moment when most are in use.
        seconds: of one step: the middle, and a range that most measured steps were in; None where nothing is
            known of such a machine.
        speed: what the time rests on, or None.
        rows: of one epoch, ``seq_len`` tokens each (DPO: pairs; GRPO: prompts); None where only a step is
            asked for.
        epochs: passes over the rows.
        real_tokens: tokens of an epoch that are no padding; None where unknown, or where rows are packed.
        price: of an hour, or None.
    """

    work: Workload
    card: Card
    memory: Memory
    seconds: Seconds | None
    speed: KnownSpeed | None
    rows: int | None = None
    epochs: int = 1
    real_tokens: int | None = None
    price: Price | None = None

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Bytes by part, and their ``total``."""
        return {**self.memory.parts, "total": self.memory.total}

    @property
    def moment(self) -> str:
        """The phase of a step in which most memory is in use."""
        return self.memory.moment

    @property
    def fits(self) -> bool:
        """Whether the card has that much memory for one program."""
        return self.memory.total <= self.card.usable

    @functools.cached_property
    def largest_batch(self) -> int:
        """The largest ``batch_size`` that fits, all else equal; 0 where not even one row does."""
        return largest_batch(self.work, self.card)

    @property
    def step_seconds(self) -> tuple[float, float, float] | None:
        """Seconds of an optimizer step: low, middle, high."""
        return self.seconds and (self.seconds.low, self.seconds.mid, self.seconds.high)

    @property
    def flops_per_token(self) -> float:
        """FLOPs for each position that is trained on, backward pass and everything beside included."""
        return flops(self.work).per_token

    @property
    def steps(self) -> int | None:
        """Optimizer steps of all epochs."""
        return None if self.rows is None else self.epochs * math.ceil(self.rows / rows_of_step(self.work))

    @property
    def tokens(self) -> int | None:
        """Tokens of all epochs, padding included."""
        if self.rows is None:
            return None
        return self.epochs * self.rows * self.work.seq_len * (2 if self.work.stage == "dpo" else 1)

    @property
    def padding(self) -> float | None:
        """Share of the tokens that are padding; None where that is unknown."""
        if self.tokens is None or self.real_tokens is None:
            return None
        return 1 - self.real_tokens * self.epochs / self.tokens

    @property
    def hours(self) -> tuple[float, float, float] | None:
        """Hours of all epochs: low, middle, high."""
        if self.steps is None or self.step_seconds is None:
            return None
        low, mid, high = (self.steps * value / 3600 for value in self.step_seconds)
        return low, mid, high

    @property
    def cost(self) -> tuple[float, float, float] | None:
        """The price of those hours: low, middle, high."""
        if self.hours is None or self.price is None:
            return None
        low, mid, high = (hours * self.price.yuan for hours in self.hours)
        return low, mid, high

    @property
    def source(self) -> str:
        """What kind of number the time is, and from what."""
        return (
            f"estimated from {self.speed.text}" if self.speed else "unknown: run `minimind-edu bench` there"
        )

    def summary(self) -> str:
        """A few lines of text."""
        return "\n".join([*about_memory(self), *about_time(self)])


def estimate(
    config: ModelConfig | str,
    stage: str = "pretrain",
    batch_size: int | None = None,
    seq_len: int | None = None,
    dtype: str = "auto",
    card: Card | str = "auto",
    rows: int | None = None,
    epochs: int = 1,
    *,
    price_per_hour: float | None = None,
    real_tokens: int | None = None,
    **more: object,
) -> Estimate:
    """Estimate memory and time of a stage.

    Args:
        config: a shape, or a preset's name.
        stage: pretrain, sft, lora, dpo, distill, reason or grpo.
        batch_size, seq_len: None takes what `FULL_SIZE` says of the stage; a published file is known by its
            number of rows, and has its length.
        dtype: float32, bfloat16, float16, or what training chooses on that card.
        card: a card or its name; ``auto`` is this machine, ``cpu`` its CPU.
        rows: rows of an epoch, for hours; each of ``seq_len`` tokens, padding included.
        epochs: passes over them.
        price_per_hour: in yuan; None takes the card's, if a source for one is known.
        real_tokens: tokens of an epoch without padding, if rows are padded and the number is known.
        more: further fields of ``Workload``, such as ``gradient_checkpointing`` or ``accumulation_steps``.

    Raises:
        ValueError: an unknown preset, stage, card or dtype, or numbers that make no sense.
    """
    card = find_card(card) if isinstance(card, str) else card
    if file := published(rows, stage):
        seq_len = file.lengths[0] if seq_len is None else seq_len
        if real_tokens is None and file.tokens and seq_len == file.lengths[0]:
            real_tokens = round(file.tokens)
    work = workload(config, stage, card, batch_size, seq_len, dtype, **more)
    for name, value in {"rows": rows, "epochs": epochs, "real_tokens": real_tokens}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    if rows and real_tokens and real_tokens > rows * work.rows // work.batch_size * work.seq_len:
        raise ValueError(f"{real_tokens:,} tokens do not fit into {rows:,} rows of {work.seq_len}")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ValueError(f"price_per_hour must be 0 or more, not {price_per_hour}")
    price = card.price if price_per_hour is None else Price(price_per_hour, "as given", "")
    return estimate_work(work, card, rows, epochs, real_tokens, price)


def published(rows: int | None, stage: str) -> DataFile | None:
    """The published file of known length that has so many rows."""
    files = (file for file in FILES.values() if file.is_exact and file.name.startswith(stage))
    return next((file for file in files if file.rows == rows), None)


def estimate_work(
    work: Workload,
    card: Card,
    rows: int | None = None,
    epochs: int = 1,
    real_tokens: int | None = None,
    price: Price | None = None,
) -> Estimate:
    """``estimate`` for a step that is already described."""
    seconds, known = step_time(work, card) or (None, None)
    return Estimate(work, card, needed(work), seconds, known, rows, epochs, real_tokens, price)


def workload(
    config: ModelConfig | str,
    stage: str,
    card: Card,
    batch_size: int | None = None,
    seq_len: int | None = None,
    dtype: str = "auto",
    **more: object,
) -> Workload:
    """A step of a stage; what is not given is as in `FULL_SIZE`, with AdamW and no accumulation.

    Raises:
        ValueError: see ``estimate``.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}: use {', '.join(STAGES)}")
    config = ModelConfig.preset(config) if isinstance(config, str) else config
    fields = {field.name for field in dataclasses.fields(Workload)}
    if unknown := sorted(set(more) - fields):
        raise ValueError(f"a workload has no setting called {', '.join(unknown)}")
    settings = {"seq_len": USUAL_LENGTH, "device": card.device, **FULL_SIZE[stage]}
    settings |= {name: value for name, value in more.items() if value is not None}
    settings |= {} if batch_size is None else {"batch_size": batch_size}
    settings |= {} if seq_len is None else {"seq_len": seq_len}
    if stage == "grpo":
        settings = _rollout_settings(settings)
    length = int(settings["seq_len"])
    if length > config.max_position_embeddings:
        config = config.replace(max_position_embeddings=length)  # as the commands do
    return Workload(config, stage, dtype=card.check_dtype(dtype), **settings)


def _rollout_settings(given: dict[str, object]) -> dict[str, object]:
    """Answers of a step as the command writes them, and as many forward passes as they need."""
    usual = GRPOConfig()
    settings: dict[str, object] = {
        "group_size": usual.group_size,
        "rollout_rows": usual.prompts_per_step * usual.group_size,
        "new_tokens": min(usual.max_new_tokens, max(1, int(given["seq_len"]) - 1)),
    } | given
    passes = math.ceil(int(settings["rollout_rows"]) / max(1, int(settings["batch_size"])))
    return {"accumulation_steps": passes} | settings


def rows_of_step(work: Workload) -> float:
    """Rows (pairs, prompts) of the data that one optimizer step uses up."""
    if work.stage == "grpo":
        return max(1.0, work.rollout_rows / work.group_size)
    return work.batch_size * work.accumulation_steps


def needed(work: Workload) -> Memory:
    """``memory(work)``, kept: searches ask for the same work again and again.

    From the second forward pass of a step on, gradients are there already; a third needs nothing more.
    """
    return _needed(work.replace(accumulation_steps=min(work.accumulation_steps, 2)))


_needed = functools.lru_cache(maxsize=65536)(memory)


def largest_batch(work: Workload, card: Card, most: int = MOST_ROWS) -> int:
    """The largest ``batch_size`` with which a step fits a card, all else equal; 0 where none does.

    Memory grows nearly in proportion to the batch, so a straight line between a batch that fits and one that
    does not tells where to look next.
    """

    def spare(rows: int) -> int:
        return card.usable - needed(work.replace(batch_size=rows)).total

    good, left = 1, spare(1)
    if left < 0 or most <= 1:
        return int(left >= 0)
    bad, over = min(4, most), spare(min(4, most))
    while over >= 0:  # a line through both, and a little beyond where it ends
        if bad == most:
            return most
        a_row = max(1.0, (left - over) / (bad - good))
        good, left = bad, over
        bad = min(most, bad + max(1, math.ceil(over / a_row * 1.02) + 1))
        over = spare(bad)
    while bad - good > 1:
        place = good + max(1, min(bad - good - 1, round((bad - good) * left / (left - over))))
        here = spare(place)
        if here >= 0:
            good, left = place, here
        else:
            bad, over = place, here
    return good
