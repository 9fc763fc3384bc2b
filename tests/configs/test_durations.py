"""Counts and ratios of batches."""

import pytest

from configs.durations import BatchLimit, share, warmup_steps


@pytest.mark.parametrize(
    ("limit", "total", "expected"),
    [
        (BatchLimit(count=3), 10, 3),
        (BatchLimit(count=30), 10, 10),
        (BatchLimit(ratio=1.0), 103, 103),
        (BatchLimit(ratio=0.1), 30, 3),
        (BatchLimit(ratio=0.25), 52, 13),
        (BatchLimit(ratio=0.25), 53, 14),
        (BatchLimit(ratio=0.07), 100, 7),
        (BatchLimit(ratio=1e-9), 10, 1),
        (BatchLimit(count=5), 0, 1),
    ],
)
def test_of_is_exact_and_within_the_total(limit, total, expected):
    assert limit.of(total) == expected


def test_shares_of_decimal_ratios_have_no_float_error():
    for hundredths in range(1, 101):
        for total in (100, 700, 12300):
            assert share(hundredths / 100, total) == hundredths * total // 100


def test_warmup_is_rounded_up():
    assert [warmup_steps(ratio, 50) for ratio in (0.0, 0.06, 0.061, 1.0)] == [0, 3, 4, 50]
