"""The summary is plain and comparable, the report one page of the same numbers."""

import json
import math
import os

import pytest

from model.run.report import Summary, write_report

METRIC = {"name": "val/accuracy", "direction": "max", "split": "validation", "value": 0.75, "best_step": 4}
ROWS = {"read": 12, "used": 11, "refused": 1, "reasons": ["line 3: no label"]}
SPLITS = {"train": {"read": 8, "used": 7, "refused": 1}, "validation": {"read": 4, "used": 4, "refused": 0}}
RECORD = [
    (1, 0, "train/loss", 1.5),
    (2, 0, "train/loss", 1.25),
    (2, 0, "val/accuracy", 0.5),
    (4, 1, "train/loss", 1.0),
    (4, 1, "val/accuracy", 0.75),
]


def _summary(**changes):
    plain = {
        "metric": METRIC,
        "metrics": {"val/loss": 0.5, "val/accuracy": 0.75},
        "trainable_parameters": {"adapters": 1024, "head": 6, "total": 1030},
        "steps": 4,
        "rows": ROWS | {"splits": SPLITS},
        "search": {"decisions": 0, "enabled": 3, "eligible": 4},
    }
    return Summary(**plain | changes)


def test_the_summary_holds_what_it_was_given_and_nothing_else(tmp_path):
    _summary().write(tmp_path / "summary.json")
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content == {
        "metric": METRIC,
        "metrics": {"val/loss": 0.5, "val/accuracy": 0.75},
        "trainable_parameters": {"adapters": 1024, "head": 6, "total": 1030},
        "steps": 4,
        "rows": ROWS | {"splits": SPLITS},
        "search": {"decisions": 0, "enabled": 3, "eligible": 4},
    }
    assert os.listdir(tmp_path) == ["summary.json"]


def test_equal_results_give_equal_bytes_whatever_their_order(tmp_path):
    turned = dict(reversed(_summary().metrics.items()))
    _summary().write(tmp_path / "a")
    _summary(metrics=turned).write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_text().endswith("}\n")


def test_numbers_keep_their_full_precision(tmp_path):
    _summary(metrics={"val/loss": 0.1 + 0.2}).write(tmp_path / "a")
    assert json.loads((tmp_path / "a").read_text())["metrics"]["val/loss"] == 0.1 + 0.2


def test_the_report_is_one_page_of_the_same_numbers(tmp_path):
    write_report(tmp_path, _summary(), RECORD, {"model": "opt_lora", "data set": "rte"})
    text = (tmp_path / "report.md").read_text()
    for line in (
        "| model | opt_lora |",
        "`val/accuracy` = **0.75** (max) at step 4 of 4.",
        "| val/loss | 0.5 |",
        "| adapters | 1,024 |",
        "| train | 8 | 7 | 1 |",
        "![training loss and evaluations](curves.png)",
    ):
        assert line in text.splitlines()
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "report.md"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_run_without_training_or_value_has_no_curves(tmp_path, value):
    write_report(tmp_path, _summary(metric=METRIC | {"value": value}), [], {"model": "m"})
    text = (tmp_path / "report.md").read_text()
    assert os.listdir(tmp_path) == ["report.md"]
    assert "curves.png" not in text
    assert ("**" in text) == (value is not None)


def test_json_has_null_where_a_metric_is_undefined(tmp_path):
    metric = {"name": "val/pearson", "direction": "max", "split": "test", "value": math.nan, "best_step": 0}
    metrics = {"test/pearson": math.nan, "test/loss": 1.0, "test/perplexity": math.inf}
    Summary(metric, metrics, {}, 0, {}, {}).write(tmp_path / "summary.json")
    found = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert found["metrics"] == {"test/pearson": None, "test/loss": 1.0, "test/perplexity": None}
    assert found["undefined"] == ["test/pearson", "test/perplexity"]
    assert found["metric"]["value"] is None
    Summary(metric | {"value": 1.0}, {"test/loss": 1.0}, {}, 0, {}, {}).write(tmp_path / "defined.json")
    assert "undefined" not in json.loads((tmp_path / "defined.json").read_text())
