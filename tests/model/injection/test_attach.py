"""Planned adapters are at their sites, switched as planned, and do not change the host's keys."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from model.injection.attach import attach, check_keys, locate
from model.network.family import dimensions
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import projection_config
from model.site import SHARED_INPUT, SiteKey
from tests.support.tiny import tiny_network

FAMILIES = ("bert", "llama", "opt", "roberta")


def _config(**changes):
    plain = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "adapter_name": "default", "disabled": False}
    return AdapterConfig(**plain | changes)


def _host(name):
    family = kinds.load(kinds.FAMILIES, name)
    network = tiny_network(family, AutoModelForSequenceClassification).requires_grad_(False)
    return network, locate(network, family, dimensions(network.config).layers)


def _ids():
    return torch.arange(5, 17).view(2, 6)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_linear_site_is_located_in_order(name):
    network, sites = _host(name)
    assert list(sites) == sorted(sites)
    for key, site in sites.items():
        linear = network.get_submodule(site.path)
        assert site.key == key
        assert (site.in_features, site.out_features) == (linear.in_features, linear.out_features)
    family = kinds.load(kinds.FAMILIES, name)
    assert len(sites) == dimensions(network.config).layers * len(family.roles)


@pytest.mark.parametrize("name", FAMILIES)
def test_attaching_changes_neither_keys_nor_a_zero_start(name):
    network, sites = _host(name)
    keys, before = list(network.state_dict()), network(_ids()).logits
    attachments = attach(network, sites, {key: _config() for key in sites}, 0, "plan")
    assert list(network.state_dict()) == keys
    assert list(attachments) == sorted(sites)
    torch.testing.assert_close(network(_ids()).logits, before, rtol=1e-5, atol=1e-6)
    for attachment in attachments.values():
        attachment.enabled = False
    assert torch.equal(network(_ids()).logits, before)


def test_the_plan_decides_what_is_on_and_how_strongly():
    network, sites = _host("opt")
    keys = [SiteKey(0, "q_proj"), SiteKey(1, "w2")]
    configs = {keys[0]: _config(disabled=True), keys[1]: _config(importance=0.5, rank=3, init=False)}
    attachments = attach(network, sites, configs, 0, "plan")
    assert list(attachments) == keys
    assert [a.enabled for a in attachments.values()] == [False, True]
    assert [a.strength for a in attachments.values()] == [1.0, 0.5]
    assert [a.adapter.rank for a in attachments.values()] == [2, 3]
    touched = {name for name, module in network.named_modules() if "forward" in module.__dict__}
    assert touched == {sites[keys[1]].path}


def test_roles_of_one_input_are_joined():
    network, sites = _host("llama")
    attachments = attach(network, sites, {key: _config() for key in sites}, 0, "plan")
    for key, attachment in attachments.items():
        group = next((g for g in SHARED_INPUT if key.role in g), (key.role,))
        members = {member.site.key for member in attachment.shared_input.members}
        assert members == {SiteKey(key.layer, role) for role in group}


def test_the_start_depends_on_seed_and_site_alone():
    built = []
    for seed, count in ((0, 99), (0, 3), (1, 99)):
        network, sites = _host("opt")
        state = torch.get_rng_state()
        built.append(attach(network, sites, {key: _config() for key in list(sites)[:count]}, seed, "plan"))
        assert torch.equal(torch.get_rng_state(), state)
    for key, attachment in built[1].items():
        assert torch.equal(attachment.adapter.A, built[0][key].adapter.A)
        assert not torch.equal(attachment.adapter.A, built[2][key].adapter.A)


def test_a_transposed_layout_is_refused():
    network, sites = _host("opt")
    key = SiteKey(0, "q_proj")
    with pytest.raises(InputFault, match="lora.toml: fan_in_fan_out: .*q_proj stores its weight as"):
        attach(network, sites, {key: _config(fan_in_fan_out=True)}, 0, "lora.toml")
    assert "forward" not in network.get_submodule(sites[key].path).__dict__


def test_a_key_that_the_kind_does_not_know_is_refused():
    key = SiteKey(0, "q_proj")
    with pytest.raises(InputFault, match="lora.toml: layer_0/q_proj.*experts"):
        check_keys({key: _config(extra={"experts": 4})}, "lora.toml")
    check_keys({key: _config()}, "lora.toml")


def test_heads_are_refused_for_a_kind_without_adapters_for_them(monkeypatch):
    key, kind = SiteKey(0, "q_proj"), kinds.load(kinds.ADAPTERS, "lora")
    configs = {key: projection_config([_config(), _config(rank=0)])}
    check_keys(configs, "lora.toml")
    monkeypatch.setattr(kinds, "load", lambda *words: replace(kind, by_head=False))
    with pytest.raises(
        InputFault, match="lora.toml: layer_0/q_proj: method 'lora' has no adapters for single"
    ):
        check_keys(configs, "lora.toml")
    check_keys({key: _config()}, "lora.toml")


def test_heads_have_starts_of_their_own():
    network, sites = _host("llama")
    key = SiteKey(1, "q_proj")
    starts = []
    for ranks in ((2, 0, 3, 1), (2, 4, 3, 1)):
        config = projection_config([_config(rank=rank, init=rank != 1) for rank in ranks])
        adapter = attach(network, sites, {key: config}, 0, "plan")[key].adapter
        assert adapter.ranks == ranks
        starts.append([*zip(adapter.A.split(ranks), adapter.B.split(ranks))])
    for number in (0, 2, 3):
        (a, b), (again, b_again) = starts[0][number], starts[1][number]
        assert torch.equal(a, again)
        assert torch.equal(b, b_again)
        assert b.any() == (number == 3)
    assert not torch.equal(starts[0][0][0], starts[0][2][0][:2])
