"""A search that was killed and resumed decides as if it had not been; every record has the same bytes."""

import random
import shutil

import pytest

from model.search.history import read_history
from model.tensors.checkpoint import load_checkpoint
from tests.support.killed import child
from tests.support.runs import comparable, files, fork, launch, run, summary

MODES = ("combined", "separated")
STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("dyrealloc-resume")


@pytest.fixture(scope="module")
def words(ground):
    """Two epochs of five batches in three updates, decisions at batches 0 and 3: the second amid a window."""

    def make(mode, **options):
        defaults = {
            "lora_config": ground.plan("dyrealloc-resume", lora_dropout=0.1),
            "shortcut_config": ground.shortcuts("dyrealloc-resume-cuts", proj_dropout=0.1),
            "dataset_dir": ground.rte("RTE36", train=36),
            "importance_test_name": "grad_norm",
            "dyrealloc_ags_mode": mode,
            "realloc_N": 3,
            "imp_limit_test_batches": 2,
            "accumulate_grad_batches": 2,
            "checkpoint_every_n_steps": 1,
            "log_every_n_steps": 1,
            "weight_decay": 0.1,
            "lr_scheduler": "cosine_annealing",
            "learning_rate": 0.1,
            "early_stopping_patience": 5,
        }
        _, *rest = ground.words(**{**defaults, **options})
        return ["train-dyrealloc", *rest]

    return make


@pytest.fixture(scope="module")
def whole(place, words):
    """Return a function that runs a mode to the end, once."""

    def call(mode, **options):
        directory = place / "-".join(["whole", mode, *map(str, options.values())])
        return directory if directory.exists() else run(directory, *words(mode, **options))

    return call


def _interrupted(directory, words, point, step, name="SIGKILL", code=-9):
    words = [*words, "--project-dir", directory.parent, "--project", directory.name]
    log = directory.with_name(f"{directory.name}.log")
    assert fork(child, point, step, name, [str(word) for word in words], log) == code, log.read_text()
    return directory


def _go_on(directory):
    checkpoint = directory / "checkpoints" / "last.ckpt"
    return launch("train-dyrealloc", "--resume-training", "--load", checkpoint, "--load-type", "pl")


def _assert_equal(directory, whole):
    found, expected = comparable(directory), comparable(whole)
    assert {"search/history.toml", "search/frequency.toml", "metrics.csv", "summary.json"} <= set(expected)
    assert found == expected
    assert (directory / "config.toml").read_bytes() == (whole / "config.toml").read_bytes()
    plain = [
        {name for name in files(one) if not name.startswith("tensorboard/")} for one in (directory, whole)
    ]
    assert plain[0] == plain[1]
    for name in ("best.ckpt", "last.ckpt"):
        mine, theirs = (load_checkpoint(one / "checkpoints" / name) for one in (directory, whole))
        assert mine["switches"] == theirs["switches"]
        assert all(mine["state_dict"][n].equal(tensor) for n, tensor in theirs["state_dict"].items())
        ours, others = (one["optimizer_states"][0]["state"] for one in (mine, theirs))
        assert ours.keys() == others.keys()
        for number, state in others.items():
            assert all(ours[number][n].equal(tensor) for n, tensor in state.items())


def _check(place, words, whole, mode, point, step, **options):
    directory = place / "-".join([mode, point, str(step), *map(str, options.values())])
    _interrupted(directory, words(mode, **options), point, step)
    assert not (directory / "summary.json").exists()
    assert _go_on(directory) == 0
    _assert_equal(directory, whole(mode, **options))


def test_decisions_fall_within_accumulation_windows(whole):
    history = read_history(whole("combined") / "search" / "history.toml")
    assert [(one.epoch, one.step) for one in history.reallocations] == [(0, 0), (0, 3), (1, 0), (1, 3)]
    assert len({one.on for one in history.reallocations}) > 1
    assert summary(whole("combined"))["steps"] == STEPS


@pytest.mark.parametrize(
    ("mode", "point", "step"),
    [
        ("separated", "decision", 0),  # the first decision is written, no batch was computed
        ("combined", "decision", 1),  # amid a window, behind its checkpoint
        ("separated", "decision", 3),  # an epoch's first
        # In the middle of an epoch, before the checkpoint of the step.
        pytest.param("separated", "recorded", 2, marks=pytest.mark.slow),
        # best.ckpt is newer than last.ckpt.
        pytest.param("combined", "best", 3, marks=pytest.mark.slow),
        pytest.param("combined", "export", 6, marks=pytest.mark.slow),
    ],
)
def test_a_killed_search_resumes_exactly(place, words, whole, mode, point, step):
    _check(place, words, whole, mode, point, step)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("point", ["decision", "recorded", "step"])
