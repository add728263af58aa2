"""A query and a key, turned by their positions: both move, the angle between them stays."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Arc, Circle

from minimind_edu.course.drawing import arrow, canvas, write
from minimind_edu.course.figures import BLUE, GREY, RED, save_figure

DEGREES = 30  # a token, as in the chapter's example


def clock(axes: Axes, x: float, query: int, key: int) -> None:
    """The two vectors at their positions."""
    y, radius = 1.25, 0.82
    axes.add_patch(Circle((x, y), radius, fill=False, color=GREY, linewidth=1))
    for angle in range(0, 360, DEGREES):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        axes.plot(
            (x + 0.94 * radius * c, x + radius * c), (y + 0.94 * radius * s, y + radius * s), color=GREY
        )
    for position, name, colour in ((query, "query", BLUE), (key, "key", RED)):
        angle = math.radians(DEGREES * position)
        c, s = math.cos(angle), math.sin(angle)
        arrow(axes, (x, y), (x + radius * c, y + radius * s), colour, width=2)
        place = {"ha": "left" if c > 0.1 else "right" if c < -0.1 else "center", "color": colour}
        write(axes, x + 0.9 * c, y + 0.95 * s, f"{name}, {position}", size=8, weight="bold", **place)
    axes.add_patch(Arc((x, y), 0.6, 0.6, theta1=DEGREES * key, theta2=DEGREES * query, color=GREY))
    middle = math.radians(DEGREES * (query + key) / 2)
    write(axes, x + 0.48 * math.cos(middle), y + 0.48 * math.sin(middle), "60°", size=8)
    write(axes, x, 0.14, "score: cos 60° = 0.5", size=9)


figure, axes = canvas(7.5, 2.5)
for x, (query, key) in zip((1.2, 3.65, 6.0), ((2, 0), (5, 3), (13, 11)), strict=True):
    clock(axes, x, query, key)
save_figure(figure, Path(__file__).with_suffix(".svg"))
