"""`heads = "auto"`: the corpus is clustered before the network is built, and the run keeps the number."""

import json
import tomllib

import pytest

from configs.toml.writer import toml_text
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, run, summary
from tests.tools.words import refused
from tools.count_params import main as count_params

TABLES = {"all_layers": {"q_proj": {**ENTRY, "method": "hydra", "heads": "auto"}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("auto")


@pytest.fixture(scope="module")
def words(ground):
    return ground.words("llama", lora_config=ground.plan("auto", TABLES), checkpoint_every_n_steps=1)


@pytest.fixture(scope="module")
def trained(place, words):
    return run(place / "whole", *words)


def _report(directory):
    return tomllib.loads((directory / "search" / "clusters.toml").read_text())


def _heads(directory):
    extra = json.loads((directory / "adapter" / "metadata.json").read_text())["extra"]
    return {told["keys"]["heads"] for told in extra.values()}


def test_the_run_has_as_many_heads_as_its_corpus_has_clusters(trained, ground):
    report = _report(trained)
    assert _heads(trained) == {report["chosen"]}
    assert report["texts"] == len((ground.rte() / "train.tsv").read_text().splitlines()) - 1
    assert (trained / "search" / "clusters.png").read_bytes().startswith(b"\x89PNG")
    assert tomllib.loads((trained / "lora.toml").read_text())["all_layers"]["q_proj"]["heads"] == "auto"


def test_a_checkpoint_is_tested_with_the_number_of_its_run(trained, place):
    best = trained / "checkpoints" / "best.ckpt"
    tested = run(place / "tested", "test", "--load", best, "--load-type", "pl")
    assert summary(tested)["metric"]["value"] == summary(trained)["metric"]["value"]
    assert not (tested / "search").exists()


def test_a_killed_run_resumes_with_the_recorded_number(trained, place, words):
    directory = place / "killed"
    line = [str(word) for word in (*words, "--project-dir", place, "--project", directory.name)]
    assert fork(child, "step", 3, "SIGKILL", line, place / "log") == -9, (place / "log").read_text()
    before = (directory / "search" / "clusters.toml").read_bytes()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(directory) == comparable(trained)
    assert (directory / "search" / "clusters.toml").read_bytes() == before


def test_a_recorded_number_is_read_instead_of_clustering_again(place, ground, capsys):
    copy = place / "copied"
    (copy / "search").mkdir(parents=True)
    (copy / "lora.toml").write_text(toml_text({"default": ENTRY, **TABLES}))
    (copy / "search" / "clusters.toml").write_text("chosen = 0\n")
    line = ("train", "llama_lora", "arithmetic", "--lora-config", copy / "lora.toml", "--print-config")
    assert launch(*line, "--load", ground.host("llama")) == 2
    path = copy / "search" / "clusters.toml"
    assert capsys.readouterr().err.strip() == (
        f"error: {path}: chosen: must be a whole number of at least 1, got 0"
    )


def test_the_corpus_of_a_mixture_consists_of_all_parts(place, ground, capsys):
    line = ground.words("llama", lora_config=ground.plan("auto", TABLES), dataset_dir=None)
    line = ["train", "llama_lora", "--config", str(ground.mixture()), *line[3:], "--max-steps", "1"]
    directory = run(place / "mixture", *line)
    report = _report(directory)
    assert report["texts"] == 50
    counts = {part: sum(one["parts"].get(part, 0) for one in report["clusters"]) for part in ("gsm8k", "own")}
    assert counts == {"gsm8k": 38, "own": 12}
    assert _heads(directory) == {report["chosen"]}
    assert 'note: heads = "auto": 50 of 50 texts' in capsys.readouterr().out


def test_an_action_that_reads_no_training_texts_is_refused(ground, place, capsys):
    plan = ground.plan("auto", TABLES)
    line = ("test", "llama_lora", "rte", "--load", ground.host("llama"), "--lora-config", plan)
    assert launch(*line, "--dataset-dir", ground.rte(), "--project-dir", place) == 2
    assert capsys.readouterr().err.strip() == (
        f'error: {plan}: [all_layers.q_proj] heads: "auto" needs the training texts, which test does not'
        " read; write the number"
    )


def test_parameters_are_counted_with_the_number_of_a_run_alone(trained, ground, capsys):
    words = ("--model", "llama_lora", "--load", ground.host("llama"), "--lora-config")
    plan = ground.plan("auto", TABLES)
    assert refused("tools.count_params", *words, plan) == [
        f'error: {plan}: [all_layers.q_proj] heads: "auto" needs the training texts, which this tool does'
        " not read; write the number"
    ]
    assert count_params([*map(str, words), str(trained / "lora.toml"), "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    trained_numbers = summary(trained)["trainable_parameters"]
    assert counted["adapters"] == trained_numbers["adapters"]


def test_auto_heads_are_refused_for_a_method_without_heads(ground, place, capsys):
    tables = {"all_layers": {"q_proj": {**ENTRY, "heads": "auto"}}}
    line = ground.words("llama", lora_config=ground.plan("auto-lora", tables))
    assert launch(*line, "--project-dir", place, "--project", "refused") == 2
    assert "heads" in capsys.readouterr().err
    assert not (place / "refused").exists()
