"""`method = "lora_split"`: parts that train one at a time, and how they are joined."""

import pytest
import torch

from configs.binding import bind
from configs.faults import InputFault
from model.adapter import Part, PlannedSite
from model.adapters.lora_split import ADAPTER, SplitOptions
from model.entry import Entry
from model.site import Site, SiteKey


def _built(**keys):
    entry = Entry(rank=2, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=False)
    key = SiteKey(0, "w1")
    planned = PlannedSite(Site(key, "w1", 6, 5), entry, bind(SplitOptions, keys, "plan"))
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
    torch.testing.assert_close(ADAPTER.joint(X, [Part(weight, None, adapter, 1.0)])[0], expected)
    assert ADAPTER.keys(adapter) == {"heads": 3, "combine": combine}


def test_one_component_computes_and_trains_alone_at_its_own_scale():
    adapter = _built(heads=3, component=1)
    torch.testing.assert_close(adapter(X), _sum(adapter, X, [1]))
    assert [name for name, p in adapter.named_parameters() if p.requires_grad] == ["A.1", "B.1"]
    assert list(adapter.factors()) == ["A1", "B1"]
    assert ADAPTER.keys(adapter) == {"heads": 3, "combine": "average", "component": 1}
    weight = torch.zeros(5, 6, dtype=torch.float64)
    ADAPTER.joint(X, [Part(weight, None, adapter, 1.0)])[0].sum().backward()
    assert [name for name, p in adapter.named_parameters() if p.grad is not None] == ["A.1", "B.1"]


def test_every_part_starts_otherwise():
    adapter = _built(heads=2)
    assert not torch.equal(adapter.A[0], adapter.A[1])


def test_a_component_that_there_is_not_is_refused():
    with pytest.raises(InputFault, match="plan: component: the parts are 0 to 1, got 2"):
        bind(SplitOptions, {"component": 2}, "plan")
