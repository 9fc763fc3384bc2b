"""Heat maps that compare types of task by the weights that routers give their experts."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.runtime.console import escaped
from model.assembly.router_usage import MOST_DRAWN, RouterUsage
from model.figures.canvas import INK
from model.figures.heat_maps import draw_cells
from model.site import SiteKey

_MOST_TYPES = 40
_LONGEST = 28
_ROW, _COLUMN = 0.24, 0.52


@dataclass(frozen=True)
class TaskTypeMap:
    """One heat map with a row for each type of task.

    Args:
        title: its heading.
        columns: headings of the columns.
        values: type, or None for all types together, -> a number for each column; NaN where there is none.
        top: the number of the darkest colour; the lightest means 0.
    """

    title: str
    columns: tuple[str, ...]
    values: Mapping[str | None, tuple[float, ...]]
    top: float


def task_type_maps(
    by_type: Mapping[str, Mapping[SiteKey, RouterUsage]], whole: Mapping[SiteKey, RouterUsage]
) -> list[TaskTypeMap]:
    """Return three maps: mean weights, distances of a type from all types together, and entropies.

    The mean weight of B_i is taken over all modules. Since each module numbers its experts independently,
    differences may cancel out in it. They do not in the distance, the total variation
    1/2 sum_i |w_i(type) - w_i(all)| averaged over the layers of a role: 0 where a type weighs experts as all
    types together do, 1 where it uses none of their experts.

    Args:
        by_type: type -> site -> means over the rows of that type.
        whole: site -> means over all rows.
    """
    roles = tuple(sorted({key.role for key in whole}, key=lambda role: SiteKey(0, role)))
    experts = max(len(one.weights) for one in whole.values())
    rows: dict[str | None, Mapping[SiteKey, RouterUsage]] = {None: whole}
    rows.update(by_type.items())
    drawn = range(min(experts, MOST_DRAWN))
    weights = {
        kind: tuple(_mean([one.weights[n] for one in sites.values() if len(one.weights) > n]) for n in drawn)
        for kind, sites in rows.items()
    }
    distances = {
        kind: _by_role({key: _distance(one, whole[key]) for key, one in sites.items()}, roles)
        for kind, sites in rows.items()
    }
    entropies = {
        kind: _by_role({key: one.normalised_entropy for key, one in sites.items()}, roles)
        for kind, sites in rows.items()
    }
    largest = max(value for row in distances.values() for value in row)
    return [
        TaskTypeMap("mean weight", tuple(f"B{n}" for n in drawn), weights, min(1.0, 2 / experts)),
        TaskTypeMap("distance from all types", roles, distances, largest or 1.0),
        TaskTypeMap("entropy / log N", roles, entropies, 1.0),
    ]


def draw_task_types(maps: list[TaskTypeMap], tokens: Mapping[str, int]) -> bytes:
    """Return a PNG of maps of the same types side by side, the types with most tokens on top.

    Args:
        maps: from `task_type_maps`.
        tokens: type -> tokens that its means are over.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import Normalize

    kinds = sorted(tokens, key=lambda kind: (-tokens[kind], kind))[:_MOST_TYPES]
    names = ["all types", *(f"{_short(kind)}  {tokens[kind]:,}" for kind in kinds)]
    widths = [_COLUMN * max(3, len(one.columns)) for one in maps]
    figure, grid = pyplot.subplots(
        1,
        len(maps),
        figsize=(sum(widths) + 1.2 * len(maps) + 2.4, _ROW * len(names) + 1.5),
        width_ratios=widths,
        dpi=150,
        layout="constrained",
        squeeze=False,
    )
    for number, (axes, one) in enumerate(zip(grid[0], maps)):
        image = _draw(axes, one, [None, *kinds], Normalize(0.0, one.top))
        axes.set_yticks(range(len(names)), names if number == 0 else [""] * len(names), parse_math=False)
        bar = figure.colorbar(image, ax=axes, fraction=0.08, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, labelsize=7, length=2)
    more = len(tokens) - len(kinds)
    note = f"; {more} types with fewer tokens are not drawn" if more else ""
    figure.supxlabel(f"after each type: number of tokens{note}", fontsize=7, color=INK)
    content = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a script the font lacks
        figure.savefig(content, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return content.getvalue()


def _draw(axes: Any, one: TaskTypeMap, kinds: list[str | None], norm: Any) -> Any:
    import numpy

    image = draw_cells(axes, numpy.array([one.values[kind] for kind in kinds], dtype=float), norm)
    axes.axhline(0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(one.columns)), one.columns)
    axes.set_title(one.title, fontsize=9, color=INK, loc="left")
    return image


def _by_role(numbers: Mapping[SiteKey, float], roles: tuple[str, ...]) -> tuple[float, ...]:
    """Return the mean over layers for each role."""
    return tuple(_mean([one for key, one in numbers.items() if key.role == role]) for role in roles)


def _distance(one: RouterUsage, other: RouterUsage) -> float:
    """Return the total variation distance of two vectors of mean weights, 0 to 1."""
    return sum(abs(a - b) for a, b in zip(one.weights, other.weights)) / 2


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _short(kind: str) -> str:
    text = escaped(kind) or "(no type)"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
