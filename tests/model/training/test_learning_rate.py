"""Learning rates are the closed formulas."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.learning_rate import learning_rate

KINDS = ("none", "linear", "cosine_annealing")
runs = st.integers(1, 500).flatmap(
    lambda total: st.fixed_dictionaries(
        {
            "total": st.just(total),
            "warmup": st.integers(0, total),
            "kind": st.sampled_from(KINDS),
            "base": st.floats(1e-6, 1.0),
            "lowest": st.floats(0, 1e-6),
        }
    )
)


def _formula(step, *, base, total, warmup, kind, lowest):
    if step < warmup:
        return base * step / warmup
    share = (step - warmup) / (total - warmup) if total > warmup else 0.0
    return {
        "none": base,
        "linear": base - (base - lowest) * share,
        "cosine_annealing": lowest + (base - lowest) * (1 + math.cos(math.pi * share)) / 2,
    }[kind]


@settings(max_examples=40, deadline=None)
@given(runs, st.data())
def test_the_rate_is_the_formula_within_its_bounds(run, data):
    step = data.draw(st.integers(0, run["total"] - 1))
    rate = learning_rate(step, **run)
    assert rate == pytest.approx(_formula(step, **run), rel=1e-9, abs=1e-15)
    assert 0 <= rate <= run["base"] * (1 + 1e-12)


@settings(max_examples=40, deadline=None)
@given(runs)
def test_it_climbs_while_warming_up_and_never_afterwards(run):
    rates = [learning_rate(step, **run) for step in range(run["total"])]
    before, after = rates[: run["warmup"]], rates[run["warmup"] :]
    assert all(low < high for low, high in zip(before, before[1:]))
    assert all(high >= low - 1e-18 for high, low in zip(after, after[1:]))
    if after:
        assert after[0] == pytest.approx(run["base"])


@settings(max_examples=40, deadline=None)
@given(runs)
def test_the_ends(run):
    if run["warmup"]:
        assert learning_rate(0, **run) == 0.0
    for step in (run["total"], run["total"] + 7):
        last = run["base"] if run["kind"] == "none" else run["lowest"]
        if run["warmup"] < run["total"]:
            assert learning_rate(step, **run) == pytest.approx(last, abs=1e-15)


def test_a_constant_rate_without_warm_up():
    plain = {"base": 1e-3, "total": 9, "warmup": 0, "kind": "none", "lowest": 0.0}
    assert {learning_rate(step, **plain) for step in range(12)} == {1e-3}
