"""A sample by random keys: five lines, a budget of 100 bytes, the smallest keys first."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, RED, save_figure

SIZES, KEYS, BUDGET = (50, 20, 90, 40, 30), (0.6, 0.1, 0.3, 0.9, 0.2), 100
SCALE = 0.021  # inches a byte

figure, axes = canvas(7.5, 2.55)
write(axes, 1.75, 2.38, "in the order of the file", size=9.5)
write(axes, 5.55, 2.38, "in the order of the keys", size=9.5)
order = sorted(range(5), key=KEYS.__getitem__)
used, full, colours = 0, False, {}
for number in order:
    full = full or used + SIZES[number] > BUDGET
    colours[number] = (RED if len(colours) == 2 else GREY) if full else GREEN
    used += 0 if full else SIZES[number]
for x, numbers, coloured in ((0.25, range(5), False), (4.05, order, True)):
    for place, number in enumerate(numbers):
        y = 1.9 - place * 0.36
        colour = colours[number] if coloured else BLUE
        box(axes, x + 1.1, y, SIZES[number] * SCALE, 0.28, f"{SIZES[number]}", colour, size=8.5)
        write(axes, x + 1.0, y + 0.14, f"line {number}, key {KEYS[number]}", ha="right", size=8)
arrow(axes, (3.2, 0.96), (3.65, 0.96), GREY)
write(axes, 5.35, 0.18, "20 + 30 bytes fit into 100; line 2 would not, and ends the sample", size=8.5)
save_figure(figure, Path(__file__).with_suffix(".svg"))
