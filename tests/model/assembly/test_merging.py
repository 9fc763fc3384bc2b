"""Merging refuses what is no matrix and leaves nothing when the written network is another one."""

import json
from types import SimpleNamespace

import pytest
import torch

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from model.assembly import merging
from model.assembly.assembly import assemble
from model.assembly.merging import merge, random_batch, refuse_unmergeable
from model.assembly.placement import Plans
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.network.source_files import weights_dtype
from model.plan.lora_toml import read_plan
from model.site import SiteKey


def _assembled(ground):
    backbone = load_backbone(resolve(str(ground.host("llama")), "--load"), "language_modeling")
    return assemble(backbone, Plans(read_plan(ground.plan("full-start", init_lora_weights=False))), None, 0)


def test_a_method_without_a_matrix_is_refused_with_the_reason(monkeypatch):
    reason = SimpleNamespace(unmergeable="weights by token")
    load = kinds.load
    monkeypatch.setattr(kinds, "load", lambda r, kind: reason if kind == "hydra" else load(r, kind))

    def attachment(delta, active=True):
        return SimpleNamespace(active=active, adapter=SimpleNamespace(merged_delta=lambda: delta))

    fixed, moving = attachment(torch.zeros(1)), attachment(None)
    keys = [SiteKey(0, "q_proj"), SiteKey(0, "v_proj"), SiteKey(1, "q_proj")]
    keys.append(SiteKey(1, "residual1"))
    methods = dict(zip(keys, ("lora", "hydra", "hydra", "shortcut")))
    with pytest.raises(InputFault) as refused:
        refuse_unmergeable(dict(zip(keys, (fixed, moving, moving, moving))), methods)
    assert refused.value.lines == (
        "--adapter: layer_0/v_proj: 'hydra' weights by token; keep it as an adapter: `main test --adapter`,"
        " `tools.generate --adapter`",
        "--adapter: layer_1/residual1: 'shortcut' adds its term to the sum between layers, where no linear"
        " layer has a weight to take it; keep it as an adapter: `main test --adapter`,"
        " `tools.generate --adapter`",
    )
    refuse_unmergeable(dict(zip(keys, (fixed, attachment(None, active=False)))), methods)


def test_the_random_batch_pads_its_last_row_alone():
    batch = random_batch(300, 1)
    assert (batch["input_ids"] == 1).equal(batch["attention_mask"] == 0)
    assert batch["attention_mask"].sum().item() == 20
    assert batch["input_ids"].max() < 300


def test_a_delta_lands_in_the_weight(ground, tmp_path):
    assembled = _assembled(ground)
    key, attachment = next(iter(assembled.attachments.items()))
    path = f"{attachment.site.path}.weight"
    expected = attachment.linear.weight + attachment.strength * attachment.adapter.merged_delta()
    assert merge(assembled, tmp_path / "out", ()).merging < 1e-5
    written = load_backbone(resolve(str(tmp_path / "out"), "--load"), "language_modeling")
    torch.testing.assert_close(written.network.get_parameter(path), expected)


def test_the_written_weights_have_the_number_format_that_is_asked_for(ground, tmp_path):
    exact = merge(_assembled(ground), tmp_path / "wide", ())
    found = merge(_assembled(ground), tmp_path / "half", (), torch.bfloat16)
    assert exact.rounding == 0
    assert exact.merging == found.merging
    assert 1e-5 < found.rounding < 0.1
    source = resolve(str(tmp_path / "half"), "--load")
    assert (
        weights_dtype(source)
        == json.loads((tmp_path / "half" / "config.json").read_text())["dtype"]
        == "bfloat16"
    )
    assert weights_dtype(resolve(str(tmp_path / "wide"), "--load")) == "float32"


def test_a_merged_network_with_other_logits_is_removed(ground, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "_ROUNDING", -1.0)
    with pytest.raises(RuntimeError, match="the merged network gives other logits"):
        merge(_assembled(ground), tmp_path / "out", ())
    assert list(tmp_path.iterdir()) == []
