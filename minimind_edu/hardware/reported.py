"""Timings that others have reported for MiniMind, with their holes. None of them is ours.

What a row leaves out decides what it can be used for. Without a shape there are no FLOPs; without a number of
tokens there are FLOPs for each token only. A file's size bounds its tokens, and a bound is used as one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from minimind_edu.config import ModelConfig, minimind2_intermediate_size, minimind3_intermediate_size
from minimind_edu.hardware.cards import find_card
from minimind_edu.hardware.shares import CardRow
from minimind_edu.hardware.workload import Workload

AUTHOR = "reported by MiniMind's author, who calls the times estimates"
USER = "reported by a user of MiniMind"

# Bytes of a file for each token. pretrain_mini has 1.2 GB and 0.33 billion tokens. MiniMind's help texts say
# "1 token is about 1.5 to 1.7 characters" of Chinese, which has 3 bytes each.
BYTES_PER_TOKEN = (1.2e9 / 0.33e9, 3 * 1.7)
# Bytes of a row of pretrain_mini; files whose rows are shorter have more rows than this makes of them.
BYTES_PER_ROW = 1.2e9 / 1_270_238


@dataclass(frozen=True)
class DataFile:
    """A published data file.

    Attributes:
        size: bytes.
        rows: how many, where that is known.
        tokens: without padding, where that is known.
        lengths: tokens to which MiniMind's code pads a row: the shortest and the longest that may have been.
    """

    name: str
    size: float
    lengths: tuple[int, int]
    rows: int | None = None
    tokens: float | None = None

    def padded_tokens(self) -> tuple[float, float]:
        """The fewest and the most tokens, padding included, that one epoch can have had."""
        if self.rows is not None:
            return self.rows * self.lengths[0], self.rows * self.lengths[1]
        return self.size / BYTES_PER_TOKEN[1], self.size / BYTES_PER_ROW * self.lengths[1]

    @property
    def is_exact(self) -> bool:
        """Whether the padded tokens of an epoch are known rather than bounded."""
        return self.rows is not None and self.lengths[0] == self.lengths[1]


PRETRAIN_MINI = DataFile("pretrain_mini", 1.2e9, (340, 340), 1_270_238, 0.33e9)
FILES = {
    file.name: file
    for file in (
        PRETRAIN_MINI,
        DataFile("sft_mini", 1.6e9, (340, 768), 905_000),
        DataFile("pretrain_hq", 1.6e9, (512, 512)),
        DataFile("sft_mini_512", 1.2e9, (512, 512)),
        DataFile("rlaif", 24e6, (512, 512)),
    )
}


@dataclass(frozen=True)
class Reported:
    """A row as it was reported.

    Attributes:
        card: its name in ``cards.CARDS``.
        cpu: the processor beside it.
        params: millions, with the digits that were printed.
        stage: what was trained.
        seconds: for all epochs; None where the report says that it does not run.
        epochs: passes over the data.
        batch: rows in a batch, if the report says it.
        file: name of the data in ``FILES``, or empty where nothing is known.
        preset: the shape that the report or its model's name gives; empty where there is none.
        memory: least and most bytes that the report says were used, or None.
        source: who reports it.
    """

    card: str
    cpu: str
    params: str
    stage: str
    seconds: float | None
    epochs: int = 1
    batch: int | None = None
    file: str = ""
    preset: str = ""
    memory: tuple[float, float] | None = None
    source: str = USER

    @property
    def name(self) -> str:
        """A label: card, size, stage, file."""
        return f"{self.card}, {self.params}M, {self.stage}{f' on {self.file}' if self.file else ''}"

    @property
    def hours(self) -> float | None:
        """Hours of one epoch."""
        return None if self.seconds is None else self.seconds / self.epochs / 3600

    @property
    def holes(self) -> tuple[str, ...]:
        """What is not known, and so cannot be calculated with."""
        found = []
        if not self.preset:
            found.append(f"no shape has {self.params}M parameters: {nearest_text(self)}")
        if not self.file:
            found.append("data unknown")
        elif not FILES[self.file].is_exact:
            found.append("number of tokens unknown, bounded by the size of the file")
        if self.batch is None:
            found.append("batch size not said")
        if self.stage == "grpo":
            found.append("algorithm and length of the answers not said")
        if self.seconds is None:
            found.append("why it does not run is not said")
        if is_laptop(self):
            found.append("the processor is a laptop's, so the card may be the slower one for laptops")
        return tuple(found)


_A40 = {"card": "A40", "cpu": "Xeon 6148"}
_5060 = {"card": "GeForce RTX 5060", "cpu": "Ryzen 9 8945HX"}
_3090 = {"card": "GeForce RTX 3090", "cpu": "i9-10980XE", "source": AUTHOR}
_OLD = {"stage": "pretrain", "file": "pretrain_hq"}
_184, _272 = "minimind2-184m", "minimind2-272m"


def _of_author(preset: str, params: str, **hours: float) -> Iterator[Reported]:
    for file, value in hours.items():
        stage = "grpo" if file == "rlaif" else file.partition("_")[0]
        yield Reported(**_3090, params=params, stage=stage, seconds=value * 3600, file=file, preset=preset)


REPORTED: tuple[Reported, ...] = (
    Reported("GeForce GTX 1650", "i7-9750H", "20.07", seconds=None, batch=16, **_OLD),
    Reported(**_A40, **_OLD, params="28.07", seconds=30 * 60, batch=16),
    Reported(**_A40, **_OLD, params="183.797", seconds=20 * 3600, epochs=2, batch=32, preset=_184),
    Reported(**_A40, **_OLD, params="272.418", seconds=48 * 3600, epochs=3, batch=64, preset=_272),
    Reported(**_5060, **_OLD, params="272.418", seconds=18 * 3600, batch=16, preset=_272),
    Reported(**_5060, **_OLD, params="380", seconds=None, batch=8),
    *_of_author("minimind-3", "63.9", pretrain_mini=1.21, sft_mini=1.10, rlaif=1.1),
    *_of_author("minimind-3-moe", "198.4", pretrain_mini=1.69, sft_mini=1.54, rlaif=1.54),
    *_of_author("minimind2-small", "25.8", pretrain_hq=1.1, sft_mini_512=1.0),
    *_of_author("minimind2", "104", pretrain_hq=3.9, sft_mini_512=3.3),
    Reported(
        **_A40, params="272.418", stage="lora", seconds=120, epochs=20, batch=64, preset=_272,
        memory=(3e9, 4e9),
    ),
)  # fmt: skip


def is_laptop(row: Reported) -> bool:
    """Whether the processor's name says that the machine was a laptop (Intel's H, AMD's HX)."""
    return row.cpu.endswith(("H", "HX"))


