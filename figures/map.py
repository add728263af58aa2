"""The map of the course, once for each chapter with "you are here": `map_01.svg`, `map_02.svg`, …"""

from pathlib import Path

from minimind_edu.course.drawing import arrow, box, canvas
from minimind_edu.course.figures import BLUE, GREY, ORANGE, save_figure

CHAPTERS = {
    "01": "tokenizer",
    "02": "transformer",
    "03": "experts",
    "04": "pretraining",
    "05": "fine-tuning",
    "06": "LoRA",
    "07": "preferences",
    "08": "distillation",
    "09": "reasoning",
    "10": "hardware",
    "11": "evaluation and\ndeployment",
}
SOURCES = Path(__file__).resolve().parents[1] / "chapters" / "source"
WIDTH, HEIGHT, GAP = 1.06, 0.5, 0.2


def place(index: int) -> tuple[float, float]:
    """Lower left corner of a chapter's box: six in the upper row, the others below."""
    row, column = divmod(index, 6)
    return 0.1 + column * (WIDTH + GAP), 0.85 - row * 0.72


def draw(here: str) -> None:
    """Write the map with one chapter marked."""
    figure, axes = canvas(7.6, 1.45)
    for index, (number, name) in enumerate(CHAPTERS.items()):
        x, y = place(index)
        marked = number == here
        colour = ORANGE if marked else BLUE if number < here else GREY
        box(
            axes, x, y, WIDTH, HEIGHT, f"{int(number)}  {name}", colour,
            size=7.5, filled=0.5 if marked else 0.15, weight="bold" if marked else "normal",
        )  # fmt: skip
        if index % 6 < 5 and index + 1 < len(CHAPTERS):
            arrow(axes, (x + WIDTH, y + HEIGHT / 2), (x + WIDTH + GAP, y + HEIGHT / 2), GREY)
    save_figure(figure, Path(__file__).with_name(f"map_{here}.svg"))


for source in sorted(SOURCES.glob("[0-9][0-9]_*.py")):
    draw(source.name[:2])