@pytest.mark.parametrize("mode", MODES)
def test_every_step_may_be_the_last(place, words, whole, mode, point, step):
    at = step if point == "decision" else step + 1
    if point == "decision" and step not in (0, 1, 3, 4):
        pytest.skip("no decision falls on it")
    _check(place, words, whole, mode, point, at, checkpoint_every_n_steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("point", "step"), [("epoch", 3), ("best", 6), ("epoch", 6), ("report", 6)])
def test_the_ends_of_epochs_may_be_the_last(place, words, whole, mode, point, step):
    _check(place, words, whole, mode, point, step)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "synflow", "fisher", "alpha_test", "constant"])
def test_every_heuristic_resumes_exactly(place, words, whole, method):
    options = {"importance_test_name": method, "score_init": "random_b", "constant_warmup_epochs": 1}
    _check(place, words, whole, "combined", "decision", 4, **options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_every_instant_may_be_the_last(place, words, whole, seed):
    """Kill at random instants until the run is complete."""
    generator = random.Random(seed)
    directory = place / f"instant{seed}"
    last = directory / "checkpoints" / "last.ckpt"
    for attempt in range(40):
        log = place / f"instant{seed}-{attempt}.log"
        if last.exists():
            argued = ["train-dyrealloc", "--resume-training", "--load", str(last), "--load-type", "pl"]
        else:
            shutil.rmtree(directory, ignore_errors=True)
            argued = [*words("separated"), "--project-dir", place, "--project", directory.name]
        code = fork(child, None, 0, "", list(map(str, argued)), log, after=generator.uniform(0.5, 4.0))
        assert code in (0, -9), log.read_text()
        if code == 0:
            break
    else:
        assert _go_on(directory) == 0
    _assert_equal(directory, whole("separated"))


def test_a_stopped_search_is_reported_and_resumes_exactly(place, words, whole):
    directory = place / "stopped"
    _interrupted(directory, words("combined"), "step", 4, "SIGTERM", 143)
    history = read_history(directory / "search" / "history.toml")
    assert len(history.reallocations) == 3
    assert _go_on(directory) == 0
    _assert_equal(directory, whole("combined"))


def test_a_changed_action_or_option_is_refused(place, words, whole, capsys):
    directory = _interrupted(place / "changed", words("combined"), "step", 2)
    last = ("--load", directory / "checkpoints" / "last.ckpt", "--load-type", "pl", "--resume-training")
    for given, line in (
        (("--realloc-N", "2"), "--realloc-N: realloc_N: the run began with 3, got 2"),
        (("--turn-on-percentile", "0.5"), "the run began with 0.25, got 0.5"),
        (("--dyrealloc-ags-mode", "off"), 'the run began with "combined", got "off"'),
    ):
        assert launch("train-dyrealloc", *last, *given) == 2
        assert line in capsys.readouterr().err
    assert launch("train", *last) == 2
    assert "train-dyrealloc" in capsys.readouterr().err


def test_a_test_uses_the_switches_of_the_best_step(place, ground, words):
    """The best step is not the last one: its checkpoint holds its own choice."""
    for seed in range(4):
        options = {"learning_rate": 0.05, "max_epochs": 4, "seed": seed, "early_stopping_patience": None}
        done = run(place / f"best-{seed}", *words("separated", **options))
        best, last = (
            load_checkpoint(done / "checkpoints" / f"{n}.ckpt")["switches"] for n in ("best", "last")
        )
        if summary(done)["metric"]["best_step"] < summary(done)["steps"] and best != last:
            break
    else:
        pytest.fail("in no run the best step is another than the last and differs from it in its choice")
    checkpoint = ("--load", done / "checkpoints" / "best.ckpt", "--load-type", "pl")
    tested = summary(run(place / "of-best", "test", *checkpoint))
    assert tested["metric"]["value"] == summary(done)["metric"]["value"]
    expected = summary(done)["metrics"]["val/loss"]
    assert tested["metrics"]["test/loss"] == pytest.approx(expected, rel=1e-6)
    chosen = read_history(done / "search" / "history.toml").reallocations
    epoch = (summary(done)["metric"]["best_step"] - 1) // 3
    at_best = [one for one in chosen if one.epoch == epoch][-1]
    assert {name for name, on in best.items() if on} == {str(key) for key in at_best.on}
