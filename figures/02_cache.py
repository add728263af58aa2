"""What is computed for each new token, without and with a key/value cache."""

from pathlib import Path

from matplotlib.patches import Rectangle

from minimind_edu.course.drawing import canvas, tint, write
from minimind_edu.course.figures import BLUE, GREY, ORANGE, save_figure

PROMPT, NEW, CELL = 3, 5, 0.27

figure, axes = canvas(7.5, 2.5)
for left, name in ((0.75, "without a cache"), (4.45, "with a cache")):
    computed = 0
    for step in range(NEW):
        y = 1.82 - step * (CELL + 0.06)
        total = PROMPT + step
        for token in range(total):
            is_new = name == "without a cache" or step == 0 or token == total - 1
            computed += is_new
            colour = ORANGE if is_new else BLUE
            axes.add_patch(
                Rectangle(
                    (left + token * CELL, y),
                    CELL - 0.03,
                    CELL - 0.03,
                    facecolor=tint(colour, 0.75 if is_new else 0.2),
                    edgecolor=colour,
                )
            )
        write(axes, left - 0.1, y + CELL / 2, f"{step + 1}", size=8.5, ha="right", color=GREY)
    write(axes, left + 1.0, 2.3, f"{name}: {computed} positions", size=9.5, weight="bold")
write(axes, 0.32, 1.15, "new token", size=8.5, rotation=90, color=GREY)
for x, colour, amount, words in (
    (0.75, ORANGE, 0.75, "computed in this step"),
    (3.0, BLUE, 0.2, "keys and values read from the cache"),
):
    axes.add_patch(Rectangle((x, 0.12), 0.2, 0.2, facecolor=tint(colour, amount), edgecolor=colour))
    write(axes, x + 0.3, 0.22, words, size=8.5, ha="left")
save_figure(figure, Path(__file__).with_suffix(".svg"))
