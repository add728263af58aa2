"""The same six documents in padded rows and in packed rows."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import COLOURS, GREY, save_figure

LENGTHS = (5, 4, 3, 3, 6, 2)
CAPACITY = 8
PACKED = ((4, 5), (0, 3), (1, 2))  # best fit: 6 + 2, then 5 + 3, then 4 + 3
UNIT, HEIGHT = 0.4, 0.3

figure, axes = canvas(7.5, 2.75)


def row(x: float, y: float, documents: tuple[int, ...]) -> None:
    """One row of a batch: documents, then what is wasted."""
    place = 0
    for document in documents:
        length = LENGTHS[document]
        colour = COLOURS[document]
        box(axes, x + place * UNIT, y, length * UNIT - 0.03, HEIGHT, f"{length}", colour, size=9, filled=0.4)
        place += length
    if place < CAPACITY:
        width = (CAPACITY - place) * UNIT - 0.03
        text = "padding" if width > 0.7 else ""
        box(axes, x + place * UNIT, y, width, HEIGHT, text, GREY, size=8, filled=0.08)


for index in range(len(LENGTHS)):
    row(0.25, 1.95 - index * 0.36, (index,))
for index, documents in enumerate(PACKED):
    row(4.05, 1.95 - index * 0.36, documents)
used = sum(LENGTHS)
write(axes, 0.25 + 4 * UNIT, 2.5, f"padded: {used} of {len(LENGTHS) * CAPACITY} places used", size=10)
write(axes, 4.05 + 4 * UNIT, 2.5, f"packed: {used} of {len(PACKED) * CAPACITY} places used", size=10)
write(axes, 4.05 + 4 * UNIT, 0.7, "attention stays inside a document", size=9)
save_figure(figure, Path(__file__).with_suffix(".svg"))
