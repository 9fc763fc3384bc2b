"""Maps of types show the right means and distances, and any word can be a type."""

import math

import pytest

from model.assembly.router_maps import draw_task_types, task_type_maps
from model.assembly.router_usage import RouterUsage
from model.site import SiteKey

GATE, DOWN = "gate", "w2"


def _usage(*weights, tokens=4):
    return RouterUsage(weights, -sum(w * math.log(w) for w in weights if w), tokens)


@pytest.fixture
def heard():
    """Return two types that use opposite parts in the two layers of gate, and the same in down."""
    first, second, even = _usage(1.0, 0.0), _usage(0.0, 1.0), _usage(0.5, 0.5)
    one = {SiteKey(0, GATE): first, SiteKey(1, GATE): second, SiteKey(0, DOWN): even}
    two = {SiteKey(0, GATE): second, SiteKey(1, GATE): first, SiteKey(0, DOWN): even}
    return {"sums": one, "": two}, dict.fromkeys(one, even)


def test_types_that_differ_module_by_module_are_distinguished_by_their_distance(heard):
    weights, apart, spread = task_type_maps(*heard)
    assert weights.columns == ("B0", "B1")
    assert weights.values == {kind: (0.5, 0.5) for kind in (None, "sums", "")}  # even over all modules
    assert apart.columns == spread.columns == (GATE, DOWN)
    assert apart.values == {None: (0.0, 0.0), "sums": (0.5, 0.0), "": (0.5, 0.0)}
    assert spread.values == {None: (1.0, 1.0), "sums": (0.0, 1.0), "": (0.0, 1.0)}
    assert (weights.top, apart.top, spread.top) == (1.0, 0.5, 1.0)


def test_a_type_without_tokens_at_a_module_has_no_number_there(heard):
    by_type, whole = heard
    del by_type["sums"][SiteKey(0, DOWN)]
    _, apart, spread = task_type_maps(by_type, whole)
    assert apart.values["sums"][0] == 0.5
    assert math.isnan(apart.values["sums"][1]) and math.isnan(spread.values["sums"][1])
    assert draw_task_types(task_type_maps(by_type, whole), {"sums": 4, "": 4}).startswith(b"\x89PNG")


def test_one_expert_and_equal_types_are_drawn():
    sites = {SiteKey(0, GATE): _usage(1.0)}
    maps = task_type_maps({"a": sites}, sites)
    assert maps[1].top == 1.0
    assert draw_task_types(maps, {"a": 4}).startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
def test_any_words_and_any_number_of_types_are_drawn(heard):
    by_type, whole = heard
    words = ["a $b$ c", "$", "x_{", "\n\x1b[31m", "翻译", "long " * 20, *(f"type {n}" for n in range(60))]
    maps = task_type_maps(dict.fromkeys(words, by_type["sums"]), whole)
    tokens = {word: 99 - number for number, word in enumerate(words)}
    assert draw_task_types(maps, tokens).startswith(b"\x89PNG")
