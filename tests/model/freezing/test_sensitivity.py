"""Scores and decisions of freezing, written out with plain numbers."""

import pytest
import torch

from model.freezing.sensitivity import Sensitivity, matrix_score, select_frozen


def test_averages_move_once_a_window_and_see_the_window_before():
    draws = torch.rand(35, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = Sensitivity.zeros_like(torch.zeros(2, 3, dtype=torch.float64))
    average = deviation = torch.zeros(2, 3, dtype=torch.float64)
    for step, magnitude in enumerate(draws):
        one.observe(magnitude, step % 10, 0.85, 0.95)
        if step and step % 10 == 0:
            mean = draws[step - 10 : step].mean(0)
            average = 0.85 * average + 0.15 * mean
            deviation = 0.95 * deviation + 0.05 * (mean - average).abs()
        torch.testing.assert_close(one.average, average)
        torch.testing.assert_close(one.deviation, deviation)
        torch.testing.assert_close(one.window, draws[step - step % 10 : step + 1].mean(0))
    torch.testing.assert_close(one.score(), average * deviation)
    assert matrix_score(one.score()) == pytest.approx(float((average * deviation).mean()))


SCORES = {
    "low": torch.tensor([1.0, 2.0, 3.0]),  # mean 2
    "mid": torch.tensor([2.0, 4.0, 9.0]),  # mean 5
    "high": torch.tensor([8.0, 10.0]),  # mean 9
}


@pytest.mark.parametrize(
    ("share", "names", "threshold"),
    [
        (1.0, (), None),
        (0.9, (), None),  # floor(8 * 0.1) = 0: nothing lies below anything
        (0.75, (), 2.0),  # the second smallest of eight; no mean lies below it
        (0.5, ("low",), 3.0),
        (0.25, ("low", "mid"), 8.0),
        (0.125, ("low", "mid"), 9.0),  # a mean that equals the threshold does not lie below it
        (0.0, ("low", "mid", "high"), 10.0),
    ],
)
def test_the_threshold_is_an_element_and_means_lie_below_it(share, names, threshold):
    assert select_frozen(SCORES, share) == (names, threshold)


def test_frozen_elements_of_the_first_pool_count_as_the_smallest():
    rest = {name: score for name, score in SCORES.items() if name != "low"}
    assert select_frozen(rest, 0.5).names == ()  # the second smallest of five is 4
    # Of the eight elements of the beginning half may train: the fourth smallest is the first that remains.
    assert select_frozen(rest, 0.5, already_frozen=3) == ((), 2.0)
    assert select_frozen(rest, 0.25, already_frozen=3) == (("mid",), 8.0)
    assert select_frozen(rest, 0.7, already_frozen=3) == (
        (),
        None,
    )  # more are frozen than the schedule asks for


def test_at_the_end_a_matrix_without_any_gradient_stops_too():
    alike = {"dead": torch.zeros(2, 2), "too": torch.zeros(3)}
    assert select_frozen(alike, 0.1).names == ()
    assert select_frozen(alike, 0.0).names == ("dead", "too")
    assert select_frozen({}, 0.0) == ((), None)
