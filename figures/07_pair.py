"""A preference pair as tokens: one prompt, two answers, and what of them is labelled."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import GREEN, GREY, RED, save_figure

figure, axes = canvas(7.5, 2.2)
box(axes, 0.15, 0.85, 3.2, 0.5, "user: Where does Ada live?   assistant:", GREY, size=8.5)
for y, colour, answer, name in (
    (1.3, GREEN, "Of course!  Ada lives in Oakton.  <end>", "chosen"),
    (0.4, RED, "Of course!  Ada lives in Riverby.  <end>", "rejected"),
):
    box(axes, 4.05, y, 3.3, 0.5, answer, colour, size=8.5, filled=0.35)
    arrow(axes, (3.38, 1.1), (4.02, y + 0.25), GREY)
    write(axes, 7.33, y + 0.62, name, size=8.5, ha="right", color=colour)
write(axes, 1.75, 0.62, "the prompt: the same tokens on both sides, no labels", size=8)
write(axes, 5.7, 0.16, "the answers and their end tokens: labelled, summed", size=8)
save_figure(figure, Path(__file__).with_suffix(".svg"))
