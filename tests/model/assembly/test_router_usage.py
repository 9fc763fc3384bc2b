"""What routers do is recorded as it was computed, without padding, and only while somebody listens."""

import math
import tomllib

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from model.assembly.router_usage import RouterRecorder, RouterUsage, usage_panels, usage_text
from model.injection.attach import attach, locate
from model.network.family import dimensions, model_types
from model.plan.adapter_config import AdapterConfig
from model.site import SiteKey
from tests.support.tiny import tiny_network

GATE = SiteKey(0, "gate")


@pytest.fixture
def guests():
    row = model_types()["llama"]
    network = tiny_network(row, AutoModelForSequenceClassification, model_type="llama")
    network.requires_grad_(False)
    sites = locate(network, row, dimensions(network.config).layers)
    keys = {"method": "hydra", "extra": {"heads": 3}}
    configs = {key: AdapterConfig(2, 4.0, 0.0, "default", False, **keys) for key in sites}
    configs[SiteKey(1, "w2")] = AdapterConfig(2, 4.0, 0.0, "default", False)
    return network, attach(network, sites, configs, 0, "plan")


def _batch():
    ids, mask = torch.arange(5, 17).view(2, 6), torch.ones(2, 6, dtype=torch.long)
    ids[1, 3:], mask[1, 3:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def test_means_exclude_padding(guests):
    network, attachments = guests
    seen = []
    linear = network.get_submodule(attachments[GATE].site.path)
    linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with RouterRecorder(network, attachments) as record, torch.no_grad():
        for record.group in ("one", "two", "two"):
            network(**_batch())
    found = record.usage()
    tokens = seen[0][_batch()["attention_mask"].bool()]
    weights = torch.softmax(tokens @ attachments[GATE].adapter.router.t(), -1)
    for group, times in (("one", 1), ("two", 2)):
        one = found[group][GATE]
        assert one.tokens == 9 * times
        assert one.weights == pytest.approx(weights.mean(0).tolist(), abs=1e-6)
        assert one.entropy == pytest.approx(-(weights * weights.log()).sum(1).mean().item(), abs=1e-6)
        assert set(found[group]) == set(attachments) - {SiteKey(1, "w2")}


def test_usage_is_recorded_only_inside_the_context_and_changes_nothing(guests):
    network, attachments = guests
    before = network(**_batch()).logits
    record = RouterRecorder(network, attachments)
    with record:
        assert torch.equal(network(**_batch()).logits, before)
    heard = record.usage()
    network(**_batch())
    assert record.usage() == heard
    assert not network._forward_pre_hooks
    assert all(one.observer is None for one in record.routed.values())


def test_the_file_and_the_maps_agree():
    sites = {GATE: RouterUsage((0.25, 0.75), 0.5, 9), SiteKey(1, "w2"): RouterUsage((1.0,), 0.0, 9)}
    table = tomllib.loads(usage_text({"validation": sites}))
    assert table["validation"]["layer_0"]["gate"] == {"weights": [0.25, 0.75], "entropy": 0.5, "tokens": 9}
    entropy, first, second = usage_panels(sites)
    assert entropy.values == {GATE: pytest.approx(0.5 / math.log(2))}
    assert first.values == {GATE: 0.25, SiteKey(1, "w2"): 1.0}
    assert second.values == {GATE: 0.75}


def test_all_experts_of_all_sets_have_the_same_colours():
    even, one_has_most = RouterUsage((0.25,) * 4, math.log(4), 9), RouterUsage((0.9, 0.1, 0.0, 0.0), 0.3, 9)
    for group in ({GATE: even}, {GATE: one_has_most}):
        entropy, *weights = usage_panels(group)
        assert entropy.limits == (0.0, 1.0)
        assert [panel.limits for panel in weights] == [(0.0, 0.5)] * 4
    assert usage_panels({GATE: RouterUsage((1.0,), 0.0, 9)})[0].limits == (0.0, 1.0)


def test_types_are_recorded_separately_and_add_up(guests):
    network, attachments = guests
    plain = RouterRecorder(network, attachments)
    with plain, torch.no_grad():
        network(**_batch())
    with RouterRecorder(network, attachments) as record, torch.no_grad():
        record.group = "one"
        record.set_types(("b", ""))
        network(**_batch())
        record.set_types(())
        network(**_batch())
    whole, found = record.usage()["one"], record.usage_by_type()["one"]
    assert list(found) == ["b", ""]
    assert (found["b"][GATE].tokens, found[""][GATE].tokens, whole[GATE].tokens) == (6, 3, 18)
    for key, one in plain.usage()[""].items():
        own = [found[kind][key] for kind in ("b", "")]
        for name in ("weights", "entropy"):
            parts = [torch.tensor(getattr(part, name)) * part.tokens for part in own]
            torch.testing.assert_close(sum(parts) / 9, torch.tensor(getattr(one, name)))
        assert whole[key].weights == pytest.approx(one.weights)


def test_the_usage_of_all_processes_is_summed(guests):
    network, attachments = guests
    heard = []
    for kinds in (("a", "b"), ("b", "b"), None):  # the last process has no batch
        with RouterRecorder(network, attachments) as record, torch.no_grad():
            if kinds is not None:
                record.group = "one"
                record.set_types(kinds)
                network(**_batch())
        heard.append(record)
    sums = []
    for record in heard:
        record.sum_over_processes({"one": ["a", "b"], "two": []}, lambda own: sums.append(own) or own)
    total = sum(sums)
    for record in heard:
        record.sum_over_processes({"one": ["a", "b"], "two": []}, lambda own: total)
        assert list(record.usage()) == ["one"]
        one, kinds = record.usage()["one"], record.usage_by_type()["one"]
        assert set(one) == set(record.routed)
        assert (one[GATE].tokens, kinds["a"][GATE].tokens, kinds["b"][GATE].tokens) == (18, 6, 12)
        assert sum(one[GATE].weights) == pytest.approx(1)


def test_the_file_has_a_table_for_each_type():
    one, other = RouterUsage((0.25, 0.75), 0.5, 9), RouterUsage((0.5, 0.5), 0.6, 3)
    text = usage_text(
        {"validation": {GATE: one}}, {"validation": {"": {GATE: one}, 'a "b".c': {GATE: other}}}
    )
    table = tomllib.loads(text)
    assert set(table) == {"validation", "types"}
    assert table["types"]["validation"]['a "b".c']["layer_0"]["gate"]["tokens"] == 3
    assert table["types"]["validation"][""]["layer_0"]["gate"]["weights"] == [0.25, 0.75]
    assert usage_text({"validation": {GATE: one}}, {}) == usage_text({"validation": {GATE: one}})
