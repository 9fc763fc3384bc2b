"""The one Kaiming start: its bound, what it draws and what it leaves alone."""

import math

import pytest
import torch
from torch import nn

from model.adapters.initialisation import kaiming_uniform_


@pytest.mark.parametrize(("a_squared", "formula"), [(5, lambda n: 1.0 / n), (0, lambda n: 6.0 / n)])
def test_its_numbers_are_the_published_ones_to_the_bit(a_squared, formula):
    for fan_in in (1, 3, 7, 49, 768, 576, 1536, 8191):
        ours, expected = torch.full((5, fan_in), math.nan), torch.empty(5, fan_in)
        kaiming_uniform_(ours, fan_in, torch.Generator().manual_seed(fan_in), a_squared=a_squared)
        bound = math.sqrt(formula(fan_in))
        expected.uniform_(-bound, bound, generator=torch.Generator().manual_seed(fan_in))
        assert torch.equal(ours, expected)


def test_it_agrees_with_torch_up_to_the_rounding_of_its_slope():
    for a in (0.0, math.sqrt(5)):
        ours, theirs = torch.empty(2, 64, 128)
        kaiming_uniform_(ours, 128, torch.Generator().manual_seed(0), a_squared=round(a * a))
        nn.init.kaiming_uniform_(theirs, a, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours, theirs)


def test_a_parameter_of_another_type_gets_the_same_numbers_and_no_graph():
    state = torch.get_rng_state()
    one, two = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
    for parameter in (one, two):
        kaiming_uniform_(parameter, 4, torch.Generator().manual_seed(0))
    assert torch.equal(two, one.double())
    assert two.is_leaf
    assert torch.equal(torch.get_rng_state(), state)
