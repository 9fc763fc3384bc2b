"""`method = "lora_moe"`: every expert has an A of its own."""

import torch

from model.adapters.adapter import PlannedSite
from model.adapters.methods.lora_moe import ADAPTER, MoeOptions
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey


def test_the_formula_of_the_ablation():
    key = SiteKey(0, "w1")
    config = AdapterConfig(rank=2, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=False)
    planned = PlannedSite(Site(key, "w1", 6, 5), config, MoeOptions(heads=3))
    adapter = ADAPTER.build([planned], 3)[key].double()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors = adapter.factors()
    s = torch.softmax(x @ factors["router"].t(), -1)
    expected = sum(
        s[:, i : i + 1] * 3.0 * (x @ factors["A"][2 * i : 2 * i + 2].t() @ factors[f"B{i}"].t())
        for i in range(3)
    )
    torch.testing.assert_close(adapter(x), expected)
    assert expected.abs().max() > 0.01
    assert ADAPTER.keys(adapter) == {"heads": 3}
    assert sum(p.numel() for p in adapter.parameters()) == 3 * 2 * (6 + 5) + 3 * 6
