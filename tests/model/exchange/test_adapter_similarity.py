"""Factors in order, similarities by hand, and views that put alike factors side by side."""

import numpy
import pytest
import torch

from model.exchange.adapter_similarity import Point, SizeGroup, embed, flat_factors, scatter_rows, similarity
from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.factors import Factors
from model.exchange.peft_format import PeftAdapter

MODULES = [f"model.layers.{layer}.self_attn.{role}" for layer in (10, 2) for role in ("v_proj", "q_proj")]


def adapter(seed: int, *, alike: bool = True, rank: int = 2) -> PeftAdapter:
    """Return an adapter whose A's are nearly those of every seed and whose B's are its own."""
    own, common = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    modules = {}
    for name in MODULES:
        a = torch.randn(rank, 6, generator=common if alike else own)
        a = a + 0.01 * torch.randn(rank, 6, generator=own)
        modules[name] = Factors(a, torch.randn(6, rank, generator=own), 1.0)
    return PeftAdapter(modules)


def test_factors_are_numbered_by_layer_then_module_then_a_before_b():
    flats = flat_factors(adapter(0))
    assert [(one.index, one.module, one.factor) for one in flats[:5]] == [
        (0, "model.layers.2.self_attn.q_proj", "A"),
        (1, "model.layers.2.self_attn.q_proj", "B"),
        (2, "model.layers.2.self_attn.v_proj", "A"),
        (3, "model.layers.2.self_attn.v_proj", "B"),
        (4, "model.layers.10.self_attn.q_proj", "A"),
    ]
    assert all((one.index % 2 == 0) == (one.factor == "A") for one in flats)
    b = adapter(0).modules["model.layers.2.self_attn.q_proj"].b
    assert flats[1].values.tolist() == b.flatten().tolist()


def test_factors_of_extra_tensors_are_compared_too():
    tensors = {
        "B.10": torch.full((2,), 3.0),
        "B.2": torch.full((2,), 2.0),
        "A": torch.ones(4),
        "gate": torch.ones(9),
    }
    extra = {
        "layer_2/residual1": Extra(Recipe("shortcut", 2, 4.0), tensors),
        "layer_0/w1": Extra(Recipe("other", 1, 1.0), {"gate": torch.ones(3)}),
    }
    flats = flat_factors(PeftAdapter(adapter(0).modules, extra=extra))
    assert len(flats) == 10
    assert flats[0].module == "layer_2/residual1"
    assert flats[1].values.tolist() == [2.0, 2.0, 3.0, 3.0]


def test_similarity_is_the_mean_of_cosines_of_the_same_module():
    adapters = {str(seed): adapter(seed) for seed in range(3)}
    found = similarity({name: flat_factors(one) for name, one in adapters.items()})
    module = MODULES[0]
    cosine = torch.nn.functional.cosine_similarity
    for factor in "ab":
        held = [getattr(one.modules[module], factor).flatten().double() for one in adapters.values()]
        expected = [cosine(held[i], held[j], dim=0) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found.modules[module][factor.upper()] == pytest.approx(float(sum(expected)) / 3)
    pair = [
        float(cosine(adapters["0"].modules[m].b.flatten(), adapters["2"].modules[m].b.flatten(), dim=0))
        for m in MODULES
    ]
    assert found.pairs["0", "2"]["B"] == pytest.approx(sum(pair) / len(pair), abs=1e-6)
    assert found.mean["A"] > 0.99 > 0.5 > abs(found.mean["B"])
    assert found.compared == {"A": 12, "B": 12}
    assert found.skipped == 0


def test_other_sizes_and_zeros_are_not_compared():
    zero = adapter(1)
    zero.modules[MODULES[0]].b.zero_()
    found = similarity(
        {"a": flat_factors(adapter(0)), "z": flat_factors(zero), "r": flat_factors(adapter(2, rank=3))}
    )
    assert found.compared == {"A": 4, "B": 3}
    assert found.skipped == 17
    assert found.pairs["a", "r"] == {"A": None, "B": None}
    assert found.modules[MODULES[0]]["B"] is None


def test_the_views_show_every_factor_and_are_repeatable():
    adapters = {str(seed): flat_factors(adapter(seed)) for seed in range(3)}
    groups = embed(adapters)
    assert [(group.view, group.size, group.count, len(group.points)) for group in groups] == [
        ("all", 12, 24, 24),
        ("A", 12, 12, 12),
        ("B", 12, 12, 12),
    ]
    assert groups == embed(adapters)
    assert all(numpy.isfinite([point.x, point.y]).all() for group in groups for point in group.points)
    assert {point.factor for point in groups[1].points} == {"A"}


def test_similar_factors_are_embedded_near_each_other():
    adapters = {str(seed): flat_factors(adapter(seed)) for seed in range(6)}
    dots = embed(adapters)[1].points
    places = {(point.adapter, point.index): numpy.array([point.x, point.y]) for point in dots}
    near = [
        numpy.linalg.norm(places["0", at] - places[other, at]) for at in (0, 2, 4, 6) for other in ("1", "5")
    ]
    far = [numpy.linalg.norm(places["0", at] - places["0", other]) for at in (0, 2) for other in (4, 6)]
    assert max(near) < min(far)


def test_sizes_are_embedded_separately_and_equal_factors_at_one_point():
    groups = embed({"a": flat_factors(adapter(0)), "b": flat_factors(adapter(1, rank=1))})
    assert [(group.view, group.size, group.count) for group in groups][:2] == [("all", 6, 8), ("all", 12, 8)]
    one = PeftAdapter({MODULES[0]: Factors(torch.ones(1, 4), torch.ones(4, 1), 1.0)})
    same = embed({"a": flat_factors(one), "b": flat_factors(one)})
    assert [(group.view, len(group.points)) for group in same] == [("all", 4), ("A", 0), ("B", 0)]
    assert {(point.x, point.y) for point in same[0].points} == {(0.0, 0.0)}


def test_views_are_rows_and_sizes_panels_without_those_that_were_not_embedded():
    points = [Point("one", 3, "B", 0.5, -1.0)]
    groups = [SizeGroup("all", 6, 1, points), SizeGroup("all", 1200, 1, points), SizeGroup("A", 6, 1, [])]
    rows = scatter_rows(groups)
    titles = [[panel.title for panel in panels] for panels in rows]
    assert titles == [["all, 6 numbers each", "all, 1,200 numbers each"], [], []]
    (mark,) = rows[0][0].marks
    assert (mark.x, mark.y, mark.text, mark.series, mark.group) == (0.5, -1.0, "3", "one", "B")
