"""`train-dyrealloc` from the command line: decisions, files, what is off, what equals plain training."""

import json

import pytest
import tomli

from configs.runtime import kinds
from model.search.history import frequency, frequency_text, read_frequency, read_history
from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import comparable, files, launch, run, summary

SCORED = ("grad_norm", "snip", "synflow", "fisher", "alpha_test", "constant")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("dyrealloc")


@pytest.fixture(scope="module")
def words(ground):
    """Return a command line: two epochs of four batches, all sites, dropout, two batches an update."""

    def make(action="train-dyrealloc", family="opt", **options):
        defaults = {
            "lora_config": ground.plan("dyrealloc", lora_dropout=0.1),
            "accumulate_grad_batches": 2,
            "log_every_n_steps": 1,
        }
        _, *rest = ground.words(family, **{**defaults, **options})
        return [action, *rest]

    return make


@pytest.fixture(scope="module")
def searched(place, words):
    """A run that decides at every second batch; a quarter of 18 modules is on."""
    options = {"importance_test_name": "grad_norm", "realloc_N": 2, "imp_limit_test_batches": 2}
    return run(place / "searched", *words(**options, turn_on_percentile=0.25, weight_decay=0.1))


def test_it_decides_at_every_nth_batch_of_an_epoch_and_keeps_the_budget(searched):
    history = read_history(searched / "search" / "history.toml")
    assert [(one.epoch, one.step) for one in history.reallocations] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert all(len(one.on) == 4 and len(one.scores) == 18 for one in history.reallocations)
    result = summary(searched)["search"]
    assert (result["decisions"], result["enabled"], result["eligible"]) == (4, 4, 18)


def test_the_frequency_is_that_of_the_history_and_both_are_drawn(searched):
    history = read_history(searched / "search" / "history.toml")
    assert read_frequency(searched / "search" / "frequency.toml") == frequency(history)
    text = (searched / "search" / "frequency.toml").read_text()
    assert text == frequency_text(frequency(history))
    assert (searched / "search" / "frequency.png").read_bytes().startswith(b"\x89PNG")
    assert "search/frequency.png" in (searched / "report.md").read_text()


