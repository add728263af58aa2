"""Widgets: the picture follows the controls, with a kernel and without."""

import base64
import re

import ipywidgets
import pytest

from minimind_edu.course.figures import new_figure
from minimind_edu.course.widgets import explore


def sentence(count, word):
    return f"<b>{word * count}</b>"


@pytest.fixture
def words():
    return explore(
        sentence,
        "a word, some times",
        count=ipywidgets.IntSlider(2, 1, 9),
        word=ipywidgets.Dropdown(options=["ab", "猫"], description="the word"),
    )


def points(count):
    figure, axes = new_figure(5, 2)
    axes.plot(range(count))
    return figure


@pytest.fixture
def plot():
    return explore(points, "as many points as you like", count=ipywidgets.IntSlider(2, 1, 9))


def test_the_picture_follows_every_control(words):
    count, word, picture = words.children
    assert picture.value == "<b>abab</b>"
    count.value = 3
    assert picture.value == "<b>ababab</b>"
    word.value = "猫"
    assert picture.value == "<b>猫猫猫</b>"


def test_figures_are_shown_as_images_with_alt_text(plot):
    count, picture = plot.children
    before = picture.value
    image = re.fullmatch(
        r'<img alt="as many points as you like" width="480" src="data:image/png;base64,(.+)">', before
    )
    assert base64.b64decode(image[1]).startswith(b"\x89PNG")
    count.value = 5
    assert picture.value != before
    count.value = 2
    assert picture.value == before, "the same figure is the same picture"


def test_the_browser_test_finds_them(words):
    assert "minimind-explorer" in words._dom_classes
    assert "minimind-picture" in words.children[-1]._dom_classes


def test_every_control_has_a_label_that_is_not_cut_off(words):
    count, word, _ = words.children
    assert (count.description, word.description) == ("count", "the word")
    assert count.style.description_width == word.style.description_width == "9ch"
    assert count.layout.width == "450px"


def test_labels_and_sizes_that_were_chosen_are_kept():
    slider = ipywidgets.IntSlider(2, 1, 9, layout={"width": "95%"}, style={"description_width": "3em"})
    explore(lambda number_of_points: "", "points", number_of_points=slider)
    assert slider.description == "number of points"
    assert (slider.layout.width, slider.style.description_width) == ("95%", "3em")


def test_without_a_kernel_there_is_a_picture_of_how_it_is_now(words, plot):
    def shown(widget):
        bundle = widget._repr_mimebundle_()
        return bundle if isinstance(bundle, tuple) else (bundle, {})

    data, metadata = shown(plot)
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"] == {"width": 480, "alt": "as many points as you like"}
    assert data["text/plain"] == repr(plot) == "[run this cell to play with it] as many points as you like"
    words.children[0].value = 1
    data, _ = shown(words)
    assert data["text/html"] == "<b>ab</b>" and "image/png" not in data


def test_a_drawing_that_fails_is_an_error():
    with pytest.raises(ZeroDivisionError):
        explore(lambda n: str(1 / n), "a reciprocal", n=ipywidgets.IntSlider(0, 0, 9))
