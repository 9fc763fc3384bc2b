"""Results of runs side by side, and what is no run."""

import json

import pytest

from tests.tools.words import refused
from tools.compare_runs import main


@pytest.fixture
def runs(tmp_path):
    for name, metrics in (("one", {"val/loss": 0.5}), ("two", {"val/loss": 0.25, "test/exact_match": 1.0})):
        (tmp_path / name).mkdir()
        content = {"metrics": metrics, "trainable_parameters": {"total": 1234}, "steps": 7}
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
    return tmp_path


def test_runs_stand_side_by_side(runs, capsys):
    assert main([str(runs / "one"), str(runs / "two")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["one", "two"],
        ["test/exact_match", "1"],
        ["val/loss", "0.5", "0.25"],
        ["trainable", "parameters", "1,234", "1,234"],
        ["steps", "7", "7"],
    ]


def test_every_directory_that_is_no_run_is_named(runs):
    (runs / "list").mkdir()
    (runs / "list" / "summary.json").write_text("[]")
    assert refused("tools.compare_runs", runs / "one", runs / "gone", runs / "list") == [
        f"error: {runs / 'gone'}: no summary.json; the run is not finished, or this is no run",
        f"error: {runs / 'list' / 'summary.json'}: is no run's summary, which has metrics,"
        " trainable_parameters, steps",
    ]


def test_a_run_is_required():
    assert refused("tools.compare_runs") == ["error: RUN: required"]
    assert refused("tools.compare_runs", "--runs") == [
        "error: --runs: unknown option",
        "error: RUN: required",
    ]
