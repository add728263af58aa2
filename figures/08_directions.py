"""The narrow student that each direction of the KL finds best, for a teacher with two modes."""

from pathlib import Path

from minimind_edu.course.figures import BLUE, GREEN, ORANGE, new_figure, save_figure, style
from minimind_edu.course.sweeps.ch08 import best_peak, peak, two_modes

figure, panels = new_figure(7.5, 2.9, columns=2, sharey=True)
teacher = two_modes().exp()
for axes, direction, colour in zip(panels, ("forward", "reverse"), (ORANGE, GREEN), strict=True):
    axes.bar(range(len(teacher)), teacher, color=BLUE, alpha=0.45, label="teacher")
    axes.plot(peak(*best_peak(direction)).exp(), "o-", color=colour, markersize=3, label="best student")
    which = "KL(teacher || student)" if direction == "forward" else "KL(student || teacher)"
    axes.set(title=f"{direction}: {which}", xlabel="token")
    with style():
        axes.legend(loc="upper right")
panels[0].set_ylabel("probability")
save_figure(figure, Path(__file__).with_suffix(".svg"))
