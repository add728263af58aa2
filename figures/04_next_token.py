"""Labels are shifted: every token is the target of the position before it, within its own document."""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas, write
from minimind_edu.course.figures import BLUE, GREEN, GREY, ORANGE, save_figure

TOKENS = ("<bos>", "Lily", " works", " as", " a", " singer", "<eos>")
WIDTH, GAP, LEFT = 0.84, 0.12, 0.95

figure, axes = canvas(7.7, 2.35)
for index, token in enumerate(TOKENS):
    x = LEFT + index * (WIDTH + GAP)
    box(axes, x, 0.25, WIDTH, 0.42, token.strip(), BLUE)
    is_last = index + 1 == len(TOKENS)
    box(
        axes,
        x,
        1.65,
        WIDTH,
        0.42,
        "-100" if is_last else TOKENS[index + 1].strip(),
        GREY if is_last else GREEN,
    )
    for bottom, top in ((0.69, 0.94), (1.38, 1.63)):
        arrow(axes, (x + WIDTH / 2, bottom), (x + WIDTH / 2, top), GREY if is_last else GREEN)
width = len(TOKENS) * (WIDTH + GAP) - GAP
box(axes, LEFT, 0.95, width, 0.42, "model: logits over the vocabulary, at every position", ORANGE)
write(axes, LEFT - 0.08, 0.46, "input_ids", ha="right")
write(axes, LEFT - 0.08, 1.86, "target", ha="right")
save_figure(figure, Path(__file__).with_suffix(".svg"))
