"""Heat maps of numbers by layer and role."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from model.figures.canvas import FAINT, INK, MUTED, png_bytes, pyplot
from model.site import SiteKey, is_shortcut

if TYPE_CHECKING:
    import numpy
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Normalize

Scale = Literal["auto", "linear", "log"]

_COLOURS = ("#e6eef3", "#a9cadb", "#5c9dbb", "#2f6f8f", "#173f54")
_ZERO = "#fbf3ea"
_DECADES = 3.0
_LOG_RANGE = 1e-100, 1e100  # beyond it, ticks of a logarithmic bar would not be finite
_MOST_WRITTEN = 100
_ROW, _COLUMN, _TALLEST, _BAR = 0.21, 0.5, 9.0, 0.1


@dataclass(frozen=True)
class Panel:
    """One heat map.

    Args:
        title: its heading.
        values: site -> number; cells of other sites stay blank.
        note: a line under the heading.
        limits: least and greatest number of its colours; None: those of its values.
    """

    title: str
    values: Mapping[SiteKey, float]
    note: str = ""
    limits: tuple[float, float] | None = None


def distinct_titles(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return titles for files: equal names are preceded by the name of their run or directory.

    Args:
        names: the name of each file.
        paths: the file of each name; one in a run's `search/` is named by the run.
    """
    times = Counter(names)
    places = [path.parent.parent if path.parent.name == "search" else path.parent for path in paths]
    return [
        name if times[name] == 1 else f"{place.name}: {name}"
        for name, place in zip(names, places, strict=True)
    ]


def heat_map(
    panels: Sequence[Panel], label: str, scale: Scale = "auto", limits: tuple[float, float] | None = None
) -> bytes:
    """Return a PNG of the panels side by side, with a row for each layer and a column for each role.

    Zeros have a colour of their own, a dot marks sites without a number, and numbers are written into
    the cells if they are few.

    Args:
        panels: one or more maps, which show the same layers.
        label: what the numbers are, the label of the colour bar.
        scale: of the colours; `auto` is logarithmic if the positive numbers span three decades.
        limits: least and greatest number of a colour bar that all panels share; None: each has its own.

    Raises:
        ValueError: when no panel has a number.
    """
    if not any(panel.values for panel in panels):
        raise ValueError("no module to draw")
    layers = list(range(1 + max((key.layer for panel in panels for key in panel.values), default=0)))
    columns = [sorted({key.role for key in panel.values}, key=_order) for panel in panels]
    height = min(_TALLEST, _ROW * len(layers))
    widths = [_COLUMN * max(2, len(roles)) for roles in columns]
    figure, grid = pyplot().subplots(
        1,
        len(panels),
        figsize=(sum(widths) + 1.1 * len(panels) + 0.5, height + 1.5),
        width_ratios=widths,
        dpi=150,
        layout="constrained",
        squeeze=False,
    )
    for number, (axes, panel, roles) in enumerate(zip(grid[0], panels, columns)):
        image = _draw(axes, panel, roles, layers, _norm(panel, scale, limits))
        if number == 0:
            axes.set_ylabel("layer", fontsize=9, color=INK)
        if limits is None or panel is panels[-1]:
            shown = axes if limits is None else list(grid[0])
            bar = figure.colorbar(image, ax=shown, fraction=0.08, pad=0.03, aspect=height / _BAR)
            if (limits or panel.limits) and all(float(value).is_integer() for value in panel.values.values()):
                bar.ax.locator_params(axis="y", integer=True)
            bar.outline.set_visible(False)
            bar.ax.tick_params(colors=INK, labelsize=7, length=2)
            if panel is panels[-1]:
                bar.set_label(label, fontsize=8, color=INK)
    return png_bytes(figure)


def _order(role: str) -> SiteKey:
    return SiteKey(0, role)


