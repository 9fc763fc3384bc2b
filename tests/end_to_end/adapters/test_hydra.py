"""HydraLoRA and its ablations from the command line to the run directory and back, on tiny hosts."""

import json
import math
import tomllib

import pytest
from safetensors.torch import load_file

from configs.toml.writer import toml_text
from model.search.score_file import read_scores
from model.tensors.checkpoint import load_checkpoint
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, program, rows, run, summary
from tests.tools.words import refused

METHODS = {
    "hydra": {"method": "hydra", "heads": 3},
    "uniform": {"method": "hydra", "heads": 3, "router": "uniform"},
    "moe": {"method": "lora_moe", "heads": 2},
    "split": {"method": "lora_split", "heads": 2, "combine": "sum"},
}
ROUTED = ("hydra", "moe")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hydra")


@pytest.fixture(scope="module")
def words(ground):
    """Return the words of a run with dropout; one module is plain LoRA."""

    def make(method, family="llama", **options):
        tables = {"all_layers": {"q_proj": ENTRY}}
        plan = ground.plan(f"plan-{method}", tables, **METHODS[method], lora_dropout=0.1)
        return ground.words(family, lora_config=plan, checkpoint_every_n_steps=1, **options)

    return make


@pytest.fixture(scope="module", params=METHODS)
def trained(request, place, words):
    return request.param, run(place / request.param, *words(request.param))


def test_the_run_keeps_tensors_and_recipe(trained):
    method, directory = trained
    metadata = json.loads((directory / "adapter" / "metadata.json").read_text())
    assert set(metadata["extra"]) == {
        f"layer_{i}/{role}" for i in range(3) for role in ("k_proj", "v_proj", "o_proj", "w1", "gate", "w2")
    }
    told = metadata["extra"]["layer_1/gate"]
    keys = {name: value for name, value in METHODS[method].items() if name != "method"}
    defaults = {"router": "token"} if method == "hydra" else {}
    assert told == {
        "method": METHODS[method]["method"], "rank": 4, "alpha": 8.0, "strength": 1.0,
        "keys": {**keys, **defaults},
    }  # fmt: skip
    tensors = load_file(directory / "adapter" / "extra.safetensors")
    assert all(t.any() for t in tensors.values())
    assert any(name.endswith(".router") for name in tensors) == (method in ROUTED)
    assert not any("gate" in name for name in load_file(directory / "adapter" / "adapter_model.safetensors"))
    counted = summary(directory)["trainable_parameters"]
    routers = sum(t.numel() for name, t in tensors.items() if name.endswith(".router"))
    assert counted["router_or_gates"] == routers


