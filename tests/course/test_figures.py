"""Figures show the numbers they are given."""

import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest
from matplotlib.colors import to_hex

from minimind_edu.course import figures
from minimind_edu.course.figures import (
    BLUE,
    CARD,
    COLOURS,
    INK,
    ORANGE,
    LivePlot,
    contrast,
    loss_curve,
    new_figure,
    plain_log_ticks,
    png,
    save_figure,
    show,
)

METRICS = [
    {"step": 10, "loss": 3.5, "lr": 0.1},
    {"step": 20, "loss": 1.25, "lr": 0.1},
    {"step": 20, "validation_loss": 9.0},  # has no training loss: not a point of the curve
    {"step": 30, "loss": 0.6, "lr": 0.0},
]


def lines_by_label(figure) -> dict[str, tuple[list[float], list[float]]]:
    (axes,) = figure.axes
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_the_loss_curve_plots_what_it_is_given():
    figure = loss_curve(METRICS, floor=0.5, held_out=0.55, title="A title")
    (axes,) = figure.axes
    lines = lines_by_label(figure)
    assert lines["training loss"] == ([10, 20, 30], [3.5, 1.25, 0.6])
    assert lines["held out: 0.550"] == ([30], [0.55])
    assert lines["floor (entropy of the data): 0.500"][1] == [0.5, 0.5]
    assert len(lines) == 3
    assert axes.get_title() == "A title" and "nats" in axes.get_ylabel() and axes.get_xlabel() == "step"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == set(lines)


def test_everything_plotted_is_inside_the_axes():
    figure = loss_curve(METRICS, floor=0.05, held_out=0.4, title="")
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert low < 0.05 and high > 3.5
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    assert shown == ["0.05", "0.07", "0.1", "0.2", "0.3", "0.5", "0.7", "1", "2", "3"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0007, 11), (0.066, 7.5), (0.48, 7.6), (1, 7.2), (0.2, 5), (0.4, 0.6)]
)
def test_words_beside_a_logarithmic_axis_do_not_touch(low, high):
    figure, axes = new_figure()
    axes.set_yscale("log")
    plain_log_ticks(axes, low, high)
    figure.draw_without_rendering()
    boxes = sorted((label.get_window_extent() for label in axes.get_yticklabels()), key=lambda one: one.y0)
    assert all(below.y1 < above.y0 for below, above in zip(boxes, boxes[1:], strict=False))
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) >= min(4, high / low / 1.5) and all(
        low * 0.9 <= float(text) <= high * 1.1 for text in shown
    )


def test_a_curve_without_floor_or_held_out_loss():
    assert list(lines_by_label(loss_curve(METRICS, None, None, ""))) == ["training loss"]


@pytest.mark.parametrize("metrics", [[], [{"step": 1, "validation_loss": 2.0}]])
def test_nothing_to_draw_is_an_error(metrics):
    with pytest.raises(ValueError, match="no training loss to draw"):
        loss_curve(metrics, 0.5, 0.6, "")


def test_figures_are_saved_by_their_ending(tmp_path):
    figure = loss_curve(METRICS, 0.5, 0.55, "A title")
    png = save_figure(figure, tmp_path / "new folder" / "loss.png")
    svg = save_figure(figure, str(tmp_path / "new folder" / "loss.svg"))
    assert png.read_bytes().startswith(b"\x89PNG\r\n") and png.stat().st_size > 5_000
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert sorted(path.name for path in png.parent.iterdir()) == ["loss.png", "loss.svg"]


def test_a_failed_save_keeps_the_old_figure(tmp_path, monkeypatch):
    figure = loss_curve(METRICS, 0.5, 0.55, "")
    path = save_figure(figure, tmp_path / "loss.png")
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == before


# -- the course's look -------------------------------------------------------------------------------------


def test_figures_have_the_courses_look_and_nothing_else_changes():
    before = dict(matplotlib.rcParams)
    figure, axes = new_figure(6, 3)
    assert tuple(figure.get_size_inches()) == (6, 3)
    assert to_hex(figure.get_facecolor()) == to_hex(axes.get_facecolor()) == CARD
    assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()
    assert axes.plot([1, 2])[0].get_color() == BLUE and axes.plot([2, 1])[0].get_color() == ORANGE
    assert dict(matplotlib.rcParams) == before


