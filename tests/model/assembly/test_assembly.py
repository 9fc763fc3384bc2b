"""A plan's adapters are attached to a backbone; a checkpoint is loaded on the base it was trained on only."""

import pytest
import torch

from configs.runtime.faults import InputFault
from model.assembly.assembly import assemble, fully_trained, require_base
from model.assembly.placement import Plans
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from model.site import SiteKey
from tests.support.tiny import save_host

PLAN = """
granularity = "layer"
[default]
r = 0
lora_alpha = 8
lora_dropout = 0.0
adapter_name = "default"
disable_adapter = false
"""
SITE = """
[model_layer_{layer}.{role}]
r = {rank}
lora_alpha = 8
lora_dropout = 0.0
adapter_name = "default"
disable_adapter = {disabled}
{more}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return save_host("opt", tmp_path_factory.mktemp("host"))


def _backbone(host):
    return load_backbone(resolve(str(host), "--load"), "classification", ("no", "yes"))


def _plan(tmp_path, *sites):
    lines = [
        SITE.format(layer=layer, role=role, rank=rank, disabled=str(disabled).lower(), more=more)
        for layer, role, rank, disabled, more in sites
    ]
    (tmp_path / "plan.toml").write_text(PLAN + "".join(lines))
    return read_plan(tmp_path / "plan.toml")


def test_the_plan_decides_sites_switches_and_strengths(host, tmp_path):
    plan = _plan(
        tmp_path,
        (0, "q_proj", 4, False, "importance_alpha = 0.5"),
        (0, "w2", 2, True, ""),
        (1, "gate", 2, False, ""),
    )
    assembled = assemble(_backbone(host), Plans(plan), None, 0)
    found = {key: (a.adapter.rank, a.active, a.strength) for key, a in assembled.attachments.items()}
    assert found == {SiteKey(0, "q_proj"): (4, True, 0.5), SiteKey(0, "w2"): (2, False, 1.0)}
    assert assembled.methods == dict.fromkeys(found, "lora")
    assert assembled.counts_by_role() == {"q_proj": 1, "w2": 1}
    assert assembled.head == ("score",)
    assert any("gate" in note for note in assembled.notes)
    trained = [name for name, p in assembled.network.named_parameters() if p.requires_grad]
    assert trained == ["score.weight"]


@pytest.mark.parametrize("more", ["importance_alpha = 0", "importance_alpha = 0.0"])
def test_a_plan_whose_every_strength_is_zero_turns_on_no_site(host, tmp_path, more):
    plan = _plan(tmp_path, (0, "q_proj", 4, False, more))
    with pytest.raises(InputFault, match=r"plan.toml: turns on no site"):
        assemble(_backbone(host), Plans(plan), None, 0)


def test_a_key_of_no_kind_is_refused_with_its_site(host, tmp_path):
    plan = _plan(tmp_path, (0, "q_proj", 4, False, "experts = 3"))
    with pytest.raises(InputFault, match=r"plan.toml: layer_0/q_proj.*experts"):
        assemble(_backbone(host), Plans(plan), None, 0)


def test_a_plain_network_trains_every_weight(host):
    assembled = fully_trained(_backbone(host))
    assert all(parameter.requires_grad for parameter in assembled.network.parameters())
    assert assembled.attachments == {}
    assert assembled.network(torch.tensor([[5, 6]])).logits.requires_grad


def test_another_base_than_a_checkpoints_is_refused_naming_both(host):
    backbone = _backbone(host)
    require_base(backbone, {"base": "x", "base_digest": backbone.digest})
    with pytest.raises(InputFault) as caught:
        require_base(backbone, {"base": "some/base", "base_digest": "a" * 64})
    assert str(caught.value) == (
        f"--backbone-model: {host} has digest {backbone.digest[:12]}, the checkpoint was trained on some/base"
        " with digest aaaaaaaaaaaa"
    )