def test_routers_are_recorded_and_drawn(trained):
    method, directory = trained
    path = directory / "search" / "router_usage.toml"
    assert path.exists() == (method in ROUTED)
    assert ("router_usage.png" in (directory / "report.md").read_text()) == (method in ROUTED)
    if method in ROUTED:
        one = tomllib.loads(path.read_text())["validation"]["layer_2"]["gate"]
        assert len(one["weights"]) == METHODS[method]["heads"]
        assert sum(one["weights"]) == pytest.approx(1)
        assert 0 < one["entropy"] <= math.log(METHODS[method]["heads"])
        assert (directory / "search" / "router_usage.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoint_and_adapter_give_the_number_of_the_run(trained, place, ground):
    method, directory = trained
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    adapter = run(
        place / f"{method}-a", "test", "llama_lora", "rte", "--adapter", directory / "adapter", *data
    )
    best = directory / "checkpoints" / "best.ckpt"
    checkpoint = run(place / f"{method}-c", "test", "--load", best, "--load-type", "pl")
    value = summary(directory)["metric"]["value"]
    assert summary(adapter)["metric"]["value"] == summary(checkpoint)["metric"]["value"] == value


def test_training_starts_from_what_was_saved(trained, place, words, ground):
    method, directory = trained
    options = {"adapter": directory / "adapter", "max_steps": 1, "learning_rate": 0}
    if method in ("uniform", "split"):
        line = words(method, **options)
    else:  # the adapter decides sites and methods
        line = ground.words("llama", lora_config=None, **options)
    on = run(place / f"{method}-on", *line)
    assert rows(on)[1] < rows(directory)[1]
    for name in ("adapter_model", "extra"):
        first, second = (load_file(one / "adapter" / f"{name}.safetensors") for one in (directory, on))
        assert first.keys() == second.keys()
        assert all(tensor.equal(second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("method", ["hydra", pytest.param("split", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_bytes(method, place, words):
    directory = place / f"{method}-killed"
    line = [str(w) for w in (*words(method), "--project-dir", place, "--project", directory.name)]
    log = place / f"{method}.log"
    assert fork(child, "step", 3, "SIGKILL", line, log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    whole = place / method if (place / method).exists() else run(place / method, *words(method))
    assert comparable(directory) == comparable(whole)


def test_checkpointed_gradients_give_the_same_losses(place, words):
    one = run(place / "stored", *words("hydra", "opt", max_steps=3))
    two = run(place / "again", *words("hydra", "opt", max_steps=3, gradient_checkpointing=True))
    weights = [load_checkpoint(d / "checkpoints" / "last.ckpt")["state_dict"] for d in (one, two)]
    assert all((a - weights[1][name]).abs().max() < 1e-5 for name, a in weights[0].items())


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(place, ground):
    plan = ground.plan("two-processes", **METHODS["hydra"])
    words = ground.words("llama", lora_config=plan, batch_size=None, max_steps=3)
    one = run(place / "one", *words, "--batch-size", 8)
    two = ("--batch-size", 4, "--num-devices", 2, "--accelerator", "cpu")
    done = program(*words, *two, "--project-dir", place, "--project", "two")
    assert done.returncode == 0, done.stderr
    assert rows(place / "two") == pytest.approx(rows(one), rel=1e-4)


@pytest.mark.parametrize(
    "heuristic", ["grad_norm", "synflow", pytest.param("alpha_test", marks=pytest.mark.slow)]
)
def test_modules_with_experts_are_scored_as_wholes(heuristic, place, words):
    line = ("imp-test", *words("hydra", importance_test_name=heuristic, imp_limit_test_batches=1)[1:])
    limits = ("--alpha-limit-zptrain-batches", 1) if heuristic == "alpha_test" else ()
    directory = run(place / heuristic, *line, *limits)
    scores = read_scores(directory / "search" / f"scores_{heuristic}.toml").values
    assert len(scores) == 21
    if heuristic == "grad_norm":
        assert all(score > 0 for score in scores.values())


def test_autocast_runs_and_the_router_stays_float32(place, words):
    directory = run(place / "bf16", *words("hydra", max_steps=2, precision="bf16-mixed"))
    tensors = load_file(directory / "adapter" / "extra.safetensors")
    assert {str(t.dtype) for t in tensors.values()} == {"torch.float32"}


def test_a_search_switches_experts_as_it_switches_lora(place, words):
    line = words("hydra", importance_test_name="snip", max_steps=4, realloc_n=2, imp_limit_test_batches=2)
    line = ["train-dyrealloc", *line[1:]]
    line[line.index("--realloc-n")] = "--realloc-N"
    found = summary(run(place / "dyrealloc", *line))["search"]
    assert (found["enabled"], found["eligible"]) == (5, 21)


SPLIT = {"method": "lora_split", "heads": 2}


@pytest.fixture(scope="module")
def filled(place, ground):
    """Return an adapter of two parts, each trained by a run of its own."""
    options = {"max_steps": 2, "weight_decay": 0.1}
    base = {"adapter": None}
    for number in (0, 1):
        plan = ground.plan(f"component-{number}", **SPLIT, component=number)
        line = ground.words("llama", lora_config=plan, **options, **base)
        directory = run(place / f"component-{number}", *line)
        base = {"adapter": directory / "adapter"}
    return directory / "adapter"


def test_components_of_a_split_are_filled_run_by_run_and_joined(place, ground, filled):
    one, two = (load_file(place / f"component-{n}" / "adapter" / "extra.safetensors") for n in (0, 1))
    for name, tensor in one.items():
        assert tensor.equal(two[name]) == (".A.0" in name or ".B.0" in name), name
    plan = ground.plan("joined", **SPLIT, combine="average")
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"), "--lora-config", plan)
    line = ("test", "llama_lora", "rte", "--adapter", filled, *data)
    assert summary(run(place / "joined", *line))["metrics"]


def test_a_router_trains_alone_over_filled_parts(place, ground, filled):
    plan = ground.plan("routed", **SPLIT, combine="routed")
    options = {"adapter": filled, "max_steps": 3, "checkpoint_every_n_steps": 1, "weight_decay": 0.1}
    line = ground.words("llama", lora_config=plan, **options)
    directory = run(place / "routed", *line)
    before, after = (load_file(folder / "extra.safetensors") for folder in (filled, directory / "adapter"))
    routers = {name for name in after if name.endswith(".router")}
    assert set(after) - routers == set(before)
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    assert len(routers) == 21 and all(after[name].any() for name in routers)
    counted = summary(directory)["trainable_parameters"]
    assert (counted["adapters"], counted["router_or_gates"]) == (0, sum(after[n].numel() for n in routers))
    assert (directory / "search" / "router_usage.toml").exists()
    metadata = json.loads((directory / "adapter" / "metadata.json").read_text())
    assert metadata["extra"]["layer_0/gate"]["keys"] == {"heads": 2, "combine": "routed"}
    value = summary(directory)["metric"]["value"]
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    again = run(place / "routed-a", "test", "llama_lora", "rte", "--adapter", directory / "adapter", *data)
    best = directory / "checkpoints" / "best.ckpt"
    checkpoint = run(place / "routed-c", "test", "--load", best, "--load-type", "pl")
    assert summary(again)["metric"]["value"] == summary(checkpoint)["metric"]["value"] == value


def test_a_router_starts_as_the_average_and_resumes_from_its_state(place, ground, filled):
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"), "--adapter", filled)
    losses = [
        summary(run(place / f"start-{combine}", "test", "llama_lora", "rte", *data, "--lora-config",
                    ground.plan(f"start-{combine}", **SPLIT, combine=combine)))["metrics"]["test/loss"]
        for combine in ("average", "routed", "sum")
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(losses[2], rel=1e-6)


@pytest.mark.slow
def test_a_killed_routed_run_resumes_to_the_same_bytes(place, ground, filled):
    plan = ground.plan("routed-killed", **SPLIT, combine="routed", lora_dropout=0.1)
    options = {"adapter": filled, "max_steps": 4, "checkpoint_every_n_steps": 1}
    words = ground.words("llama", lora_config=plan, **options)
    line = [str(w) for w in (*words, "--project-dir", place, "--project", "routed-killed")]
    log = place / "routed-killed.log"
    assert fork(child, "step", 2, "SIGKILL", line, log) == -9, log.read_text()
    last = place / "routed-killed" / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(place / "routed-killed") == comparable(run(place / "routed-whole", *words))


def test_a_router_without_trained_parts_is_refused(ground, capsys, tmp_path):
    plan = ground.plan("routed-alone", **SPLIT, combine="routed")
    assert launch(*ground.words("llama", lora_config=plan), "--project-dir", tmp_path / "runs") == 2
    assert capsys.readouterr().err.splitlines() == [
        f'error: {plan}: [default] combine: "routed" needs parts that are trained already; give'
        " their adapter with --adapter"
    ]
    assert not (tmp_path / "runs").exists()


def test_files_of_another_form_are_refused_where_a_router_is_planned(place, ground, filled, capsys, trained):
    method, directory = trained
    plan = ground.plan("other-form", {"all_layers": {"q_proj": ENTRY}}, **SPLIT, combine="routed")
    words = ground.words("llama", lora_config=plan, adapter=directory / "adapter")
    code = launch(*words, "--dry-run")
    lines = capsys.readouterr().err.splitlines()
    if method == "split":
        assert code == 0, lines
    else:
        assert code == 2
        assert f"{METHODS[method]['method']} with r = 4" in lines[0]


def test_heads_other_than_the_adapters_are_refused(trained, ground, capsys):
    method, directory = trained
    keys = {**METHODS[method], "heads": 4}
    plan = ground.plan("other", {"all_layers": {"q_proj": ENTRY}}, **keys)
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"), "--lora-config", plan)
    assert launch("test", "llama_lora", "rte", "--adapter", directory / "adapter", *data) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        f"layer_0/gate: heads = {METHODS[method]['heads']}, the configuration says heads = 4"
    )


def test_keys_are_checked_before_weights_are_read(ground, capsys, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(toml_text({"method": "hydra", "default": {**ENTRY, "heads": 2, "rooter": "token"}}))
    assert launch(*ground.words("llama", lora_config=plan), "--dry-run") == 2
    assert "unknown key 'rooter'; did you mean 'router'?" in capsys.readouterr().err


def test_single_heads_of_a_projection_have_no_experts(ground, capsys, tmp_path):
    plan = tmp_path / "plan.toml"
    entry = {**ENTRY, "method": "hydra"}
    plan.write_text(toml_text({"granularity": "head", "default": entry}))
    assert launch(*ground.words("llama", lora_config=plan), "--dry-run") == 2
    assert "method 'hydra' has no adapters for single heads" in capsys.readouterr().err


def test_export_for_vllm_is_refused(trained):
    method, directory = trained
    (line,) = [
        line for line in refused("tools.export", directory, "--check", "vllm") if "extra.safetensors" in line
    ]
    assert f"vLLM does not support {METHODS[method]['method']}" in line
