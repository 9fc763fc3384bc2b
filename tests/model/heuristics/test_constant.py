"""CONSTANT: every module counts one."""

from configs import kinds
from model.importance import measure
from tests.model.heuristics.scene import FIRST, SECOND, scene


def test_every_module_counts_one():
    kind = kinds.load(kinds.HEURISTICS, "constant")
    assert measure(kind, scene()) == {FIRST: 1.0, SECOND: 1.0}
    assert kind.most_batches == 0
