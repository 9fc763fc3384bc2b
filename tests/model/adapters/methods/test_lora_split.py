"""`method = "lora_split"`: parts that train one at a time, and how they are joined."""

import math

import pytest
import torch

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import AdaptedLinear, PlannedSite
from model.adapters.methods.lora_split import ADAPTER, SplitOptions
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey


def _built(**keys):
    config = AdapterConfig(rank=2, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=False)
    key = SiteKey(0, "w1")
    planned = PlannedSite(Site(key, "w1", 6, 5), config, bind(SplitOptions, keys, "plan"))
    return ADAPTER.build([planned], 3)[key].double()


def _sum(adapter, x, parts):
    return sum(3.0 * x @ adapter.A[i].t() @ adapter.B[i] for i in parts)


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("combine", "factor"), [("sum", 1), ("average", 1 / 3)])
def test_all_parts_are_joined(combine, factor):
    adapter = _built(heads=3, combine=combine)
    expected = factor * _sum(adapter, X, range(3))
    torch.testing.assert_close(adapter(X), expected)
    torch.testing.assert_close(X @ adapter.merged_delta().t(), expected)
    weight = torch.zeros(5, 6, dtype=torch.float64)
    torch.testing.assert_close(
        ADAPTER.fused_forward(X, [AdaptedLinear(weight, None, adapter, 1.0)])[0], expected
    )
    assert ADAPTER.keys(adapter) == {"heads": 3, "combine": combine}


def test_one_component_computes_and_trains_alone_at_its_own_scale():
    adapter = _built(heads=3, component=1)
    torch.testing.assert_close(adapter(X), _sum(adapter, X, [1]))
    assert [name for name, p in adapter.named_parameters() if p.requires_grad] == ["A.1", "B.1"]
    assert list(adapter.factors()) == ["A1", "B1"]
    assert ADAPTER.keys(adapter) == {"heads": 3, "combine": "average", "component": 1}
    weight = torch.zeros(5, 6, dtype=torch.float64)
    ADAPTER.fused_forward(X, [AdaptedLinear(weight, None, adapter, 1.0)])[0].sum().backward()
    assert [name for name, p in adapter.named_parameters() if p.grad is not None] == ["A.1", "B.1"]


def _routed(**keys):
    """Return parts under a router whose weights differ from token to token."""
    adapter = _built(heads=3, combine="routed", **keys)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        adapter.router.copy_(torch.randn(3, 6, generator=draw, dtype=torch.float64))
    return adapter


def _loop(adapter, x):
    """sum_i s_i(x) (alpha / R) B_i A_i x, a token and a part after the other."""
    rows = []
    for token in x:
        scores = [math.exp((adapter.router[i] @ token).item()) for i in range(3)]
        parts = [score / sum(scores) * _sum(adapter, token, [i]) for i, score in enumerate(scores)]
        rows.append(sum(parts))
    return torch.stack(rows)


@pytest.mark.parametrize("manner", ["plain", "node"])
def test_a_router_weighs_the_parts_token_by_token_and_trains_alone(manner):
    adapter, x = _routed(), X.clone().requires_grad_()
    weight = torch.zeros(5, 6, dtype=torch.float64)
    ours = (
        adapter(x)
        if manner == "plain"
        else ADAPTER.fused_forward(x, [AdaptedLinear(weight, None, adapter, 1.0)])[0]
    )
    torch.testing.assert_close(ours, _loop(adapter, X))
    assert [name for name, p in adapter.named_parameters() if p.requires_grad] == ["router"]
    wanted = torch.softmax(x @ adapter.router.t(), -1)
    expected = sum(wanted[:, i : i + 1] * _sum(adapter, x, [i]) for i in range(3))
    ways = [
        torch.autograd.grad(one.square().sum(), [x, adapter.router], retain_graph=True)
        for one in (ours, expected)
    ]
    torch.testing.assert_close(*ways)
    ours.sum().backward()
    assert all(p.grad is None for p in (*adapter.A, *adapter.B))
    assert list(adapter.factors()) == ["A0", "A1", "A2", "B0", "B1", "B2", "router"]
    assert adapter.merged_delta() is None
    assert ADAPTER.keys(adapter) == {"heads": 3, "combine": "routed"}


def test_frozen_parts_do_not_change_the_gradients_of_the_others():
    weight, one, two = torch.zeros(5, 6, dtype=torch.float64), _routed(), _built(heads=2)
    outputs = ADAPTER.fused_forward(X, [AdaptedLinear(weight, None, adapter, 1.0) for adapter in (one, two)])
    sum(y.square().sum() for y in outputs).backward()
    found = [p.grad for p in two.parameters()]
    two.zero_grad()
    two(X).square().sum().backward()
    torch.testing.assert_close(found, [p.grad for p in two.parameters()])
    assert [name for name, p in one.named_parameters() if p.grad is not None] == ["router"]


def test_a_router_starts_as_the_average_of_its_parts():
    routed, mean = _built(heads=3, combine="routed"), _built(heads=3)
    torch.testing.assert_close(routed(X), mean(X))
    assert not routed.router.any()


def test_fixed_weights_make_a_plain_lora_of_routed_parts():
    adapter = _routed()
    a, b, scale = ADAPTER.average(adapter, torch.tensor([0.2, 0.5, 0.3]))
    expected = sum(w * _sum(adapter, X, [i]) for i, w in enumerate((0.2, 0.5, 0.3)))
    torch.testing.assert_close(scale * X @ a.t() @ b.t(), expected)


def test_files_without_a_router_may_be_routed_and_those_with_one_must_hold_it():
    routed, mean = _built(heads=3, combine="routed"), _built(heads=3)
    assert ADAPTER.optional_tensors(routed, {"combine": "average"}) == ("router",)
    assert ADAPTER.optional_tensors(routed, {"combine": "routed"}) == ()
    assert ADAPTER.optional_tensors(mean, {"combine": "sum"}) == ()


def test_every_part_has_its_own_start():
    adapter = _built(heads=2)
    assert not torch.equal(adapter.A[0], adapter.A[1])


def test_an_unknown_component_is_refused():
    with pytest.raises(InputFault, match="plan: component: the parts are 0 to 1, got 2"):
        bind(SplitOptions, {"component": 2}, "plan")
    with pytest.raises(
        InputFault, match='plan: component: one part computes alone, combine = "routed" weighs'
    ):
        bind(SplitOptions, {"component": 1, "combine": "routed"}, "plan")
