"""Results of runs side by side, statistics over seeds, and what is no run."""

import json

import pytest

from tests.tools.words import refused
from tools.compare_runs import main


@pytest.fixture
def runs(tmp_path):
    for name, rate, metrics in (
        ("one", 0.1, {"val/loss": 0.5}),
        ("two", 0.2, {"val/loss": 0.25, "test/exact_match": 1.0}),
        ("three", 0.1, {"val/loss": 0.25}),
    ):
        (tmp_path / name).mkdir()
        content = {
            "metric": {"name": "val/loss", "split": "validation", "best_step": 4},
            "metrics": metrics,
            "trainable_parameters": {"total": 1234},
            "steps": 7,
        }
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
        (tmp_path / name / "config.toml").write_text(f"seed = {len(name)}\nlearning_rate = {rate}\n")
    return tmp_path


def test_runs_are_listed_with_their_group(runs, capsys):
    assert main([str(runs / name) for name in ("one", "two", "three")]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["run", "seed", "test/exact_match", "val/loss", "best step", "steps", "trainable parameters"],
        ["one", "3", "0.5", "4", "7", "1,234"],
        ["three", "5", "0.25", "4", "7", "1,234"],
        ["mean ± sd of 2", "0.375 ± 0.18", "4 ± 0", "7 ± 0"],
        ["median of 2", "0.375", "4", "7"],
        ["two", "3", "1", "0.25", "4", "7", "1,234"],
    ]


def test_json(runs, capsys):
    assert main(["--json", str(runs / "one"), str(runs / "three")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][0] == {
        "run": str(runs / "one"),
        "seed": 3,
        "metrics": {"val/loss": 0.5},
        "best_step": 4,
        "steps": 7,
        "trainable_parameters": 1234,
    }
    (group,) = found["groups"]
    assert (group["seeds"], group["metrics"]["val/loss"]["median"]) == ([3, 5], 0.375)
    assert group["best_step"] == {"mean": 4.0, "sd": 0.0, "median": 4.0, "n": 2}


def test_a_run_without_its_configuration_is_its_own_group(runs, capsys):
    (runs / "three" / "config.toml").unlink()
    assert main([str(runs / "one"), str(runs / "three")]) == 0
    assert "mean" not in capsys.readouterr().out


def test_every_directory_that_is_no_run_is_named(runs):
    (runs / "list").mkdir()
    (runs / "list" / "summary.json").write_text("[]")
    assert refused("tools.compare_runs", runs / "one", runs / "gone", runs / "list") == [
        f"error: {runs / 'gone'}: no summary.json: the run is not finished, or this is not a run directory",
        f"error: {runs / 'list' / 'summary.json'}: not the summary of a run, which has metric, metrics,"
        " trainable_parameters, steps",
    ]


def test_a_run_is_required():
    assert refused("tools.compare_runs") == ["error: RUN: required"]
    assert refused("tools.compare_runs", "--runs") == [
        "error: --runs: unknown option",
        "error: RUN: required",
    ]
