"""The four merges of "she sells sea shells", as a tree over its bytes."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, save_figure

TEXT = "she sells sea shells"
MERGES = ((" s", ORANGE), ("el", GREEN), ("ls", PURPLE), ("ells", BLUE))
CELL, LEVEL = 0.345, 0.56


def shown(token: str) -> str:
    return token.replace(" ", "Ġ")


figure, axes = canvas(7.5, 2.45)
# Every token: (text, middle, height of its box's top)
tokens = [(char, 0.3 + (place + 0.5) * CELL, 0.35) for place, char in enumerate(TEXT)]
for char, middle, _ in tokens:
    box(axes, middle - 0.14, 0.35, 0.28, 0.3, shown(char), GREY, size=9)
tokens = [(char, middle, 0.65) for char, middle, _ in tokens]
for rank, (name, colour) in enumerate(MERGES):
    bottom = 0.35 + LEVEL * {0: 1, 1: 1, 2: 1, 3: 2}[rank]
    merged, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and tokens[i][0] + tokens[i + 1][0] == name:
            (_, left, left_top), (_, right, right_top) = tokens[i], tokens[i + 1]
            middle, width = (left + right) / 2, 0.4 if len(name) == 2 else 0.6
            for x, top in ((left, left_top), (right, right_top)):
                axes.plot((x, middle), (top, bottom), color=colour, linewidth=1.3, zorder=0)
            box(axes, middle - width / 2, bottom, width, 0.3, shown(name), colour, size=9, weight="bold")
            write(axes, middle - width / 2 - 0.04, bottom + 0.15, f"{rank + 1}.", size=7.5, ha="right")
            merged.append((name, middle, bottom + 0.3))
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    tokens = merged
write(axes, 0.3, 0.17, f"{len(TEXT)} bytes", ha="left", size=8.5)
write(
    axes,
    0.3,
    2.28,
    f"{len(tokens)} tokens; the numbers say which merge was learned first",
    ha="left",
    size=8.5,
)
save_figure(figure, Path(__file__).with_suffix(".svg"))
