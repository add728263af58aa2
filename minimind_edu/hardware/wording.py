"""Estimates in words."""

from typing import TYPE_CHECKING

from minimind_edu.hardware.cards import in_words
from minimind_edu.hardware.flops import flops

if TYPE_CHECKING:
    from minimind_edu.hardware.estimate import Estimate


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size or unit == "s":
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 20 else f"{value:.{1 if value >= 1 else 3}f} {unit}"
    raise ValueError(f"not a time: {seconds}")


def about_memory(one: "Estimate") -> list[str]:
    """Whether it fits, and where the memory goes."""
    have, need = in_words(one.card.usable), in_words(one.memory.total)
    if one.fits:
        first = f"fits: needs {need} of {have}; the largest batch is {one.largest_batch}"
    elif one.largest_batch:
        first = f"does not fit: needs {need} of {have}; the largest batch is {one.largest_batch}"
    else:
        first = f"does not fit: needs {need} of {have}, and even one row is too much"
    parts = sorted(((size, name) for name, size in one.memory.parts.items() if size >= 2**20), reverse=True)
    listed = ", ".join(f"{name.replace('_', ' ')} {in_words(size)}" for size, name in parts)
    return [first, f"at the peak ({one.moment}): {listed}"]


def about_time(one: "Estimate") -> list[str]:
    """Time and cost, and what they rest on."""
    if one.step_seconds is None:
        return [f"time {one.source}"]
    low, mid, high = one.step_seconds
    per_second = flops(one.work).tokens / mid
    lines = [
        f"a step: {duration(mid)} ({duration(low)} to {duration(high)}), "
        f"{per_second:,.0f} tokens a second, {one.flops_per_token / 1e9:.2f} GFLOP a token"
    ]
    if one.hours is not None:
        low, mid, high = one.hours
        times = f"{duration(mid * 3600)} ({duration(low * 3600)} to {duration(high * 3600)})"
        lines.append(f"{_amount(one)}: {times}")
        if one.padding and one.work.packed and one.work.stage not in ("dpo", "grpo"):
            packed = duration(mid * 3600 * (1 - one.padding))
            lines.append(f"packed into full rows, as our commands do, the same texts take {packed}")
    if one.cost is not None:
        low, mid, high = one.cost
        said = f"{one.price.yuan:g} yuan an hour ({one.price.source}{_comma(one.price.date)})"
        lines.append(f"cost: {mid:.2f} yuan ({low:.2f} to {high:.2f}), at {said}")
    return [*lines, f"time {one.source}"]


def _amount(one: "Estimate") -> str:
    unit = {"dpo": "pairs", "grpo": "prompts"}.get(one.work.stage, "rows")
    padding = "padding unknown" if one.padding is None else f"{one.padding:.0%} padding"
    epochs = "1 epoch" if one.epochs == 1 else f"{one.epochs} epochs"
    return (
        f"{epochs} of {one.rows:,} {unit} x {one.work.seq_len} ({one.tokens / 1e6:,.1f}M tokens, {padding})"
    )


def _comma(text: str) -> str:
    return f", {text}" if text else ""
