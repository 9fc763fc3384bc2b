"""What freezing did in a run: its decisions, the counts that follow from them, `search/freezing.toml`."""

from dataclasses import dataclass
from typing import NamedTuple

from configs.toml.writer import toml_text
from model.figures.heat_maps import Panel
from model.site import SiteKey


class Matrix(NamedTuple):
    """A matrix that may stop training: a site and the name of its factor."""

    site: SiteKey
    factor: str

    def __str__(self) -> str:
        return f"{self.site}.{self.factor}"


class Decision(NamedTuple):
    """A step at which matrices stopped.

    Args:
        step: the optimiser step, counted from 0; its update they no longer take part in.
        share: r(t).
        threshold: what their scores lie below; None where the rule asks for no score.
        stopped: the matrices.
        trainable: parameters that train from then on, the head left out.
    """

    step: int
    share: float
    threshold: float | None
    stopped: tuple[Matrix, ...]
    trainable: int


@dataclass(frozen=True)
class Course:
    """The course of a run's freezing.

    Args:
        total: planned optimiser steps.
        start: parameters that train at the beginning, the head left out.
        still: matrices that never train.
        moving: matrices that train at the beginning.
        elements: how many numbers those hold.
        decisions: in order.
    """

    total: int
    start: int
    still: tuple[Matrix, ...]
    moving: tuple[Matrix, ...]
    elements: int
    decisions: tuple[Decision, ...]

    @property
    def end(self) -> int:
        """Parameters that train after the last decision."""
        return self.decisions[-1].trainable if self.decisions else self.start

    @property
    def stops(self) -> dict[Matrix, int]:
        """Matrix -> the first step it takes no part in; 0 for one that never trains."""
        stopped = {matrix: one.step for one in self.decisions for matrix in one.stopped}
        return dict.fromkeys(self.still, 0) | stopped

    def counts(self, steps: int) -> list[int]:
        """Return the parameters that train in each of the first steps: the count after its decision."""
        counts = [self.start] * steps
        for one in self.decisions:
            counts[one.step :] = [one.trainable] * len(counts[one.step :])
        return counts

    def average(self, steps: int) -> float:
        """Return the mean of that count over so many steps."""
        return sum(self.counts(steps)) / steps if steps else float(self.start)

    def summary(self, steps: int) -> dict[str, float]:
        """Return the numbers for scripts: counts without the head, and how many matrices stopped."""
        counts = {"start": self.start, "end": self.end, "average": self.average(steps)}
        stopped = sum(len(one.stopped) for one in self.decisions)
        return {**counts, "matrices": len(self.moving), "frozen": stopped}


def freezing_text(course: Course) -> str:
    """Return `freezing.toml`: a table for each decision, then for each module when its matrices stopped."""
    layers: dict[str, dict[str, dict[str, int]]] = {}
    for matrix, step in sorted(course.stops.items(), key=lambda item: (item[0].site, item[0].factor)):
        modules = layers.setdefault(f"layer_{matrix.site.layer}", {})
        modules.setdefault(matrix.site.role, {})[matrix.factor] = step
    return toml_text(
        {
            "total_steps": course.total,
            "trainable_start": course.start,
            "decisions": [_decision(one) for one in course.decisions],
            **layers,
        }
    )


def _decision(one: Decision) -> dict[str, object]:
    threshold = {} if one.threshold is None else {"threshold": one.threshold}
    names = [str(matrix) for matrix in one.stopped]
    return {"step": one.step, "share": one.share, **threshold, "stopped": names, "trainable": one.trainable}


def freezing_panels(course: Course) -> list[Panel]:
    """Return a map for each factor: the step from which a module's matrix stood still, or T."""
    panels, stops = [], course.stops
    for factor in sorted({matrix.factor for matrix in (*course.still, *course.moving)}):
        own = [matrix for matrix in (*course.still, *course.moving) if matrix.factor == factor]
        values = {matrix.site: stops.get(matrix, course.total) for matrix in own}
        never, always = (sum(one in group for one in own) for group in (course.still, course.moving))
        rest = sum(matrix not in stops for matrix in own)
        facts = [f"{always} matrices", f"{never} still from the start" if never else ""]
        facts.append(f"{rest} train to the end" if rest else "")
        panels.append(Panel(factor, values, ", ".join(filter(None, facts)), (0, course.total)))
    return panels


def plain(course: Course) -> list[list[object]]:
    """Return the decisions as plain lists, for a checkpoint."""
    return [
        [*one[:3], [[m.site.layer, m.site.role, m.factor] for m in one.stopped], one.trainable]
        for one in course.decisions
    ]


def decisions_of(state: list[list[object]]) -> tuple[Decision, ...]:
    """Return the decisions that `plain` gave."""
    return tuple(
        Decision(
            step,
            share,
            threshold,
            tuple(Matrix(SiteKey(layer, role), factor) for layer, role, factor in stopped),
            trainable,
        )
        for step, share, threshold, stopped, trainable in state
    )
