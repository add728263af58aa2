"""The course's figures. Drawn with Matplotlib's object interface, so no display is needed.

Every figure is drawn on a light card of its own, so that it is readable in light and dark JupyterLab alike.
"""

import contextlib
import io
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

# From Wong, "Points of view: Color blindness" (2011): told apart by readers who do not see red and green.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#888888"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56b4e9", "#8c6d31", "#444444")
CARD = "#fbfaf7"  # the background of every figure
INK = "#222222"
TICK_ROOM = 0.07  # of an axis, between two words beside it

STYLE = {
    "figure.facecolor": CARD,
    "axes.facecolor": CARD,
    "savefig.facecolor": CARD,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "svg.fonttype": "path",  # the same letters everywhere, whatever fonts the reader has
    "svg.hashsalt": "minimind_edu",  # the same ids, so that a figure drawn again is the same file
}


def contrast(one: str | Sequence[float], other: str | Sequence[float]) -> float:
    """The contrast ratio of two colours, from 1 to 21 (Web Content Accessibility Guidelines 2.2)."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str | Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The course's look, for code that makes figures of its own."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(
    width: float = 7.5, height: float = 3.8, rows: int = 1, columns: int = 1, **options: object
) -> tuple[Figure, Axes]:
    """A figure of the course and its axes: one, or an array of (rows, columns).

    Args:
        width, height: inches; 7.5 fits a notebook's column.
        options: for `Figure.subplots`, such as `sharey=True`.
    """
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **options)


def png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def bundle(figure: Figure, alt: str) -> tuple[dict[str, object], dict[str, object]]:
    """What Jupyter displays of a figure: data and metadata by MIME type."""
    width = round(figure.get_figwidth() * 96)
    return {"image/png": png(figure), "text/plain": alt}, {"image/png": {"width": width, "alt": alt}}


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook.

    Args:
        alt: what it shows, in a sentence, for readers who do not see it.
    """
    display_bundle(figure, alt)


def display_bundle(figure: Figure, alt: str, **options: object) -> "DisplayHandle | None":
    """`display` for figures; options as there."""
    from IPython.display import display  # only notebooks need it

    data, metadata = bundle(figure, alt)
    return display(data, metadata=metadata, raw=True, **options)


class LivePlot:
    """A loss curve that grows while a model trains: give it to `fit` as `on_log`.

    >>> live = LivePlot("Pretraining", floor=0.48)
    >>> pretrain(config, on_log=live)

    Args:
        title: what is trained.
        floor: entropy of the data in nats a token, drawn as a line.
        every: seconds between two drawings.
    """

    def __init__(self, title: str, floor: float | None = None, every: float = 1.0) -> None:
        self.title, self.floor, self.every = title, floor, every
        self.metrics: list[dict[str, float]] = []
        self._handle: DisplayHandle | None = None
        self._drawn = 0.0

    def __call__(self, line: dict[str, float]) -> None:
        """Take a line of metrics; redraw if the last drawing is old enough, or training has ended."""
        self.metrics.append(line)
        ended = "validation_loss" in line
        if any("loss" in one for one in self.metrics) and (
            ended or time.monotonic() - self._drawn > self.every
        ):
            self.draw()

    def draw(self) -> None:
        """Draw what there is, in place of the last drawing."""
        held_out = next((m["validation_loss"] for m in self.metrics[::-1] if "validation_loss" in m), None)
        figure = loss_curve(self.metrics, self.floor, held_out, self.title)
        alt = f"{self.title}: training loss by step, with the data's floor"
        if self._handle is None:
            self._handle = display_bundle(figure, alt, display_id=True)
        else:
            data, metadata = bundle(figure, alt)
            self._handle.update(data, metadata=metadata, raw=True)
        self._drawn = time.monotonic()


def loss_curve(
    metrics: Sequence[dict[str, float]], floor: float | None, held_out: float | None, title: str
) -> Figure:
    """Training loss by step, with the data's floor and the loss on held-out documents.

    Args:
        metrics: lines of a ``metrics.jsonl``.
        floor: entropy of the data in nats a token.
        held_out: loss on held-out documents after the last step.

    Raises:
        ValueError: no line has a loss.
    """
    points = [(line["step"], line["loss"]) for line in metrics if "loss" in line]
    if not points:
        raise ValueError("there is no training loss to draw: none of the metrics has a 'loss'")
    figure, axes = new_figure(7.5, 4.2)
    axes.plot(*zip(*points, strict=True), color=BLUE, label="training loss")
    if held_out is not None:
        axes.plot(points[-1][0], held_out, "o", color=ORANGE, label=f"held out: {held_out:.3f}")
    if floor is not None:
        axes.axhline(floor, color=GREEN, linestyle="--", label=f"floor (entropy of the data): {floor:.3f}")
    axes.set(title=title, xlabel="step", ylabel="loss (nats a token)", yscale="log")
    lowest = min(value for value in (floor, held_out, min(loss for _, loss in points)) if value is not None)
    plain_log_ticks(axes, lowest, max(loss for _, loss in points))
    with style():
        axes.legend()
    return figure


def plain_log_ticks(axes: Axes, lowest: float, highest: float) -> None:
    """Round numbers instead of powers of ten on a logarithmic axis of losses from lowest to highest.

    Powers of ten come first, then 3, 2, 5, 7 and 1.5 times one, as long as there is room for their words.
    """
    low, high = lowest * 0.9, highest * 1.1
    ticks: list[float] = []
    for factor in (1, 3, 2, 5, 7, 1.5):
        for tick in (float(f"{factor}e{power}") for power in range(-4, 5)):
            room = min((abs(math.log(tick / other)) for other in ticks), default=math.inf)
            if low <= tick <= high and room > TICK_ROOM * math.log(high / low):
                ticks.append(tick)
    ticks.sort()
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(low, high)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG or SVG, by the ending of ``path``; an existing file is replaced whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp{path.suffix}")
    # Without a date, the same figure is the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with style():
        figure.savefig(beside, dpi=150, metadata=metadata)
    beside.replace(path)
    return path
