"""CONSTANT: every module counts one."""

from configs.runtime import kinds
from model.search.saliency import measure
from tests.model.search.heuristics.scene import FIRST, SECOND, scene


def test_every_module_counts_one():
    kind = kinds.load(kinds.HEURISTICS, "constant")
    assert measure(kind, scene()) == {FIRST: 1.0, SECOND: 1.0}
    assert kind.max_batches == 0
