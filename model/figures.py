"""Drawings of a run, for its directory and for tools."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.files import replacing

INK, MUTED, FIRST, SECOND = "#1f2933", "#9aa5b1", "#2f6f8f", "#c8553d"


def _axes(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and axes in the house's manner; the library is loaded only when something is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), dpi=150, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=8)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    pyplot.close(figure)


def curves(
    path: Path, losses: Mapping[int, float], evaluations: Mapping[int, float], name: str, best_step: int
) -> None:
    """Draw the training loss by step and one metric by evaluation.

    Args:
        path: the PNG to write.
        losses: step -> training loss.
        evaluations: step -> value of the metric.
        name: the metric's name.
        best_step: the step whose weights were kept; marked.
    """
    figure, axes = _axes(7.0, 3.4)
    steps, values = list(losses), list(losses.values())
    axes.plot(steps, values, color=MUTED, linewidth=0.7, label="training loss, each step")
    smooth = smoothed(values)
    axes.plot(steps, smooth, color=FIRST, linewidth=1.6, label="running mean")
    axes.set_xlabel("optimiser step", fontsize=9, color=INK)
    axes.set_ylabel("training loss", fontsize=9, color=FIRST)
    axes.set_ylim(bottom=0)
    lines = list(axes.get_lines())
    if evaluations:
        right = axes.twinx()
        right.spines[["top", "left"]].set_visible(False)
        right.spines["right"].set_color(MUTED)
        right.tick_params(colors=INK, labelsize=8)
        (line,) = right.plot(
            list(evaluations),
            list(evaluations.values()),
            "o-",
            color=SECOND,
            markersize=4,
            linewidth=1.2,
            label=name,
        )
        lines.append(line)
        right.set_ylabel(name, fontsize=9, color=SECOND)
        if best_step in evaluations:
            axes.axvline(best_step, color=SECOND, linewidth=0.8, linestyle=":")
    axes.legend(
        lines,
        [line.get_label() for line in lines],
        fontsize=8,
        frameon=False,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    _save(figure, path)


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Return the exponential running mean, corrected for its start."""
    result, mean = [], 0.0
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1.0 - weight) * value
        result.append(mean / (1.0 - weight**count))
    return result
