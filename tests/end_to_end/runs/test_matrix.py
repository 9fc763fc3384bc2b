"""Every family by task by granularity: trained, killed and resumed, tested again, read by PEFT, merged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.toml.writer import toml_text
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import logits
from model.exchange.peft_format import largest_difference
from model.network.backbone import load_backbone
from model.network.family import dimensions, model_types
from model.network.source import resolve
from tests.support.killed import child
from tests.support.runs import ENTRY, ROOT, comparable, flags, fork, launch, run, summary
from tests.support.tiny import save_host, tiny_config
from tools import merge

HOSTS: dict[str, dict[str, Any]] = {
    **{word: {} for word in model_types()},
    "opt, as in the 350M size": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
    "deberta-v2, keys not shared": {"share_att_key": False, "position_biased_input": True},
}
"""Host -> overrides of its family's tiny configuration; the first word is its `model_type`."""
TASKS = {"classification": "rte", "language_modeling": "gsm8k"}
GRANULARITIES = ("network", "layer", "head")
CORE = {
    ("deberta-v2", "classification", "layer"),
    ("qwen2", "classification", "network"),
    ("gemma3_text", "language_modeling", "head"),
}
"""Cells of the fast tier."""
LIMITS = {"rte": {}, "gsm8k": {"limit_test_samples": 2}}
CLASSES = {"rte": AutoModelForSequenceClassification, "gsm8k": AutoModelForCausalLM}
LABELS = {"rte": ("entailment", "not_entailment"), "gsm8k": ()}


def family_of(host):
    return model_types()[host.split(",")[0]]


def serves(host, task):
    return task in family_of(host).heads


CELLS = [(host, task, how) for host in HOSTS for task in TASKS if serves(host, task) for how in GRANULARITIES]


@dataclass(frozen=True)
class Cell:
    """One trained run: its host, its data set and its directory."""

    host: Path
    how: str
    family: str
    dataset: str
    data: Path
    directory: Path
    words: tuple[Any, ...]

    def beside(self, name: str) -> Path:
        return self.directory.with_name(f"{self.directory.name}-{name}")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(cell, id="-".join(cell), marks=() if cell in CORE else pytest.mark.slow)
        for cell in CELLS
    ],
)
def cell(request, ground, place):
    """A run of three steps with dropout, a checkpoint at each of them."""
    host, task, how = request.param
    dataset, family = TASKS[task], family_of(host)
    base = _host(ground, host)
    data = ground.rte() if dataset == "rte" else ground.gsm8k()
    plan = place / f"{base.name}-{how}.toml"
    plan.write_text(toml_text(_plan(how, dimensions(tiny_config(family, **HOSTS[host])))))
    options = {
        "load": base,
        "lora_config": plan,
        "dataset_dir": data,
        "batch_size": 8,
        "max_steps": 3,
        "learning_rate": 0.05,
        "checkpoint_every_n_steps": 1,
        **LIMITS[dataset],
    }
    words = ("train", f"{family.name}_lora", dataset, *flags(options))
    directory = run(place / f"{base.name}-{task}-{how}", *words)
    return Cell(base, how, family.name, dataset, data, directory, words)


def _host(ground, host):
    path = ground.base / f"matrix-{host.replace(', ', '-').replace(' ', '-')}"
    word, family = host.split(",")[0], family_of(host)
    return path if path.exists() else save_host(family.name, path, model_type=word, **HOSTS[host])


def _plan(how, counts):
    """Return a plan with several ranks, modules that are off and modules that are not there."""
    entry = ENTRY | {"lora_dropout": 0.1}
    off, none = entry | {"disable_adapter": True}, entry | {"r": 0}
    default = {"granularity": how, "default": entry | {"r": 2}}
    if how == "network":
        return default | {"all_layers": {"q_proj": entry, "o_proj": none, "w1": off}}
    if how == "layer":
        first = {"q_proj": entry, "w2": entry | {"r": 1}, "v_proj": off}
        return default | {"model_layer_0": first, "model_layer_2": {"k_proj": none}}
    ranks = {"q_proj": range(1, counts.heads + 1), "v_proj": range(counts.key_value_heads)}
    heads = {
        role: {f"head_{j}": entry | {"r": rank, "lora_alpha": 4 + j} for j, rank in enumerate(of_heads)}
        for role, of_heads in ranks.items()
    }
    return default | {"headwise_default": {"w2": entry, "o_proj": off}, "model_layer_1": heads}


