"""Why one normalised weight teaches the router nothing: `03_dead_router.svg`."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, RED, save_figure

figure, axes = canvas(7.5, 2.75)
for top, colour, title, weight, verdict in (
    (1.55, RED, "normalised", "w / w = 1", "a constant:\nno gradient passes"),
    (0.25, GREEN, "not normalised", "w", "more of w, more of this\nexpert: gradient passes"),
):
    write(axes, 0.1, top + 0.92, title, size=9.5, ha="left", weight="bold")
    box(axes, 0.1, top, 0.95, 0.6, "router", ORANGE)
    box(axes, 1.6, top, 1.15, 0.6, "w = 0.4\n(the best)", BLUE, size=9)
    box(axes, 3.3, top, 1.15, 0.6, weight, colour, size=11, weight="bold")
    box(axes, 5.0, top, 0.95, 0.6, "× expert", BLUE)
    write(axes, 6.05, top + 0.3, verdict, size=8, ha="left")
    for start, end in ((1.05, 1.6), (2.75, 3.3), (4.45, 5.0)):
        arrow(axes, (start, top + 0.42), (end, top + 0.42), GREY)
    arrow(axes, (5.0, top + 0.17), (4.45, top + 0.17), colour)
    if colour == GREEN:
        for start, end in ((3.3, 2.75), (1.6, 1.05)):
            arrow(axes, (start, top + 0.17), (end, top + 0.17), colour)
    else:
        write(axes, 3.02, top + 0.17, "0", size=10, color=colour, weight="bold")
        write(axes, 1.32, top + 0.17, "0", size=10, color=colour, weight="bold")
save_figure(figure, Path(__file__).with_suffix(".svg"))
