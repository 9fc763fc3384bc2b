"""What the heads of a projection make together, and what they must agree in."""

from dataclasses import replace

import pytest

from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import head_configs, head_conflicts, projection_config

HEAD = AdapterConfig(rank=2, alpha=4.0, dropout=0.1, adapter_name="a", disabled=False)


def _head(rank=2, **changes):
    return replace(HEAD, rank=rank, **changes)


OFF, WEAK, STRONG = _head(disabled=True), _head(importance=0.5), _head(importance=-2.0)
PROJECTIONS = [
    # heads, ranks that are built, is on, importance of the projection, importance of built heads
    ([_head(), _head(3), _head(0)], [2, 3, 0], True, 1.0, [1, 1]),
    ([OFF, _head(3)], [0, 3], True, 1.0, [1]),
    ([_head(importance=0.0), _head(1)], [0, 1], True, 1.0, [1]),
    ([WEAK, WEAK], [2, 2], True, 0.5, [1, 1]),
    ([WEAK, OFF, STRONG], [2, 0, 2], True, 1.0, [0.5, -2.0]),
    ([OFF, OFF], [2, 2], False, 1.0, [1, 1]),
    ([OFF, _head(importance=0.0), _head(0)], [2, 0, 0], False, 1.0, [1]),
    ([_head(importance=0.0), _head(0)], [2, 0], False, 0.0, [1]),
    ([_head(0), _head(0)], [], False, 1.0, []),
]


@pytest.mark.parametrize(("heads", "ranks", "on", "importance", "own"), PROJECTIONS)
def test_a_projection_is_made_of_its_heads(heads, ranks, on, importance, own):
    made = projection_config(heads)
    assert (made.rank, made.is_on, made.importance) == (sum(ranks), on, importance)
    assert [head.rank for head in made.heads] == ranks
    assert [head.importance for head in made.heads if head.rank] == own
    assert not any(head.disabled for head in made.heads)
    again = head_configs(made)
    assert [head.rank for head in again] == ranks
    if on:
        assert [h.importance for h in again if h.rank] == [h.importance for h in heads if h.is_on]
        assert projection_config(again) == replace(made, heads=projection_config(again).heads)


def test_a_transposed_layout_is_passed_on():
    assert projection_config([_head(), _head(fan_in_fan_out=True)]).fan_in_fan_out
    assert not projection_config([_head(), _head(0, fan_in_fan_out=True)]).fan_in_fan_out


def test_heads_may_have_their_own_values():
    heads = [_head(), _head(5, alpha=1.0, importance=2.0, init=False, adapter_name="b"), OFF]
    assert head_conflicts("q", [(f"t{number}", head) for number, head in enumerate(heads)]) == []


DISAGREEMENTS = [
    ({"dropout": 0.2}, "[own] lora_dropout: head 1 of q has 0.2, head 0 ([first]) has 0.1; the heads of one"),
    ({"method": "hydra"}, "[own] method: head 1 of q has hydra, head 0 ([first]) has lora; the heads of one"),
    ({"extra": {"n": 2}}, "[own]: head 1 of q and head 0 ([first]) differ in the keys of their method"),
]


@pytest.mark.parametrize(("change", "message"), DISAGREEMENTS)
def test_heads_agree_in_what_they_share(change, message):
    (text,) = head_conflicts("q", [("first", HEAD), ("own", _head(**change))])
    assert text.startswith(message)
    assert head_conflicts("q", [("first", HEAD), ("own", _head(0, **change))]) == []
    assert head_conflicts("q", [("first", HEAD), ("own", _head(disabled=True, **change))]) == []
    assert head_conflicts("q", [("first", _head(0))]) == []
