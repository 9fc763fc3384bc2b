"""Scatter plots in a grid of panels."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.figures.canvas import INK, MUTED, SERIES, png_bytes, pyplot


@dataclass(frozen=True)
class Mark:
    """A point of a scatter plot.

    Args:
        x: its place.
        y: its place.
        text: label next to the point.
        series: the series whose colour it has.
        group: the group whose marker it has.
    """

    x: float
    y: float
    text: str
    series: str
    group: str


@dataclass(frozen=True)
class ScatterPanel:
    """One scatter plot.

    Args:
        title: its heading.
        marks: its points.
    """

    title: str
    marks: Sequence[Mark]


def scatter_grid(
    rows: Sequence[Sequence[ScatterPanel]], series: Sequence[str], markers: Mapping[str, str]
) -> bytes:
    """Return a PNG of rows of scatter plots with one legend; axes have no ticks.

    Args:
        rows: panels; rows may differ in length.
        series: all series, in the order of their colours.
        markers: group -> matplotlib's marker, e.g. `o`.
    """
    columns = max(1, *map(len, rows))
    size = (3.6 * columns, 3.4 * len(rows))
    figure, grid = pyplot().subplots(
        len(rows), columns, figsize=size, dpi=150, layout="constrained", squeeze=False
    )
    colours = dict(zip(series, itertools.cycle(SERIES)))
    for line, panels in zip(grid, rows):
        for axes in line[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(line, panels):
            axes.set_title(panel.title, fontsize=8, color=INK, loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(MUTED)
            for one in panel.marks:
                style = {"color": colours[one.series], "markersize": 3.2, "markeredgewidth": 0}
                axes.plot(one.x, one.y, markers[one.group], **style)
                place = {"xytext": (2, 1), "textcoords": "offset points", "fontsize": 4, "color": INK}
                axes.annotate(one.text, (one.x, one.y), **place)
    line = pyplot().Line2D
    handles = [line([], [], color=colour, marker="s", linestyle="") for colour in colours.values()]
    handles += [line([], [], color=MUTED, marker=marker, linestyle="") for marker in markers.values()]
    labels, columns = [*colours, *markers], min(4, len(handles))
    figure.legend(handles, labels, fontsize=7, frameon=False, ncols=columns, loc="outside upper left")
    return png_bytes(figure)
