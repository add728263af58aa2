"""What chapter 7 shows of its record: figures, and its runs as tables."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from minimind_edu.course import figures
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.course.sweeps.ch07 import LANGUAGES
from minimind_edu.stages.dpo import DPOConfig

if TYPE_CHECKING:
    from IPython.display import Markdown

Numbers = Mapping[str, Any]
LATE = 0.25  # the part of a run's steps, at its end, that `late` takes the mean of


def runs(grid: SweepRecord, recipe: str, **settings: Any) -> list[Numbers]:
    """The numbers of a recipe's runs with just these settings besides, one for each seed."""
    names = {"recipe", "seed", *settings}
    return [numbers for cell, numbers in grid.select(recipe=recipe, **settings) if set(cell) == names]


def late(numbers: Numbers, name: str) -> float:
    """The mean of one of a run's curves over the last quarter of its steps."""
    values = numbers["curve"][name]
    values = values[-int(len(values) * LATE) :]
    return sum(values) / len(values)


def both(numbers: Numbers, name: str) -> float:
    """The mean over both languages; there are as many questions in each."""
    return sum(numbers[name][language] for language in LANGUAGES) / len(LANGUAGES)


def recipes(grid: SweepRecord) -> dict[str, list[Numbers]]:
    """The runs that start from the chat model, by what they do, three seeds each."""
    return {
        "plain DPO": runs(grid, "plain"),
        "chosen only": runs(grid, "chosen only"),
        "DPO + chosen": runs(grid, "default"),
    }


def recipe_figure(grid: SweepRecord) -> Figure:
    """Win rate and exact match of each recipe: a point for every seed and language."""
    figure, panels = figures.new_figure(7.5, 3.4, columns=2, sharey=True)
    found = recipes(grid)
    for axes, name in zip(panels, ("win_rate", "exact"), strict=True):
        for shift, (language, colour) in enumerate(zip(LANGUAGES, figures.COLOURS, strict=False)):
            for place, group in enumerate(found.values()):
                values = [numbers[name][language] for numbers in group]
                where = [place + 0.2 * shift - 0.1] * len(values)
                axes.plot(where, values, "o", color=colour, alpha=0.7, label="" if place else language)
        axes.set_xticks(range(len(found)), list(found), fontsize=9)
        axes.set(title=name.replace("_", " "), ylim=(-0.05, 1.05), xlim=(-0.5, len(found) - 0.5))
    panels[0].axhline(0.5, color=figures.GREY, linestyle="--", linewidth=1)
    panels[0].legend(loc="lower right")
    return figure


def curve_figure(grid: SweepRecord) -> Figure:
    """Log-probability of both sides over training, for three recipes."""
    shown = {"plain": "plain DPO", "default": "DPO + chosen", "again": "then plain DPO"}
    figure, panels = figures.new_figure(7.5, 3.2, columns=len(shown))
    for axes, (recipe, title) in zip(panels, shown.items(), strict=True):
        run = runs(grid, recipe)[0]["curve"]
        for side, colour in (("chosen", figures.GREEN), ("rejected", figures.RED)):
            axes.plot(run["step"], run[f"{side}_logp"], color=colour, label=side)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
    panels[0].set_ylabel("ln p of an answer (nats)")
    panels[0].legend()
    return figure


def beta_figure(grid: SweepRecord) -> Figure:
    """Exact match, win rate and KL by beta, for one seed."""
    figure, panels = figures.new_figure(7.5, 3.2, columns=2)
    found = beta_runs(grid)
    for language, colour in zip(LANGUAGES, figures.COLOURS, strict=False):
        for name, style in (("win_rate", "o-"), ("exact", "s--")):
            values = [numbers[name][language] for numbers in found.values()]
            label = f"{name.replace('_', ' ')}, {language}"
            panels[0].plot(list(found), values, style, color=colour, label=label, markersize=4)
    panels[1].plot(list(found), [numbers["kl"] for numbers in found.values()], "o-")
    for axes, title in zip(panels, ("held-out answers", "KL to the chat model (nats)"), strict=True):
        axes.set(xscale="log", xlabel="beta", title=title)
    panels[1].set_ylim(bottom=0)
    panels[0].legend(fontsize=8)
    return figure


def beta_runs(grid: SweepRecord) -> dict[float, Numbers]:
    """By beta the run of the first seed, all else as by default."""
    found = {cell["beta"]: numbers for cell, numbers in grid.select(seed=1) if "beta" in cell}
    found[DPOConfig.beta] = runs(grid, "default")[0]
    return dict(sorted(found.items()))


def heavier(grid: SweepRecord) -> dict[str, Numbers]:
    """Runs of the first seed in which the loss of the pairs has more weight than by default, or its shape
    differs; the default comes first."""
    return {
        "default: beta 0.1, sft_weight 10": runs(grid, "default")[0],
        "beta 1": grid.find(recipe="default", beta=1.0),
        "sft_weight 1": grid.find(recipe="default", sft_weight=1.0),
        "hinge": grid.find(recipe="default", loss_type="hinge"),
        "IPO": grid.find(recipe="default", loss_type="ipo"),
        "the default, then plain DPO": runs(grid, "again")[0],
    }


def table(rows: Iterable[tuple[str, Numbers]], *names: str) -> "Markdown":
    """Runs as a table: columns for each name, and two of them, English and Chinese, where a run has both.

    Args:
        rows: (what the row is called, numbers) of each run.
        names: such as "win_rate" or "kl".
    """
    from IPython.display import Markdown  # only notebooks need it

    rows = list(rows)
    first = rows[0][1]
    heads = [_heads(name, first[name]) for name in names]
    lines = [["", *sum(heads, [])], ["---"] * (1 + len(sum(heads, [])))]
    lines += [[label, *sum((_cells(numbers[name]) for name in names), [])] for label, numbers in rows]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _heads(name: str, value: Any) -> list[str]:
    words = {"kl": "KL"}.get(name, name.replace("_", " "))
    return [f"{words} {language}" for language in value] if isinstance(value, Mapping) else [words]


def _cells(value: Any) -> list[str]:
    values = value.values() if isinstance(value, Mapping) else [value]
    return [f"{one:.1f}" if one > 1 else f"{one:.3f}" for one in values]
