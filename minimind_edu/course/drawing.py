"""Boxes, arrows and words: what the drawings in `figures/` are made of."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from minimind_edu.course.figures import CARD, INK, contrast, style


def canvas(width: float = 7.5, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty drawing without axes; one unit is one inch, and (0, 0) is at the bottom left."""
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def tint(colour: str, amount: float = 0.25) -> tuple[float, float, float]:
    """A light version of a colour: a box filled with it carries dark words."""
    return tuple(amount * c + (1 - amount) * b for c, b in zip(to_rgb(colour), to_rgb(CARD), strict=True))


def legible(colour: str | Sequence[float]) -> tuple[float, float, float]:
    """A colour, darkened as far as it needs to be for words on the card (a contrast of 4.5)."""
    colour = to_rgb(colour)
    while contrast(colour, CARD) < 4.5:
        colour = tuple(0.97 * c for c in colour)
    return colour


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str = "",
    colour: str = "#888888",
    size: float = 9.5,
    filled: float = 0.25,
    weight: str = "normal",
) -> None:
    """A rounded box with words in its middle.

    Args:
        x, y: its lower left corner, in inches.
        filled: how much of the colour fills it, from 0 to 1.
        size: of the words, in points.
    """
    patch = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.07",
        facecolor=tint(colour, filled),
        edgecolor=colour,
        linewidth=1.3,
    )
    axes.add_patch(patch)
    write(axes, x + width / 2, y + height / 2, text, size=size, weight=weight)


def write(axes: Axes, x: float, y: float, text: str, size: float = 9.5, **options: object) -> None:
    """Words, centred at (x, y) unless `ha` or `va` say otherwise; a light `color` becomes `legible`."""
    options = {"ha": "center", "va": "center", "color": INK, "fontsize": size, **options}
    axes.text(x, y, text, **(options | {"color": legible(options["color"])}))


def arrow(
    axes: Axes,
    start: Sequence[float],
    end: Sequence[float],
    colour: str = INK,
    bend: float = 0.0,
    width: float = 1.2,
) -> None:
    """An arrow from one point to another.

    Args:
        bend: curvature; 0 is straight, positive bends to the left of the direction.
    """
    axes.add_patch(
        FancyArrowPatch(
            tuple(start),
            tuple(end),
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            linewidth=width,
            connectionstyle=f"arc3,rad={-bend}",
            shrinkA=1,
            shrinkB=1,
        )
    )
