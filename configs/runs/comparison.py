"""Compare the results of finished runs, with statistics over runs that differ only in the seed."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs.runs.experiment import experiment, recorded
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import read_regular

_PARTS = ("metric", "metrics", "trainable_parameters", "steps")


@dataclass(frozen=True)
class Result:
    """The result of a finished run.

    Args:
        run: its directory.
        summary: the content of its `summary.json`.
        seed: its seed; None without a config.toml.
        group: a text that is equal for runs that differ only in the seed.
    """

    run: Path
    summary: Mapping[str, Any]
    seed: int | None
    group: str

    @property
    def numbers(self) -> dict[str, float]:
        """Every metric, the step of the best evaluation, and the number of optimiser steps."""
        steps = {"best step": self.summary["metric"]["best_step"], "steps": self.summary["steps"]}
        found = {
            name: math.nan if value is None else value for name, value in self.summary["metrics"].items()
        }
        return dict(sorted(found.items())) | steps


@dataclass(frozen=True)
class Statistics:
    """Statistics of a number over the runs of a group.

    Args:
        mean: arithmetic mean.
        sd: sample standard deviation, with n - 1; None for one run.
        median: middle value, or the mean of the two middle values.
        n: number of runs.
    """

    mean: float
    sd: float | None
    median: float
    n: int


def read_results(directories: Sequence[Path]) -> list[Result]:
    """Read the results of several runs.

    Raises:
        InputFault: with a line for each run that cannot be read.
    """
    findings = Findings()
    twice = [path for path, count in Counter(path.absolute() for path in directories).items() if count > 1]
    findings.lines += [f"RUN: '{path}' is given twice" for path in twice]
    results = [findings.attempt(partial(_read, directory)) for directory in directories]
    return [findings.settled(result) for result in results]


def _read(directory: Path) -> Result:
    path = directory / "summary.json"
    try:
        content = json.loads(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        raise InputFault(
            f"{directory}: no summary.json: the run is not finished, or this is not a run directory"
        ) from None
    except ValueError as error:
        raise InputFault(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict) or not set(_PARTS) <= set(content):
        raise InputFault(f"{path}: not the summary of a run, which has {', '.join(_PARTS)}")
    _require_numbers(content, path)
    config = recorded(directory)
    if config is None:
        return Result(directory, content, None, str(directory))
    metric = content["metric"]
    shared = [metric.get("name"), metric.get("split"), experiment(config, directory)]
    return Result(directory, content, config.get("seed"), json.dumps(shared, sort_keys=True, default=str))


def _require_numbers(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a summary whose tables do not hold numbers; null is a metric without a value."""
    for name in ("metric", "metrics", "trainable_parameters"):
        if not isinstance(content[name], dict):
            raise InputFault(f"{path}: {name}: must be an object")
    numbers = {f"metrics: {name}": value for name, value in content["metrics"].items() if value is not None}
    numbers["metric: best_step"] = content["metric"].get("best_step")
    numbers["steps"] = content["steps"]
    numbers["trainable_parameters: total"] = content["trainable_parameters"].get("total")
    for name, value in numbers.items():
        if type(value) not in (int, float):
            raise InputFault(f"{path}: {name}: must be a number, got {value!r}")


def groups(results: Sequence[Result]) -> list[list[Result]]:
    """Group runs that differ only in the seed, in the order of their first runs."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.group, []).append(result)
    return list(found.values())


def over(group: Sequence[Result]) -> dict[str, Statistics]:
    """Return the statistics of every number that all runs of a group have; NaN propagates."""
    shared = [name for name in group[0].numbers if all(name in result.numbers for result in group)]
    return {name: _statistics([result.numbers[name] for result in group]) for name in shared}


def _statistics(values: Sequence[float]) -> Statistics:
    if not all(map(math.isfinite, values)):
        return Statistics(math.nan, math.nan, math.nan, len(values))
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Statistics(statistics.fmean(values), sd, statistics.median(values), len(values))


def table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: a row for each run, and two more for each group of several runs."""
    tails = ("best step", "steps")
    names = sorted({name for result in results for name in result.numbers} - set(tails)) + list(tails)
    rows = []
    for group in groups(results):
        for result in group:
            parameters = f"{result.summary['trainable_parameters']['total']:,}"
            seed = "" if result.seed is None else str(result.seed)
            cells = [_number(result.numbers.get(name)) for name in names]
            rows.append([result.run.name, seed, *cells, parameters])
        if len(group) > 1:
            found, n = over(group), len(group)
            spread = [_spread(found.get(name)) for name in names]
            middle = [_number(found[name].median) if name in found else "" for name in names]
            rows += [[f"mean ± sd of {n}", "", *spread, ""], [f"median of {n}", "", *middle, ""]]
    return ["run", "seed", *names, "trainable parameters"], rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _spread(one: Statistics | None) -> str:
    return "" if one is None else f"{one.mean:.6g} ± {one.sd:.2g}"


def show(results: Sequence[Result]) -> None:
    """Print the table."""
    columns, rows = table(results)
    console.table("Runs", columns, rows)


def report(results: Sequence[Result]) -> dict[str, Any]:
    """Return results and statistics for JSON; a number that is not finite becomes null."""
    listed = [
        {
            "run": str(result.run),
            "seed": result.seed,
            "metrics": {name: _finite(value) for name, value in result.summary["metrics"].items()},
            "best_step": result.summary["metric"]["best_step"],
            "steps": result.summary["steps"],
            "trainable_parameters": result.summary["trainable_parameters"]["total"],
        }
        for result in results
    ]
    grouped = []
    for group in groups(results):
        found = {
            name.replace(" ", "_"): {
                "mean": _finite(one.mean),
                "sd": _finite(one.sd),
                "median": _finite(one.median),
                "n": one.n,
            }
            for name, one in over(group).items()
        }
        tails = {name: found.pop(name) for name in ("best_step", "steps")}
        runs = {"runs": [str(one.run) for one in group], "seeds": [one.seed for one in group]}
        grouped.append({**runs, "metrics": found, **tails})
    return {"runs": listed, "groups": grouped}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
