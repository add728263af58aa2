"""What chapter 10 shows: the roofline, memory by batch and length, and predictions beside measurements."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minimind_edu.course import figures
from minimind_edu.hardware import Workload
from minimind_edu.hardware.advice import advice
from minimind_edu.hardware.cards import GIB
from minimind_edu.hardware.estimate import Estimate
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.memory import memory
from minimind_edu.hardware.steps import real_step
from minimind_edu.hardware.timing import amounts

PARTS = ("framework", "weights", "gradients", "optimizer", "activations", "logits", "temporary", "allocator")
MEGA = 1e6
MOVED = ("operands", "elementwise", "scores float32", "scores bfloat16", "logits", "weights")


def seconds_of(run: Callable[[], object], budget: float = 0.1) -> float:
    """Median seconds of a call, over as many calls as fit a budget of seconds; at least three."""
    run()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < budget:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def product_point(size: int) -> tuple[float, float]:
    """Two float32 matrices of size × size multiplied: (FLOPs for each byte, FLOPs a second)."""
    a, b, out = (torch.rand(size, size) for _ in range(3))
    count, moved = 2 * size**3, 3 * 4 * size**2
    return count / moved, count / seconds_of(lambda: torch.mm(a, b, out=out))


def addition_point(size: int = 1 << 24) -> tuple[float, float]:
    """Two float32 vectors added, too long for the caches: (FLOPs for each byte, FLOPs a second)."""
    a, b, out = (torch.rand(size) for _ in range(3))
    return 1 / 12, size / seconds_of(lambda: torch.add(a, b, out=out))


def step_point(work: Workload) -> tuple[float, float]:
    """A training step: (FLOPs for each byte that it moves, FLOPs a second), operands of products included."""
    step, found = real_step(work), amounts(work)
    moved = sum(found.get(kind, 0.0) for kind in MOVED)
    count = flops(work).total
    return count / moved, count / seconds_of(step.take, 0.5)


def roof_figure(peak: float, bandwidth: float, points: Mapping[str, tuple[float, float]]) -> Figure:
    """A roofline and what was measured under it.

    Args:
        peak: FLOPs a second.
        bandwidth: bytes a second.
        points: (FLOPs for each byte, FLOPs a second) by name.
    """
    figure, axes = figures.new_figure(7.5, 3.6)
    left, right = 0.04, 2 * max(intensity for intensity, _ in points.values())
    ridge = peak / bandwidth
    axes.plot((left, ridge, right), (left * bandwidth, peak, peak), color=figures.INK, label="the roof")
    for name, (intensity, speed) in points.items():
        is_product = "×" in name
        colour = figures.BLUE if is_product else figures.ORANGE if "add" in name else figures.RED
        axes.plot(intensity, speed, "o", color=colour, markersize=6 if is_product else 9)
        place = (8, -13) if is_product else (9, -14)
        axes.annotate(name, (intensity, speed), place, textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="intensity: FLOPs for each byte", ylabel="FLOPs a second")
    axes.legend(loc="lower right")
    return figure


def stack_figure(
    work: Workload, batches: Sequence[int], lengths: Sequence[int], framework: int | None = None
) -> Figure:
    """Memory by part, as the batch grows and as the rows grow.

    Args:
        work: what is varied.
        framework: bytes that the process has before; default what it has on this machine.
    """
    figure, axes = figures.new_figure(7.5, 3.4, columns=2)
    for axis, name, values in ((axes[0], "batch_size", batches), (axes[1], "seq_len", lengths)):
        found = [memory(work.replace(**{name: value}), framework).parts for value in values]
        stacked(axis, values, {part: [one.get(part, 0) / MEGA for one in found] for part in PARTS})
    axes[0].set(xlabel=f"rows of {work.seq_len} tokens", ylabel="MB")
    axes[1].set(xlabel=f"tokens in each of {work.batch_size} rows")
    axes[0].legend(fontsize=8, loc="upper left", reverse=True)
    return figure


def stacked(axes: Axes, x: Sequence[float], layers: Mapping[str, Sequence[float]]) -> None:
    """Layers on top of each other, in the course's colours."""
    axes.stackplot(x, *layers.values(), labels=list(layers), colors=figures.COLOURS, alpha=0.75)
    axes.margins(x=0)


def agreement_figure(pairs: Mapping[str, Sequence[tuple[float, float]]], within: float, unit: str) -> Figure:
    """Predicted over measured values, with a band around equality.

    Args:
        pairs: (measured, predicted) by kind, which has a colour.
        within: half width of the band, as a share of the measured value.
        unit: of both.
    """
    figure, axes = figures.new_figure(7.5, 3.6)
    every = [value for found in pairs.values() for pair in found for value in pair]
    ends = torch.tensor([0.8 * min(every), 1.25 * max(every)])
    axes.fill_between(
        ends, ends * (1 - within), ends * (1 + within), color=figures.GREY, alpha=0.25, linewidth=0
    )
    axes.plot(ends, ends, color=figures.GREY, linewidth=1)
    for (kind, found), colour in zip(pairs.items(), figures.COLOURS, strict=False):
        axes.plot(*zip(*found, strict=True), "o", color=colour, label=kind, alpha=0.8)
    axes.set(xscale="log", yscale="log", xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.legend(fontsize=8)
    return figure


def fit_figure(one: Estimate) -> Figure:
    """A step's memory by part beside what the card has for a program.

    In the title hours and yuan where it fits, else the least harmful change that makes it fit.
    """
    figure, axes = figures.new_figure(7.5, 2.4)
    begin = 0.0
    for (part, size), colour in zip(
        sorted(one.memory.parts.items(), key=_place), figures.COLOURS, strict=False
    ):
        if size:
            axes.barh(0, size / GIB, left=begin, color=colour, label=part.replace("_", " "))
            begin += size / GIB
    axes.axvline(one.card.usable / GIB, color=figures.INK, linewidth=2.5)
    axes.set(xlim=(0, 1.08 * max(begin, one.card.usable / GIB)), xlabel="GB; the line is what the card has")
    axes.set_yticks([])
    axes.set_title(f"{one.card.name}: {'; '.join(_in_words(one))}", fontsize=10)
    figure.legend(fontsize=8, ncols=5, loc="outside lower center", frameon=False)
    return figure


def _place(item: tuple[str, int]) -> int:
    """Parts in the order of `PARTS`, others after them."""
    return PARTS.index(item[0]) if item[0] in PARTS else len(PARTS)


def _in_words(one: Estimate) -> list[str]:
    if not one.fits:
        ways = advice(one.work, one.card)
        return ["does not fit", f"what would:\n{ways[0].change}" if ways else "no change is enough"]
    words = [f"fits, up to {one.largest_batch} rows\nestimated {_range(one.hours)} hours"]
    return words + ([f"{_range(one.cost)} yuan"] if one.cost else [])


def _range(values: tuple[float, float, float]) -> str:
    low, mid, high = (f"{value:.0f}" if value >= 20 else f"{value:.1f}" for value in values)
    return f"{mid} ({low} to {high})"
