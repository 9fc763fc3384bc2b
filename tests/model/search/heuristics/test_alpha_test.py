"""ALPHA-TEST: the bound, the search over the grid, the order of modules."""

from dataclasses import dataclass, field

import pytest

from configs.runtime import kinds
from configs.runtime.faults import NonFiniteFault
from model.search.heuristics.alpha_test import is_violated, smallest_place
from model.search.saliency import measure
from model.site import SiteKey
from tests.model.search.heuristics.scene import FIRST, SECOND, scene

KIND = kinds.load(kinds.HEURISTICS, "alpha_test")


@pytest.mark.parametrize("least", range(11))
def test_the_search_finds_the_smallest_place_without_evaluating_at_one(least):
    asked = []

    def violates(place):
        asked.append(place)
        return place < least

    assert smallest_place(violates) == least
    assert 10 not in asked
    assert len(asked) <= 4


@pytest.mark.parametrize(
    ("value", "reference", "maximise", "expected"),
    [
        (0.792, 0.8, True, False),  # exactly the bound: the comparison is strict
        (0.7919, 0.8, True, True),
        (-0.505, -0.5, True, False),
        (-0.5051, -0.5, True, True),
        (20.2, 20.0, False, False),
        (20.21, 20.0, False, True),
        (19.0, 20.0, False, False),
    ],
)
def test_the_bound_is_a_share_of_the_reference(value, reference, maximise, expected):
    assert is_violated(value, reference, 0.01, maximise=maximise) is expected


@dataclass
class Scripted:
    """An objective whose metric falls as soon as a module's coefficient is below its threshold."""

    thresholds: dict[SiteKey, float]
    attachments: dict = field(default_factory=dict)
    seen: list = field(default_factory=list)
    broken: bool = False

    def evaluation(self, device):
        return self

    def evaluate(self, network, batch, evaluation):
        pass

    def compute(self):
        strengths = {key: one.strength for key, one in self.attachments.items()}
        self.seen.append(strengths)
        lost = sum(0.5 for key, limit in self.thresholds.items() if strengths[key] < limit)
        return {"accuracy": float("nan") if self.broken else 0.9 - lost}


def scripted(thresholds, **changes):
    probe = scene(options=KIND.options(), metric="accuracy", maximise=True, **changes)
    objective = Scripted(thresholds, probe.attachments)
    object.__setattr__(probe, "objective", objective)
    return probe, objective


def test_the_score_is_the_place_of_the_smallest_sufficient_coefficient():
    notes, found = {}, []
    probe, objective = scripted(
        {FIRST: 0.35, SECOND: 0.0}, note=notes.__setitem__, found=lambda *pair: found.append(pair)
    )
    assert measure(KIND, probe) == {FIRST: 4.0, SECOND: 0.0}
    assert notes == {"metric": "accuracy", "zero-proxy_metric": 0.9}
    assert [key for key, _ in found] == [FIRST, SECOND]
    for strengths in objective.seen:  # one module at a time
        assert sum(strength != 1.0 for strength in strengths.values()) <= 1


def test_it_resumes_from_known_scores():
    probe, objective = scripted({FIRST: 0.35, SECOND: 0.75}, known={FIRST: 4.0})
    assert measure(KIND, probe) == {FIRST: 4.0, SECOND: 8.0}
    assert all(strengths[FIRST] == 1.0 for strengths in objective.seen)


def test_the_previous_coefficients_are_restored():
    probe, objective = scripted({FIRST: 0.35, SECOND: 0.75})
    probe.attachments[FIRST].strength = 0.3
    measure(KIND, probe)
    assert objective.seen[0] == {FIRST: 1.0, SECOND: 1.0}
    assert probe.attachments[FIRST].strength == 0.3


def test_a_metric_that_is_no_number_ends_the_test():
    probe, objective = scripted({FIRST: 0.5})
    objective.broken = True
    with pytest.raises(NonFiniteFault, match="alpha_test: accuracy of the test batches is nan"):
        measure(KIND, probe)
