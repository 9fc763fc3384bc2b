"""What is exported gives PEFT the same logits, and an export that reads back differently is not kept."""

import os

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.runtime.faults import InputFault
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange import export as exporting
from model.exchange import load as loading
from model.exchange.export import logits
from model.exchange.factors import Factors
from model.exchange.peft_format import PeftAdapter, read
from model.network.snapshot import quiet_transformers
from tests.support.exported import CASES, HOSTS, attached, batch, export_adapter, load_host, stock
from tests.support.tiny import save_host


@pytest.mark.parametrize(
    ("host", "objective", "manner"),
    [(*case, "mixed") for case in CASES]
    + [(host, "classification", "heads") for host in HOSTS]  # the head on top makes no difference to them
    + [("opt", "classification", "strength"), ("bert", "classification", "uniform")]
    + [("llama", "language_modeling", manner) for manner in ("heads", "uniform")],
)
def test_peft_reads_what_was_exported_and_so_do_we(hosts, tmp_path, host, objective, manner):
    backbone = load_host(hosts[host], objective)
    attachments, methods = attached(backbone, manner)
    expected = logits(backbone.network, batch())
    difference = export_adapter(
        backbone, attachments, methods, tmp_path / "adapter", base_digest=backbone.digest
    )
    assert difference < 1e-4
    assert os.listdir(tmp_path) == ["adapter"]
    assert torch.equal(logits(backbone.network, batch()), expected)

    with quiet_transformers():
        theirs = peft.PeftModel.from_pretrained(stock(hosts[host], objective), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(theirs, batch()), expected, rtol=1e-4, atol=1e-5)
    plain = logits(stock(hosts[host], objective), batch())
    assert not torch.allclose(plain, expected, rtol=1e-2, atol=1e-2)

    again = assemble(load_host(hosts[host], objective, seed=1), Plans(), tmp_path / "adapter", 0)
    torch.testing.assert_close(logits(again.network, batch()), expected, rtol=1e-4, atol=1e-5)
    assert set(again.attachments) == {key for key, a in attachments.items() if a.active}
    assert again.notes == ()
    assert again.metadata["base_digest"] == backbone.digest


def test_modules_that_the_base_lacks_are_exported_with_the_adapter(hosts, tmp_path):
    host = save_host("bert", tmp_path / "bert")
    kept = {k: v for k, v in load_file(host / "model.safetensors").items() if "pooler" not in k}
    save_file(kept, host / "model.safetensors", metadata={"format": "pt"})
    backbone = load_host(host)
    assert "bert.pooler" in backbone.trained_modules
    attachments, methods = attached(backbone)
    export_adapter(backbone, attachments, methods, tmp_path / "adapter")
    with quiet_transformers():
        theirs = peft.PeftModel.from_pretrained(stock(host, "classification"), tmp_path / "adapter").eval()
    expected = logits(backbone.network, batch())
    torch.testing.assert_close(logits(theirs, batch()), expected, rtol=1e-4, atol=1e-5)


def test_an_older_export_is_replaced(hosts, tmp_path):
    backbone = load_host(hosts["opt"])
    attachments, methods = attached(backbone)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old").write_text("")
    export_adapter(backbone, attachments, methods, tmp_path / "adapter")
    assert "old" not in os.listdir(tmp_path / "adapter")


def test_an_export_that_reads_back_differently_is_removed(hosts, tmp_path, monkeypatch):
    backbone = load_host(hosts["opt"])
    attachments, methods = attached(backbone)
    head = backbone.network.score.weight.clone()
    before = logits(backbone.network, batch())

    def spoilt(directory, *arguments):
        file = read(directory)
        changed = {n: Factors(f.a, f.b, 2 * f.scale) for n, f in file.modules.items()}
        return PeftAdapter(changed, {"score.weight": torch.zeros_like(head)}, file.metadata)

    monkeypatch.setattr(exporting, "read", spoilt)
    with pytest.raises(RuntimeError, match="the exported adapter gives other logits"):
        export_adapter(backbone, attachments, methods, tmp_path / "adapter")
    assert os.listdir(tmp_path) == []
    assert torch.equal(backbone.network.score.weight, head)
    assert torch.equal(logits(backbone.network, batch()), before)


def test_a_failing_read_back_leaves_the_network_as_it_was(hosts, tmp_path, monkeypatch):
    backbone = load_host(hosts["opt"])
    attachments, methods = attached(backbone, "mixed")
    before, switched = logits(backbone.network, batch()), [a.enabled for a in attachments.values()]

    def fail(*arguments):
        raise InputFault("no")

    monkeypatch.setattr(loading, "load_whole_modules", fail)
    with pytest.raises(InputFault):
        export_adapter(backbone, attachments, methods, tmp_path / "adapter")
    assert [a.enabled for a in attachments.values()] == switched
    assert torch.equal(logits(backbone.network, batch()), before)


def test_the_mode_survives_and_padding_does_not_count(hosts):
    network = load_host(hosts["llama"], "language_modeling").network
    network.train()
    values = logits(network, batch())
    assert network.training
    assert not values[1, 5:].any()
    assert values[0].any()
