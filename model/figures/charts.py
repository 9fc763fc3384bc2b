"""Charts of a run or a report: numbers and labels in, a PNG out."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.runtime.files import write_bytes
from model.figures.canvas import INK, MUTED, SERIES, new_axes, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_FIRST, _SECOND = SERIES[:2]


def training_curves(
    path: Path, losses: Mapping[int, float], evaluations: Mapping[int, float], name: str, best_step: int
) -> None:
    """Draw the training loss at each step, and a metric at each evaluation.

    Args:
        path: the PNG to write.
        losses: optimiser step -> training loss.
        evaluations: optimiser step -> value of the metric; may be empty.
        name: the metric's name.
        best_step: the evaluation whose weights were kept; marked by a dotted line.
    """
    figure, axes = new_axes(7.0, 3.4)
    steps, values = list(losses), list(losses.values())
    axes.plot(steps, values, color=MUTED, linewidth=0.7, label="training loss, each step")
    axes.plot(steps, running_mean(values), color=_FIRST, linewidth=1.6, label="running mean")
    axes.set_xlabel("optimiser step", fontsize=9, color=INK)
    axes.set_ylabel("training loss", fontsize=9, color=_FIRST)
    axes.set_ylim(bottom=0)
    lines = list(axes.get_lines())
    if evaluations:
        lines.append(_metric(axes, evaluations, name))
        if best_step in evaluations:
            axes.axvline(best_step, color=_SECOND, linewidth=0.8, linestyle=":")
    labels = [str(line.get_label()) for line in lines]
    place = (0.5, 1.0)
    axes.legend(lines, labels, fontsize=8, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=place)
    write_bytes(path, png_bytes(figure))


def _metric(axes: "Axes", evaluations: Mapping[int, float], name: str) -> "Line2D":
    """Draw a metric against a y axis of its own, on the right."""
    right = axes.twinx()
    right.spines[["top", "left"]].set_visible(False)
    right.spines["right"].set_color(MUTED)
    right.tick_params(colors=INK, labelsize=8)
    steps, values = list(evaluations), list(evaluations.values())
    (line,) = right.plot(steps, values, "o-", color=_SECOND, markersize=4, linewidth=1.2, label=name)
    right.set_ylabel(name, fontsize=9, color=_SECOND)
    return line


def share_lines(lines: Mapping[str, Sequence[float | None]], expected: Collection[float]) -> bytes:
    """Return a PNG of the share of LoRA among the modules that are on, by reallocation.

    Args:
        lines: label -> the share (0 to 1) at each reallocation; None where no module was on.
        expected: the shares of a random choice of modules; dotted lines.
    """
    figure, axes = new_axes(7.0, 3.2)
    for number, (name, values) in enumerate(lines.items()):
        colour = SERIES[number % len(SERIES)]
        points = [float("nan") if value is None else value for value in values]
        size = 3.5 if len(points) <= 60 else 0
        axes.plot(range(len(points)), points, "o-", color=colour, markersize=size, linewidth=1.3, label=name)
    for number, value in enumerate(sorted(set(expected))):
        label = "blind choice" if number == 0 else None
        axes.axhline(value, color=MUTED, linewidth=1.0, linestyle=":", label=label, zorder=0)
    axes.set_ylim(-0.02, 1.02)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("reallocation", fontsize=9, color=INK)
    axes.set_ylabel("LoRA share of modules on", fontsize=9, color=INK)
    _legend_above(axes, 3)
    return png_bytes(figure)


def trained_counts(counts: Sequence[int], expected: Sequence[float]) -> bytes:
    """Return a PNG of the number of trained parameters at each optimiser step.

    Args:
        counts: the number at each step.
        expected: the number that the schedule prescribes; a dotted line.
    """
    figure, axes = new_axes(7.0, 3.2)
    steps = range(len(counts))
    axes.step(steps, counts, where="post", color=_FIRST, linewidth=1.6, label="parameters that train")
    label = "share of the schedule"
    axes.plot(steps, expected, color=MUTED, linewidth=1.2, linestyle=":", label=label, zorder=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("optimiser step", fontsize=9, color=INK)
    axes.set_ylabel("trained parameters, head left out", fontsize=9, color=INK)
    _legend_above(axes, 2)
    return png_bytes(figure)


def banded_lines(lines: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str) -> bytes:
    """Return a PNG of lines with a band of one standard deviation to both sides.

    Args:
        lines: label -> mean and standard deviation at 0, 1, 2, ...
        xlabel: what is counted from 0.
        ylabel: what the means are of.
    """
    figure, axes = new_axes(7.0, 3.4)
    for number, (name, points) in enumerate(lines.items()):
        colour, places = SERIES[number % len(SERIES)], range(len(points))
        means = [mean for mean, _ in points]
        low, high = [mean - sd for mean, sd in points], [mean + sd for mean, sd in points]
        axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        marker = "o-" if len(points) <= 60 else "-"
        axes.plot(places, means, marker, color=colour, markersize=3.5, linewidth=1.5, label=name)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    _legend_above(axes, 3)
    return png_bytes(figure)


def elbow_curve(errors: Mapping[int, float], chosen: int) -> bytes:
    """Return a PNG of the squared error by number of clusters, with its chord and the chosen number.

    Args:
        errors: k -> within-cluster squared error.
        chosen: the k at the elbow; marked.
    """
    figure, axes = new_axes(6.0, 3.4)
    ks, values = list(errors), list(errors.values())
    axes.plot(ks, values, "o-", color=_FIRST, markersize=4, linewidth=1.6, label="squared error", zorder=2)
    if len(ks) > 1:
        ends = [ks[0], ks[-1]], [values[0], values[-1]]
        axes.plot(*ends, color=MUTED, linewidth=1.0, linestyle="--", label="chord", zorder=1)
    place, label = ([chosen], [errors[chosen]]), f"chosen: {chosen}"
    axes.scatter(*place, s=110, label=label, zorder=3, facecolors="none", edgecolors=_SECOND, linewidths=1.6)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("clusters k", fontsize=9, color=INK)
    axes.set_ylabel("within-cluster squared error", fontsize=9, color=INK)
    _legend_above(axes, 3)
    return png_bytes(figure)


def _legend_above(axes: "Axes", columns: int) -> None:
    axes.legend(fontsize=8, frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0.0, 1.0))


def running_mean(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Return the exponential running mean of values, corrected for its start at 0."""
    result: list[float] = []
    mean = 0.0
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1.0 - weight) * value
        result.append(mean / (1.0 - weight**count))
    return result
