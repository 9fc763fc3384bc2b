"""`method = "hydra"`: what its keys build."""

import pytest
import torch

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import PlannedSite
from model.adapters.methods import lora
from model.adapters.methods.hydra import ADAPTER, HydraOptions
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey


def _built(method=ADAPTER, *, init=True, **keys):
    config = AdapterConfig(rank=2, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=init)
    key = SiteKey(0, "w1")
    options = bind(method.options, keys, "plan")
    return method.build([PlannedSite(Site(key, "w1", 6, 5), config, options)], 3)[key]


def test_two_heads_and_a_router_by_default():
    adapter = _built()
    assert {name: tuple(p.shape) for name, p in adapter.named_parameters()} == {
        "A": (2, 6), "B": (4, 5), "router": (2, 6),
    }  # fmt: skip
    assert ADAPTER.keys(adapter) == {"heads": 2, "router": "token"}
    assert adapter.merged_delta() is None


def test_one_head_starts_as_lora_and_computes_it():
    one, plain = _built(heads=1), _built(lora.ADAPTER)
    assert torch.equal(one.A, plain.A)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one.B.normal_(generator=torch.Generator().manual_seed(1))
        plain.B.copy_(one.B)
    torch.testing.assert_close(one(x), plain(x))


def test_uniform_has_no_router_and_is_the_mean_of_all():
    adapter = _built(heads=3, router="uniform")
    assert [name for name, _ in adapter.named_parameters()] == ["A", "B"]
    assert ADAPTER.keys(adapter) == {"heads": 3, "router": "uniform"}
    with torch.no_grad():
        adapter.B.normal_(generator=torch.Generator().manual_seed(1))
    factors = adapter.factors()
    mean = sum(factors[f"B{i}"] for i in range(3)) / 3
    torch.testing.assert_close(adapter.merged_delta(), 6.0 / 2 * mean @ factors["A"])


def test_b_is_drawn_too_where_the_start_is_no_zero_delta():
    assert _built(init=False).B.unique().numel() == 20
    assert torch.equal(_built(init=False).A, _built().A)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"heads": 0}, "plan: heads: must be a whole number in"),
        ({"heads": "3"}, "plan: heads: must be"),
        ({"router": "tokn"}, "plan: router: .*did you mean 'token'"),
        ({"head": 3}, "plan: unknown key 'head'; did you mean 'heads'"),
    ],
)
def test_wrong_keys_are_refused(keys, words):
    with pytest.raises(InputFault, match=words):
        bind(HydraOptions, keys, "plan")
