"""Modules trained whole: found by name, exchanged with PEFT both ways, tied tables kept or parted."""

import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime.faults import InputFault
from configs.toml.writer import toml_text
from model.assembly.assembly import assemble
from model.assembly.merging import merge
from model.assembly.placement import Plans
from model.exchange.export import collect, export, logits
from model.network.backbone import load_backbone
from model.network.modules_to_save import matching_modules
from model.network.snapshot import quiet_transformers
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from tests.support.runs import ENTRY
from tests.support.tiny import save_host

ROLES = {"default": {**ENTRY, "r": 0}, "all_layers": {"q_proj": {**ENTRY, "init_lora_weights": False}}}
HOSTS = {
    "llama": ("llama", {}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "opt": ("opt", {}),
    "gemma2": ("gemma", {"model_type": "gemma2"}),
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
}
FACTS = {"base": "base", "dropout": 0.0}
BATCH = {
    "input_ids": torch.arange(5, 29).view(3, 8),
    "attention_mask": torch.ones(3, 8, dtype=torch.long).tril(6),
}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    return {name: save_host(family, root / name, **more) for name, (family, more) in HOSTS.items()}


def _objective(host):
    return "classification" if host in ("bert", "roberta") else "language_modeling"


def _backbone(hosts, host, **options):
    purpose = _objective(host)
    labels = ("a", "b", "c") if purpose == "classification" else ()
    return load_backbone(resolve(str(hosts[host]), "--load"), purpose, labels, **options)


def _stock(hosts, host):
    with quiet_transformers():
        if _objective(host) == "classification":
            return AutoModelForSequenceClassification.from_pretrained(hosts[host], num_labels=3).eval()
        return AutoModelForCausalLM.from_pretrained(hosts[host]).eval()


def _plan(tmp_path, *names):
    path = tmp_path / "plan.toml"
    path.write_text(toml_text({"modules_to_save": list(names), **ROLES} if names else ROLES))
    return Plans(read_plan(path))


def _assembled(hosts, host, tmp_path, *names, adapter=None, **options):
    return assemble(_backbone(hosts, host, **options), _plan(tmp_path, *names), adapter, 0)


def _trained(assembled):
    """Move what trains whole, as training would, and return the logits."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in {id(p): p for m in assembled.modules_to_save for p in _own(assembled, m)}.values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return logits(assembled.network, BATCH)


def _own(assembled, module):
    return list(assembled.network.get_submodule(module).parameters())


def _export(assembled, directory):
    file = collect(assembled.network, assembled.attachments, assembled.methods, assembled.saved_modules, {})
    kind = {"classification": "SEQ_CLS", "language_modeling": "CAUSAL_LM"}[assembled.backbone.objective]
    return export(directory, file, assembled.network, assembled.attachments, BATCH, task_type=kind, **FACTS)


def _peft(hosts, host, directory):
    with quiet_transformers(), warnings.catch_warnings(action="ignore"):
        return peft.PeftModel.from_pretrained(_stock(hosts, host), directory).eval()


def test_names_are_last_components_of_modules_with_weights():
    network = nn.ModuleDict({"a": nn.ModuleDict({"norm": nn.LayerNorm(2), "input_norm": nn.LayerNorm(2)})})
    network["norm"], network["act"], network["top"] = nn.LayerNorm(2), nn.ReLU(), nn.Linear(2, 2)
    assert matching_modules(network, ("norm",), (), "here") == ("a.norm", "norm")
    assert matching_modules(network, ("a.norm",), (), "here") == ("a.norm",)
    assert matching_modules(network, ("top", "a"), (), "here") == ("a.norm", "a.input_norm", "top")
    with pytest.raises(InputFault) as caught:
        matching_modules(network, ("nrom", "act", "orm", "top"), ("top",), "here")
    assert caught.value.lines == (
        "here: modules_to_save: no module 'nrom' that has weights; did you mean 'norm'?",
        "here: modules_to_save: no module 'act' that has weights",
        "here: modules_to_save: no module 'orm' that has weights; did you mean 'norm'?",
        "here: modules_to_save: 'top': top has an adapter; a module has an adapter or is trained in full,"
        " not both",
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modules_to_save", "norm", 'modules_to_save: must be a list, each item a text, got "norm"'),
        (
            "modules_to_save",
            [],
            "modules_to_save: must be a non-empty list without repetitions",
        ),
        ("modules_to_save", [1], "modules_to_save: must be a string, got 1"),
        ("module_to_save", ["norm"], "module_to_save: unknown key; did you mean 'modules_to_save'?"),
    ],
)
def test_the_key_is_bound_strictly(tmp_path, key, value, message):
    path = tmp_path / "plan.toml"
    path.write_text(toml_text({key: value, **ROLES}))
    with pytest.raises(InputFault) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_plan_without_sites_stays_an_error(hosts, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(toml_text({"modules_to_save": ["norm"], "default": {**ENTRY, "r": 0}}))
    with pytest.raises(InputFault, match="turns on no site"):
        assemble(_backbone(hosts, "llama"), Plans(read_plan(path)), None, 0)


@pytest.mark.parametrize(
    ("host", "names", "count"),
    [
        ("llama", ("norm", "lm_head"), 2),
        ("llama", ("embed_tokens", "input_layernorm"), 4),
        ("llama", ("layers.1.mlp",), 3),
        ("llama_tied", ("embed_tokens",), 1),
        ("llama_tied", ("lm_head",), 1),
        ("llama_tied", ("embed_tokens", "lm_head", "norm"), 3),
        ("opt", ("embed_tokens", "embed_positions", "final_layer_norm"), 6),
        ("gemma2", ("embed_tokens", "lm_head"), 2),
        ("bert", ("embeddings", "output.LayerNorm"), 10),
        ("roberta", ("word_embeddings", "classifier"), 1),
    ],
)
def test_what_trains_whole_is_the_same_network_in_peft_here_and_merged(hosts, tmp_path, host, names, count):
    one = _assembled(hosts, host, tmp_path, *names)
    before = logits(one.network, BATCH)
    assert len(one.modules_to_save) == count
    trained = {name for name, p in one.network.named_parameters(remove_duplicate=False) if p.requires_grad}
    assert {name.rpartition(".")[0] for name in trained} >= set(one.modules_to_save)
    assert all(name.startswith(one.saved_modules) for name in trained)
    expected = _trained(one)
    assert not torch.allclose(expected, before, rtol=1e-2, atol=1e-2)
    assert _export(one, tmp_path / "adapter") < 1e-6
    assert torch.equal(logits(one.network, BATCH), expected)
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.removeprefix("base_model.model.") for name in held if "lora_" not in name} == trained

    theirs = _peft(hosts, host, tmp_path / "adapter")
    torch.testing.assert_close(logits(theirs, BATCH), expected, rtol=1e-4, atol=1e-5)
    again = assemble(_backbone(hosts, host, seed=1), Plans(), tmp_path / "adapter", 0)
    torch.testing.assert_close(logits(again.network, BATCH), expected, rtol=1e-4, atol=1e-5)
    assert again.modules_to_save == one.modules_to_save
    classes = ("a", "b", "c") if host in ("bert", "roberta") else ()
    assert merge(again, tmp_path / "merged", classes).merging < 1e-5
    with quiet_transformers():
        kind = type(one.network)
        plain = kind.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(plain, BATCH), expected, rtol=1e-4, atol=1e-5)


def test_a_tied_table_stays_one_where_both_are_named_and_parts_where_one_is(hosts, tmp_path):
    for names, parts in ((("embed_tokens", "lm_head"), False), (("embed_tokens",), True)):
        network = (one := _assembled(hosts, "llama_tied", tmp_path, *names)).network
        table, head = network.model.embed_tokens.weight, network.lm_head.weight
        assert (table is not head) == parts == (not network.config.tie_word_embeddings)
        assert (table.requires_grad, head.requires_grad) == (True, not parts)
        assert torch.equal(table, head)
        told = (
            "modules_to_save: lm_head and model.embed_tokens shared one tensor; each has its own from now on"
        )
        assert one.notes == ((told,) if parts else ())


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("llama", ("norm", "lm_head")),
        ("llama_tied", ("embed_tokens",)),
        ("llama_tied", ("embed_tokens", "lm_head")),
        ("bert", ("word_embeddings", "output.LayerNorm")),
    ],
)
def test_what_peft_trained_whole_is_taken_and_trains_on(hosts, tmp_path, host, names):
    target = "query" if host == "bert" else "q_proj"
    kind = "SEQ_CLS" if host == "bert" else "CAUSAL_LM"
    config = peft.LoraConfig(
        task_type=kind, target_modules=[target], modules_to_save=list(names), init_lora_weights=False
    )
    with quiet_transformers(), warnings.catch_warnings(action="ignore"):
        theirs = peft.get_peft_model(_stock(hosts, host), config).eval()
        with torch.no_grad():  # PEFT's copies of one table part
            for number, parameter in enumerate(p for p in theirs.parameters() if p.requires_grad):
                parameter += 0.1 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(number)
                )
        theirs.save_pretrained(tmp_path / "adapter")
    ours = assemble(_backbone(hosts, host), Plans(), tmp_path / "adapter", 0)
    expected = logits(theirs, BATCH)
    torch.testing.assert_close(logits(ours.network, BATCH), expected, rtol=1e-4, atol=1e-5)
    whole = [p for module in ours.modules_to_save for p in _own(ours, module)]
    assert whole
    assert all(p.requires_grad for p in whole)
    assert sum("shared one tensor" in note for note in ours.notes) == (host == "llama_tied")
    # It goes out again as it came in.
    _export(ours, tmp_path / "again")
    torch.testing.assert_close(logits(_peft(hosts, host, tmp_path / "again"), BATCH), expected)


def test_a_plan_must_name_what_the_adapter_holds_whole(hosts, tmp_path):
    _export(_assembled(hosts, "llama", tmp_path, "norm"), tmp_path / "adapter")
    with pytest.raises(InputFault) as caught:
        _assembled(hosts, "llama", tmp_path, "embed_tokens", adapter=tmp_path / "adapter")
    assert str(caught.value) == (
        f"{tmp_path / 'adapter'}: holds model.norm whole, which modules_to_save of {tmp_path / 'plan.toml'}"
        " does not name"
    )
    more = _assembled(hosts, "llama", tmp_path, "embed_tokens", "norm", adapter=tmp_path / "adapter")
    assert more.modules_to_save == ("model.embed_tokens", "model.norm")


def test_they_are_float32_amid_a_base_in_bfloat16(hosts, tmp_path):
    names = ("embed_tokens", "input_layernorm", "lm_head")
    one = _assembled(hosts, "llama_tied", tmp_path, *names, base_dtype="bfloat16")
    frozen = _assembled(hosts, "llama_tied", tmp_path, base_dtype="bfloat16")
    torch.testing.assert_close(
        logits(one.network, BATCH), logits(frozen.network, BATCH), rtol=3e-2, atol=3e-2
    )
    loss = one.network(**BATCH).logits.float().square().mean()
    loss.backward()
    for module in one.modules_to_save:
        for parameter in _own(one, module):
            assert (parameter.dtype, parameter.grad.dtype) == (torch.float32, torch.float32)
            assert parameter.grad.any()
    assert one.network.model.layers[0].mlp.down_proj.weight.dtype == torch.bfloat16
    hidden = one.network.model(**BATCH).last_hidden_state
    assert hidden.dtype == torch.bfloat16
