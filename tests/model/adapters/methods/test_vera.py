"""`method = "vera"`: matrices that are drawn, shared and never stored."""

import copy
import hashlib

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


def test_matrices_can_be_drawn_for_each_site():
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


class _Work:
    """Counts the matrices that are drawn and the bytes that are hashed."""

    def __init__(self, monkeypatch):
        self.drawn, self.hashed, uniform, sha256 = 0, 0, torch.Tensor.uniform_, hashlib.sha256
        work = self

        def counted(tensor, *arguments, **named):
            work.drawn += 1
            return uniform(tensor, *arguments, **named)

        class Digest:
            def __init__(self, data=b""):
                self.inner = sha256()
                self.update(data)

            def update(self, data):
                work.hashed += len(data)
                self.inner.update(data)

            def __getattr__(self, name):
                return getattr(self.inner, name)

        monkeypatch.setattr(torch.Tensor, "uniform_", counted)
        monkeypatch.setattr(hashlib, "sha256", Digest)


SEEDS = 2000
"""Bytes of purposes that a few generators hash; far below those of the matrices in `LARGE`."""
LARGE = {SiteKey(layer, role): (600, 600) for layer in range(6) for role in ("q_proj", "k_proj", "v_proj")}
PAIR = 4 * 2 * 4 * 600  # bytes of an A and a B of rank 4 in float32


def _many(seed):
    config = AdapterConfig(rank=4, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False)
    sites = [Site(key, str(key), *shape) for key, shape in LARGE.items()]
    return ADAPTER.build([PlannedSite(site, config, VeraOptions()) for site in sites], seed)


def test_shared_matrices_are_drawn_and_hashed_once(monkeypatch):
    work = _Work(monkeypatch)
    built = _many(3)
    assert work.drawn == 2
    assert PAIR <= work.hashed <= PAIR + SEEDS
    assert len({tuple(adapter.origin.tolist()) for adapter in built.values()}) == 1


def test_matrices_are_drawn_again_for_a_state_with_another_seed(monkeypatch):
    ours, theirs = _many(1), _many(2)
    work = _Work(monkeypatch)
    for key, adapter in ours.items():
        adapter.load_state_dict(theirs[key].state_dict())
    assert work.drawn == 2
    assert work.hashed <= PAIR + SEEDS
    assert all(torch.equal(ours[key].origin, theirs[key].origin) for key in ours)
    assert torch.equal(ours[SiteKey(0, "q_proj")].B, theirs[SiteKey(5, "v_proj")].B)


def test_a_copy_follows_a_state_of_its_own():
    ours, theirs = _built(1), _built(2)
    key = SiteKey(0, "w1")
    copied = copy.deepcopy(nn.ModuleList(ours.values()))
    copied[1].load_state_dict(theirs[key].state_dict())
    copied[0].load_state_dict(theirs[SiteKey(0, "q_proj")].state_dict())
    assert torch.equal(copied[1].A, theirs[key].A)
    assert copied[0].A is copied[1].A
    assert torch.equal(ours[key].A, _built(1)[key].A)
