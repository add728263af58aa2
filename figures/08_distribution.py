"""What a label says and what a teacher says about the same place in a text."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.7)
write(axes, 0.1, 2.45, '"It was a …"', size=10.5, ha="left")
words = (("rainy", 0.5), ("sunny", 0.25), ("windy", 0.125), ("any other", 0.125))
for left, title, colour, values in (
    (1.75, "the label: what came", ORANGE, (0.0, 1.0, 0.0, 0.0)),
    (4.75, "the teacher: what could have come", BLUE, tuple(share for _, share in words)),
):
    write(axes, left + 1.25, 2.45, title, size=10, weight="bold")
    for row, ((word, _), value) in enumerate(zip(words, values, strict=True)):
        y = 1.75 - 0.5 * row
        write(axes, left - 0.08, y + 0.15, word, size=9, ha="right")
        if value:
            box(axes, left, y, max(1.9 * value, 0.05), 0.3, "", colour, filled=0.6)
        write(axes, left + 1.9 * value + 0.08, y + 0.15, f"{value:g}", size=9, ha="left")
write(axes, 3.75, 0.1, "a label is one draw from what could have come", size=9, color=GREY)
save_figure(figure, Path(__file__).with_suffix(".svg"))