# -- shapes ------------------------------------------------------------------------------------------------


def count_parameters(config: ModelConfig) -> int:
    """Weights of a shape, as ``MiniMind(config).num_parameters()`` counts them, without building it."""
    hidden = config.hidden_size
    query, key = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    attention = 2 * hidden * (query + key)
    attention += (query + 2 * key) * config.attention_bias + 2 * config.head_dim * config.qk_norm
    feed_forward = 3 * hidden * config.intermediate_size
    if config.use_moe:
        experts = config.num_experts + config.num_shared_experts
        feed_forward = 3 * hidden * config.moe_intermediate_size * experts + hidden * config.num_experts
    embedding = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    return embedding + config.num_hidden_layers * (attention + feed_forward + 2 * hidden) + hidden


def family_shapes(step: int = 64) -> Iterator[tuple[str, ModelConfig]]:
    """Shapes by the rules of the three dense families, with MiniMind's vocabulary of 6,400.

    Hidden sizes from 128 to 2048 in steps of ``step``, 1 to 48 layers.
    """
    families = {
        "minimind2": (8, 2, minimind2_intermediate_size, False),
        "minimind-v1": (16, 8, minimind2_intermediate_size, False),
        "minimind-3": (8, 4, minimind3_intermediate_size, True),
    }
    for family, (heads, groups, width, norm) in families.items():
        for hidden in range(128, 2049, step):
            shape = ModelConfig(
                vocab_size=6400, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=groups,
                intermediate_size=width(hidden), qk_norm=norm,
            )  # fmt: skip
            yield from ((family, shape.replace(num_hidden_layers=layers)) for layers in range(1, 49))


def has_digits(config: ModelConfig, params: str) -> bool:
    """Whether a shape's parameters, in millions and rounded as ``params`` is, are ``params``."""
    printed = Decimal(params)
    return (Decimal(count_parameters(config)) / 1_000_000).quantize(printed) == printed


def shape_of(row: Reported) -> ModelConfig | None:
    """The shape that a row was trained with, or None where none fits the parameters that it reports."""
    return ModelConfig.preset(row.preset) if row.preset else None


def nearest(params: str) -> tuple[str, ModelConfig]:
    """The family and the shape of ``family_shapes`` that comes closest to a number of parameters."""
    wanted = float(params) * 1e6
    return min(family_shapes(), key=lambda found: abs(count_parameters(found[1]) / wanted - 1))


_NEAREST = {  # what `nearest` finds, which takes a moment; the tests compare
    "20.07": ("minimind-v1", 256, 25, "20.08"),
    "28.07": ("minimind2", 576, 7, "28.08"),
    "380": ("minimind-3", 2048, 7, "379.2"),
}


def nearest_text(row: Reported) -> str:
    """A sentence on the closest shape, for rows without one."""
    family, hidden, layers, params = _NEAREST[row.params]
    return f"the closest by the families' rules ({family}, hidden {hidden}, {layers} layers) has {params}M"


# -- work --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportedRun(CardRow):
    """A reported row as work on a card.

    Attributes:
        row: what it was made from.
    """

    row: Reported


DEFAULT_BATCH, ACCUMULATION = 32, 8  # MiniMind's trainer of pretraining, where a row does not say its own


def as_run(row: Reported) -> ReportedRun | None:
    """A row as work, done as MiniMind's code does it: padded rows, AdamW, bfloat16, logits everywhere.

    None where the shape, the data, or the time is unknown, and for LoRA and reinforcement learning, whose
    rows do not say how much was done.
    """
    shape = shape_of(row)
    if shape is None or row.seconds is None or not row.file or row.stage not in ("pretrain", "sft"):
        return None
    card, file = find_card(row.card), FILES[row.file]
    fewest, most = file.padded_tokens()
    tokens = (fewest * most) ** 0.5
    length = round((file.lengths[0] * file.lengths[1]) ** 0.5)
    work = Workload(
        shape, "pretrain" if row.stage == "pretrain" else "sft", row.batch or DEFAULT_BATCH, length,
        dtype=card.auto_dtype, device="cuda", labelled=1.0, packed=False, accumulation_steps=ACCUMULATION,
    )  # fmt: skip
    steps = row.epochs * tokens / (work.tokens * work.accumulation_steps)
    stretch = (fewest / tokens, most / tokens)
    peak = card.peak[work.dtype]
    return ReportedRun(work, steps, row.seconds, peak, card.bandwidth, card.name, stretch, row)


def runs() -> list[ReportedRun]:
    """All rows that say enough to be work."""
    return [run for run in map(as_run, REPORTED) if run is not None]


def known_runs() -> list[ReportedRun]:
    """Those whose tokens are known rather than bounded: the ones that estimates are checked against."""
    return [run for run in runs() if FILES[run.row.file].is_exact]
