"""Figures show the numbers they are given."""

import xml.etree.ElementTree as ElementTree

import pytest

from minimind_edu.course.figures import loss_curve, save_figure

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
    assert lines["held-out documents: 0.550"] == ([30], [0.55])
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
    assert shown == ["0.1", "0.2", "0.3", "0.5", "0.7", "1", "1.5", "2", "3"]


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
