"""`method = "vera"`: matrices that are drawn, shared and never stored."""

import pytest
import torch
from torch import nn

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import PlannedSite
from model.adapters.methods.vera import ADAPTER, VeraOptions
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey

SHAPES = {SiteKey(0, "q_proj"): (6, 6), SiteKey(0, "w1"): (6, 9), SiteKey(1, "q_proj"): (6, 6)}


def _built(seed=3, **keys):
    config = AdapterConfig(rank=4, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False)
    options = bind(ADAPTER.options, keys, "plan")
    planned = [PlannedSite(Site(key, str(key), *shape), config, options) for key, shape in SHAPES.items()]
    return ADAPTER.build(planned, seed)


def test_matrices_are_shared_between_equal_shapes_and_never_train():
    q0, w1, q1 = _built().values()
    assert q0.A is q1.A is w1.A  # one input width
    assert q0.B is q1.B
    assert q0.B is not w1.B
    assert [name for name, p in w1.named_parameters() if p.requires_grad] == ["d", "b"]
    whole = nn.ModuleList([q0, w1, q1])
    assert sum(p.numel() for p in whole.parameters() if not p.requires_grad) == 4 * 6 + 4 * 6 + 4 * 9
    moved = whole.double()
    assert moved[0].A is moved[2].A


def test_or_every_site_has_its_own():
    q0, _, q1 = _built(shared=False).values()
    assert not torch.equal(q0.A, q1.A)
    assert not torch.equal(q0.B, q1.B)
    assert ADAPTER.keys(q0) == {"scaling": "none", "shared": False, "d_initial": 0.1}


def test_a_site_draws_the_same_whatever_others_there_are():
    alone = {key: shape for key, shape in SHAPES.items() if key.role == "w1"}
    (key,) = alone
    config = AdapterConfig(rank=4, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False)
    built = ADAPTER.build([PlannedSite(Site(key, "w1", *alone[key]), config, VeraOptions())], 3)[key]
    assert torch.equal(built.A, _built()[key].A)
    assert torch.equal(built.B, _built()[key].B)


def test_a_shared_pair_follows_the_state_of_another_seed():
    ours, theirs = _built(1), _built(2)
    for key, adapter in ours.items():
        adapter.load_state_dict(theirs[key].state_dict())
    for key, adapter in ours.items():
        assert torch.equal(adapter.A, theirs[key].A)
        assert torch.equal(adapter.B, theirs[key].B)
    assert ours[SiteKey(0, "q_proj")].A is ours[SiteKey(1, "q_proj")].A


def test_the_start_of_its_vectors():
    adapter = _built(d_initial=1e-7)[SiteKey(0, "w1")]
    assert adapter.d.tolist() == pytest.approx([1e-7] * 4)
    assert not adapter.b.any()
    with pytest.raises(InputFault, match="plan: d_initial: must be"):
        bind(VeraOptions, {"d_initial": 0}, "plan")