def test_a_killed_run_resumes_to_the_same_bytes(cell):
    directory = cell.beside("killed")
    words = [*cell.words, "--project-dir", directory.parent, "--project", directory.name]
    log = cell.beside("killed.log")
    assert fork(child, "step", 2, "SIGKILL", [str(word) for word in words], log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    found, expected = comparable(directory), comparable(cell.directory)
    assert set(found) == set(expected) >= {"metrics.csv", "summary.json", "lora.toml"}
    assert [name for name in expected if found[name] != expected[name]] == []


def test_adapter_and_checkpoint_give_the_metric_of_the_run(cell):
    limit = flags(LIMITS[cell.dataset])
    words = ("test", f"{cell.family}_lora", cell.dataset, "--dataset-dir", cell.data, "--load", cell.host)
    best = ("test", "--load", cell.directory / "checkpoints" / "best.ckpt", "--load-type", "pl", *limit)
    checkpoint = _numbers(run(cell.beside("checkpoint"), *best))
    assert checkpoint.items() <= _numbers(cell.directory).items()
    assert checkpoint
    adapter = _numbers(run(cell.beside("adapter"), *words, "--adapter", cell.directory / "adapter", *limit))
    # B is written with its scale, which rounds unless that is a power of two; by head some are none.
    assert adapter == (checkpoint if cell.how != "head" else pytest.approx(checkpoint, rel=1e-6))


def _numbers(directory):
    return {name.split("/")[1]: value for name, value in summary(directory)["metrics"].items()}


def test_peft_and_the_merged_network_have_the_same_logits(cell):
    adapter, merged = cell.directory / "adapter", cell.beside("merged")
    words = ["--load", cell.host, "--adapter", adapter, "--output", merged]
    assert merge.main([str(word) for word in words]) == 0
    stock, labels = CLASSES[cell.dataset], LABELS[cell.dataset]
    sizes = {"num_labels": len(labels)} if labels else {}
    purpose = "classification" if labels else "language_modeling"
    backbone = load_backbone(resolve(str(cell.host), "--load"), purpose, labels)
    made = assemble(backbone, Plans(), adapter, 0)
    tokenizer = backbone.tokenizer
    batch = tokenizer(["The cat is in the house.", "No!"], padding=True, return_tensors="pt")
    expected = logits(made.network, batch)
    peft = PeftModel.from_pretrained(stock.from_pretrained(cell.host, **sizes), adapter)
    peft.config.pad_token_id = peft.base_model.model.config.pad_token_id = tokenizer.pad_token_id
    for network in (peft, stock.from_pretrained(merged)):
        torch.testing.assert_close(logits(network, batch), expected, rtol=1e-4, atol=1e-5)
    for attachment in made.attachments.values():
        attachment.enabled = False
    assert largest_difference(expected, logits(made.network, batch)) > 1e-2


@pytest.mark.parametrize("host", [host for host in HOSTS if not serves(host, "language_modeling")])
def test_language_modelling_is_refused_for_an_encoder(ground, tmp_path, capsys, host):
    family = family_of(host).name
    words = ["train", f"{family}_lora", "gsm8k", "--load", _host(ground, host), "--lora-config"]
    words += [ground.plan(), "--dataset-dir", ground.gsm8k(), "--project-dir", tmp_path, "--project", "x"]
    assert launch(*words) == 2
    message = f"--task: a {family} network does not serve language_modeling, only classification, regression"
    assert message in capsys.readouterr().err


def test_the_page_shows_every_cell():
    text = (ROOT / "docs" / "networks.md").read_text()
    shown = ", ".join(GRANULARITIES)
    for host in HOSTS:
        cells = [shown if serves(host, task) else "refused" for task in TASKS]
        assert f"\n| {host} | {' | '.join(cells)} |" in text