def test_ink_and_colours_stand_out_from_the_card():
    """Words are dark, and lines are darker than what lies behind them (WCAG's contrast ratio)."""
    assert len(set(COLOURS)) == len(COLOURS)
    assert contrast(INK, CARD) > 12
    assert min(contrast(colour, CARD) for colour in COLOURS) > 1.9


def test_contrast_is_that_of_the_guidelines():
    assert contrast("white", "black") == contrast("black", "white") == pytest.approx(21)
    assert contrast(BLUE, BLUE) == 1 and contrast("#777777", "white") == pytest.approx(4.48, abs=0.005)


def test_several_axes_and_their_options():
    figure, axes = new_figure(rows=2, columns=3, sharey=True)
    assert axes.shape == (2, 3) and axes[0, 0].get_shared_y_axes().joined(axes[0, 0], axes[1, 2])


def test_the_same_figure_is_the_same_file(tmp_path):
    one, two = (
        save_figure(loss_curve(METRICS, 0.5, 0.55, "A title"), tmp_path / f"{name}.svg") for name in "ab"
    )
    assert one.read_bytes() == two.read_bytes()
    assert b"dc:date" not in one.read_bytes() and b"<text" not in one.read_bytes(), "letters are drawn"
    assert png(loss_curve(METRICS, 0.5, 0.55, "")) == png(loss_curve(METRICS, 0.5, 0.55, ""))


def test_the_legend_lies_on_the_card():
    (axes,) = loss_curve(METRICS, 0.5, 0.55, "").axes
    frame = axes.get_legend().get_frame()
    assert frame.get_visible() and to_hex(frame.get_facecolor()) == CARD


# -- in a notebook -----------------------------------------------------------------------------------------


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook would show: (data, metadata, what was done), newest last."""
    shown = []

    class Handle:
        def update(self, data, metadata, raw):
            shown.append((data, metadata, "updated"))

    def display(data, metadata, raw, **options):
        shown.append((data, metadata, "displayed"))
        return Handle() if options.get("display_id") else None

    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_a_figure_is_shown_with_alt_text_in_its_own_size(displayed):
    figure, _ = new_figure(5, 2)
    show(figure, "an empty plot")
    ((data, metadata, _),) = displayed
    assert data["text/plain"] == "an empty plot" and data["image/png"].startswith(b"\x89PNG")
    assert metadata == {"image/png": {"width": 480, "alt": "an empty plot"}}
    width = int.from_bytes(data["image/png"][16:20], "big")
    assert width == 720, "sharper than it is shown, for screens with fine pixels"


def watch(monkeypatch):
    """The figures that a live plot draws, as (steps, held-out loss, floor)."""
    drawn = []
    original = figures.loss_curve

    def watching(metrics, floor, held_out, title):
        drawn.append(([line["step"] for line in metrics if "loss" in line], held_out, floor))
        return original(metrics, floor, held_out, title)

    monkeypatch.setattr(figures, "loss_curve", watching)
    return drawn


def test_a_live_plot_grows_in_its_place(displayed, monkeypatch):
    drawn = watch(monkeypatch)
    live = LivePlot("Training", floor=0.4, every=0.0)
    for step in (10, 20, 30):
        live({"step": step, "loss": 3.0 - step / 20})
    assert drawn == [([10], None, 0.4), ([10, 20], None, 0.4), ([10, 20, 30], None, 0.4)]
    assert [how for *_, how in displayed] == ["displayed", "updated", "updated"]
    assert len({data["image/png"] for data, *_ in displayed}) == 3
    assert {data["text/plain"] for data, *_ in displayed} == {
        "Training: training loss by step, with the data's floor"
    }


def test_a_live_plot_is_drawn_now_and_then_and_at_the_end(displayed, monkeypatch):
    drawn = watch(monkeypatch)
    clock = [100.0]
    monkeypatch.setattr(figures.time, "monotonic", lambda: clock[0])
    live = LivePlot("Training", every=5.0)
    for step in range(1, 13):
        live({"step": step, "loss": 1.0 + 1 / step})
        clock[0] += 1.0
    live({"step": 12, "validation_loss": 0.9})
    assert [steps[-1] for steps, *_ in drawn] == [1, 7, 12]
    assert [held_out for _, held_out, _ in drawn] == [None, None, 0.9]


def test_a_live_plot_waits_for_a_loss(displayed):
    live = LivePlot("Training", every=0.0)
    live({"step": 0, "lr": 0.1})
    live({"step": 0, "validation_loss": 2.0})
    assert displayed == []
