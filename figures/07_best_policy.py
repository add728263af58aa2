"""The best policy for a reward: the reference, tilted by e^(r / beta) and normalised again."""

from pathlib import Path

from minimind_edu.course.drawing import box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

figure, axes = canvas(7.5, 2.35)
COLUMNS = (
    (0.5, "reference", (0.5, 0.5), GREY, ("1/2", "1/2")),
    (2.4, "times $e^{r/β}$", (1.5, 0.5), BLUE, ("3/2", "1/2")),
    (4.3, "best policy, β = 1", (0.75, 0.25), GREEN, ("3/4", "1/4")),
    (6.1, "β = 1/2", (0.9, 0.1), ORANGE, ("9/10", "1/10")),
)
for x, name, heights, colour, labels in COLUMNS:
    for place, (height, label) in enumerate(zip(heights, labels, strict=True)):
        left = x + place * 0.5
        box(axes, left, 0.5, 0.4, height * 0.95, "", colour, filled=0.35)
        write(axes, left + 0.2, 0.62 + height * 0.95, label, size=8.5)
        write(axes, left + 0.2, 0.33, "AB"[place], size=8.5)
    write(axes, x + 0.45, 0.1, name, size=8.5)
write(axes, 0.95, 1.9, "rewards:\nr(A) = ln 3, r(B) = 0", size=8.5)
save_figure(figure, Path(__file__).with_suffix(".svg"))
