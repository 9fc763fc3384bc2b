"""What PEFT or this project saved is loaded with its own scale, and what does not fit is refused."""

import json
import re
from dataclasses import replace

import peft
import pytest
import torch

from configs.runtime.faults import InputFault
from configs.runtime.files import sha256
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import logits
from model.exchange.load import attach_peft, load_factors, load_whole_modules, recorded_configs
from model.exchange.peft_format import METADATA, TENSORS, read
from model.injection.attach import attach, locate
from model.network.snapshot import quiet_transformers
from model.plan.attention_heads import projection_config
from model.site import SiteKey
from tests.support.exported import (
    CASES,
    ENCODERS,
    TASK_TYPES,
    adapter_config,
    attached,
    batch,
    copied,
    export_adapter,
    load_host,
    stock,
)

PEFT_CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 6},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"v_proj|value(_proj)?": 2, r"layers?\.1\..*(q_proj|query(_proj)?)": 3},
        "alpha_pattern": {r".*\.0\..*(q_proj|query(_proj)?)": 5, "q_proj|query(_proj)?": 2},
    },
    "patterns_rslora": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "rank_pattern": {"q_proj|query(_proj)?": 9},
    },
}


@pytest.mark.parametrize(
    ("host", "objective", "manner"),
    [(*case, "patterns") for case in CASES]
    + [("opt", "classification", manner) for manner in ("plain", "rslora", "patterns_rslora")],
)
def test_an_adapter_saved_by_peft_is_loaded_with_its_own_scale(hosts, tmp_path, host, objective, manner):
    targets = ["q_proj", "v_proj"]
    if host in ENCODERS:
        word = "_proj" if host.startswith("deberta") else ""
        targets = [f"query{word}", f"value{word}", "intermediate.dense"]
    config = peft.LoraConfig(
        task_type=TASK_TYPES[objective],
        target_modules=targets,
        init_lora_weights=False,
        # By itself PEFT saves `classifier` and `score` alone.
        modules_to_save=["pooler"] if host.startswith("deberta") else None,
        **PEFT_CONFIGS[manner],
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(stock(hosts[host], objective), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ours = assemble(load_host(hosts[host], objective), Plans(), tmp_path / "adapter", 0)
    expected = logits(theirs, batch())
    torch.testing.assert_close(logits(ours.network, batch()), expected, rtol=1e-4, atol=1e-5)
    assert {key.role for key in ours.attachments} == {"q_proj", "v_proj"} | (
        {"w1"} if len(targets) > 2 else set()
    )


def test_a_head_in_neither_adapter_nor_base_is_noted(hosts, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query_proj"])
    with quiet_transformers():
        theirs = peft.get_peft_model(stock(hosts["deberta_v3"], "classification"), config)
        theirs.save_pretrained(tmp_path / "adapter")
    (note,) = assemble(load_host(hosts["deberta_v3"]), Plans(), tmp_path / "adapter", 0).notes
    assert note.endswith("adapter: neither the adapter nor the base holds pooler; initialised at random")


def test_a_plan_with_another_scale_takes_the_adapters_effect(hosts, exported):
    reference = assemble(load_host(hosts["opt"]), Plans(), exported, 0)
    backbone = load_host(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = {key: adapter_config(alpha=1.0) for key in reference.attachments}
    attachments = attach(backbone.network, sites, configs, 0, "plan")
    file = read(exported)
    load_factors(attachments, dict.fromkeys(configs, "lora"), file)
    load_whole_modules(backbone.network, file)
    torch.testing.assert_close(logits(backbone.network, batch()), logits(reference.network, batch()))
    assert {a.adapter.scale for a in attachments.values()} == {0.25}


@pytest.mark.parametrize("change", ["rank", "missing", "further"])
def test_a_plan_of_other_sites_or_ranks_is_refused(hosts, exported, change):
    backbone = load_host(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    roles = {"rank": ("q_proj", "w2"), "missing": ("q_proj",), "further": ("q_proj", "v_proj", "w2")}[change]
    configs = {key: adapter_config(rank=8 if change == "rank" else 4) for key in sites if key.role in roles}
    attachments = attach(backbone.network, sites, configs, 0, "plan")
    with pytest.raises(InputFault) as caught:
        load_factors(attachments, dict.fromkeys(configs, "lora"), replace(read(exported), source="here"))
    expected = {
        "rank": "here: model.decoder.layers.0.self_attn.q_proj: rank 4, the LoRA configuration says 8",
        "missing": "here: its sites differ from the LoRA configuration's, first at"
        " model.decoder.layers.0.fc2",
        "further": "here: its sites differ from the LoRA configuration's, first at"
        " model.decoder.layers.0.self_attn.v_proj",
    }
    assert str(caught.value) == expected[change]


@pytest.mark.parametrize("manner", ["uniform", "strength", "mixed", "heads"])
def test_the_plan_that_was_trained_takes_its_own_export(hosts, tmp_path, manner):
    backbone = load_host(hosts["llama"])
    attachments, methods = attached(backbone, manner)
    export_adapter(backbone, attachments, methods, tmp_path / "adapter")
    other = load_host(hosts["llama"], seed=1)
    fresh, _ = attached(other, manner)
    with torch.no_grad():
        for attachment in fresh.values():
            attachment.adapter.A.zero_()
    file = read(tmp_path / "adapter")
    load_factors(fresh, methods, file)
    load_whole_modules(other.network, file)
    torch.testing.assert_close(logits(other.network, batch()), logits(backbone.network, batch()))
    for key, attachment in attachments.items():
        if attachment.active:
            for name, factor in attachment.adapter.factors().items():
                torch.testing.assert_close(fresh[key].adapter.factors()[name], factor)


def test_a_plain_adapter_is_refused_where_the_plan_has_heads(hosts, exported):
    backbone = load_host(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = {key: adapter_config() for key in sites if key.role == "w2"}
    configs |= {key: projection_config([adapter_config(rank=2)] * 2) for key in sites if key.role == "q_proj"}
    attachments = attach(backbone.network, sites, configs, 0, "plan")
    with pytest.raises(InputFault) as caught:
        load_factors(attachments, dict.fromkeys(configs, "lora"), replace(read(exported), source="here"))
    assert str(caught.value) == (
        "here: model.decoder.layers.0.self_attn.q_proj: B is not zero where the ranks of head 0 meet the rows"
        " of head 1, but the LoRA configuration gives each head an adapter of its own"
    )


def _refused(backbone, directory):
    with pytest.raises(InputFault) as caught:
        assemble(backbone, Plans(), directory, 0)
    return str(caught.value)


def test_misfitting_files_are_refused_before_anything_is_attached(hosts, exported, tmp_path):
    backbone = load_host(hosts["opt"])
    prefix = "base_model.model.model.decoder.layers.0.self_attn"
    broken = {f"{prefix}.q_proj.lora_A.weight": torch.full((4, 32), float("inf"))}
    other = {f"{prefix}.layer_norm.lora_A.weight": torch.ones(4, 32)}
    other |= {f"{prefix}.layer_norm.lora_B.weight": torch.ones(32, 4)}
    wide = {f"{prefix}.q_proj.lora_A.weight": torch.ones(4, 48)}
    cases = {
        "rank": (
            {"config": {"r": 16, "lora_alpha": 16}},
            "says r = 16, adapter_model.safetensors holds rank 4",
        ),
        "infinite": ({"tensors": broken}, f"not finite in {prefix}.q_proj.lora_A.weight"),
        "module": (
            {"tensors": other},
            "target_modules: does not name model.decoder.layers.0.self_attn.layer_norm",
        ),
        "width": ({"tensors": wide}, "made for 48 -> 32 features, this network has 32 -> 32"),
        "dora": ({"config": {"use_dora": True}}, "use_dora: not supported"),
        "bias": ({"config": {"bias": "lora_only"}}, "bias: only 'none' is supported"),
    }
    for name, (changes, word) in cases.items():
        assert word in _refused(backbone, copied(exported, tmp_path / name, **changes))
    assert not any("forward" in module.__dict__ for module in backbone.network.modules())


@pytest.mark.parametrize("shape", [(2, 32), None])
def test_a_head_that_does_not_fit_is_refused(hosts, exported, tmp_path, shape):
    name = "score.weight" if shape else "scores.weight"
    tensors = {f"base_model.model.{name}": torch.ones(shape or (3, 32))}
    message = _refused(load_host(hosts["opt"]), copied(exported, tmp_path / "x", tensors=tensors))
    assert f"{name}: the network has no such tensor of shape {shape or (3, 32)}" in message


def test_another_base_is_noted(hosts, exported, tmp_path):
    target = copied(exported, tmp_path / "x")
    (target / METADATA).write_text(
        json.dumps({"sha256": {TENSORS: sha256(target / TENSORS)}, "base_digest": "f" * 64})
    )
    backbone = load_host(hosts["opt"])
    (note,) = assemble(backbone, Plans(), target, 0).notes
    assert re.search(f"trained on another base .digest ffffffffffff, loaded {backbone.digest[:12]}.", note)


def test_the_file_alone_decides_ranks_and_alphas(hosts, exported):
    backbone = load_host(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = recorded_configs(read(exported), sites)
    assert set(configs) == {SiteKey(layer, role) for layer in range(3) for role in ("q_proj", "w2")}
    assert {(config.rank, config.alpha, config.dropout, config.disabled) for config in configs.values()} == {
        (4, 8.0, 0.0, False)
    }
    fresh = attach_peft(backbone.network, sites, read(exported))
    assert set(fresh) == set(configs)


def _saved(host, directory, **config):
    torch.manual_seed(0)
    table = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    network = peft.get_peft_model(
        stock(host, "language_modeling"), peft.LoraConfig(**{**table, **config}, task_type="CAUSAL_LM")
    )
    network.save_pretrained(directory)
    return directory


def _edited(directory, **changes):
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


@pytest.mark.parametrize(
    "changes",
    [{"layers_to_transform": [0]}, {"layers_to_transform": 1}, {"exclude_modules": ["v_proj"]}],
)
def test_a_module_that_the_configuration_takes_out_is_refused(hosts, tmp_path, changes):
    _edited(_saved(hosts["llama"], tmp_path), **changes)
    with pytest.raises(InputFault, match="which adapter_model.safetensors has; PEFT would ignore it"):
        read(tmp_path)


def test_an_adapter_with_alpha_0_is_the_base(hosts, tmp_path):
    _edited(_saved(hosts["llama"], tmp_path), lora_alpha=0)
    for factors in read(tmp_path).modules.values():
        assert not factors.b.any()
        assert factors.scale == 1.0
