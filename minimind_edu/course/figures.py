"""The course's figures. Drawn with Matplotlib's object interface, so no display is needed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

# Readable on white and on the dark grey of JupyterLab; from Wong, "Points of view: Color blindness" (2011).
BLUE, ORANGE, GREEN, GREY = "#3498db", "#e69f00", "#009e73", "#888888"


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
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), color=BLUE, label="training loss")
    if held_out is not None:
        axes.plot(points[-1][0], held_out, "o", color=ORANGE, label=f"held-out documents: {held_out:.3f}")
    if floor is not None:
        axes.axhline(floor, color=GREEN, linestyle="--", label=f"floor (entropy of the data): {floor:.3f}")
    axes.set(title=title, xlabel="step", ylabel="loss (nats a token)", yscale="log")
    lowest = min(value for value in (floor, held_out, min(loss for _, loss in points)) if value is not None)
    highest = max(loss for _, loss in points)
    ticks = [
        tick
        for tick in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)
        if lowest * 0.8 < tick < highest * 1.2
    ]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(lowest * 0.9, highest * 1.1)
    axes.grid(color=GREY, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG or SVG, by the ending of ``path``; an existing file is replaced whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp{path.suffix}")
    figure.savefig(beside, dpi=150, facecolor="white")
    beside.replace(path)
    return path
