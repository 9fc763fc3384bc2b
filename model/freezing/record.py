"""What freezing did in a run: its decisions, the counts that follow from them, `search/freezing.toml`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.toml.writer import toml_text
from model.figures.heat_maps import Panel
from model.site import SiteKey


class Matrix(NamedTuple):
    """A matrix that may be frozen: a site and the name of its factor."""

    site: SiteKey
    factor: str

    def __str__(self) -> str:
        return f"{self.site}.{self.factor}"


class Decision(NamedTuple):
    """A step at which matrices were frozen.

    Args:
        step: the optimiser step, counted from 0; they take no part in its update.
        share: r(t), the share that may train.
        threshold: their scores are below it; None where the rule uses no scores.
        frozen: the matrices.
        trainable: parameters that train from then on, without the head.
    """

    step: int
    share: float
    threshold: float | None
    frozen: tuple[Matrix, ...]
    trainable: int


@dataclass(frozen=True)
class FreezingHistory:
    """All decisions of a run.

    Args:
        total_steps: planned optimiser steps.
        trainable_start: parameters that train at the beginning, without the head.
        never_trained: matrices that are frozen from the beginning.
        freezable: matrices that train at the beginning.
        freezable_elements: how many numbers those have together.
        decisions: in order.
    """

    total_steps: int
    trainable_start: int
    never_trained: tuple[Matrix, ...]
    freezable: tuple[Matrix, ...]
    freezable_elements: int
    decisions: tuple[Decision, ...]

    @property
    def trainable_end(self) -> int:
        """Parameters that train after the last decision."""
        return self.decisions[-1].trainable if self.decisions else self.trainable_start

    @property
    def frozen_at(self) -> dict[Matrix, int]:
        """Matrix -> the first step it takes no part in; 0 for one that never trained."""
        frozen = {matrix: one.step for one in self.decisions for matrix in one.frozen}
        return dict.fromkeys(self.never_trained, 0) | frozen

    def counts(self, steps: int) -> list[int]:
        """Return the parameters that train in each of the first steps, after the step's decision."""
        counts = [self.trainable_start] * steps
        for one in self.decisions:
            counts[one.step :] = [one.trainable] * len(counts[one.step :])
        return counts

    def average(self, steps: int) -> float:
        """Return the mean of that count over so many steps."""
        return sum(self.counts(steps)) / steps if steps else float(self.trainable_start)

    def summary(self, steps: int) -> dict[str, float]:
        """Return the numbers for scripts: counts without the head, and how many matrices were frozen."""
        counts = {"start": self.trainable_start, "end": self.trainable_end, "average": self.average(steps)}
        frozen = sum(len(one.frozen) for one in self.decisions)
        return {**counts, "matrices": len(self.freezable), "frozen": frozen}


def freezing_text(history: FreezingHistory) -> str:
    """Return `freezing.toml`: a table for each decision, then for each module when each matrix was frozen."""
    layers: dict[str, dict[str, dict[str, int]]] = {}
    for matrix, step in sorted(history.frozen_at.items(), key=lambda item: (item[0].site, item[0].factor)):
        modules = layers.setdefault(f"layer_{matrix.site.layer}", {})
        modules.setdefault(matrix.site.role, {})[matrix.factor] = step
    return toml_text(
        {
            "total_steps": history.total_steps,
            "trainable_start": history.trainable_start,
            "decisions": [_decision(one) for one in history.decisions],
            **layers,
        }
    )


def _decision(one: Decision) -> dict[str, object]:
    threshold = {} if one.threshold is None else {"threshold": one.threshold}
    names = [str(matrix) for matrix in one.frozen]
    return {"step": one.step, "share": one.share, **threshold, "stopped": names, "trainable": one.trainable}


def freezing_panels(history: FreezingHistory) -> list[Panel]:
    """Return a map for each factor: the step at which a module's matrix was frozen, or T if it never was."""
    panels, frozen_at = [], history.frozen_at
    everything = (*history.never_trained, *history.freezable)
    for factor in sorted({matrix.factor for matrix in everything}):
        values = {
            one.site: frozen_at.get(one, history.total_steps) for one in everything if one.factor == factor
        }
        fixed = sum(matrix.factor == factor for matrix in history.never_trained)
        trained = [matrix for matrix in history.freezable if matrix.factor == factor]
        rest = sum(matrix not in frozen_at for matrix in trained)
        facts = [f"{len(trained)} matrices", f"{fixed} never trained" if fixed else ""]
        facts.append(f"{rest} never frozen" if rest else "")
        panels.append(Panel(factor, values, ", ".join(filter(None, facts)), (0, history.total_steps)))
    return panels


def decisions_to_lists(decisions: Sequence[Decision]) -> list[list[Any]]:
    """Return the decisions as plain values, for a checkpoint."""
    return [
        [*one[:3], [[m.site.layer, m.site.role, m.factor] for m in one.frozen], one.trainable]
        for one in decisions
    ]


def decisions_from_lists(state: Sequence[Sequence[Any]]) -> tuple[Decision, ...]:
    """Return the decisions that `decisions_to_lists` stored."""
    return tuple(
        Decision(
            step,
            share,
            threshold,
            tuple(Matrix(SiteKey(layer, role), factor) for layer, role, factor in frozen),
            trainable,
        )
        for step, share, threshold, frozen, trainable in state
    )
