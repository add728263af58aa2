"""Dispatch by sorting: eight (token, expert) pairs become one block for each expert. `03_dispatch.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, ORANGE, PURPLE, save_figure

CHOSEN = [(0, 1), (2, 1), (1, 0), (2, 0)]  # experts of the four toy tokens, the more probable first
COLOURS = (BLUE, ORANGE, GREEN)
NAMES = ("a", "b", "c", "d")
WIDTH, LEFT = 0.72, 1.35

pairs = [(token, expert) for token, experts in enumerate(CHOSEN) for expert in experts]
order = sorted(range(len(pairs)), key=lambda pair: pairs[pair][1])

figure, axes = canvas(7.5, 3.25)
write(axes, 0.1, 2.87, "pairs,\nby token", size=8.5, ha="left")
write(axes, 0.1, 1.72, "sorted\nby expert", size=8.5, ha="left")
write(axes, 0.1, 0.98, "one call\nan expert", size=8.5, ha="left")
write(axes, 0.1, 0.3, "index_add", size=8.5, ha="left")
for place, (token, expert) in enumerate(pairs):
    box(axes, LEFT + place * WIDTH, 2.66, 0.66, 0.42, f"{NAMES[token]} → {expert}", COLOURS[expert], size=9)
for place, pair in enumerate(order):
    token, expert = pairs[pair]
    x = LEFT + place * WIDTH
    box(axes, x, 1.5, 0.66, 0.42, f"{NAMES[token]} → {expert}", COLOURS[expert], size=9)
    arrow(axes, (LEFT + pair * WIDTH + 0.33, 2.66), (x + 0.33, 1.92), COLOURS[expert], width=1.0)
begin = 0
for expert, colour in enumerate(COLOURS):
    count = sum(1 for _, chosen in pairs if chosen == expert)
    x, width = LEFT + begin * WIDTH, count * WIDTH - 0.06
    box(axes, x, 0.78, width, 0.42, f"expert {expert}: {count} rows", colour, size=9, filled=0.4)
    arrow(axes, (x + width / 2, 1.5), (x + width / 2, 1.2), colour)
    arrow(axes, (x + width / 2, 0.78), (x + width / 2, 0.5), colour)
    begin += count
box(
    axes, LEFT, 0.1, 8 * WIDTH - 0.06, 0.4,
    "weight × output, added to the row of its token: a, b, c, d", PURPLE, size=9, filled=0.12,
)  # fmt: skip
save_figure(figure, Path(__file__).with_suffix(".svg"))
