"""Several adapters on one base, switched by name: `06_switch.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.3)
box(axes, 2.75, 0.15, 2.0, 0.7, "base\none copy in memory, frozen", GREY, size=9)
ROWS = (
    (0.2, 1.5, '"identity"', "who the assistant is", ORANGE),
    (2.75, 1.5, '"clinic"', "complaints and remedies", GREEN),
    (5.3, 1.5, "None", "the base alone", BLUE),
)
for x, y, name, what, colour in ROWS:
    box(axes, x, y, 2.0, 0.62, f"{name}\n{what}", colour, size=9)
    arrow(axes, (x + 1.0, y), (3.75 + (x - 2.75) * 0.25, 0.85), colour)
write(axes, 5.0, 0.5, "set_adapter(model, name)", size=9, ha="left")
save_figure(figure, Path(__file__).with_suffix(".svg"))
