"""Drawings of a run, for its directory and for tools."""

import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.runtime.files import replacing

INK, MUTED, FIRST, SECOND = "#1f2933", "#9aa5b1", "#2f6f8f", "#c8553d"
_MORE = ("#7a9e3f", "#8a5a9e", "#d9a441", "#4a5568")


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


def shares(lines: Mapping[str, Sequence[float | None]], expected: Collection[float]) -> bytes:
    """Return a PNG of the share of LoRA among the modules that are on, from reallocation to reallocation.

    Args:
        lines: heading -> the share at each reallocation; None where nothing was on.
        expected: the shares that a blind choice would have; dotted lines.
    """
    figure, axes = _axes(7.0, 3.2)
    colours = (FIRST, SECOND, *_MORE)
    for number, (name, values) in enumerate(lines.items()):
        colour = colours[number % len(colours)]
        points = [float("nan") if value is None else value for value in values]
        size = 3.5 if len(points) <= 60 else 0
        axes.plot(range(len(points)), points, "o-", color=colour, markersize=size, linewidth=1.3, label=name)
    for number, value in enumerate(sorted(set(expected))):
        label = "blind choice" if number == 0 else None
        axes.axhline(value, color=MUTED, linewidth=1.0, linestyle=":", label=label, zorder=0)
    axes.set_ylim(-0.02, 1.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("reallocation", fontsize=9, color=INK)
    axes.set_ylabel("LoRA share of modules on", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return _png(figure)


def stairs(counts: Sequence[int], expected: Sequence[float]) -> bytes:
    """Return a PNG of how many parameters train, step by step.

    Args:
        counts: of each optimiser step.
        expected: what the schedule alone would leave; a dotted line.
    """
    figure, axes = _axes(7.0, 3.2)
    steps = range(len(counts))
    manner = {"where": "post", "color": FIRST, "linewidth": 1.6, "label": "parameters that train"}
    axes.step(steps, counts, **manner)
    axes.plot(
        steps, expected, color=MUTED, linewidth=1.2, linestyle=":", label="share of the schedule", zorder=0
    )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("optimiser step", fontsize=9, color=INK)
    axes.set_ylabel("trained parameters, head left out", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return _png(figure)


def elbow(errors: Mapping[int, float], chosen: int) -> bytes:
    """Return a PNG of the squared error by number of clusters, its chord, and the number that was chosen.

    Args:
        errors: k -> within-cluster squared error.
        chosen: the k at the elbow; marked.
    """
    figure, axes = _axes(6.0, 3.4)
    ks, values = list(errors), list(errors.values())
    axes.plot(ks, values, "o-", color=FIRST, markersize=4, linewidth=1.6, label="squared error", zorder=2)
    if len(ks) > 1:
        ends = [ks[0], ks[-1]], [values[0], values[-1]]
        axes.plot(*ends, color=MUTED, linewidth=1.0, linestyle="--", label="chord", zorder=1)
    manner = {"facecolors": "none", "edgecolors": SECOND, "linewidths": 1.6, "zorder": 3}
    axes.scatter([chosen], [errors[chosen]], s=110, label=f"chosen: {chosen}", **manner)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("clusters k", fontsize=9, color=INK)
    axes.set_ylabel("within-cluster squared error", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return _png(figure)


def dots(views: Mapping[str, Sequence[Any]], names: Sequence[str]) -> bytes:
    """Return a PNG of groups of dots: a row for each view, a panel for each size, numbers beside the dots.

    Args:
        views: view -> its groups (`adapter_similarity.SizeGroup`); those without dots are left out.
        names: the adapters in the order of their colours.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = {view: [group for group in groups if group.points] for view, groups in views.items()}
    rows, columns = len(drawn), max(1, *map(len, drawn.values()))
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(3.6 * columns, 3.4 * rows), dpi=150, layout="constrained", squeeze=False
    )
    colours = dict(zip(names, itertools.cycle((FIRST, SECOND, *_MORE))))
    for line, (view, groups) in zip(grid, drawn.items()):
        for axes in line[len(groups) :]:
            axes.set_visible(False)
        for axes, group in zip(line, groups):
            axes.set_title(f"{view}, {group.size:,} numbers each", fontsize=8, color=INK, loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(MUTED)
            for point in group.points:
                mark = "o" if point.factor == "A" else "^"
                axes.plot(
                    point.x, point.y, mark, color=colours[point.adapter], markersize=3.2, markeredgewidth=0
                )
                place = {"xytext": (2, 1), "textcoords": "offset points", "fontsize": 4, "color": INK}
                axes.annotate(str(point.index), (point.x, point.y), **place)
    marks = [pyplot.Line2D([], [], color=colour, marker="s", linestyle="") for colour in colours.values()]
    marks += [pyplot.Line2D([], [], color=MUTED, marker=mark, linestyle="") for mark in "o^"]
    manner = {"fontsize": 7, "frameon": False, "ncols": min(4, len(marks)), "loc": "outside upper left"}
    figure.legend(marks, [*colours, "A", "B"], **manner)
    return _png(figure)


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return content.getvalue()


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Return the exponential running mean, corrected for its start."""
    result, mean = [], 0.0
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1.0 - weight) * value
        result.append(mean / (1.0 - weight**count))
    return result
