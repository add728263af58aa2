"""White-box and black-box distillation: what goes from the teacher to the student."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, INK, ORANGE, save_figure

figure, axes = canvas(7.5, 2.6)
for y, title, between, note, dark in (
    (1.55, "white box", "its distribution at every token", "same tokenizer", False),
    (0.35, "black box", "text that it writes", "any tokenizer, any service", True),
):
    write(axes, 0.1, y + 0.35, title, size=10, weight="bold", ha="left")
    box(axes, 1.3, y, 1.5, 0.7, "teacher", INK if dark else BLUE, filled=0.55 if dark else 0.25)
    box(axes, 5.7, y, 1.3, 0.7, "student", GREEN)
    arrow(axes, (2.85, y + 0.35), (5.65, y + 0.35), ORANGE, width=2.0)
    write(axes, 4.25, y + 0.55, between, size=9.5)
    write(axes, 4.25, y + 0.13, note, size=8.5, color=GREY)
save_figure(figure, Path(__file__).with_suffix(".svg"))
