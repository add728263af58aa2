"""Characters, their UTF-8 bytes, and the ids that a byte vocabulary gives them."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

# Matplotlib's font has no Chinese, so that character goes by its name.
CHARACTERS = (
    ("a", "letter a", b"a", BLUE),
    ("ë", "e with two dots", "ë".encode(), GREEN),
    ("U+732B", "Chinese: cat", "猫".encode(), ORANGE),
)
CELL, GAP = 0.62, 0.55

figure, axes = canvas(7.5, 2.05)
write(axes, 0.1, 1.7, "character", ha="left", weight="bold")
write(axes, 0.1, 0.62, "UTF-8 bytes", ha="left", weight="bold")
write(axes, 0.1, 0.28, "256 tokens, one for each value of a byte, spell every text", ha="left", size=9)
x = 1.6
for character, name, data, colour in CHARACTERS:
    width = len(data) * CELL
    middle = x + width / 2
    box(
        axes,
        middle - 0.45,
        1.5,
        0.9,
        0.4,
        character,
        colour,
        size=12 if len(character) == 1 else 9.5,
        weight="bold",
    )
    write(axes, middle, 1.36, name, size=7.5)
    for place, byte in enumerate(data):
        left = x + place * CELL
        box(axes, left + 0.03, 0.46, CELL - 0.06, 0.34, str(byte), colour)
        arrow(axes, (middle, 1.26), (left + CELL / 2, 0.82), GREY)
    x += width + GAP + (0.35 if len(data) == 1 else 0)
save_figure(figure, Path(__file__).with_suffix(".svg"))
