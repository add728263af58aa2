"""A ring all-reduce of three cards: two steps that add up, two that pass on: `10_ring.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

# What each of three cards holds of chunks A, B, C before the first step and after each step.
STAGES = (
    ("at first", (("1", "2", "3"), ("10", "20", "30"), ("100", "200", "300"))),
    ("add, step 1", (("1", "2", "303"), ("11", "20", "30"), ("100", "220", "300"))),
    ("add, step 2", (("1", "222", "303"), ("11", "20", "333"), ("111", "220", "300"))),
    ("pass on, 1", (("111", "222", "303"), ("11", "222", "333"), ("111", "220", "333"))),
    ("pass on, 2", (("111", "222", "333"), ("111", "222", "333"), ("111", "222", "333"))),
)
DONE = {"111", "222", "333"}

figure, axes = canvas(7.5, 2.45)
for column, (title, cards) in enumerate(STAGES):
    x = 0.75 + column * 1.36
    write(axes, x + 0.58, 2.27, title, size=9)
    for card, chunks in enumerate(cards):
        y = 1.6 - card * 0.62
        if not column:
            write(axes, 0.66, y + 0.17, f"card {card}", size=8.5, ha="right")
        for place, value in enumerate(chunks):
            before = STAGES[column - 1][1][card][place] if column else value
            colour = GREEN if value in DONE else ORANGE if value != before else BLUE
            box(
                axes,
                x + place * 0.39,
                y,
                0.37,
                0.34,
                value,
                colour,
                size=8,
                filled=0.35 if value != before else 0.18,
            )
for card in range(2):
    y = 1.6 - card * 0.62
    arrow(axes, (0.35, y - 0.02), (0.35, y - 0.26), GREY)
write(axes, 0.1, 0.14, "card 0 sends to 1, 1 to 2, and 2 to 0", size=8.5, ha="left", color=GREY)
save_figure(figure, Path(__file__).with_suffix(".svg"))
