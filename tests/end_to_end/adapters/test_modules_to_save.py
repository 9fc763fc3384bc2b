"""Modules trained whole, from the command line to the run directory and back."""

import json

import pytest
import torch
from safetensors.torch import load_file

from configs.toml.writer import toml_text
from model.tensors.checkpoint import load_checkpoint
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, program, rows, run, summary
from tools.count_params import main as count

NAMES = ["embed_tokens", "norm", "layers.0.input_layernorm"]
WHOLE = ("model.embed_tokens", "model.layers.0.input_layernorm", "model.norm")
ADAPTED = {"default": {**ENTRY, "r": 0}, "all_layers": {"q_proj": ENTRY, "w2": ENTRY}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def words(ground, place):
    def make(*names, **options):
        path = place / f"{'-'.join(names)}.toml"
        path.write_text(toml_text({"modules_to_save": list(names), **ADAPTED}))
        return ground.words("llama", lora_config=path, checkpoint_every_n_steps=1, **options)

    return make


@pytest.fixture(scope="module")
def trained(place, words):
    return run(place / "trained", *words(*NAMES))


def test_the_run_counts_them_as_other_and_keeps_them(trained, ground, capsys, words):
    held = load_file(trained / "adapter" / "adapter_model.safetensors")
    whole = {f"base_model.model.{name}.weight": held[f"base_model.model.{name}.weight"] for name in WHOLE}
    counts = summary(trained)["trainable_parameters"]
    assert counts["other"] == sum(tensor.numel() for tensor in whole.values())
    config = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == sorted([*WHOLE, "score"])
    base = load_file(ground.host("llama") / "model.safetensors")
    state = load_checkpoint(trained / "checkpoints" / "best.ckpt")["state_dict"]
    for name in WHOLE:
        mine = whole[f"base_model.model.{name}.weight"]
        assert not torch.equal(mine, base[f"{name}.weight"])
        assert torch.equal(mine, state[f"network.{name}.weight"])
    plan = trained / "lora.toml"
    line = ["--model", "llama_lora", "--load", ground.host("llama"), "--lora-config", plan, "--json"]
    assert count([str(word) for word in line]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in ("adapters", "head", "other")} == {
        name: counts[name] for name in ("adapters", "head", "other")
    }
    assert found["trainable"] == counts["total"]


def test_checkpoint_and_adapter_give_the_number_of_the_run(trained, place, ground):
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    adapter = run(place / "a", "test", "llama_lora", "rte", "--adapter", trained / "adapter", *data)
    best = trained / "checkpoints" / "best.ckpt"
    checkpoint = run(place / "c", "test", "--load", best, "--load-type", "pl")
    value = summary(trained)["metric"]["value"]
    assert summary(adapter)["metric"]["value"] == summary(checkpoint)["metric"]["value"] == value


def test_a_killed_run_resumes_to_the_same_bytes(trained, place, words):
    directory, log = place / "killed", place / "killed.log"
    line = [str(w) for w in (*words(*NAMES), "--project-dir", place, "--project", directory.name)]
    assert fork(child, "step", 3, "SIGKILL", line, log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(directory) == comparable(trained)


def test_training_starts_from_the_adapter(trained, place, ground):
    line = ground.words("llama", lora_config=None, adapter=trained / "adapter", max_steps=1, learning_rate=0)
    on = run(place / "on", *line)
    assert (
        comparable(on)["adapter/adapter_model.safetensors"]
        == (comparable(trained)["adapter/adapter_model.safetensors"])
    )
    assert summary(on)["trainable_parameters"] == summary(trained)["trainable_parameters"]


def test_a_misspelt_name_is_refused(ground, words, capsys):
    assert launch(*words("embed_token"), "--dry-run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "embed_token.toml: modules_to_save: no module 'embed_token' that has weights;"
        " did you mean 'embed_tokens'?"
    )


def test_a_search_leaves_them_alone_while_it_scores(place, words):
    line = words("norm", importance_test_name="synflow", imp_limit_test_batches=1)
    assert run(place / "scored", "imp-test", *line[1:]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_losses_of_one(place, words, strategy):
    line = words(*NAMES, batch_size=None, max_steps=3)
    one = run(place / f"one-{strategy}", *line, "--batch-size", 8)
    two = ("--batch-size", 4, "--num-devices", 2, "--accelerator", "cpu", "--strategy", strategy)
    done = program(*line, *two, "--project-dir", place, "--project", f"two-{strategy}")
    assert done.returncode == 0, done.stderr
    assert rows(place / f"two-{strategy}") == pytest.approx(rows(one), rel=1e-4)
