"""Shares are whole numbers by the formula and add up; in stored order the parts alternate evenly."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.mixture.epochs import quotas, stored_order

PARTS = st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 100)), min_size=1, max_size=5)


@given(PARTS)
def test_an_epoch_is_as_large_as_the_parts_and_shared_by_weight(parts):
    sizes, weights = [size for size, _ in parts], [weight for _, weight in parts]
    total, found = sum(sizes), quotas(sizes, weights)
    assert sum(found) == total
    for count, weight in zip(found, weights):
        exact = total * weight / math.fsum(weights)
        assert exact - 1 < count + 1e-6 and count - 1e-6 < exact + 1


@pytest.mark.parametrize(
    ("sizes", "weights", "expected"),
    [
        ([30, 70], None, [30, 70]),
        ([30, 70], [1.0, 1.0], [50, 50]),
        ([30, 70], [0.3, 0.1], [75, 25]),
        ([1, 1, 1], [0.5, 0.3, 0.2], [1, 1, 1]),  # 1.5, 0.9, 0.6: the larger remainders are filled first
        ([2, 1], [1.0, 1.0], [2, 1]),  # a draw goes to the first
        ([90, 10], [99.9, 0.1], [100, 0]),
    ],
)
def test_shares_of_known_cases(sizes, weights, expected):
    assert quotas(sizes, weights) == expected


def test_only_the_ratio_of_weights_counts():
    assert quotas([11, 20], [0.25, 0.75]) == quotas([11, 20], [1.0, 3.0]) == [8, 23]


def test_stored_order_alternates_and_begins_short_parts_again():
    assert stored_order([4, 2], [2, 4]) == [4, 0, 5, 4, 1, 5]
    assert stored_order([2, 4], [2, 4]) == [2, 0, 3, 4, 1, 5]
    assert stored_order([3], [3]) == [0, 1, 2]


@given(PARTS)
def test_every_section_of_the_stored_order_keeps_the_shares(parts):
    sizes, counts = [size for size, _ in parts], quotas([size for size, _ in parts], [w for _, w in parts])
    order = stored_order(sizes, counts)
    owners = [part for part, size in enumerate(sizes) for _ in range(size)]
    assert len(order) == sum(sizes)
    for length in range(0, len(order), 7):
        seen = Counter(owners[index] for index in order[:length])
        for part, count in enumerate(counts):
            assert abs(seen[part] - length * count / len(order)) <= len(parts)
    for part, count in enumerate(counts):
        own = [index for index in order if owners[index] == part]
        start = sum(sizes[:part])
        assert own == [start + j % sizes[part] for j in range(count)]
