"""AFLoRA and VeRA from the command line to the run directory, to other readers and back, on tiny hosts."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from configs.runtime.files import sha256
from model.search.score_file import read_scores
from model.tensors.checkpoint import load_checkpoint
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, program, rows, run, summary
from tests.tools.words import refused
from tools import count_params, export, merge

METHODS = {
    "aflora": {"method": "aflora"},
    "scaled": {"method": "aflora", "scaling": "alpha_over_r", "uv_rule": "all"},
    "vera": {"method": "vera"},
    "apart": {"method": "vera", "shared": False, "r": 8},
}
OWN = {"aflora": {"A", "B", "d", "b"}, "scaled": {"A", "B", "d", "b"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("aflora")


@pytest.fixture(scope="module")
def words(ground):
    """Return the words of a run with dropout; one module is plain LoRA, one has half its effect."""

    def make(method, family="llama", **options):
        tables = {"all_layers": {"q_proj": ENTRY}}
        tables["all_layers"]["w2"] = {**ENTRY, **METHODS[method], "importance_alpha": 0.5}
        plan = ground.plan(f"plan-{method}", tables, **METHODS[method], lora_dropout=0.1)
        defaults = {"lora_config": plan, "checkpoint_every_n_steps": 1, "learning_rate": 0.05}
        return ground.words(family, **{**defaults, **options})

    return make


@pytest.fixture(scope="module", params=METHODS)
def trained(request, place, words):
    return request.param, run(place / request.param, *words(request.param))


def test_the_adapter_is_a_lora_with_its_own_tensors_in_extra_tensors(trained):
    method, directory = trained
    adapter = directory / "adapter"
    told = json.loads((adapter / "metadata.json").read_text())["extra"]
    sites = {
        f"layer_{i}/{role}" for i in range(3) for role in ("k_proj", "v_proj", "o_proj", "w1", "gate", "w2")
    }
    assert set(told) == sites
    assert all(one["converted"] for one in told.values())
    assert told["layer_1/w2"]["strength"] == 0.5
    own = load_file(adapter / "extra.safetensors")
    assert {name.rsplit(".", 1)[1] for name in own} == OWN.get(method, {"d", "b", "origin"})
    loras = load_file(adapter / "adapter_model.safetensors")
    assert sum(name.endswith("lora_B.weight") for name in loras) == 21
    assert all(tensor.any() for tensor in loras.values())


def test_counts_are_what_trains(trained):
    method, directory = trained
    counted = summary(directory)["trainable_parameters"]
    state = load_checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"]
    trains = {name: t for name, t in state.items() if name.endswith((".d", ".b"))}
    assert len(trains) == 2 * 18
    vectors = sum(t.numel() for t in trains.values())
    if METHODS[method]["method"] == "vera":
        lora = sum(t.numel() for name, t in state.items() if "q_proj" in name)
        assert counted["adapters"] == vectors + lora
        assert not any(name.endswith("w1.adapter.A") for name in state)
        assert any(name.endswith("w1.adapter.origin") for name in state)
    else:
        assert counted["adapters"] > vectors
        assert any(name.endswith("w1.adapter.A") for name in state)


def test_checkpoint_and_adapter_give_the_number_of_the_run(trained, place, ground):
    method, directory = trained
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    adapter = run(
        place / f"{method}-a", "test", "llama_lora", "rte", "--adapter", directory / "adapter", *data
    )
    best = directory / "checkpoints" / "best.ckpt"
    checkpoint = run(place / f"{method}-c", "test", "--load", best, "--load-type", "pl")
    mine = [summary(one)["metrics"]["test/loss"] for one in (adapter, checkpoint)]
    assert mine[0] == mine[1] == pytest.approx(summary(directory)["metrics"]["val/loss"], rel=1e-6)


@pytest.mark.parametrize("trained", ["aflora"], indirect=True)
def test_by_the_default_rule_matrices_of_square_weights_do_not_train(trained):
    _, directory = trained
    state = load_checkpoint(directory / "checkpoints" / "last.ckpt")
    moments = len(state["optimizer_states"][0]["state"])
    squares = [name for name in state["state_dict"] if "o_proj" in name and name.endswith((".A", ".B"))]
    assert len(squares) == 6
    trained_here = [n for n in state["state_dict"] if n not in squares]
    assert moments == len(trained_here)


@pytest.mark.parametrize(
    "trained",
    [m if m == "aflora" else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
    indirect=True,
)
def test_a_killed_run_resumes_to_the_same_bytes(trained, place, words):
    method, whole = trained
    directory = place / f"{method}-killed"
    line = [str(w) for w in (*words(method), "--project-dir", place, "--project", directory.name)]
    log = place / f"{method}.log"
    assert fork(child, "step", 3, "SIGKILL", line, log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(directory) == comparable(whole)


def test_an_adapter_loads_under_another_seed(trained, place, ground):
    """VeRA's matrices come from the seed that the adapter names."""
    method, directory = trained
    data = (
        "--dataset-dir",
        ground.rte(),
        "--load",
        ground.host("llama"),
        "--lora-config",
        directory / "lora.toml",
    )
    line = ("test", "llama_lora", "rte", "--adapter", directory / "adapter", *data, "--seed", 7)
    tested = summary(run(place / f"{method}-seed", *line))["metrics"]["test/loss"]
    assert tested == pytest.approx(summary(directory)["metrics"]["val/loss"], rel=1e-6)


