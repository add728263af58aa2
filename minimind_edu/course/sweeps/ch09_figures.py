"""What chapter 9 shows of its record and of its live run: figures, and a group of answers as a table."""

import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from minimind_edu.course import figures
from minimind_edu.course.sweeps import SweepRecord
from minimind_edu.stages.grpo import Group
from minimind_edu.stages.policy import VARIANTS

if TYPE_CHECKING:
    from IPython.display import Markdown

Numbers = dict[str, Any]


def runs(grid: SweepRecord, experiment: str, **settings: Any) -> list[Numbers]:
    """The numbers of all cells of an experiment with these settings."""
    return [numbers for _, numbers in grid.select(experiment=experiment, **settings)]


def think_figure(grid: SweepRecord) -> Figure:
    """Greedy accuracy of every model that thinks first, and of every one that answers at once."""
    figure, axes = figures.new_figure(7.5, 2.4)
    names = {True: "thinking first", False: "at once"}
    for place, (thinking, colour) in enumerate(((False, figures.RED), (True, figures.BLUE))):
        found = [one["accuracy"] for one in runs(grid, "reason", thinking=thinking)]
        axes.plot(found, [place] * len(found), "o", color=colour, markersize=8, alpha=0.7)
    axes.set_yticks([0, 1], [names[False], names[True]])
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.5, 1.5), xlabel="accuracy on held-out three-digit sums")
    return figure


def tag_figure(grid: SweepRecord) -> Figure:
    """Tags known, and loss over all tokens, by step of the cold start for every weight; means over runs."""
    figure, axes = figures.new_figure(7.5, 3.0, columns=2)
    weights = sorted({cell["weight"] for cell, _ in grid.select(experiment="tags")})
    for axis, name in zip(axes, ("tags", "cross_entropy"), strict=True):
        for weight, colour in zip(weights, figures.COLOURS, strict=False):
            found = runs(grid, "tags", weight=weight)
            values = [mean(step) for step in zip(*(one[name] for one in found), strict=True)]
            axis.plot(found[0]["steps"], values, "o-", color=colour, label=f"weight {weight}", markersize=3)
        axis.set(xlabel="step of the cold start")
    axes[0].set(title="answers whose every tag is known", ylabel="share", ylim=(-0.03, 1.03))
    axes[1].set(title="loss of all tokens", ylabel="nats a token", yscale="log")
    figures.plain_log_ticks(axes[1], 0.2, 5)
    with figures.style():
        axes[0].legend()
    return figure


def layout_figure(grid: SweepRecord) -> Figure:
    """Answers in the layout by step, of a model that thinks already, for both weights; a line is a run."""
    figure, axes = figures.new_figure(7.5, 2.8, columns=2, sharey=True)
    for axis, name in zip(axes, ("greedy", "sampled"), strict=True):
        for weight, colour in ((1, figures.GREY), (10, figures.BLUE)):
            for number, run in enumerate(runs(grid, "layout", weight=weight)):
                label = None if number else f"weight {weight}"
                axis.plot(run["steps"], run[name], "o-", color=colour, label=label, markersize=3, alpha=0.8)
        axis.set(title=f"{name} answers in the layout", xlabel="step of the cold start", ylim=(-0.03, 1.03))
    with figures.style():
        axes[0].legend()
    return figure


def layout_gain(grid: SweepRecord, name: str) -> float:
    """Share of answers in the layout, mean over steps: weight 10 minus 1, least of the seeds."""
    heavy, light = ([mean(run[name]) for run in runs(grid, "layout", weight=weight)] for weight in (10, 1))
    return min(a - b for a, b in zip(heavy, light, strict=True))


PANELS = {
    "reward": "reward",
    "answer_tokens": "tokens an answer",
    "entropy": "entropy (nats a token)",
    "kl": "KL to the start (nats a token)",
    "dead_groups": "share of dead groups",
    "clip_share": "share of clipped tokens",
}


