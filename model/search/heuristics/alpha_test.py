"""ALPHA-TEST: how far a trained module's importance coefficient can be lowered within a metric's tolerance.

    S = min { k in 0..10 : the metric with coefficient k / 10 at the module, 1 at all others, is within
              tolerance * |p0| of the reference p0, the metric with all coefficients at 1 }

Source: Zhang et al. 2024 (HeteroLoRA), arXiv 2406.14956.
Differs: the bound of a metric to minimise is p0 + tolerance * |p0| in static and dynamic tests; the authors'
dynamic code has p0 + tolerance / p0. The grid is searched by bisection, which assumes that the metric is
monotone in the coefficient; a coefficient of 1 is never measured.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from configs.runtime.faults import NonFiniteFault
from model.search.allocation import rounded
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey

GRID = 10


@dataclass(frozen=True)
class AlphaTestOptions:
    """Options of ALPHA-TEST.

    Args:
        metric_red_tolerance: share of the reference metric that may be lost.
    """

    metric_red_tolerance: float = 0.01


def is_violated(value: float, reference: float, tolerance: float, *, maximise: bool) -> bool:
    """Return whether a metric is worse than the reference by more than a share of it.

    Args:
        value: the metric.
        reference: p0.
        tolerance: the share of |p0| that may be lost.
        maximise: the metric's direction.
    """
    slack = tolerance * abs(reference)
    return value < reference - slack if maximise else value > reference + slack


def smallest_place(violates: Callable[[int], bool]) -> int:
    """Return the smallest place 0..GRID that does not violate the bound, by bisection; GRID is not measured.

    Args:
        violates: place -> whether the metric violates its bound at coefficient place / GRID.
    """
    low, high = 0, GRID
    while low < high:
        middle = (low + high) // 2
        if violates(middle):
            low = middle + 1
        else:
            high = middle
    return high


def _score(probe: Probe) -> Mapping[SiteKey, float]:
    for attachment in probe.attachments.values():
        attachment.strength = 1.0
    reference = _measured(probe)
    probe.note("metric", probe.metric)
    probe.note("zero-proxy_metric", reference)
    scores = dict(probe.known)
    # The last layer first; within a layer in the order of the role table.
    order = sorted(probe.attachments, key=lambda key: (-key.layer, key))
    for key in probe.progress([key for key in order if key not in scores], "scoring modules"):
        scores[key] = float(smallest_place(_violation(probe, key, reference)))
        probe.attachments[key].strength = 1.0
        probe.found(key, scores[key])
    return {key: scores[key] for key in probe.attachments}


def _violation(probe: Probe, key: SiteKey, reference: float) -> Callable[[int], bool]:
    def violates(place: int) -> bool:
        probe.attachments[key].strength = place / GRID
        tolerance = probe.options.metric_red_tolerance
        return is_violated(_measured(probe), reference, tolerance, maximise=probe.maximise)

    return violates


def _measured(probe: Probe) -> float:
    """Return the metric over the batches of all processes, to nine digits, whatever their number.

    Raises:
        NonFiniteFault: when it is NaN or infinite.
    """
    evaluation = probe.objective.evaluation(probe.device)
    with torch.no_grad(), probe.precision():
        for batch in probe.batches:
            probe.objective.evaluate(probe.network, batch, evaluation)
    value = rounded(evaluation.compute()[probe.metric])
    if not math.isfinite(value):
        raise NonFiniteFault(f"alpha_test: {probe.metric} of the test batches is {value}")
    return value


HEURISTIC = HeuristicKind(_score, AlphaTestOptions, trains_first=True, mixes_validation=True)