def test_only_what_is_on_is_exported_and_the_adapter_gives_the_runs_number(searched, place):
    config = json.loads((searched / "adapter" / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == 4
    best = summary(searched)["metric"]
    for name, given in (
        ("by_adapter", ["--adapter", searched / "adapter"]),
        ("by_checkpoint", ["--load", searched / "checkpoints" / "best.ckpt", "--load-type", "pl"]),
    ):
        base = [] if name == "by_checkpoint" else ["--load", _option(searched, "load")]
        tested = run(
            place / name,
            "test",
            "opt_lora",
            "rte",
            *base,
            *given,
            "--dataset-dir",
            _option(searched, "dataset_dir"),
        )
        assert summary(tested)["metrics"]["test/loss"] == pytest.approx(
            summary(searched)["metrics"]["val/loss"], rel=1e-6
        )
        assert summary(tested)["search"]["enabled"] == 4
    assert best["value"] is not None


def _option(directory, name):
    return tomli.loads((directory / "config.toml").read_text())[name]


def test_what_was_never_on_is_unchanged_and_has_no_optimiser_state(searched):
    """No update, no decay, no moments, although weight decay is on."""
    counts = read_frequency(searched / "search" / "frequency.toml").counts
    asleep = [str(key) for key, count in counts.items() if count == 0]
    assert asleep
    checkpoint = load_checkpoint(searched / "checkpoints" / "last.ckpt")
    for name, tensor in checkpoint["state_dict"].items():
        if name.endswith(".B") and any(f".{key}." in name for key in asleep):
            assert not tensor.any()
    assert len(checkpoint["optimizer_states"][0]["state"]) == 2 * (18 - len(asleep)) + 1
    assert checkpoint["switches"].keys() == {str(key) for key in counts}


@pytest.mark.parametrize("method", SCORED)
def test_with_everything_on_it_is_plain_training_byte_for_byte(place, words, method, request):
    plain = request.getfixturevalue("plain")
    many = method != "alpha_test"  # which computes every batch several times for each module
    options = {"importance_test_name": method, "realloc_N": 1 if many else 4}
    options["imp_limit_test_batches"] = 2 if many else 1
    done = run(place / f"all_{method}", *words(**options, turn_on_percentile=1.0))
    assert (done / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    mine, theirs = (
        {name: content for name, content in comparable(one).items() if name.startswith("adapter/")}
        for one in (done, plain)
    )
    assert mine == theirs


@pytest.fixture(scope="module")
def plain(place, words):
    return run(place / "plain", *words("train"))


def test_every_kind_is_scored_here():
    assert set(SCORED) == set(kinds.names(kinds.HEURISTICS))


def test_constant_scores_first_then_the_heuristic(place, words):
    options = {"importance_test_name": "grad_norm", "realloc_N": 2, "constant_warmup_epochs": 1}
    history = read_history(run(place / "warm", *words(**options)) / "search" / "history.toml")
    first, second = history.reallocations[:2], history.reallocations[2:]
    assert all(set(one.scores.values()) == {1.0} for one in first)
    assert all(len(set(one.scores.values())) > 10 for one in second)
    assert first[0].on != first[1].on  # drawn again each time


def test_a_budget_of_parameters(place, words):
    options = {"importance_test_name": "fisher", "realloc_N": 2, "budget_params": 900}
    done = run(place / "parameters", *words(**options))
    history = read_history(done / "search" / "history.toml")
    assert all(sum(_size(key) for key in one.on) <= 900 for one in history.reallocations)


def _size(key):
    return 4 * (32 + (48 if key.role in ("w1", "w2") else 32))


def test_alpha_test_mixes_the_validation_set_in_and_records_its_scale(place, words):
    options = {"importance_test_name": "alpha_test", "realloc_N": 4, "imp_limit_test_batches": 1}
    done = run(place / "alpha", *words(**options, learning_rate=0.2))
    history = read_history(done / "search" / "history.toml")
    assert history.metadata == {"max_alpha": 10}
    assert all(score in range(11) for one in history.reallocations for score in one.scores.values())


def test_the_last_decision_of_a_history_can_be_applied(searched, place, words):
    path = searched / "search" / "history.toml"
    done = run(place / "applied", *words("train", realloc_hist_path=path))
    last = read_history(path).reallocations[-1]
    config = json.loads((done / "adapter" / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == len(last.on)
    assert summary(done)["search"] == {"decisions": 0, "enabled": 4, "eligible": 18}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"turn_on_percentile": 0.05},
            "--turn-on-percentile: a share of 0.05 of 18 modules turns none on; the",
        ),
        (
            {"budget_params": 10},
            "--budget-params: 10 parameters are too few for any of the 18 modules; the smallest",
        ),
        ({"budget_params": 10, "turn_on_percentile": 0.5}, "--budget-params: replaces --turn-on-percentile"),
        ({"compile": True}, "--compile: not with train-dyrealloc: every reallocation would compile"),
    ],
)
def test_invalid_options_are_refused_and_nothing_is_written(place, words, capsys, options, expected):
    made = [*words(**options), "--project-dir", place / "refused", "--project", "one"]
    assert launch(*made) == 2
    assert f"error: {expected}" in capsys.readouterr().err
    assert not (place / "refused").exists()


def test_a_history_of_other_modules_is_refused(searched, place, words, ground, capsys):
    path = searched / "search" / "history.toml"
    plan = ground.plan(
        "fewer",
        {
            "all_layers": {
                "w2": {
                    "r": 0,
                    "lora_alpha": 8,
                    "lora_dropout": 0.0,
                    "adapter_name": "default",
                    "disable_adapter": False,
                }
            }
        },
    )
    made = words("train", lora_config=plan, realloc_hist_path=path)
    assert launch(*made, "--project-dir", place / "odd") == 2
    assert "history.toml: layer_0/w2 is no module of the configurations given" in capsys.readouterr().err


def test_no_other_file_is_left_with_the_records(searched):
    left = {name for name in files(searched) if name.startswith("search/")}
    assert left == {"search/history.toml", "search/frequency.toml", "search/frequency.png"}
