"""The parts of drawings, and the committed drawings themselves."""

import shutil
import subprocess
import sys

import pytest
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from minimind_edu.course import draw
from minimind_edu.course.drawing import arrow, box, canvas, tint, write
from minimind_edu.course.figures import BLUE, CARD, COLOURS, GREY, INK, RED, contrast
from minimind_edu.course.results import ROOT


def test_one_unit_of_a_canvas_is_one_inch():
    figure, axes = canvas(6.0, 2.0)
    assert tuple(figure.get_size_inches()) == (6.0, 2.0)
    assert axes.get_xlim() == (0, 6) and axes.get_ylim() == (0, 2)
    assert axes.get_position().bounds == (0, 0, 1, 1) and not axes.axison
    assert to_hex(figure.get_facecolor()) == CARD


def test_tints_lie_between_the_card_and_the_colour():
    assert tint(RED, 0) == pytest.approx(to_rgb(CARD)) and tint(RED, 1) == pytest.approx(to_rgb(RED))
    halfway = [(a + b) / 2 for a, b in zip(to_rgb(RED), to_rgb(CARD), strict=True)]
    assert tint(RED, 0.5) == pytest.approx(halfway)


def test_a_box_has_its_words_in_the_middle():
    _, axes = canvas()
    box(axes, 1, 0.5, 2, 1, "words", BLUE, size=8, filled=0.4, weight="bold")
    (patch,), (text,) = axes.patches, axes.texts
    assert isinstance(patch, FancyBboxPatch)
    assert (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()) == (1, 0.5, 2, 1)
    assert patch.get_facecolor()[:3] == pytest.approx(tint(BLUE, 0.4))
    assert to_hex(patch.get_edgecolor()) == BLUE
    assert (text.get_text(), text.get_position(), text.get_size(), text.get_weight()) == (
        "words", (2.0, 1.0), 8, "bold"
    )  # fmt: skip
    assert (text.get_ha(), text.get_va()) == ("center", "center")


def test_words_go_where_they_are_put():
    _, axes = canvas()
    write(axes, 1, 2, "left", ha="left", color=BLUE)
    write(axes, 3, 1, "ink")
    left, ink = axes.texts
    assert (left.get_ha(), left.get_va(), to_hex(left.get_color()), left.get_position()) == (
        "left", "center", BLUE, (1, 2)
    )  # fmt: skip
    assert to_hex(ink.get_color()) == INK


@pytest.mark.parametrize("colour", [*COLOURS, GREY, INK])
def test_words_of_every_colour_can_be_read(colour):
    """Dark ones stay as they are; light ones become darker, of the same hue, and no more than need be."""
    _, axes = canvas()
    write(axes, 1, 1, "words", color=colour)
    shown = axes.texts[0].get_color()
    if contrast(colour, CARD) >= 4.5:
        assert to_hex(shown) == colour
    else:
        assert 4.5 <= contrast(shown, CARD) < 4.8
        assert rgb_to_hsv(shown)[:2] == pytest.approx(rgb_to_hsv(to_rgb(colour))[:2])


def test_an_arrow_leads_from_one_point_to_the_other():
    _, axes = canvas()
    arrow(axes, (1, 1), (3, 1), RED, width=2)
    (patch,) = axes.patches
    assert isinstance(patch, FancyArrowPatch) and patch.get_linewidth() == 2
    assert patch._posA_posB == [(1, 1), (3, 1)]
    assert to_hex(patch.get_edgecolor()) == RED


def test_a_bent_arrow_passes_to_the_left_of_its_direction():
    heights = {}
    for bend in (-0.5, 0.0, 0.5):
        _, axes = canvas()
        arrow(axes, (1, 1), (5, 1), bend=bend)
        path = axes.patches[0].get_path().get_extents()
        heights[bend] = (path.y0, path.y1)
    assert heights[0.5][1] > 1.5 and heights[-0.5][0] < 0.5
    assert heights[0.0][1] - heights[0.0][0] < 0.5


# -- the committed drawings --------------------------------------------------------------------------------

SCRIPTS = sorted(draw.FIGURES.glob("*.py"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The scripts of `figures/`, run in a folder of their own; the warnings that they gave."""
    root = tmp_path_factory.mktemp("course")
    (root / "figures").mkdir()
    (root / "chapters").mkdir()
    shutil.copytree(ROOT / "chapters" / "source", root / "chapters" / "source")
    for script in SCRIPTS:
        shutil.copy(script, root / "figures")
    code = (
        "import sys; from pathlib import Path; from minimind_edu.course import draw; "
        "draw.FIGURES = Path(sys.argv[1]); draw.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root / "figures")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"drew figures/{script.name}" for script in SCRIPTS]
    return root / "figures", done.stderr


def test_the_scripts_draw_the_committed_figures(drawn):
    folder, _ = drawn
    ours = {path.name: path.read_bytes() for path in folder.glob("*.svg")}
    theirs = {path.name: path.read_bytes() for path in draw.FIGURES.glob("*.svg")}
    assert set(ours) == set(theirs), "every figure has a script"
    assert [name for name in ours if ours[name] != theirs[name]] == [], "run `make figures`"


def test_no_letter_is_missing_in_a_figure(drawn):
    assert "missing from font" not in drawn[1] and "findfont" not in drawn[1], drawn[1]


def test_figures_are_small_and_carry_no_date(drawn):
    for path in draw.FIGURES.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 400_000, path.name
        assert "<dc:date>" not in text, path.name
