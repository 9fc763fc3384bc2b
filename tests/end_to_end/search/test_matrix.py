"""`train-dyrealloc` with every heuristic, data of other kinds, other precisions, several seeds."""

import pytest

from configs.runtime import kinds
from model.search.history import frequency, read_frequency, read_history
from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import launch, rows, run, summary

HEURISTICS = kinds.names(kinds.HEURISTICS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("dyrealloc-matrix")


@pytest.fixture(scope="module")
def words(ground):
    def make(family="llama", **options):
        defaults = {
            "importance_test_name": "grad_norm",
            "realloc_N": 2,
            "imp_limit_test_batches": 1,
            "max_epochs": 1,
            "log_every_n_steps": 1,
        }
        _, *rest = ground.words(family, **{**defaults, **options})
        return ["train-dyrealloc", *rest]

    return make


def _language(words, ground, **options):
    made = words("llama", dataset_dir=ground.gsm8k(), max_steps=3, limit_test_samples=1, **options)
    return [word if word != "rte" else "gsm8k" for word in made]


def _check(directory, share=0.25):
    history = read_history(directory / "search" / "history.toml")
    assert history.reallocations[0].step == 0
    count = len(history.reallocations[0].scores)
    assert all(len(one.on) == int(share * count) for one in history.reallocations)
    assert read_frequency(directory / "search" / "frequency.toml") == frequency(history)
    found = summary(directory)["search"]
    assert found["enabled"] == int(share * count)
    assert found["decisions"] == len(history.reallocations)
    return history


@pytest.mark.slow
@pytest.mark.parametrize("score_init", ["as_is", "random_b"])
@pytest.mark.parametrize("method", HEURISTICS)
@pytest.mark.parametrize("host", ["gsm8k", "roberta"])
def test_every_heuristic_on_either_kind_of_task(place, words, ground, host, method, score_init):
    options = {"importance_test_name": method, "score_init": score_init}
    made = _language(words, ground, **options) if host == "gsm8k" else words("roberta", **options)
    history = _check(run(place / f"{host}-{method}-{score_init}", *made))
    first = set(history.reallocations[0].scores.values())
    vanish = method == "constant" or (method in ("snip", "synflow") and score_init == "as_is")
    if method != "alpha_test":
        assert (len(first) == 1) == vanish


def test_random_b_distinguishes_modules_where_b_is_zero(place, words, ground, capsys):
    options = {"importance_test_name": "snip"}
    plain = _check(run(place / "as-is", *words("roberta", **options)))
    said = capsys.readouterr().out
    assert said.count("note: reallocation 0: all scores are equal, so the choice is random") == 1
    drawn = _check(run(place / "random-b", *words("roberta", score_init="random_b", **options)))
    assert "all scores are equal" not in capsys.readouterr().out
    assert set(plain.reallocations[0].scores.values()) == {0.0}
    assert len(set(drawn.reallocations[0].scores.values())) == len(drawn.reallocations[0].scores)
    # The drawn numbers went away again: what was never on still has B = 0.
    never = {str(key) for key, count in frequency(drawn).counts.items() if count == 0}
    state = load_checkpoint(place / "random-b" / "checkpoints" / "last.ckpt")["state_dict"]
    held = [t for name, t in state.items() if name.endswith(".B") and name.split(".")[1] in never]
    assert len(held) == len(never) > 0
    assert not any(tensor.any() for tensor in held)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad_norm", "synflow", "alpha_test"])
@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
        {"base_dtype": "bfloat16"},
        {"precision": "bf16-mixed", "base_dtype": "bfloat16"},
        {"gradient_checkpointing": True},
        {"precision": "64-true"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_precisions_and_checkpointing(place, words, ground, options, method):
    name = "-".join([method, *map(str, options.values())])
    options = {**options, "importance_test_name": method, "score_init": "random_b"}
    _check(run(place / f"language-{name}", *_language(words, ground, **options)))
    _check(run(place / f"encoder-{name}", *words("roberta", **options)))


def test_gradient_checkpointing_changes_no_choice(place, words, ground):
    options = {"shortcut_config": ground.shortcuts(), "dyrealloc_ags_mode": "combined", "realloc_N": 1}
    stored = run(place / "stored", *words(**options))
    again = run(place / "recomputed", *words(**options, gradient_checkpointing=True))
    assert list(rows(again).values()) == pytest.approx(list(rows(stored).values()), rel=1e-6)
    names = [(done / "search" / "history.toml") for done in (stored, again)]
    first, second = (read_history(name).reallocations for name in names)
    assert [one.on for one in first] == [one.on for one in second]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad_norm", "alpha_test"])
def test_a_mixture(place, words, ground, method):
    made = words(config=ground.mixture(), dataset_dir=None, importance_test_name=method, realloc_N=3)
    made.remove("rte")
    history = _check(run(place / f"mixture-{method}", *made))
    assert [one.step for one in history.reallocations] == [0, 3, 6]


def test_a_share_of_a_devices_epoch(place, words):
    """ceil(0.3 x 4) = 2 batches; 1.0 is one decision an epoch."""
    for share, steps in (("0.3", [0, 2]), ("1.0", [0])):
        history = _check(run(place / f"share-{share}", *words("opt", realloc_N=share)))
        assert [one.step for one in history.reallocations] == steps


@pytest.mark.slow
def test_several_seeds_search_apart(place, words):
    made = words("opt", importance_test_name="constant", seeds="0,1")
    assert launch(*made, "--project-dir", place, "--project", "sweep") == 0
    alone = run(place / "alone", *words("opt", importance_test_name="constant", seed=1))
    texts = [
        (place / name / "search" / "history.toml").read_bytes() for name in ("sweep-seed0", "sweep-seed1")
    ]
    assert texts[1] == (alone / "search" / "history.toml").read_bytes()
    assert texts[0] != texts[1]


def test_early_stopping_ends_a_search(place, words):
    done = run(place / "patience", *words("opt", learning_rate=0, max_epochs=9, early_stopping_patience=2))
    assert summary(done)["steps"] == 12
    assert summary(done)["search"]["decisions"] == 6
    switches = load_checkpoint(done / "checkpoints" / "best.ckpt")["switches"]
    best = read_history(done / "search" / "history.toml").reallocations[1]
    assert {name for name, on in switches.items() if on} == {str(key) for key in best.on}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"log_every_n_steps": 50},
        pytest.param({"importance_test_name": "alpha_test"}, marks=pytest.mark.slow),
    ],
)
def test_what_is_not_finite_ends_with_3_and_names_the_step(place, words, capsys, options):
    name = f"exploded-{'-'.join(map(str, options.values()))}"
    made = words("opt", **{"learning_rate": 1e20, "realloc_N": 1, **options})
    assert launch(*made, "--project-dir", place, "--project", name) == 3
    told = capsys.readouterr().err
    assert "Traceback" not in told
    faults = [line for line in told.splitlines() if line.startswith("error: ")]
    assert faults
    assert all("step " in line for line in faults)
    for path in (place / name / "checkpoints").iterdir():
        assert all(tensor.isfinite().all() for tensor in load_checkpoint(path)["state_dict"].values())
    assert not (place / name / "summary.json").exists()
