"""Query heads and the key/value heads that they share: every head its own, groups, one for all."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREY, ORANGE, save_figure

HEADS, CELL, GAP = 8, 0.24, 0.035
KINDS = (("multi-head (MHA)", 8), ("grouped-query (GQA)", 2), ("multi-query (MQA)", 1))

figure, axes = canvas(7.5, 1.95)
for number, (name, groups) in enumerate(KINDS):
    left = 0.32 + number * 2.42
    width = HEADS * (CELL + GAP) - GAP
    share = HEADS // groups
    for head in range(HEADS):
        x = left + head * (CELL + GAP)
        middle_of_group = left + (head // share + 0.5) * share * (CELL + GAP) - GAP / 2
        axes.plot((x + CELL / 2, middle_of_group), (1.15, 0.72), color=GREY, linewidth=1, zorder=0)
        box(axes, x, 1.15, CELL, 0.3, f"q{head}", BLUE, size=7)
    for group in range(groups):
        middle = left + (group + 0.5) * share * (CELL + GAP) - GAP / 2
        box(axes, middle - CELL / 2, 0.42, CELL, 0.3, f"kv{group}" if groups > 1 else "kv", ORANGE, size=6.5)
    write(axes, left + width / 2, 1.7, name, size=9.5, weight="bold")
    write(
        axes,
        left + width / 2,
        0.18,
        f"cache: {groups} of {HEADS}" if groups < 8 else "cache: all 8",
        size=8.5,
    )
save_figure(figure, Path(__file__).with_suffix(".svg"))
