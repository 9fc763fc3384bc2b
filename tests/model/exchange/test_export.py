"""What is exported gives PEFT the same logits, what PEFT saved is taken as it is, and misfits are refused."""

import json
import os
import re

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime.faults import InputFault
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange import export as exporting
from model.exchange.export import attach_peft, collect, export, load_head, load_peft, logits, plan_of
from model.exchange.peft_format import METADATA, TENSORS, Factors, PeftAdapter, read
from model.injection.attach import attach, locate
from model.network.backbone import load_backbone
from model.network.family import dimensions
from model.network.snapshot import quiet_host
from model.network.source import resolve
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import projection
from model.site import HEAD_ROLES, SiteKey
from tests.support.tiny import save_host

LABELS = ("a", "b", "c")
HOSTS = {
    "opt": ("opt", {}),
    "opt_post": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "roberta": ("roberta", {}),
    "bert": ("bert", {}),
    "llama": ("llama", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma", {"model_type": "gemma2"}),
    "gemma3": ("gemma", {"model_type": "gemma3_text"}),
    "qwen2": ("qwen2", {}),
    "mistral": ("mistral", {}),
    "deberta_v2": ("deberta", {"share_att_key": False, "position_biased_input": True}),
    "deberta_v3": ("deberta", {}),
}
_ENCODERS = ("roberta", "bert", "deberta_v2", "deberta_v3")
CASES = [(host, "classification") for host in HOSTS] + [
    (host, "language_modeling") for host in HOSTS if host not in _ENCODERS
]
TASK_TYPES = {"classification": "SEQ_CLS", "language_modeling": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    return {name: save_host(family, root / name, **more) for name, (family, more) in HOSTS.items()}


def _backbone(directory, objective="classification", seed=0):
    labels = LABELS if objective == "classification" else ()
    return load_backbone(resolve(str(directory), "--load"), objective, labels, seed=seed)


def _stock(directory, objective):
    """The host as a user of transformers loads it; its new head is another one than ours."""
    with quiet_host():
        if objective == "classification":
            network = AutoModelForSequenceClassification.from_pretrained(
                directory, num_labels=len(LABELS), pad_token_id=1
            )
        else:
            network = AutoModelForCausalLM.from_pretrained(directory)
    return network.eval()


def _config(**changes):
    plain = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "adapter_name": "default", "disabled": False}
    return AdapterConfig(**plain | {"init": False} | changes)


def _configs(sites, manner):
    """Plan every site alike, or each with its own rank, alpha and strength and some of them off."""
    if manner == "uniform":
        return dict.fromkeys(sites, _config())
    if manner == "strength":
        return dict.fromkeys(sites, _config(importance=-0.5))
    if manner == "heads":
        return {key: _of_heads(n) if key.role in HEAD_ROLES else _config() for n, key in enumerate(sites)}
    return {
        key: _config(
            rank=1 + n % 5, alpha=1.0 + n % 3, importance=(1.0, 0.25, -2.0)[n % 3], disabled=n % 7 == 0
        )
        for n, key in enumerate(sites)
    }


def _of_heads(number):
    """Plan two heads: every tiny host has a multiple of two at every projection."""
    one = _config(rank=1 + number % 3, alpha=3.0)
    return projection([one, _config(rank=number % 2, importance=-0.5)])


def _batch(length=9):
    ids = torch.arange(5, 5 + 3 * length).view(3, length)
    mask = torch.ones(3, length, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


def _attached(backbone, manner="uniform"):
    sites = locate(backbone.network, backbone.family, dimensions(backbone.network.config).layers)
    configs = _configs(sites, manner)
    return attach(backbone.network, sites, configs, 0, "plan"), dict.fromkeys(configs, "lora")


def _export(backbone, attachments, methods, directory, **metadata):
    adapter = collect(backbone.network, attachments, methods, backbone.trained_modules, metadata)
    facts = {"task_type": TASK_TYPES[backbone.objective], "base": "base", "dropout": 0.0}
    return export(directory, adapter, backbone.network, attachments, _batch(), **facts)


@pytest.fixture(scope="module")
def exported(hosts, tmp_path_factory):
    """Export an OPT classifier with two adapted roles and return its directory."""
    directory = tmp_path_factory.mktemp("exported") / "adapter"
    backbone = _backbone(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = {key: _config() for key in sites if key.role in ("q_proj", "w2")}
    _export(
        backbone, attach(backbone.network, sites, configs, 0, "p"), dict.fromkeys(configs, "lora"), directory
    )
    return directory


def _copied(exported, target, *, config=None, tensors=None):
    """Copy an adapter without its digest, with changes."""
    target.mkdir()
    content = load_file(exported / TENSORS) | (tensors or {})
    save_file({k: v.contiguous() for k, v in content.items() if v is not None}, target / TENSORS)
    text = json.loads((exported / "adapter_config.json").read_text()) | (config or {})
    (target / "adapter_config.json").write_text(json.dumps(text))
    return target


@pytest.mark.parametrize(
    ("host", "objective", "manner"),
    [(*case, manner) for case in CASES for manner in ("mixed", "heads")]
    + [(host, "classification", "uniform") for host in HOSTS]
    + [("opt", "classification", "strength"), ("llama", "language_modeling", "uniform")],
)
def test_peft_reads_what_was_exported_and_so_do_we(hosts, tmp_path, host, objective, manner):
    backbone = _backbone(hosts[host], objective)
    attachments, methods = _attached(backbone, manner)
    expected = logits(backbone.network, _batch())
    difference = _export(backbone, attachments, methods, tmp_path / "adapter", base_digest=backbone.digest)
    assert difference < 1e-4
    assert os.listdir(tmp_path) == ["adapter"]
    assert torch.equal(logits(backbone.network, _batch()), expected)

    with quiet_host():
        theirs = peft.PeftModel.from_pretrained(_stock(hosts[host], objective), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(theirs, _batch()), expected, rtol=1e-4, atol=1e-5)
    plain = logits(_stock(hosts[host], objective), _batch())
    assert not torch.allclose(plain, expected, rtol=1e-2, atol=1e-2)

    again = assemble(_backbone(hosts[host], objective, seed=1), Plans(), tmp_path / "adapter", 0)
    torch.testing.assert_close(logits(again.network, _batch()), expected, rtol=1e-4, atol=1e-5)
    assert set(again.attachments) == {key for key, a in attachments.items() if a.active}
    assert again.notes == ()
    assert again.metadata["base_digest"] == backbone.digest


def test_what_a_base_lacked_travels_with_the_adapter(hosts, tmp_path):
    host = save_host("bert", tmp_path / "bert")
    kept = {k: v for k, v in load_file(host / "model.safetensors").items() if "pooler" not in k}
    save_file(kept, host / "model.safetensors", metadata={"format": "pt"})
    backbone = _backbone(host)
    assert "bert.pooler" in backbone.trained_modules
    attachments, methods = _attached(backbone)
    _export(backbone, attachments, methods, tmp_path / "adapter")
    with quiet_host():
        theirs = peft.PeftModel.from_pretrained(_stock(host, "classification"), tmp_path / "adapter").eval()
    expected = logits(backbone.network, _batch())
    torch.testing.assert_close(logits(theirs, _batch()), expected, rtol=1e-4, atol=1e-5)


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
def test_what_peft_saved_is_taken_with_its_own_scale(hosts, tmp_path, host, objective, manner):
    targets = ["q_proj", "v_proj"]
    if host in _ENCODERS:
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
    theirs = peft.get_peft_model(_stock(hosts[host], objective), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ours = assemble(_backbone(hosts[host], objective), Plans(), tmp_path / "adapter", 0)
    expected = logits(theirs, _batch())
    torch.testing.assert_close(logits(ours.network, _batch()), expected, rtol=1e-4, atol=1e-5)
    assert {key.role for key in ours.attachments} == {"q_proj", "v_proj"} | (
        {"w1"} if len(targets) > 2 else set()
    )


def test_a_head_that_nobody_holds_is_noted(hosts, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query_proj"])
    with quiet_host():
        theirs = peft.get_peft_model(_stock(hosts["deberta_v3"], "classification"), config)
        theirs.save_pretrained(tmp_path / "adapter")
    (note,) = assemble(_backbone(hosts["deberta_v3"]), Plans(), tmp_path / "adapter", 0).notes
    assert note.endswith("adapter: does not hold pooler, nor does the base; drawn at random")


def test_a_plan_with_another_scale_takes_the_adapters_effect(hosts, exported):
    reference = assemble(_backbone(hosts["opt"]), Plans(), exported, 0)
    backbone = _backbone(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = {key: _config(alpha=1.0) for key in reference.attachments}
    attachments = attach(backbone.network, sites, configs, 0, "plan")
    file = read(exported)
    load_peft(attachments, dict.fromkeys(configs, "lora"), file, "here")
    load_head(backbone.network, file, "here")
    torch.testing.assert_close(logits(backbone.network, _batch()), logits(reference.network, _batch()))
    assert {a.adapter.scale for a in attachments.values()} == {0.25}


@pytest.mark.parametrize("change", ["rank", "missing", "further"])
def test_a_plan_of_other_sites_or_ranks_is_refused(hosts, exported, change):
    backbone = _backbone(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    roles = {"rank": ("q_proj", "w2"), "missing": ("q_proj",), "further": ("q_proj", "v_proj", "w2")}[change]
    configs = {key: _config(rank=8 if change == "rank" else 4) for key in sites if key.role in roles}
    attachments = attach(backbone.network, sites, configs, 0, "plan")
    with pytest.raises(InputFault) as caught:
        load_peft(attachments, dict.fromkeys(configs, "lora"), read(exported), "here")
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
    backbone = _backbone(hosts["llama"])
    attachments, methods = _attached(backbone, manner)
    _export(backbone, attachments, methods, tmp_path / "adapter")
    other = _backbone(hosts["llama"], seed=1)
    fresh, _ = _attached(other, manner)
    with torch.no_grad():
        for attachment in fresh.values():
            attachment.adapter.A.zero_()
    file = read(tmp_path / "adapter")
    load_peft(fresh, methods, file, "here")
    load_head(other.network, file, "here")
    torch.testing.assert_close(logits(other.network, _batch()), logits(backbone.network, _batch()))
    for key, attachment in attachments.items():
        if attachment.active:
            for name, factor in attachment.adapter.factors().items():
                torch.testing.assert_close(fresh[key].adapter.factors()[name], factor)


def test_a_plain_adapter_is_refused_where_the_plan_has_heads(hosts, exported):
    backbone = _backbone(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = {key: _config() for key in sites if key.role == "w2"}
    configs |= {key: projection([_config(rank=2)] * 2) for key in sites if key.role == "q_proj"}
    attachments = attach(backbone.network, sites, configs, 0, "plan")
    with pytest.raises(InputFault) as caught:
        load_peft(attachments, dict.fromkeys(configs, "lora"), read(exported), "here")
    assert str(caught.value) == (
        "here: model.decoder.layers.0.self_attn.q_proj: B is not zero where the ranks of head 0 meet the rows"
        " of head 1, but the LoRA configuration gives each head an adapter of its own"
    )


def _refused(backbone, directory):
    with pytest.raises(InputFault) as caught:
        assemble(backbone, Plans(), directory, 0)
    return str(caught.value)


def test_misfitting_files_are_refused_before_anything_is_attached(hosts, exported, tmp_path):
    backbone = _backbone(hosts["opt"])
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
        "module": ({"tensors": other}, "self_attn.layer_norm is no adaptable linear layer of this network"),
        "width": ({"tensors": wide}, "made for 48 -> 32 features, this network has 32 -> 32"),
        "dora": ({"config": {"use_dora": True}}, "use_dora: not supported"),
        "bias": ({"config": {"bias": "lora_only"}}, "bias: only 'none' is supported"),
    }
    for name, (changes, word) in cases.items():
        assert word in _refused(backbone, _copied(exported, tmp_path / name, **changes))
    assert not any("forward" in module.__dict__ for module in backbone.network.modules())


@pytest.mark.parametrize("shape", [(2, 32), None])
def test_a_head_that_does_not_fit_is_refused(hosts, exported, tmp_path, shape):
    name = "score.weight" if shape else "scores.weight"
    tensors = {f"base_model.model.{name}": torch.ones(shape or (3, 32))}
    message = _refused(_backbone(hosts["opt"]), _copied(exported, tmp_path / "x", tensors=tensors))
    assert f"{name}: the network has no such tensor of shape {shape or (3, 32)}" in message


def test_another_base_is_noted(hosts, exported, tmp_path):
    target = _copied(exported, tmp_path / "x")
    (target / METADATA).write_text(json.dumps({"base_digest": "f" * 64}))
    backbone = _backbone(hosts["opt"])
    (note,) = assemble(backbone, Plans(), target, 0).notes
    assert re.search(f"trained on another base .digest ffffffffffff, loaded {backbone.digest[:12]}.", note)


def test_an_older_export_is_replaced(hosts, tmp_path):
    backbone = _backbone(hosts["opt"])
    attachments, methods = _attached(backbone)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old").write_text("")
    _export(backbone, attachments, methods, tmp_path / "adapter")
    assert "old" not in os.listdir(tmp_path / "adapter")


def test_an_export_that_reads_back_otherwise_is_not_kept(hosts, tmp_path, monkeypatch):
    backbone = _backbone(hosts["opt"])
    attachments, methods = _attached(backbone)
    head = backbone.network.score.weight.clone()
    before = logits(backbone.network, _batch())

    def spoilt(directory, *arguments):
        file = read(directory)
        changed = {n: Factors(f.a, f.b, 2 * f.scale) for n, f in file.modules.items()}
        return PeftAdapter(changed, {"score.weight": torch.zeros_like(head)}, file.metadata)

    monkeypatch.setattr(exporting, "read", spoilt)
    with pytest.raises(RuntimeError, match="the exported adapter gives other logits"):
        _export(backbone, attachments, methods, tmp_path / "adapter")
    assert os.listdir(tmp_path) == []
    assert torch.equal(backbone.network.score.weight, head)
    assert torch.equal(logits(backbone.network, _batch()), before)


def test_a_failing_read_back_leaves_the_network_as_it_was(hosts, tmp_path, monkeypatch):
    backbone = _backbone(hosts["opt"])
    attachments, methods = _attached(backbone, "mixed")
    before, switched = logits(backbone.network, _batch()), [a.enabled for a in attachments.values()]

    def fail(*arguments):
        raise InputFault("no")

    monkeypatch.setattr(exporting, "load_head", fail)
    with pytest.raises(InputFault):
        _export(backbone, attachments, methods, tmp_path / "adapter")
    assert [a.enabled for a in attachments.values()] == switched
    assert torch.equal(logits(backbone.network, _batch()), before)


def test_the_mode_survives_and_padding_does_not_count(hosts):
    network = _backbone(hosts["llama"], "language_modeling").network
    network.train()
    values = logits(network, _batch())
    assert network.training
    assert not values[1, 5:].any()
    assert values[0].any()


def test_the_file_alone_decides_ranks_and_alphas(hosts, exported):
    backbone = _backbone(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = plan_of(read(exported), sites, "x")
    assert set(configs) == {SiteKey(layer, role) for layer in range(3) for role in ("q_proj", "w2")}
    assert {(config.rank, config.alpha, config.dropout, config.disabled) for config in configs.values()} == {
        (4, 8.0, 0.0, False)
    }
    fresh = attach_peft(backbone.network, sites, read(exported), "x")
    assert set(fresh) == set(configs)
