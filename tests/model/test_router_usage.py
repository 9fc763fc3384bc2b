"""What routers do is recorded as it was computed, without padding, and only while somebody listens."""

import math
import tomllib

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from model.entry import Entry
from model.family import dimensions, model_types
from model.injection import attach, locate
from model.router_usage import RouterRecord, Usage, usage_panels, usage_text
from model.site import SiteKey
from tests.tiny import tiny_network

GATE = SiteKey(0, "gate")


@pytest.fixture
def guests():
    row = model_types()["llama"]
    network = tiny_network(row, AutoModelForSequenceClassification, model_type="llama")
    network.requires_grad_(False)
    sites = locate(network, row, dimensions(network.config).layers)
    keys = {"method": "hydra", "extra": {"heads": 3}}
    entries = {key: Entry(2, 4.0, 0.0, "default", False, **keys) for key in sites}
    entries[SiteKey(1, "w2")] = Entry(2, 4.0, 0.0, "default", False)
    return network, attach(network, sites, entries, 0, "plan")


def _batch():
    ids, mask = torch.arange(5, 17).view(2, 6), torch.ones(2, 6, dtype=torch.long)
    ids[1, 3:], mask[1, 3:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def test_means_are_those_of_the_tokens_that_are_no_padding(guests):
    network, attachments = guests
    seen = []
    linear = network.get_submodule(attachments[GATE].site.path)
    linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with RouterRecord(network, attachments) as record, torch.no_grad():
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


def test_nothing_is_heard_before_and_after_and_nothing_changes(guests):
    network, attachments = guests
    before = network(**_batch()).logits
    record = RouterRecord(network, attachments)
    with record:
        assert torch.equal(network(**_batch()).logits, before)
    heard = record.usage()
    network(**_batch())
    assert record.usage() == heard
    assert not network._forward_pre_hooks
    assert all(one.observer is None for one in record.routed.values())


def test_the_file_and_the_maps_say_the_same():
    sites = {GATE: Usage((0.25, 0.75), 0.5, 9), SiteKey(1, "w2"): Usage((1.0,), 0.0, 9)}
    table = tomllib.loads(usage_text({"validation": sites}))
    assert table["validation"]["layer_0"]["gate"] == {"weights": [0.25, 0.75], "entropy": 0.5, "tokens": 9}
    entropy, first, second = usage_panels(sites)
    assert entropy.values == {GATE: pytest.approx(0.5 / math.log(2))}
    assert first.values == {GATE: 0.25, SiteKey(1, "w2"): 1.0}
    assert second.values == {GATE: 0.75}


def test_all_experts_of_all_sets_have_the_same_colours():
    even, one_has_most = Usage((0.25,) * 4, math.log(4), 9), Usage((0.9, 0.1, 0.0, 0.0), 0.3, 9)
    for group in ({GATE: even}, {GATE: one_has_most}):
        entropy, *weights = usage_panels(group)
        assert entropy.limits == (0.0, 1.0)
        assert [panel.limits for panel in weights] == [(0.0, 0.5)] * 4
    assert usage_panels({GATE: Usage((1.0,), 0.0, 9)})[0].limits == (0.0, 1.0)
