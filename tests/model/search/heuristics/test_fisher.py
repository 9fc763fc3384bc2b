"""FISHER against the formula in plain tensors."""

import pytest

from configs.runtime import kinds
from model.search.saliency import measure
from tests.model.search.heuristics.scene import FIRST, SECOND, batch_gradients, scene

KIND = kinds.load(kinds.HEURISTICS, "fisher")


def test_fisher_adds_the_squares_of_every_batchs_gradients():
    _, gradients = batch_gradients(scene())
    found = measure(KIND, scene())
    for key, place in ((FIRST, 0), (SECOND, 2)):
        expected = sum(float(one[place].square().sum() + one[place + 1].square().sum()) for one in gradients)
        assert found[key] == pytest.approx(expected, rel=1e-8)
