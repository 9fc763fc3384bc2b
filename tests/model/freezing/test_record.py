"""Counts of freezing in a run, its file and its maps."""

import tomllib

from model.freezing.record import (
    Decision,
    FreezingHistory,
    Matrix,
    decisions_from_lists,
    decisions_to_lists,
    freezing_panels,
    freezing_text,
)
from model.site import SiteKey

A0, B0 = (Matrix(SiteKey(0, "w1"), factor) for factor in "AB")
A1, B1 = (Matrix(SiteKey(1, "w1"), factor) for factor in "AB")
FIXED = Matrix(SiteKey(0, "q_proj"), "A")
HISTORY = FreezingHistory(
    total_steps=10,
    trainable_start=100,
    never_trained=(FIXED,),
    freezable=(A0, B0, A1, B1),
    freezable_elements=80,
    decisions=(Decision(3, 0.5, 0.25, (B0, A1), 60), Decision(6, 0.0, 1.5, (A0,), 30)),
)


def test_counts_follow_from_the_decisions():
    assert HISTORY.counts(8) == [100, 100, 100, 60, 60, 60, 30, 30]
    assert HISTORY.average(8) == (3 * 100 + 3 * 60 + 2 * 30) / 8
    assert HISTORY.average(2) == 100  # a run that ended early
    assert HISTORY.summary(8) == {"start": 100, "end": 30, "average": 67.5, "matrices": 4, "frozen": 3}


def test_its_file():
    table = tomllib.loads(freezing_text(HISTORY))
    assert table["total_steps"] == 10
    assert table["decisions"] == [
        {
            "step": 3,
            "share": 0.5,
            "threshold": 0.25,
            "stopped": ["layer_0/w1.B", "layer_1/w1.A"],
            "trainable": 60,
        },
        {"step": 6, "share": 0.0, "threshold": 1.5, "stopped": ["layer_0/w1.A"], "trainable": 30},
    ]
    assert table["layer_0"] == {"q_proj": {"A": 0}, "w1": {"A": 6, "B": 3}}
    assert table["layer_1"] == {"w1": {"A": 3}}


def test_a_checkpoint_holds_the_decisions():
    assert decisions_from_lists(decisions_to_lists(HISTORY.decisions)) == HISTORY.decisions


def test_its_maps():
    first, second = freezing_panels(HISTORY)
    assert (first.title, first.limits) == ("A", (0, 10))
    assert first.values == {FIXED.site: 0, A0.site: 6, A1.site: 3}
    assert first.note == "2 matrices, 1 never trained"
    assert second.values == {B0.site: 3, B1.site: 10}
    assert second.note == "2 matrices, 1 never frozen"
