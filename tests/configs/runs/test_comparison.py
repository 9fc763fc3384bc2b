"""Groups of runs that differ in the seed alone, and their statistics."""

import json
import math

import pytest

from configs.runs.comparison import groups, over, read_results, report, table
from configs.runtime.faults import InputFault


@pytest.fixture
def make(tmp_path):
    def one(name, seed, accuracy, best=10, split="validation", config="learning_rate = 0.1", **further):
        run = tmp_path / name
        run.mkdir()
        content = {
            "metric": {"name": "val/accuracy", "split": split, "best_step": best},
            "metrics": {"val/accuracy": accuracy, **further},
            "trainable_parameters": {"total": 1234},
            "steps": 20,
        }
        (run / "summary.json").write_text(json.dumps(content))
        (run / "config.toml").write_text(f'seed = {seed}\nproject_dir = "{seed}"\n{config}\n')
        return run

    return one


def test_the_statistics_are_those_of_the_formula(make):
    values, steps = (0.5, 0.75, 0.875), (10, 20, 18)
    runs = [make(f"r{k}", k, *pair) for k, pair in enumerate(zip(values, steps))]
    (group,) = groups(read_results(runs))
    found = over(group)
    mean = sum(values) / 3
    one = found["val/accuracy"]
    assert one.mean == pytest.approx(mean)
    assert one.sd == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / (3 - 1)))
    assert (one.median, one.n) == (0.75, 3)
    assert (found["best step"].mean, found["best step"].median, found["best step"].sd) == (16, 18, 28**0.5)


def test_two_runs_take_the_mean_for_the_median_and_one_has_no_deviation(make):
    (pair,) = groups(read_results([make("a", 0, 0.5), make("b", 1, 1.0)]))
    assert over(pair)["val/accuracy"].median == 0.75
    assert over(pair[:1])["val/accuracy"].sd is None


def test_a_number_that_is_not_finite_is_shown_and_null_in_json(make):
    results = read_results([make("a", 0, 0.5), make("b", 1, math.nan)])
    assert table(results)[1][2][2] == "nan ± nan"
    found = report(results)
    assert found["runs"][1]["metrics"] == {"val/accuracy": None}
    assert found["groups"][0]["metrics"]["val/accuracy"] == {"mean": None, "sd": None, "median": None, "n": 2}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "other", [{"config": "learning_rate = 0.2"}, {"split": "test"}], ids=["option", "split"]
)
def test_runs_of_other_experiments_are_separate_groups(make, other):
    runs = [make("a", 0, 0.5), make("b", 0, 0.5, **other), make("c", 1, 0.7)]
    found = [[one.run.name for one in group] for group in groups(read_results(runs))]
    assert found == [["a", "c"], ["b"]]


def test_a_metric_that_one_run_lacks_has_no_statistics(make):
    results = read_results([make("a", 0, 0.5), make("b", 1, 0.5, **{"val/loss": 2.0})])
    columns, rows = table(results)
    place = columns.index("val/loss")
    assert [row[place] for row in rows] == ["", "2", "", ""]
    assert "val/loss" not in report(results)["groups"][0]["metrics"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"metrics": {"a": "b"}}, "metrics: a: must be a number, got 'b'"),
        ({"metric": 3}, "metric: must be an object"),
        ({"steps": None}, "steps: must be a number, got None"),
        ({"trainable_parameters": {}}, "trainable_parameters: total: must be a number, got None"),
    ],
)
def test_a_summary_without_numbers_is_refused(tmp_path, changes, word):
    whole = {
        "metric": {"name": "val/x", "best_step": 1},
        "metrics": {"val/x": None},
        "trainable_parameters": {"total": 3},
        "steps": 2,
    }
    (tmp_path / "summary.json").write_text(json.dumps(whole))
    (result,) = read_results([tmp_path])
    assert math.isnan(result.numbers["val/x"])
    (tmp_path / "summary.json").write_text(json.dumps(whole | changes))
    with pytest.raises(InputFault, match=word):
        read_results([tmp_path])


def test_a_run_given_twice_is_refused(tmp_path):
    with pytest.raises(InputFault) as refused:
        read_results([tmp_path, tmp_path])
    assert refused.value.lines[0] == f"RUN: '{tmp_path}' is given twice"
