"""An epoch of nine rows of conversations with three rows of documents among them: a share of a quarter."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import GREEN, ORANGE, save_figure

MAIN, REPLAYED = 9, 3
WIDTH = 0.56

figure, axes = canvas(7.5, 1.5)
rows, seen = MAIN + REPLAYED, 0
for row in range(rows):
    replayed = (row + 1) * REPLAYED // rows > row * REPLAYED // rows
    seen += replayed
    text = f"text {seen - 1}" if replayed else f"chat {row - seen}"
    box(
        axes,
        0.3 + row * (WIDTH + 0.02),
        0.72,
        WIDTH - 0.03,
        0.42,
        text,
        ORANGE if replayed else GREEN,
        size=7.5,
        filled=0.4,
    )
    write(axes, 0.3 + row * (WIDTH + 0.02) + WIDTH / 2, 1.29, str(row), size=8)
write(axes, 0.3, 0.46, "green: rows of conversations, each once an epoch", ha="left", size=8.5)
write(
    axes,
    0.3,
    0.2,
    "orange: rows of pretraining documents; the next epoch goes on with text 3, 4 and 5",
    ha="left",
    size=8.5,
)
save_figure(figure, Path(__file__).with_suffix(".svg"))
