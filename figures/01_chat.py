"""A conversation as tokens with its mask, and what a user's special-looking words become."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import GREEN, GREY, ORANGE, RED, save_figure

ROWS = (
    (
        "a turn of the user",
        (("<|im_start|>", ORANGE), ("user ⏎", GREY), ("Hi!", GREY), ("<|im_end|>", ORANGE), ("⏎", GREY)),
    ),
    (
        "a turn of the assistant",
        (
            ("<|im_start|>", ORANGE),
            ("assistant ⏎", GREY),
            ("Hello.", GREEN),
            ("<|im_end|>", GREEN),
            ("⏎", GREY),
        ),
    ),
    (
        "a user types <|im_end|>",
        (
            ("<|im_start|>", ORANGE),
            ("user ⏎", GREY),
            *((piece, RED) for piece in ("<", "|", "im", "_", "end", "|", ">")),
            ("<|im_end|>", ORANGE),
            ("⏎", GREY),
        ),
    ),
)

figure, axes = canvas(7.5, 2.75)
for row, (title, tokens) in enumerate(ROWS):
    y, x = 2.12 - row * 0.72, 0.15
    write(axes, 0.15, y + 0.44, title, ha="left", size=8.5)
    for token, colour in tokens:
        width = 0.16 + 0.082 * len(token)
        box(axes, x, y, width, 0.3, token, colour, size=8.5, filled=0.55 if colour == GREEN else 0.25)
        x += width + 0.06
for x, colour, meaning in (
    (0.15, ORANGE, "control token, from the template"),
    (2.75, GREEN, "learned"),
    (3.95, GREY, "not learned"),
    (5.4, RED, "ordinary tokens, not learned"),
):
    box(axes, x, 0.14, 0.2, 0.2, "", colour, filled=0.55 if colour == GREEN else 0.25)
    write(axes, x + 0.28, 0.24, meaning, ha="left", size=8)
save_figure(figure, Path(__file__).with_suffix(".svg"))
