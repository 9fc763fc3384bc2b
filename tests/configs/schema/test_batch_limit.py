"""Counts and ratios of batches."""

import pytest

from configs.schema.batch_limit import BatchLimit, batches_per_device, share, warmup_steps


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


def test_batches_of_a_device_and_a_share_of_them():
    assert batches_per_device(103, 2) == 52
    assert BatchLimit(ratio=0.25).of(batches_per_device(103, 2)) == 13
    assert [batches_per_device(103, devices) for devices in (1, 3, 103, 200)] == [103, 35, 1, 1]


def test_a_device_has_as_many_batches_of_half_the_size():
    """So that decisions fall on the same steps with two processes as with one."""
    for examples in range(1, 200):
        for size in (1, 3, 4):
            halves = batches_per_device(-(-examples // size), 2)
            assert halves == batches_per_device(-(-examples // (2 * size)), 1)