def test_checkpointed_gradients_give_the_same_weights(place, words):
    options = {"max_steps": 3, "learning_rate": 0.01}
    one = run(place / "stored", *words("aflora", "opt", **options))
    two = run(place / "again", *words("aflora", "opt", **options, gradient_checkpointing=True))
    weights = [load_checkpoint(d / "checkpoints" / "last.ckpt")["state_dict"] for d in (one, two)]
    assert all((a - weights[1][name]).abs().max() < 1e-4 for name, a in weights[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["aflora", "vera"])
def test_two_processes_give_the_losses_of_one(place, ground, method):
    plan = ground.plan(f"two-{method}", **METHODS[method])
    words = ground.words("llama", lora_config=plan, batch_size=None, max_steps=3, learning_rate=0.05)
    one = run(place / f"one-{method}", *words, "--batch-size", 8)
    two = ("--batch-size", 4, "--num-devices", 2, "--accelerator", "cpu")
    done = program(*words, *two, "--project-dir", place, "--project", f"two-{method}")
    assert done.returncode == 0, done.stderr
    assert rows(place / f"two-{method}") == pytest.approx(rows(one), rel=1e-4)


@pytest.mark.parametrize("heuristic", ["grad_norm", "snip", "synflow"])
@pytest.mark.parametrize("method", ["aflora", "vera"])
def test_its_modules_are_scored(method, heuristic, place, words):
    line = ("imp-test", *words(method, importance_test_name=heuristic, imp_limit_test_batches=1)[1:])
    directory = run(place / f"{method}-{heuristic}", *line)
    scores = read_scores(directory / "search" / f"scores_{heuristic}.toml").values
    assert len(scores) == 21
    is_blind = heuristic == "synflow"  # equal values at all positions: q and k cannot matter
    assert all(
        score > 0 for key, score in scores.items() if not (is_blind and key.role in ("q_proj", "k_proj"))
    )


def test_a_search_switches_it_as_it_switches_lora(place, words):
    options = {"importance_test_name": "grad_norm", "max_steps": 4, "imp_limit_test_batches": 2}
    line = ["train-dyrealloc", *words("vera", **options)[1:], "--realloc-N", "2"]
    found = summary(run(place / "dyrealloc", *line))["search"]
    assert (found["enabled"], found["eligible"]) == (5, 21)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("method", ["aflora", "vera"])
def test_other_precisions(place, words, method, precision):
    options = {"max_steps": 2, "precision": precision, "learning_rate": 0.01}
    directory = run(place / f"{method}-{precision}", *words(method, **options))
    own = load_file(directory / "adapter" / "extra.safetensors")
    kinds = {str(t.dtype) for name, t in own.items() if not name.endswith("origin")}
    assert kinds == {"torch.bfloat16" if precision == "bf16-true" else "torch.float32"}


# Other readers


@pytest.fixture(scope="module", params=["scaled", "vera"])
def language(request, place, ground):
    plan = ground.plan(f"lm-{request.param}", **METHODS[request.param])
    words = ["train", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--lora-config", plan]
    data = ["--dataset-dir", ground.gsm8k(), "--max-steps", 4, "--learning-rate", 0.05, "--batch-size", 8]
    limits = ["--max-token-len", 120, "--limit-test-samples", 1]
    return request.param, run(place / f"lm-{request.param}", *words, *data, *limits)


def _logits(network):
    """Return logits of made-up tokens."""
    with torch.no_grad():
        return network.eval()(torch.arange(5, 29).view(2, 12)).logits


def test_peft_reads_it_with_equal_logits_and_a_merge_has_them_too(language, place, ground, capsys):
    method, directory = language
    base = AutoModelForCausalLM.from_pretrained(ground.host("llama"))
    stock = _logits(base)
    theirs = _logits(PeftModel.from_pretrained(base, directory / "adapter"))
    assert (theirs - stock).abs().max() > 1e-3
    merged = place / f"merged-{method}"
    words = ["--load", ground.host("llama"), "--adapter", directory, "--output", merged]
    assert merge.main([str(word) for word in words]) == 0
    torch.testing.assert_close(
        _logits(AutoModelForCausalLM.from_pretrained(merged)), theirs, rtol=1e-4, atol=1e-5
    )


def test_it_passes_the_check_for_vllm(language, place, capsys):
    method, directory = language
    assert export.main([str(directory), "--check", "vllm"]) == 0
    assert "--max-lora-rank 8" in capsys.readouterr().out
    copy = place / f"copy-{method}"
    assert export.main([str(directory), "--check", "vllm", "--output", str(copy)]) == 0
    assert not (copy / "extra.safetensors").exists()


@pytest.mark.parametrize("trained", ["aflora", "vera"], indirect=True)
def test_it_loads_as_a_lora_of_the_same_sites_with_the_same_effect(trained, place, ground):
    method, directory = trained
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"), "--lora-config", ground.plan())
    line = ("test", "llama_lora", "rte", "--adapter", directory / "adapter", *data)
    tested = summary(run(place / f"{method}-lora", *line))["metrics"]["test/loss"]
    assert tested == pytest.approx(summary(directory)["metrics"]["val/loss"], rel=1e-5)


def test_an_aflora_starts_from_a_lora_and_a_vera_cannot(place, ground, capsys):
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"), "--batch-size", 8)
    lora = run(place / "lora", *ground.words("llama", max_steps=2))
    expected = summary(lora)["metrics"]["val/loss"]
    for method in ("scaled", "vera"):
        plan = ground.plan(f"onto-{method}", **METHODS[method])
        line = ("test", "llama_lora", "rte", "--adapter", lora / "adapter", "--lora-config", plan, *data)
        if method == "vera":
            assert launch(*line) == 2
            assert "'vera' cannot hold the factors of a LoRA" in capsys.readouterr().err
        else:
            tested = summary(run(place / f"onto-{method}", *line))["metrics"]["test/loss"]
            assert tested == pytest.approx(expected, rel=1e-5)


def test_another_scaling_than_the_adapters_is_refused(trained, ground, capsys):
    method, directory = trained
    tables = {"all_layers": {"q_proj": ENTRY}}
    other = {"scaling": "none" if method == "scaled" else "alpha_over_r"}
    plan = ground.plan("other", tables, **{**METHODS[method], **other})
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"), "--lora-config", plan)
    assert launch("test", "llama_lora", "rte", "--adapter", directory / "adapter", *data) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the configuration says scaling = {other['scaling']}" in line


@pytest.mark.parametrize("trained", ["vera"], indirect=True)
def test_matrices_that_another_generator_draws_are_refused(trained, ground, capsys, tmp_path):
    _, directory = trained
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for path in (directory / "adapter").iterdir():
        (adapter / path.name).write_bytes(path.read_bytes())
    own = load_file(adapter / "extra.safetensors")
    own["layer_0/w1.origin"][1] += 1
    save_file(own, adapter / "extra.safetensors")
    table = json.loads((adapter / "metadata.json").read_text())
    table["sha256"]["extra.safetensors"] = sha256(adapter / "extra.safetensors")
    (adapter / "metadata.json").write_text(json.dumps(table))
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    assert launch("test", "llama_lora", "rte", "--adapter", adapter, *data) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "layer_0/w1: origin: seed 0 draws other matrices here than where it was saved" in line


@pytest.mark.parametrize("method", ["aflora", "vera"])
def test_parameters_are_counted_without_weights(ground, capsys, method):
    plan = ground.plan(f"count-{method}", **METHODS[method])
    words = ["--model", "llama_lora", "--load", ground.host("llama"), "--lora-config", plan, "--json"]
    assert count_params.main([str(word) for word in words]) == 0
    counted, vectors = json.loads(capsys.readouterr().out)["adapters"], _vectors(ground.host("llama"))
    assert counted == vectors if method == "vera" else counted > 2 * vectors


def test_a_plan_that_freezes_shows_the_counts_of_start_and_end(ground, capsys):
    plan = ground.plan("count-freezing", {"freezing": {"rule": "epoch", "after_epochs": 1}}, method="aflora")
    words = ["--model", "llama_lora", "--load", ground.host("llama"), "--lora-config", plan]
    assert count_params.main([*map(str, words), "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    vectors = _vectors(ground.host("llama")) + counted["head"]
    assert counted["trainable"] > counted["trainable_at_the_end"] == vectors
    assert count_params.main([str(word) for word in words]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert ["trainable", "at", "the", "end", f"{vectors:,}"] in [line.split() for line in shown]


def _vectors(host):
    """Return how many numbers the vectors of rank 4 at all sites hold."""
    config = json.loads((host / "config.json").read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    outputs = 2 * width + 2 * keys + 2 * inner + width  # q, o; k, v; gate, w1; w2
    return config["num_hidden_layers"] * (outputs + 7 * 4)


def test_modules_saved_whole_are_still_refused(trained):
    method, directory = trained
    lines = refused("tools.export", directory, "--check", "vllm")
    assert not any("extra.safetensors" in line for line in lines)
    assert any("modules_to_save" in line for line in lines)
