"""The results of a run: `summary.json` for scripts, `report.md` and the curves for people."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runtime.files import write_text
from model.figures.charts import training_curves


@dataclass(frozen=True)
class Summary:
    """The result of a run, the same for equal runs: without time, host, path, action or project name.

    Args:
        metric: the metric that chose the best step: name, direction, split, value, best_step.
        metrics: every final number by name.
        trainable_parameters: adapters, router_or_gates, head, other, total.
        steps: optimiser steps taken.
        rows: rows read, used and refused, in total and by split, and the reasons.
        search: decisions taken, modules enabled and eligible.
        freezing: trainable parameters at the start, at the end and on average, without the head, and the
            number of frozen matrices; None without freezing.
    """

    metric: Mapping[str, Any]
    metrics: Mapping[str, float]
    trainable_parameters: Mapping[str, int]
    steps: int
    rows: Mapping[str, Any]
    search: Mapping[str, int]
    freezing: Mapping[str, float] | None = None

    def write(self, path: Path) -> None:
        """Write the file as JSON with sorted keys; a metric without a finite value is null and named."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.freezing is None:
            del content["freezing"]
        undefined = sorted(name for name, value in self.metrics.items() if not math.isfinite(value))
        if undefined:  # JSON has no NaN
            content["metrics"] = {name: _finite(value) for name, value in self.metrics.items()}
            content["metric"] = {**self.metric, "value": _finite(self.metric["value"])}
            content["undefined"] = undefined
        write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def write_report(
    directory: Path,
    summary: Summary,
    rows: list[tuple[int, int, str, float]],
    facts: Mapping[str, str],
    pictures: Mapping[str, Path] | None = None,
) -> None:
    """Write `report.md` and `curves.png`: what ran, the curves and the numbers.

    Args:
        directory: the run directory.
        summary: the result.
        rows: step, epoch, name and value of each line of `metrics.csv`.
        facts: the rows of the first table.
        pictures: heading -> a picture in the run directory.
    """
    losses = {step: value for step, _, name, value in rows if name == "train/loss"}
    selected = summary.metric["name"]
    evaluations = {step: value for step, _, name, value in rows if name == selected}
    if losses:
        training_curves(directory / "curves.png", losses, evaluations, selected, summary.metric["best_step"])
    counts = summary.trainable_parameters
    lines = ["# Run report", *_table(("what", "value"), facts.items())]
    lines += _result(summary)
    lines += ["", "## Trainable parameters"]
    lines += _table(("group", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    if summary.freezing is not None:
        lines += _freezing(summary.freezing)
    lines += _data(summary.rows["splits"])
    if losses:
        lines += ["", "## Curves", "", "![training loss and evaluations](curves.png)"]
    for heading, picture in (pictures or {}).items():
        lines += ["", f"## {heading}", "", f"![{heading}]({picture.relative_to(directory)})"]
    write_text(directory / "report.md", "\n".join(lines) + "\n")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return an empty line and a table in Markdown."""
    lines = ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(cells)} |" for cells in rows]


def _result(summary: Summary) -> list[str]:
    """Return the section with the selection metric and every final number."""
    metric, lines = summary.metric, ["", "## Result"]
    if metric["value"] is not None:
        value = f"`{metric['name']}` = **{metric['value']:.6g}** ({metric['direction']})"
        lines += ["", f"{value} at step {metric['best_step']} of {summary.steps}."]
    numbers = [(name, f"{value:.6g}") for name, value in summary.metrics.items()]
    return lines + _table(("metric", "value"), numbers)


def _freezing(numbers: Mapping[str, float]) -> list[str]:
    """Return the section on freezing."""
    frozen = f"{numbers['frozen']} of {numbers['matrices']} matrices were frozen."
    cells = (f"{numbers['start']:,}", f"{numbers['end']:,}", f"{numbers['average']:,.1f}")
    return [
        "",
        "## Freezing",
        "",
        f"{frozen} Trainable parameters, without the head:",
        *_table(("at the start", "at the end", "average over steps"), [cells]),
    ]


def _data(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the section on the rows of each split: read, used, refused and what else was counted."""
    counted = list(next(iter(splits.values())))
    columns = ["split", *(f"rows {name}" if name == counted[0] else name for name in counted)]
    cells = [(name, *(str(counts[key]) for key in counted)) for name, counts in splits.items()]
    return ["", "## Data", *_table([column.replace("_", " ") for column in columns], cells)]