def curves_figure(found: Sequence[Numbers], names: Sequence[str] = tuple(PANELS)[:5]) -> Figure:
    """Some curves of runs by step, one panel each; a line is a run."""
    rows = -(-len(names) // 3)
    figure, axes = figures.new_figure(7.5, 2.2 * rows, rows, 3, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(names):
            axis.axis("off")
            continue
        for run in found:
            values = smooth(run["curves"][names[place]])
            axis.plot(range(1, len(values) + 1), values, linewidth=1.4, alpha=0.85)
        axis.set_title(PANELS[names[place]], fontsize=9)
        axis.set_xlabel("step", fontsize=8)
    return figure


def smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Means over up to `width` values, the last of them the value itself."""
    parts = [values[max(0, end - width) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def pass_figure(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], ks: Sequence[int]
) -> Figure:
    """pass@k of several runs before and after, by k."""
    figure, axes = figures.new_figure(7.5, 2.8)
    for found, colour, name in ((before, figures.GREY, "before"), (after, figures.BLUE, "after")):
        for number, values in enumerate(found):
            axes.plot(range(len(ks)), values, "o-", color=colour, label=None if number else name, alpha=0.8)
    axes.set_xticks(range(len(ks)), [str(k) for k in ks])
    axes.set(xlabel="k", ylabel="pass@k", ylim=(0, 1.03))
    with figures.style():
        axes.legend(loc="lower right")
    return figure


class LiveCurves:
    """Accuracy and dead groups by step, drawn anew while a model trains: give it to `on_log`.

    Args:
        every: seconds between two drawings.
    """

    def __init__(self, title: str, every: float = 4.0) -> None:
        self.title, self.every = title, every
        self.lines: list[dict[str, float]] = []
        self._handle: Any = None
        self._drawn = 0.0

    def __call__(self, line: dict[str, float]) -> None:
        """Take a line of the log; redraw if the last drawing is old enough."""
        if "reward" in line:
            self.lines.append(line)
            if time.monotonic() - self._drawn > self.every:
                self.draw()

    def draw(self) -> None:
        """Draw what there is, in place of the last drawing."""
        figure, alt = self.figure(), f"{self.title}: accuracy and dead groups by step"
        if self._handle is None:
            self._handle = figures.display_bundle(figure, alt, display_id=True)
        else:
            data, metadata = figures.bundle(figure, alt)
            self._handle.update(data, metadata=metadata, raw=True)
        self._drawn = time.monotonic()

    def figure(self) -> Figure:
        """Shares by step; the thin lines are the steps themselves."""
        figure, axes = figures.new_figure(7.5, 3.2)
        steps = [line["step"] for line in self.lines]
        for name, colour in (("accuracy", figures.BLUE), ("dead_groups", figures.GREY)):
            values = [line[name] for line in self.lines]
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.4)
            axes.plot(steps, smooth(values), color=colour, label=name.replace("_", " "))
        axes.set(title=self.title, xlabel="step", ylabel="share", ylim=(-0.03, 1.03))
        with figures.style():
            axes.legend(loc="upper left")
        return figure


def group_html(step: int, group: Group) -> str:
    """A group as an HTML table: its answers with their rewards and advantages."""
    rows = []
    for place in sorted(range(len(group.texts)), key=lambda one: -group.rewards[one]):
        colour = "#d7f0e4" if group.right[place] else "#f9ddd0"
        thoughts, tag, answer = group.texts[place].replace("\n", " ").rpartition("<answer>")
        text = f"{html.escape(thoughts)}<b>{html.escape(tag + answer)}</b>"
        cells = f"<td>{group.rewards[place]:.1f}</td><td>{group.advantages[place]:+.2f}</td>"
        style = f"background:{colour};color:#222;font-size:12px"
        rows.append(f'<tr style="{style}">{cells}<td style="text-align:left">{text}</td></tr>')
    # Rows without a colour of their own are dark in a dark theme.
    head = (
        '<tr style="background:#fbfaf7;color:#222"><th>reward</th><th>advantage</th>'
        '<th style="text-align:left">answer</th></tr>'
    )
    title = f"step {step}: {html.escape(group.question)} (right: {html.escape(group.gt)})"
    box = "background:#fbfaf7;color:#222;padding:6px"
    return f'<div style="{box}"><b>{title}</b><table style="color:#222">{head}{"".join(rows)}</table></div>'


def variant_table(grid: SweepRecord) -> "Markdown":
    """What each variant is, and what came out of the runs with it: accuracy of each, means of the rest."""
    from IPython.display import Markdown  # only notebooks need it

    lines = [
        "| variant | by deviation | mean over | surrogate | range | drops dead groups | sampled accuracy | "
        "entropy | clipped | dead groups |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, variant in VARIANTS.items():
        found = runs(grid, "variant", variant=name)
        late = {
            key: mean([mean(run["curves"][key][-10:]) for run in found])
            for key in ("entropy", "clip_share", "dead_groups")
        }
        before = found[0]["before"]["accuracy"]  # the same for all
        ends = ", ".join(f"{run['after']['accuracy']:.2f}" for run in found)
        lines.append(
            f"| {name} | {'yes' if variant.scale else 'no'} | {AGGREGATION[variant.aggregation]} | "
            f"{variant.surrogate} | {1 - variant.eps_low:g} to {1 + variant.eps_high:g} | "
            f"{'yes' if variant.drop_equal_groups else 'no'} | {before:.2f} → {ends} | "
            f"{late['entropy']:.3f} | {late['clip_share']:.2%} | {late['dead_groups']:.2f} |"
        )
    return Markdown("\n".join(lines))


AGGREGATION = {"sequence": "each answer, then answers", "token": "all tokens", "constant": "a fixed length"}


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers."""
    return sum(values) / len(values)


def last(text: str) -> str:
    """The end of a text on one line."""
    return text[-60:].replace("\n", " ")


def fool_figure(grid: SweepRecord) -> Figure:
    """What each verifier rewards, by step: right answers, and wrong ones that it takes; a line is a run."""
    figure, axes = figures.new_figure(7.5, 2.9, columns=2, sharey=True)
    for axis, check in zip(axes, ("loose", "exact"), strict=True):
        for number, run in enumerate(runs(grid, "fool", check=check)):
            for name, values, colour in (
                ("right", run["curves"]["accuracy"], figures.BLUE),
                ("wrong, but rewarded", run["cheats"], figures.RED),
            ):
                label = None if number else name
                axis.plot(range(len(values)), smooth(values), color=colour, label=label, alpha=0.8)
        axis.set(title=f"rewarded by the {check} verifier", xlabel="step", ylim=(-0.03, 1.03))
    with figures.style():
        axes[0].legend(loc="upper left")
    return figure


def sparse_figure(grid: SweepRecord) -> Figure:
    """Gain of GRPO by the success rate before it; dashed, the most that there is to gain."""
    figure, axes = figures.new_figure(7.5, 3.0)
    axes.plot([0, 1], [1, 0], "--", color=figures.GREY, linewidth=1, label="all that is missing")
    for settings, colour, name in (
        ({"experiment": "sparse"}, figures.BLUE, "three digits, some guessed"),
        ({"experiment": "fool", "check": "exact"}, figures.GREEN, "the cured start"),
        ({"experiment": "weak"}, figures.RED, "four digits, never taught"),
    ):
        points = list(zip(*gains(grid, **settings), strict=True))
        line = "o-" if settings["experiment"] == "sparse" else "o"
        axes.plot(*points, line, color=colour, alpha=0.8, markersize=7, linewidth=1, label=name)
    axes.set(xlabel="sampled accuracy before", ylabel="gain", xlim=(-0.03, 1.03), ylim=(-0.1, 1.03))
    with figures.style():
        axes.legend()
    return figure


def gains(grid: SweepRecord, experiment: str, **settings: Any) -> list[tuple[float, float]]:
    """(sampled accuracy before, gain) of every run of an experiment, by the first."""
    found = runs(grid, experiment, **settings)
    pairs = [(run["before"]["accuracy"], run["after"]["accuracy"]) for run in found]
    return sorted((before, after - before) for before, after in pairs)


def kinds_table(grid: SweepRecord) -> "Markdown":
    """Accuracy of models that think first, by kind and difficulty."""
    from IPython.display import Markdown  # only notebooks need it

    lines = ["| kind | difficulty | accuracy |", "| --- | --- | --- |"]
    for cell, numbers in grid.select(experiment="kind"):
        lines += [f"| {cell['kind']} | {level} | {rate:.2f} |" for level, rate in numbers["accuracy"].items()]
    return Markdown("\n".join(lines))
