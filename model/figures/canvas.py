"""What all figures share: colours, and matplotlib without a display, imported when something is drawn."""

import io
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, FAINT = "#1f2933", "#9aa5b1", "#6b7785"
SERIES = ("#2f6f8f", "#c8553d", "#7a9e3f", "#8a5a9e", "#d9a441", "#4a5568")
"""The colours of series, in their order."""


def pyplot() -> ModuleType:
    """Return `matplotlib.pyplot`, set to draw without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as module

    return module


def new_axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    """Return a figure with one pair of axes, in the style of all figures.

    Args:
        width: in inches.
        height: in inches.
    """
    figure, axes = pyplot().subplots(figsize=(width, height), dpi=150, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=8)
    return figure, axes


def png_bytes(figure: "Figure") -> bytes:
    """Return a figure as a PNG, always the same bytes for the same figure, and close it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    pyplot().close(figure)
    return content.getvalue()
