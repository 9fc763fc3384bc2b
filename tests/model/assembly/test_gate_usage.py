"""What gates did: means and spreads by layer and position, padding left out, nothing recorded outside."""

import tomllib

import pytest
import torch
from torch import nn

from configs.runtime import kinds
from model.adapters.adapter import PlannedSite
from model.assembly.gate_usage import POSITIONS, GateRecorder, gates_text
from model.injection.linear_attachment import LinearAttachment
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey

KIND = kinds.load(kinds.ADAPTERS, "flow")
CONFIG = AdapterConfig(1, 1.0, 0.0, "default", False, method="flow")
D = 6


class Host(nn.Module):
    """Two layers of two linears each, and gates that read each layer's input."""

    def __init__(self, **options):
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(D, D) for _ in range(4)]).requires_grad_(False)
        keys = [SiteKey(layer, role) for layer in (0, 1) for role in ("q_proj", "w2")]
        bound = KIND.options(width=D, sets=2, **options)
        planned = [PlannedSite(Site(key, str(key), D, D), CONFIG, bound) for key in keys]
        built = KIND.build(planned, 0)
        draw = torch.Generator().manual_seed(3)
        self.attachments = {}
        for (key, adapter), linear in zip(built.items(), self.linears):
            adapter.take([(torch.ones(1, D), torch.ones(D, 1), 0.01)] * 2)
            self.attachments[key] = LinearAttachment(adapter_site(key), linear, adapter)
        self.gates = [self.attachments[SiteKey(layer, "q_proj")].adapter.gate for layer in (0, 1)]
        for gate in self.gates:
            if gate.G is not None:
                gate.G.data.normal_(generator=draw)

    def forward(self, x, attention_mask=None):
        for layer, gate in enumerate(self.gates):
            gate.read(x)
            for linear in self.linears[2 * layer : 2 * layer + 2]:
                x = x + linear(x)
        return x


def adapter_site(key):
    return Site(key, str(key), D, D)


def _batch(seed=0, rows=3, length=5):
    x = torch.randn(rows, length, D, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, 3:] = 0
    return x, mask


def test_means_and_spreads_are_those_of_the_tokens_without_padding():
    host, (x, mask) = Host(), _batch()
    with GateRecorder(host, host.attachments) as record, torch.no_grad():
        host(x, attention_mask=mask)
        host(x, attention_mask=mask)
    with torch.no_grad():
        weights = host.gates[0].of(x)[mask.bool()].double()
    found = record.by_layer()
    assert list(found) == [0, 1]
    assert found[0].tokens == 2 * int(mask.sum())
    assert found[0].mean == pytest.approx(weights.mean(0).tolist())
    assert found[0].spread == pytest.approx(weights.std(0, unbiased=False).tolist(), rel=1e-5)
    positions = record.by_position()
    assert [one.tokens for one in positions] == [12, 12, 12, 8, 8]  # two layers, two passes


def test_sums_of_processes_are_added():
    host, (x, mask) = Host(), _batch()
    with GateRecorder(host, host.attachments) as record, torch.no_grad():
        host(x, attention_mask=mask)
    alone = record.by_layer()
    record.sum_over_processes(lambda tensor: tensor * 2)
    assert record.by_layer()[0].tokens == 2 * alone[0].tokens
    assert record.by_layer()[0].mean == pytest.approx(alone[0].mean)
    assert len(record.by_position()) == 5
    empty = GateRecorder(host, host.attachments)
    empty.sum_over_processes(lambda tensor: tensor)
    assert (empty.by_layer(), empty.by_position()) == ({}, [])


def test_nothing_is_recorded_outside_nor_of_fixed_weights_nor_of_steps_of_generation():
    host, (x, mask) = Host(), _batch()
    record = GateRecorder(host, host.attachments)
    with record:
        host(x, attention_mask=torch.ones(3, 9))
    host(x, attention_mask=mask)
    assert record.by_layer() == {}
    fixed = Host(combine="uniform")
    assert GateRecorder(fixed, fixed.attachments).gates == {}


def test_long_texts_are_recorded_up_to_a_position():
    host, (x, mask) = Host(), _batch(rows=1, length=POSITIONS + 7)
    mask[:] = 1
    with GateRecorder(host, host.attachments) as record, torch.no_grad():
        host(x, attention_mask=mask)
    assert len(record.by_position()) == POSITIONS
    assert record.by_layer()[1].tokens == POSITIONS + 7


def test_the_file_names_sets_and_layers():
    host, (x, mask) = Host(), _batch()
    with GateRecorder(host, host.attachments) as record, torch.no_grad():
        host(x, attention_mask=mask)
    table = tomllib.loads(gates_text(record.by_layer(), ["a", "b"]))
    assert table["sets"] == ["a", "b"]
    assert set(table["layer_1"]) == {"mean", "spread"}
