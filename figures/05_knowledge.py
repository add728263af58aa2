"""Who is read about, who is asked about in fine-tuning, and what exact match on each half tells."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.3)
for x, title in ((1.35, "pretraining"), (3.75, "fine-tuning"), (6.15, "evaluation")):
    write(axes, x + 0.2, 2.1, title, size=9.5, weight="bold")
for y, people, tuned, colour, meaning in (
    (1.15, "50 people", "questions and answers", ORANGE, "trained: may be parroted"),
    (0.3, "the other 50", "nothing", GREY, "untrained: must be known"),
):
    box(axes, 0.25, y, 2.5, 0.66, f"{people}:\nbiographies, many wordings", BLUE, size=8.5)
    box(axes, 3.1, y, 1.75, 0.66, tuned, colour, size=8.5, filled=0.3 if colour == ORANGE else 0.08)
    box(axes, 5.2, y, 2.1, 0.66, f"questions\n{meaning}", GREEN, size=8.5)
    arrow(axes, (2.75, y + 0.33), (3.1, y + 0.33), GREY)
    arrow(axes, (4.85, y + 0.33), (5.2, y + 0.33), GREY)
save_figure(figure, Path(__file__).with_suffix(".svg"))
