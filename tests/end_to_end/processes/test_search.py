"""A search in two processes: one choice, equal weights, what one process would have done."""

import pytest
import torch

from model.search.history import read_history
from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import comparable, pair, program, rows, run, summary


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("dyrealloc-processes")


@pytest.fixture(scope="module")
def words(ground):
    """Two epochs of four batches, two an update, a decision at each: half of them amid a window."""

    def make(batch_size, action="train-dyrealloc", **options):
        defaults = {
            "dataset_dir": ground.rte("RTE7", train=32, dev=7),
            "shortcut_config": ground.shortcuts(),
            "importance_test_name": "grad_norm",
            "dyrealloc_ags_mode": "separated",
            "realloc_N": 1,
            "imp_limit_test_batches": 3,
            "accumulate_grad_batches": 2,
            "weight_decay": 0.1,
            "learning_rate": 0.05,
            "log_every_n_steps": 1,
        }
        _, *rest = ground.words("llama", batch_size=batch_size, **{**defaults, **options})
        return [action, *rest]

    return make


def _both(directory, words, code=0, driver=("epoch", 4, "all", "digest")):
    """Run in two processes and return what was printed."""
    words = [*words, "--project-dir", directory.parent, "--project", directory.name]
    options = ("--num-devices", 2, "--accelerator", "cpu")
    done = program(*driver, *words, *options, module="tests.support.killed")
    assert done.returncode == code, done.stderr
    return done


def _digests(printed):
    """Return the digest of weights, switches and optimiser that each process printed at its end."""
    return dict(line.split()[1:] for line in printed.splitlines() if line.startswith("digest "))


@pytest.fixture(scope="module")
def two(place, words):
    """A search of two processes with batches of four each, under the strategy `auto`, and what it printed."""
    return place / "two", pair(place / "two", *words(4), driver=("epoch", 4, "all", "digest"))


@pytest.fixture(scope="module")
def one(place, words):
    """The same search in one process with batches of eight."""
    return run(place / "one", *words(8))


def _history(directory):
    return read_history(directory / "search" / "history.toml").reallocations


def test_two_processes_decide_as_one_does(two, one):
    """The first scores are equal to the last digit; later ones stem from weights that agree to rounding."""
    mine, theirs = _history(two[0]), _history(one)
    assert [(d.epoch, d.step, d.on) for d in mine] == [(d.epoch, d.step, d.on) for d in theirs]
    assert len(mine) == 8
    assert len({d.on for d in mine}) > 1
    assert mine[0].scores == theirs[0].scores
    for found, expected in zip(mine, theirs):
        assert dict(found.scores) == pytest.approx(dict(expected.scores), rel=1e-3)
    frequencies = [(done / "search" / "frequency.toml").read_bytes() for done in (two[0], one)]
    assert frequencies[0] == frequencies[1]
    assert summary(two[0])["search"] == summary(one)["search"]


def test_two_processes_learn_what_one_does(two, one):
    losses = [list(rows(done).values()) for done in (two[0], one)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    weights = [load_checkpoint(done / "checkpoints" / "last.ckpt")["state_dict"] for done in (two[0], one)]
    # AdamW divides by a gradient's own size: rounding of one near 0 moves its weight by part of a step.
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-3)


def test_both_processes_hold_the_same_bits(two):
    found = _digests(two[1])
    assert set(found) == {"0", "1"}
    assert found["0"] == found["1"]


@pytest.mark.slow
def test_a_process_that_decides_differently_stops_all(place, words):
    done = _both(place / "differing", words(4), 4, ("choice", 0, 1, "differ"))
    line = "error: reallocation 0: 1 of 2 processes decided differently from the first"
    assert [one for one in done.stderr.splitlines() if "error" in one] == [line]
    assert "Traceback" not in done.stderr
    assert not (place / "differing" / "search" / "history.toml").exists()
    assert not (place / "differing" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true"])
def test_the_strategy_does_not_matter(place, words, two, strategy):
    done = _both(place / strategy, words(4, strategy=strategy))
    assert comparable(place / strategy) == comparable(two[0])
    assert _digests(done.stdout) == _digests(two[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "synflow", "fisher", "alpha_test", "constant"])
def test_every_heuristic_decides_alike(place, words, method):
    options = {"importance_test_name": method, "max_epochs": 1, "score_init": "random_b", "realloc_N": 2}
    done = _both(place / f"two-{method}", words(4, **options), driver=("epoch", 2, "all", "digest"))
    run(place / f"one-{method}", *words(8, **options))
    mine, theirs = (_history(place / f"{number}-{method}") for number in ("two", "one"))
    assert [d.on for d in mine] == [d.on for d in theirs]
    assert mine[0].scores == theirs[0].scores
    assert len(set(_digests(done.stdout).values())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["off", "combined", "separated"])
def test_with_everything_on_it_is_plain_training_byte_for_byte(place, words, mode):
    options = {"dyrealloc_ags_mode": mode, "turn_on_percentile": 1.0, "max_epochs": 1}
    searched = place / f"all-{mode}"
    _both(searched, words(4, **options), driver=("epoch", 2, "all", "digest"))
    plain = place / f"plain-{mode}"
    _both(plain, words(4, "train", max_epochs=1), driver=("epoch", 2, "all", "digest"))
    for name in ("metrics.csv", "adapter/adapter_model.safetensors", "adapter/extra.safetensors"):
        assert (searched / name).read_bytes() == (plain / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("point", "step", "rank"), [("decision", 1, 0), ("decision", 3, 1)])
def test_a_killed_search_of_two_processes_resumes_exactly(place, words, ground, point, step, rank):
    options = {"lora_config": ground.plan("drop3", lora_dropout=0.2), "checkpoint_every_n_steps": 1}
    whole = place / "dropped"
    if not whole.exists():
        _both(whole, words(4, **options))
    directory = place / f"killed-{step}"
    _both(directory, words(4, **options), -9 if rank == 0 else 4, (point, step, rank, "SIGKILL"))
    last = directory / "checkpoints" / "last.ckpt"
    resume = ["train-dyrealloc", "--resume-training", "--load", last, "--load-type", "pl"]
    done = program(*resume, "--num-devices", 2, "--accelerator", "cpu")
    assert done.returncode == 0, done.stderr
    assert comparable(directory) == comparable(whole)


@pytest.mark.slow
def test_a_score_that_is_not_finite_ends_both(place, words):
    done = _both(place / "exploded", words(4, learning_rate=1e20, log_every_n_steps=50), 3)
    faults = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert faults
    plain = {line.removeprefix("error: ").removeprefix("rank 1: ") for line in faults}
    assert all(line.startswith("reallocation 2, after step 1: layer_") for line in plain), faults
    assert "Traceback" not in done.stderr
