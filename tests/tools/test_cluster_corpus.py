"""The tool reads files and data sets, writes report and curve, and refuses wrong words early."""

import json
import tomllib

import pytest

from configs.toml_text import toml_text
from tests.dataset.test_clustering import planted
from tests.tiny import write_gsm8k
from tests.tools.words import refused
from tools.cluster_corpus import main


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in planted(45, 3)))
    return path


def test_a_file_gives_a_report_and_a_curve(corpus, tmp_path, capsys):
    assert main([str(corpus), "--kmax", "6"]) == 0
    report = tomllib.loads((tmp_path / "clusters.toml").read_text())
    assert (report["chosen"], [one["size"] for one in report["clusters"]]) == (3, [15, 15, 15])
    assert [point["k"] for point in report["curve"]] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "45 of 45 texts, 18 terms, kmeans: N = 3" in printed
    assert any(line.split()[0] == "3" and line.endswith("elbow") for line in printed.splitlines())
    assert f"written: {tmp_path / 'clusters.png'}" in printed


def test_json_is_the_report(corpus, tmp_path, capsys):
    assert (
        main([str(corpus), "--json", "--method", "dbscan", "--min-samples", "4", "--output", "a.toml"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == tomllib.loads((tmp_path / "a.toml").read_text())
    assert not (tmp_path / "a.png").exists()


def test_a_data_set_gives_what_training_learns_from(corpus, tmp_path, capsys):
    write_gsm8k(tmp_path / "gsm8k", train=40)
    assert main(["--dataset", "gsm8k", "--dataset-dir", "gsm8k", "--kmax", "3"]) == 0
    assert tomllib.loads((tmp_path / "clusters.toml").read_text())["texts"] == 38  # two are held out


def test_a_mixture_is_told_by_its_toml(corpus, tmp_path, capsys):
    write_gsm8k(tmp_path / "gsm8k", train=40)
    own = {
        "dataset": "local",
        "name": "own",
        "train": str(corpus),
        "template": "{prompt} ",
        "response": "prompt",
    }
    sets = [{"dataset": "gsm8k", "dataset_dir": str(tmp_path / "gsm8k")}, own]
    (tmp_path / "run.toml").write_text(toml_text({"dataset": "mix", "seed": 5, "data": {"mix": sets}}))
    assert main(["--config", "run.toml"]) == 0
    report = tomllib.loads((tmp_path / "clusters.toml").read_text())
    assert report["seed"] == 5
    assert sum(one["parts"].get("gsm8k", 0) for one in report["clusters"]) == 38
    assert sum(one["parts"].get("own", 0) for one in report["clusters"]) == 43


def test_wrong_words_are_refused_before_anything_is_loaded(corpus, tmp_path):
    taken, free = tmp_path / "taken.toml", tmp_path / "free.toml"
    taken.write_text("mine")
    words = (corpus, "--dataset", "gsm8k", "--eps", 0.5, "--output", taken)
    assert refused("tools.cluster_corpus", *words) == [
        "error: --dataset: FILES stand in the place of a data set; give one of them",
        "error: --eps: not for --method kmeans",
        f"error: --output: '{taken}' exists, nothing is written over",
    ]
    assert refused("tools.cluster_corpus", "--output", free) == ["error: FILES: required, or --dataset"]
    assert refused("tools.cluster_corpus", "--dataset", "gsm8", "--output", free)[0].endswith(
        "did you mean 'gsm8k'?"
    )
    (tmp_path / "run.toml").write_text("seed = 1\n")
    assert refused("tools.cluster_corpus", "--config", tmp_path / "run.toml", "--output", free) == [
        f"error: --dataset: required, '{tmp_path / 'run.toml'}' names none"
    ]
