"""GRAD-NORM against the formula in plain tensors."""

import pytest
import torch

from configs.runtime import kinds
from model.search.saliency import measure
from tests.model.search.heuristics.scene import FIRST, SECOND, batch_gradients, scene

KIND = kinds.load(kinds.HEURISTICS, "grad_norm")


def summed(gradients):
    return [sum(parts) for parts in zip(*gradients)]


def test_grad_norm_adds_the_norms_of_the_summed_gradients():
    _, gradients = batch_gradients(scene())
    a1, b1, a2, b2 = summed(gradients)
    found = measure(KIND, scene())
    assert found[FIRST] == pytest.approx(float(a1.norm() + b1.norm()), rel=1e-8)
    assert found[SECOND] == pytest.approx(float(a2.norm() + b2.norm()), rel=1e-8)


def test_grad_norm_sees_b_alone_where_b_is_zero():
    probe = scene()
    with torch.no_grad():
        probe.attachments[FIRST].adapter.B.zero_()
    _, gradients = batch_gradients(probe)
    a1, b1, *_ = summed(gradients)
    assert not a1.any()
    assert measure(KIND, probe)[FIRST] == pytest.approx(float(b1.norm()), rel=1e-8)
