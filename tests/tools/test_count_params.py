"""Counts from a configuration agree with published ones and with networks that are really made."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file

from configs.runtime import kinds
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from tests.support.tiny import save_host, tiny_config
from tests.tools.words import refused
from tools.count_params import GROUPS, SHARES, main, objective

LLAMA_2_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
OPT_350M = {
    "model_type": "opt",
    "hidden_size": 1024,
    "ffn_dim": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "word_embed_proj_dim": 512,
    "do_layer_norm_before": False,
    "vocab_size": 50272,
}
DEBERTA_V3_BASE = {
    "model_type": "deberta-v2",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 128100,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_relative_positions": -1,
}


def _directory(path, config):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def _plan(path, rank, roles=None):
    keys = 'lora_alpha = 8\nlora_dropout = 0.0\nadapter_name = "default"\ndisable_adapter = false\n'
    tables = "".join(f"[all_layers.{role}]\nr = {rank}\n{keys}" for role in roles or ())
    path.write_text(f"[default]\nr = {0 if roles else rank}\n{keys}{tables}")
    return path


def _counts(capsys, *words):
    assert main([str(word) for word in (*words, "--json")]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("rank", "percent"), [(8, 0.062), (16, 0.124), (32, 0.248)])
def test_llama_2_7b_has_its_published_shares(tmp_path, capsys, rank, percent):
    words = ["--model", "llama_lora", "--load", _directory(tmp_path / "base", LLAMA_2_7B)]
    words += ["--task", "causal_language_modeling"]
    plan = _plan(tmp_path / "plan.toml", rank, ("q_proj", "v_proj"))
    before = time.monotonic()
    found = _counts(capsys, *words, "--lora-config", plan)
    assert time.monotonic() - before < 60
    assert set(found) == {*GROUPS, *SHARES}
    assert (found["base"], found["adapters"]) == (6_738_415_616, 32 * 2 * rank * 8192)
    assert round(found["share_of_total"], 3) == percent
    assert found["head"] == found["other"] == found["router_or_gates"] == 0


def test_hydra_on_llama_2_7b_has_its_published_count_and_a_separate_router(tmp_path, capsys):
    plan = _plan(tmp_path / "plan.toml", 8, ("q_proj", "v_proj"))
    plan.write_text('method = "hydra"\n' + plan.read_text().replace("r = 8", "heads = 3\nr = 8"))
    words = ["--model", "llama_lora", "--load", str(_directory(tmp_path / "base", LLAMA_2_7B))]
    words += ["--task", "causal_language_modeling", "--lora-config", str(plan)]
    found = _counts(capsys, *words)
    assert (found["adapters"], found["router_or_gates"]) == (8_388_608, 32 * 2 * 3 * 4096)
    assert found["trainable"] == 8_388_608 + 786_432
    assert main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["router", "or", "gates", "786,432"] in lines
    shares = {" ".join(line[:-1]): float(line[-1]) for line in lines if line and line[0] == "share"}
    without, whole = (100 * count / 6_738_415_616 for count in (8_388_608, 8_388_608 + 786_432))
    assert int(1000 * without) == 124  # the paper's 0.124 %
    assert shares["share of base without router or gates, %"] == pytest.approx(without, abs=1e-4)
    assert shares["share of base, %"] == pytest.approx(whole, abs=1e-4)


def test_opt_350m_has_its_published_count_and_its_tied_head_counts_once(tmp_path, capsys):
    base = _directory(tmp_path / "base", OPT_350M)
    words = ["--model", "opt_lora", "--load", base]
    words += ["--lora-config", _plan(tmp_path / "plan.toml", 8, ("q_proj", "v_proj"))]
    causal = _counts(capsys, *words, "--task", "causal_language_modeling")
    assert (causal["base"], causal["adapters"]) == (331_196_416, 786_432)
    classes = _counts(capsys, *words, "--num-labels", 3)
    assert (classes["base"], classes["head"]) == (331_196_416, 3 * 512)
    assert classes["trainable"] == 786_432 + 3 * 512
    assert classes["total"] == classes["base"] + classes["trainable"]
    assert classes["share_of_base"] == 100 * classes["trainable"] / classes["base"]


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_two_embeddings_that_differ_count_twice_although_the_configuration_ties_them(
    tmp_path, capsys, suffix
):
    base = save_host("llama", tmp_path / "base")
    words = ["--model", "llama_lora", "--load", base, "--task", "causal_language_modeling"]
    words += ["--lora-config", _plan(tmp_path / "plan.toml", 4)]
    untied = _counts(capsys, *words)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    if suffix == ".bin":
        torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    assert _counts(capsys, *words) == untied
    assert main([str(word) for word in words]) == 0
    assert "ties two embeddings that differ; both are counted" in capsys.readouterr().out
    for path in base.glob(f"*{suffix}"):
        path.unlink()
    assert untied["base"] - _counts(capsys, *words)["base"] == config["vocab_size"] * config["hidden_size"]


@pytest.mark.skipif("deberta" not in kinds.names(kinds.FAMILIES), reason="no such family yet")
def test_deberta_v3_base_has_its_published_count(tmp_path, capsys):
    words = ["--model", "deberta_lora", "--load", _directory(tmp_path / "base", DEBERTA_V3_BASE)]
    found = _counts(capsys, *words, "--lora-config", _plan(tmp_path / "plan.toml", 8))
    assert found["adapters"] == 1_327_104


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_counts_are_those_of_the_network_that_a_run_makes(tmp_path, capsys, family):
    base = tmp_path / "base"
    tiny_config(kinds.load(kinds.FAMILIES, family)).save_pretrained(base)
    plan = _plan(tmp_path / "plan.toml", 4)
    found = _counts(capsys, "--model", f"{family}_lora", "--load", base, "--lora-config", plan)
    backbone = load_backbone(resolve(str(base), "--load"), "classification", ("a", "b"), pretrained=False)
    made = assemble(backbone, Plans(read_plan(plan)), None, 0)
    adapters = sum(p.numel() for a in made.attachments.values() for p in a.adapter.parameters())
    head = sum(p.numel() for p in backbone.network.parameters() if p.requires_grad)
    base_count = sum(p.numel() for p in backbone.network.parameters() if not p.requires_grad)
    assert [found[name] for name in ("base", "adapters", "head")] == [base_count, adapters, head]


def test_shortcuts_are_counted_with_the_adapters(tmp_path, capsys):
    base, plan = _directory(tmp_path / "base", OPT_350M), _plan(tmp_path / "plan.toml", 8, ("q_proj",))
    words = ["--load", base, "--lora-config", plan]
    alone = _counts(capsys, "--model", "opt_lora", *words)
    keys = 'shortcut_alpha = 8\nproj_dropout = 0.0\nprojector_name = "a"\ndisable_projector = false\n'
    shortcuts = tmp_path / "shortcuts.toml"
    shortcuts.write_text(f"[default]\nr = 4\n{keys}")
    words = ["--model", "opt_lora_ags", *words]
    found = _counts(capsys, *words, "--shortcut-config", shortcuts)
    assert found["adapters"] - alone["adapters"] == (4 * 24 - 1) * 2 * 4 * 1024
    assert (found["base"], found["head"]) == (alone["base"], alone["head"])
    assert refused("tools.count_params", *words) == ["error: --shortcut-config: required with 'opt_lora_ags'"]
    assert refused(
        "tools.count_params", "--model", "opt_lora", *words[2:], "--shortcut-config", shortcuts
    ) == ["error: --shortcut-config: 'opt_lora' has no shortcuts; did you mean --model opt_lora_ags?"]


def test_the_table_shows_every_number(tmp_path, capsys):
    base, plan = _directory(tmp_path / "base", OPT_350M), _plan(tmp_path / "plan.toml", 8, ("q_proj",))
    assert main(["--model", "opt_lora", "--load", str(base), "--lora-config", str(plan)]) == 0
    shown = capsys.readouterr().out
    assert "adapters                  393,216\n" in shown
    assert "modules on                24 of 24\n" in shown


def test_auto_takes_the_family_from_the_network(tmp_path, capsys):
    base, plan = (
        _directory(tmp_path / "base", OPT_350M),
        _plan(tmp_path / "plan.toml", 8, ("q_proj", "v_proj")),
    )
    assert (
        _counts(capsys, "--model", "auto_lora", "--load", base, "--lora-config", plan)["adapters"] == 786_432
    )


def test_a_configuration_that_makes_no_network_is_one_line(tmp_path, capsys):
    base = _directory(tmp_path / "base", {**OPT_350M, "activation_function": 3})
    plan = _plan(tmp_path / "plan.toml", 8)
    assert main(["--model", "opt_lora", "--load", str(base), "--lora-config", str(plan)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: --load: no network can be built from '{base}' (")


def test_one_output_is_a_regression():
    assert objective("classification", 1) == "regression"
    assert objective("classification", 2) == "classification"
    assert objective("causal_language_modeling", 2) == "language_modeling"
    assert objective("summarization", 1) == "language_modeling"


def test_all_faults_are_reported_before_torch_is_imported(tmp_path):
    base = _directory(tmp_path / "base", OPT_350M)
    words = ["--model", "llama_lora", "--load", base, "--lora-config", tmp_path / "none.toml"]
    assert refused("tools.count_params", *words) == [
        f"error: --model: expects a llama network, but '{base}' is of opt",
        f"error: --lora-config: cannot read '{tmp_path / 'none.toml'}': No such file or directory",
    ]
    assert refused("tools.count_params", "--modle", "x", "--num-labels", 0) == [
        "error: --modle: unknown option; did you mean '--model'?",
        "error: --num-labels: must be a whole number in [1, 1000000], got 0",
        "error: --model: required",
        "error: --load: required",
        "error: --lora-config: required",
    ]
