"""A packed row of two conversations: its tokens, which document they belong to, and what is learned."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

# Token, whether its answer is learned; a conversation a line.
FIRST = (("user", 0), ("Hi", 0), ("end", 0), ("assistant", 0), ("Hello", 1), ("end", 1))
SECOND = (("user", 0), ("2+2?", 0), ("end", 0), ("assistant", 0), ("4", 1), ("end", 1))
PADDING = 1
UNIT, HEIGHT, LEFT = 0.475, 0.34, 1.1

figure, axes = canvas(7.5, 1.95)
for y, name in ((1.42, "input_ids"), (0.92, "document_ids"), (0.42, "labels")):
    write(axes, LEFT - 0.1, y + HEIGHT / 2, name, ha="right", size=8.5)
place = 0
for number, (conversation, colour) in enumerate(((FIRST, BLUE), (SECOND, ORANGE))):
    for token, learned in conversation:
        x = LEFT + place * UNIT
        box(axes, x, 1.42, UNIT - 0.04, HEIGHT, token, GREEN if learned else colour, size=6.3, filled=0.3)
        box(axes, x, 0.92, UNIT - 0.04, HEIGHT, str(number), colour, size=8.5)
        label = token if learned else "-100"
        box(
            axes,
            x,
            0.42,
            UNIT - 0.04,
            HEIGHT,
            label,
            GREEN if learned else GREY,
            size=6.6,
            filled=0.3 if learned else 0.08,
        )
        place += 1
for _ in range(PADDING):
    x = LEFT + place * UNIT
    for y, word in ((1.42, "pad"), (0.92, "-1"), (0.42, "-100")):
        box(axes, x, y, UNIT - 0.04, HEIGHT, word, GREY, size=6.6, filled=0.08)
write(
    axes,
    LEFT,
    0.17,
    "Only the answers and their end tokens have labels; no token sees the other conversation.",
    ha="left",
    size=8.5,
)
save_figure(figure, Path(__file__).with_suffix(".svg"))
