"""`train-dyrealloc` of LoRA and shortcuts: rankings, budgets, what equals plain training, histories."""

import json

import pytest

from model.search.history import read_frequency, read_history
from model.site import SiteKey
from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import ENTRY, comparable, files, launch, run, summary

MODES = ("off", "combined", "separated")
SHORTCUTS = ("residual1", "residual2", "shortcut1", "shortcut2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("dyrealloc-shortcuts")


@pytest.fixture(scope="module")
def words(ground):
    """Return a command line: two epochs of four batches, decay, dropout, two batches an update."""

    def make(action="train-dyrealloc", family="opt", **options):
        defaults = {
            "lora_config": ground.plan("dyrealloc-ags", lora_dropout=0.1),
            "shortcut_config": ground.shortcuts("dyrealloc-cuts", proj_dropout=0.1),
            "accumulate_grad_batches": 2,
            "log_every_n_steps": 1,
            "weight_decay": 0.1,
            "imp_limit_test_batches": 2,
            "head_learning_rate": 0.03,
        }
        _, *rest = ground.words(family, **{**defaults, **options})
        return [action, *rest]

    return make


@pytest.fixture(scope="module")
def searched(place, words):
    """Return a function that runs a mode once; a quarter of 18 + 11 modules is on."""

    def call(mode):
        directory = place / f"searched-{mode}"
        options = {"importance_test_name": "grad_norm", "realloc_N": 2, "dyrealloc_ags_mode": mode}
        return directory if directory.exists() else run(directory, *words(**options))

    return call


@pytest.fixture(scope="module")
def plain(place, words):
    return run(place / "plain", *words("train"))


def _counts(one):
    shortcuts = sum(key.role in SHORTCUTS for key in one.on)
    return len(one.on) - shortcuts, shortcuts


@pytest.mark.parametrize("mode", MODES)
def test_budgets_are_kept_in_every_group(searched, mode):
    """floor(18 / 4) = 4 of LoRA, round(11 / 4) = 3 of the shortcuts, 7 together."""
    history = read_history(searched(mode) / "search" / "history.toml")
    assert [(one.epoch, one.step) for one in history.reallocations] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    counts = [_counts(one) for one in history.reallocations]
    if mode == "combined":
        assert [sum(pair) for pair in counts] == [7] * 4
    else:
        assert counts == [(4, 3 if mode == "separated" else 0)] * 4
    eligible = 18 if mode == "off" else 29
    assert all(len(one.scores) == eligible for one in history.reallocations)
    assert summary(searched(mode))["search"]["eligible"] == eligible


@pytest.mark.parametrize("mode", MODES)
def test_the_first_layer_has_no_shortcut_before_it(searched, mode):
    counts = read_frequency(searched(mode) / "search" / "frequency.toml").counts
    held = {key for key in counts if key.role in SHORTCUTS}
    layers = {SiteKey(layer, role) for layer in range(3) for role in SHORTCUTS}
    assert held == (set() if mode == "off" else layers - {SiteKey(0, "shortcut2")})


@pytest.mark.parametrize("mode", MODES)
def test_the_trend_of_loras_share_is_drawn_where_shortcuts_compete(searched, mode):
    found = {name for name in files(searched(mode)) if name.startswith("search/")}
    drawn = {"search/history.toml", "search/frequency.toml", "search/frequency.png"}
    assert found == (drawn if mode == "off" else drawn | {"search/lora_share.png"})
    assert ("search/lora_share.png" in (searched(mode) / "report.md").read_text()) == (mode != "off")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_on_is_exported(searched, mode):
    directory = searched(mode)
    config = json.loads((directory / "adapter" / "adapter_config.json").read_text())
    extra = json.loads((directory / "adapter" / "metadata.json").read_text()).get("extra", {})
    switches = load_checkpoint(directory / "checkpoints" / "best.ckpt")["switches"]
    assert len(switches) == 29
    on = {name for name, is_on in switches.items() if is_on}
    assert set(extra) == {name for name in on if name.split("/")[1] in SHORTCUTS}
    assert len(config.get("lora", config)["target_modules"]) == len(on) - len(extra)
    assert len(extra) == {"off": 11, "separated": 3}.get(mode, len(extra))


def _on(directory):
    """Return the names of the modules that are on at the best step."""
    switches = load_checkpoint(directory / "checkpoints" / "best.ckpt")["switches"]
    return {name for name, on in switches.items() if on}


@pytest.mark.parametrize("mode", MODES)
def test_checkpoint_and_adapter_give_the_number_of_the_run(searched, place, ground, mode):
    """Also where no shortcut is on at the best step: the adapter remembers that there were some."""
    directory = searched(mode)
    base = ("--load", ground.host("opt"), "--dataset-dir", ground.rte())
    given = ("test", "opt_lora_ags", "rte", *base, "--adapter", directory / "adapter")
    adapter = summary(run(place / f"by-adapter-{mode}", *given))
    best = ("--load", directory / "checkpoints" / "best.ckpt", "--load-type", "pl")
    checkpoint = summary(run(place / f"by-checkpoint-{mode}", "test", *best))
    for tested in (adapter, checkpoint):
        assert tested["metric"]["value"] == summary(directory)["metric"]["value"]
        expected = summary(directory)["metrics"]["val/loss"]
        assert tested["metrics"]["test/loss"] == pytest.approx(expected, rel=1e-6)
        assert tested["search"]["enabled"] == len(_on(directory))


@pytest.mark.parametrize(
    ("mode", "method"),
    [
        ("combined", "snip"),
        pytest.param("off", "grad_norm", marks=pytest.mark.slow),
        pytest.param("separated", "fisher", marks=pytest.mark.slow),
    ],
)
def test_with_everything_on_it_is_plain_training_byte_for_byte(place, words, plain, mode, method):
    options = {"importance_test_name": method, "realloc_N": 1, "dyrealloc_ags_mode": mode}
    done = run(place / f"all-{mode}-{method}", *words(**options, turn_on_percentile=1.0))
    assert (done / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    mine, theirs = (
        {name: content for name, content in comparable(one).items() if name.startswith("adapter/")}
        for one in (done, plain)
    )
    assert mine == theirs
    assert set(theirs) >= {"adapter/extra.safetensors", "adapter/adapter_model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["synflow", "alpha_test", "constant"])
def test_the_other_heuristics_do_not_change_training_either(place, words, plain, method):
    test_with_everything_on_it_is_plain_training_byte_for_byte(
        place, lambda **options: words(**{**options, "imp_limit_test_batches": 1}), plain, "combined", method
    )


@pytest.mark.parametrize("typed", [False, True])
def test_a_history_is_applied_in_training_and_test(searched, place, words, typed, ground):
    """Both formats mean the same, and the history decides for each module."""
    path = searched("separated") / "search" / "history.toml"
    last = read_history(path).reallocations[-1]
    if typed:
        items = [[key.layer, key.role, score, key in last.on] for key, score in last.scores.items()]
        path = place / "typed.toml"
        path.write_text(f"[dyrealloc_0]\nepoch = 0\nstep = 0\nturn_on = {json.dumps(items)}\n")
    done = run(place / f"applied-{typed}", *words("train", realloc_hist_path=path, max_epochs=1))
    switches = load_checkpoint(done / "checkpoints" / "best.ckpt")["switches"]
    assert {name for name, on in switches.items() if on} == {str(key) for key in last.on}
    assert summary(done)["search"]["enabled"] == 7
    tested = run(
        place / f"tested-{typed}",
        *("test", "opt_lora_ags", "rte", "--load", ground.host("opt"), "--dataset-dir", ground.rte()),
        *("--lora-config", ground.plan("dyrealloc-ags"), "--shortcut-config", ground.shortcuts()),
        *("--realloc-hist-path", path),
    )
    assert summary(tested)["search"]["enabled"] == 7


def test_a_history_holds_more_than_a_checkpoint(searched, place):
    """The checkpoint holds the tensors of all modules; the history chooses among them."""
    directory = searched("combined")
    best = ("--load", directory / "checkpoints" / "best.ckpt", "--load-type", "pl")
    history = read_history(directory / "search" / "history.toml")
    first = history.reallocations[0]
    one = place / "first.toml"
    table = (directory / "search" / "history.toml").read_text().split("[dyrealloc_1]")[0]
    one.write_text(table)
    assert read_history(one).reallocations == (first,)
    plain = run(place / "as-saved", "test", *best)
    chosen = run(place / "as-chosen", "test", *best, "--realloc-hist-path", one)
    assert summary(plain)["search"]["enabled"] == summary(chosen)["search"]["enabled"] == 7
    assert summary(plain)["metrics"] != summary(chosen)["metrics"]
    last = run(place / "as-last", "test", *best, "--realloc-hist-path", directory / "search" / "history.toml")
    switches = load_checkpoint(directory / "checkpoints" / "best.ckpt")["switches"]
    if {name for name, on in switches.items() if on} == {str(key) for key in history.reallocations[-1].on}:
        assert summary(last)["metrics"] == summary(plain)["metrics"]


@pytest.mark.slow
def test_a_module_that_the_plan_turns_off_is_a_candidate(place, words, ground):
    off = {"all_layers": {"v_proj": {**ENTRY, "disable_adapter": True}}}
    cut = {"all_layers": {"residual_2": {
        "r": 2, "shortcut_alpha": 4, "proj_dropout": 0.0, "projector_name": "default",
        "disable_projector": True}}}  # fmt: skip
    options = {
        "lora_config": ground.plan("dyrealloc-off", off),
        "shortcut_config": ground.shortcuts("dyrealloc-off-cuts", cut),
        "importance_test_name": "grad_norm",
        "max_epochs": 1,
    }
    for mode, eligible, stays in (("combined", 29, None), ("off", 18, 8)):
        done = run(place / f"planned-{mode}", *words(**options, dyrealloc_ags_mode=mode))
        history = read_history(done / "search" / "history.toml")
        assert len(history.reallocations[0].scores) == eligible
        assert SiteKey(0, "v_proj") in history.reallocations[0].scores
        switches = load_checkpoint(done / "checkpoints" / "last.ckpt")["switches"]
        if stays is not None:  # shortcuts as configured: what is off there does not even train
            cuts = {name: on for name, on in switches.items() if name.split("/")[1] in SHORTCUTS}
            assert len(cuts) == stays
            assert all(cuts.values())


def test_the_tables_show_budget_and_active_parameters(words, place, capsys):
    made = words(dyrealloc_ags_mode="separated", turn_on_percentile=0.25, max_epochs=1)
    assert launch(*made, "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    # LoRA of rank 4 on 32 or 48 wide linears: 256 or 320; shortcuts of rank 2: 128.
    assert "budget 4 of 18 LoRA modules, 3 of 11 shortcuts, 1,408 to 1,664 parameters active" in said
    done = run(place / "told", *made)
    said = capsys.readouterr().out
    state = load_checkpoint(done / "checkpoints" / "best.ckpt")["state_dict"]
    on = _on(done)
    active = sum(
        t.numel() for name, t in state.items() if name.startswith("adapters.") and name.split(".")[1] in on
    )
    assert f"on at the best step: 7 of 29 modules, {active:,} parameters active\n" in said
    assert f"| modules on | 7 of 29, {active:,} parameters active |" in (done / "report.md").read_text()