def _norm(panel: Panel, scale: Scale, limits: tuple[float, float] | None) -> "Normalize":
    """Return the mapping of a panel's numbers to [0, 1]."""
    from matplotlib.colors import LogNorm, Normalize

    limits = limits or panel.limits
    if limits is not None:
        return Normalize(*limits)
    positive = [value for value in panel.values.values() if value > 0]
    least, top = min(positive, default=1.0), max(positive, default=1.0)
    if scale == "log" or (scale == "auto" and math.log10(top) - math.log10(least) >= _DECADES):
        low, high = max(least, _LOG_RANGE[0]), min(top, _LOG_RANGE[1])
        return LogNorm(low, high if high > low else 10 * low, clip=True)
    return Normalize(min([0.0, *panel.values.values()]), top)


def _draw(
    axes: "Axes", panel: Panel, roles: Sequence[str], layers: Sequence[int], norm: "Normalize"
) -> "QuadMesh":
    """Draw one map and return the image that a colour bar needs."""
    import numpy

    cells = [[panel.values.get(SiteKey(layer, role), math.nan) for role in roles] for layer in layers]
    table = numpy.array(cells, dtype=float).reshape(len(layers), len(roles))
    image = draw_cells(axes, table, norm)
    linears = sum(not is_shortcut(SiteKey(0, role)) for role in roles)
    if 0 < linears < len(roles):  # a gap between the linears and the shortcuts
        axes.axvline(linears - 0.5, color="white", linewidth=5)
    is_short = max(map(len, roles), default=0) <= 6
    slant: dict[str, Any] = {} if is_short else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(roles)), roles, **slant)
    step = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if len(layers) / step <= 48)
    axes.set_yticks(layers[::step])
    heading = f"{panel.title}\n" if panel.note else panel.title
    axes.set_title(heading, fontsize=9, color=INK, loc="left")
    axes.annotate(panel.note, (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points",
                  fontsize=7, color=FAINT)  # fmt: skip
    return image


def draw_cells(axes: "Axes", table: "numpy.ndarray", norm: "Normalize") -> "QuadMesh":
    """Draw a table's numbers as coloured cells, the first row on top.

    Args:
        axes: where to draw.
        table: (rows, columns); NaN where there is no number.
        norm: maps numbers to [0, 1].

    Returns:
        the coloured cells, for a colour bar.
    """
    import numpy
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = table.shape
    colours = LinearSegmentedColormap.from_list("scores", _COLOURS, bad=(0, 0, 0, 0))
    coloured = numpy.ma.masked_where(~(numpy.abs(table) > 0), table)
    zeros = numpy.ma.masked_where(table != 0, numpy.zeros_like(table))
    style: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.8 if rows <= 48 else 0.3}
    edges = numpy.arange(columns + 1) - 0.5, numpy.arange(rows + 1) - 0.5
    axes.pcolormesh(*edges, zeros, cmap=LinearSegmentedColormap.from_list("zero", [_ZERO] * 2), **style)
    image = axes.pcolormesh(*edges, coloured, cmap=colours, norm=norm, **style)
    _write_cells(axes, table, norm)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    return image


def _write_cells(axes: "Axes", table: "numpy.ndarray", norm: "Normalize") -> None:
    """Write numbers, zeros, and dots where there is no number."""
    import numpy

    longest = max((len(_number(value)) for value in table.flat if not math.isnan(value)), default=0)
    is_few = table.size <= (_MOST_WRITTEN if longest > 3 else 4 * _MOST_WRITTEN)
    for (row, column), value in numpy.ndenumerate(table):
        if math.isnan(value):
            axes.text(column, row, "·", ha="center", va="center", fontsize=7, color=MUTED)
        elif value == 0 or is_few:
            is_dark = value != 0 and norm(value) > 0.55
            colour = FAINT if value == 0 else "white" if is_dark else INK
            axes.text(column, row, _number(value), ha="center", va="center", fontsize=6, color=colour)


def _number(value: float) -> str:
    """Return a number in the few characters a cell has room for."""
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e5:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
