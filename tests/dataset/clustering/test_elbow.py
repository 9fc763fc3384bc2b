"""The elbow rule, written out by hand."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.clustering.elbow import distances, elbow


def test_the_distance_is_that_of_a_point_to_a_line():
    # Scaled: (0, 1), (1/3, 1/5), (2/3, 1/10), (1, 0). The chord is x + y = 1.
    errors = {1: 20.0, 2: 12.0, 3: 11.0, 4: 10.0}
    expected = [0.0, abs(1 / 3 + 1 / 5 - 1) / math.sqrt(2), abs(2 / 3 + 1 / 10 - 1) / math.sqrt(2), 0.0]
    assert list(distances(errors).values()) == pytest.approx(expected, abs=1e-9)
    assert elbow(errors) == 2


def test_a_curve_that_ends_above_its_least_error_has_the_chord_of_its_ends():
    # Scaled: (0, 1), (1/2, 0), (1, 1/2); the line through the ends is y = 1 - x / 2.
    assert distances({1: 8.0, 2: 4.0, 3: 6.0}) == {1: 0.0, 2: round(0.75 / math.sqrt(1.25), 9), 3: 0.0}


@pytest.mark.parametrize("errors", [{1: 5.0}, {1: 5.0, 2: 1.0}, {1: 3.0, 2: 3.0, 3: 3.0}, {4: 3.0, 5: 2.0}])
def test_a_curve_without_a_bend_gives_its_smallest_k(errors):
    assert elbow(errors) == min(errors)


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e6, 1 / 3])
def test_equal_distances_go_to_the_smaller_k(scale):
    # k = 2 and k = 4 lie equally far below the chord, k = 3 nearer.
    assert elbow({k: scale * e for k, e in {1: 8.0, 2: 3.0, 3: 3.0, 4: -1.0, 5: 0.0}.items()}) == 2
    assert elbow({k: 10 - 2.0 * k for k in range(1, 8)}) == 1


@given(st.lists(st.integers(0, 40), min_size=3, max_size=12))
def test_the_rule_agrees_with_exact_arithmetic(values):
    errors = {k: float(value) for k, value in enumerate(values, start=1)}
    spread = max(values) - min(values)
    last = len(values) - 1

    def apart(at: int) -> Fraction:
        if not spread:
            return Fraction(0)
        y = [Fraction(value - min(values), spread) for value in values]
        return abs(y[at] - y[0] - Fraction(at, last) * (y[-1] - y[0]))

    best = max(apart(at) for at in range(len(values)))
    assert elbow(errors) == 1 + next(at for at in range(len(values)) if apart(at) == best)
