"""A loss gives zero gradients to parameters that it did not use, and nothing else."""

import torch
from torch import nn

from model.training.distributed.unused_parameters import include_unused


def test_the_loss_and_its_gradient_are_unchanged_and_the_others_are_zero():
    weight = nn.Parameter(torch.tensor([3.0, -0.0]))
    off = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4, dtype=torch.float64))]
    loss = (weight * torch.tensor([2.0, 5.0])).sum()
    found = include_unused(loss, off)
    assert found.shape == loss.shape
    assert found.item() == loss.item()
    (found * 7).backward()
    assert weight.grad.tolist() == [14.0, 35.0]
    for parameter in off:
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad.dtype == parameter.dtype
        assert not parameter.grad.any()


def test_no_arithmetic_touches_their_values():
    """What is not a number stays out of loss and gradients: nothing is multiplied by 0."""
    off = nn.Parameter(torch.tensor([float("nan"), float("inf")]))
    weight = nn.Parameter(torch.tensor(1.5))
    loss = include_unused(weight * 2, [off])
    loss.backward()
    assert loss.item() == 3.0
    assert off.grad.tolist() == [0.0, 0.0]
    assert weight.grad.item() == 2.0


def test_accumulated_gradients_stay_and_zeros_are_added():
    off = nn.Parameter(torch.ones(2))
    off.grad = torch.tensor([1.0, 2.0])
    include_unused(nn.Parameter(torch.tensor(1.0)) * 1, [off]).backward()
    assert off.grad.tolist() == [1.0, 2.0]


def test_without_unused_parameters_the_loss_itself_is_returned():
    loss = nn.Parameter(torch.tensor(1.0)) * 2
    assert include_unused(loss, []) is loss
