"""Figures that a reader can play with: sliders above, a picture below that follows them."""

import base64
from collections.abc import Callable
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from minimind_edu.course.figures import bundle, png


class Explorer(ipywidgets.VBox):
    """Controls and the picture that follows them; `explore` makes one."""

    def __init__(self, draw: Callable[..., Figure | str], alt: str, controls: dict[str, Any]) -> None:
        self._draw, self._alt, self._controls = draw, alt, controls
        self.picture = ipywidgets.HTML()
        self.picture.add_class("minimind-picture")  # the names by which the browser test finds them
        _label(controls)
        super().__init__([*controls.values(), self.picture])
        self.add_class("minimind-explorer")
        for control in controls.values():
            control.observe(self._follow, "value")
        self._follow()

    def _drawing(self) -> Figure | str:
        return self._draw(**{name: control.value for name, control in self._controls.items()})

    def _follow(self, change: object = None) -> None:
        drawing = self._drawing()
        self.picture.value = drawing if isinstance(drawing, str) else _image(drawing, self._alt)

    def __repr__(self) -> str:
        return f"[run this cell to play with it] {self._alt}"

    def _repr_mimebundle_(self, **options: object) -> object:
        """The widget, and for places without a kernel a picture of how it begins."""
        widget = super()._repr_mimebundle_(**options)
        drawing = self._drawing()
        data, metadata = widget if isinstance(widget, tuple) else (widget, {})
        if isinstance(drawing, Figure):
            still, size = bundle(drawing, self._alt)
            return {**data, "image/png": still["image/png"]}, {**metadata, **size}
        return {**data, "text/html": drawing}, metadata


def explore(draw: Callable[..., Figure | str], alt: str, **controls: Any) -> Explorer:
    """A picture that follows controls.

    >>> explore(draw, "a sine of this frequency", frequency=ipywidgets.IntSlider(1, 1, 9))

    Args:
        draw: called with the value of every control by name; returns a figure, or HTML.
        alt: what the picture shows, for readers who do not see it.
        controls: ipywidgets by the name of the argument, which also labels one without a description.
    """
    return Explorer(draw, alt, controls)


def _label(controls: dict[str, Any]) -> None:
    """Name every control, and leave its name as much room as the longest one needs."""
    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
    longest = max((len(control.description) for control in controls.values()), default=0)
    for control in controls.values():
        if getattr(control.style, "description_width", None) == "":
            control.style.description_width = f"{longest + 1}ch"
        control.layout.width = control.layout.width or "450px"


def _image(figure: Figure, alt: str) -> str:
    data = base64.b64encode(png(figure)).decode()
    width = round(figure.get_figwidth() * 96)
    return f'<img alt="{alt}" width="{width}" src="data:image/png;base64,{data}">'
