"""The layout that is verified, and the places where a wrong text may hide an answer."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, RED, save_figure

figure, axes = canvas(7.5, 2.3)
for x, width, text, colour in (
    (0.15, 0.85, "<think>", BLUE),
    (1.05, 2.1, "thoughts: never judged", GREY),
    (3.2, 0.9, "</think>", BLUE),
    (4.15, 0.9, "<answer>", BLUE),
    (5.1, 1.2, "1134", GREEN),
    (6.35, 1.0, "</answer>", BLUE),
):
    box(axes, x, 0.95, width, 0.45, text, colour, size=8.5, filled=0.35)
for x, y, text, target in (
    (0.85, 1.95, "text before", 0.1),
    (2.1, 1.95, "an answer in the thoughts", 2.1),
    (4.12, 1.95, "text between", 4.12),
    (6.95, 1.95, "text after", 7.4),
    (1.2, 0.35, "other tags, other case, spaces", 1.02),
    (3.9, 0.35, "a second block of answers", 4.6),
    (6.2, 0.35, "２, 007, 5.0, two numbers", 5.7),
):
    text = text.replace("２", "other digits")
    write(axes, x, y, text, size=8.5, color=RED)
    arrow(axes, (x, y - 0.13 if y > 1 else y + 0.13), (target, 1.45 if y > 1 else 0.9), RED)
save_figure(figure, Path(__file__).with_suffix(".svg"))
