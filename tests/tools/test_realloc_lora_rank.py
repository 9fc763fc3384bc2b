"""Score files become LoRA TOMLs that bind to a model."""

import json

import pytest

from configs.runtime import kinds
from model.network.family import Dimensions
from model.plan.lora_toml import read_plan
from model.plan.resolution import resolve
from model.plan.shortcut_toml import read_shortcuts, resolve_shortcuts, site_exists
from model.search.allocation import rounded
from model.search.score_file import Scores, read_scores, write_scores
from model.site import SHORTCUT_ROLES, SiteKey
from tests.support.tiny import tiny_config
from tests.tools.words import refused
from tools.realloc_lora_rank import main

ROLES = ("q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2")
WIDTHS = {"q_proj": (32, 32), "v_proj": (32, 16), "w1": (32, 48)}
SIZE = Dimensions(layers=6, heads=4, key_value_heads=2)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scored(place):
    """Return a score file of 18 modules, no two alike."""
    keys = [SiteKey(layer, role) for layer in range(6) for role in WIDTHS]
    values = {key: 1.0 + (7 * number) % 18 for number, key in enumerate(keys)}
    write_scores(place / "scores.toml", Scores(values, {"method": "snip", "dataset": "a/b sst2"}, WIDTHS))
    return place / "scores.toml"


@pytest.fixture
def shortened(place):
    """Return a score file of 12 LoRA modules and 23 shortcuts; every shortcut is above every LoRA module."""
    values = {SiteKey(layer, role): 1.0 + layer for layer in range(6) for role in ("q_proj", "v_proj")}
    keys = [SiteKey(layer, role) for layer in range(6) for role in SHORTCUT_ROLES]
    values |= {key: 10.0 + number for number, key in enumerate(keys) if site_exists(key)}
    write_scores(place / "shortened.toml", Scores(values, {"method": "snip"}))
    return place / "shortened.toml"


def _run(*words):
    assert main([str(word) for word in words]) == 0


def _sites(path):
    plan = read_plan(path)
    assert (plan.granularity, plan.default.rank, plan.default.disabled) == ("layer", 0, True)
    return resolve(plan, SIZE, ROLES).sites


def test_the_best_quarter_is_on_under_the_first_free_name(place, scored, capsys):
    taken = place / "a-b-sst2-snip-version_0.toml"
    taken.write_text("mine")
    _run(scored)
    sites = _sites(place / "a-b-sst2-snip-version_1.toml")
    values = read_scores(scored).values
    assert set(sites) == set(sorted(values, key=values.get)[-4:])
    assert {(e.rank, e.alpha, e.dropout, e.is_on) for e in sites.values()} == {(8, 16.0, 0.0, True)}
    assert taken.read_text() == "mine"
    lines = capsys.readouterr().out.splitlines()
    parameters = 8 * sum(sum(WIDTHS[key.role]) for key in sites)
    assert next(line for line in lines if line.startswith("all")).split() == [
        "all", "4", "18", "8", f"{parameters:,}"
    ]  # fmt: skip
    assert not any(line.startswith("ties") for line in lines)


def test_rank_alpha_percentile_and_output_can_be_given(place, scored):
    words = ["--percentile", "0.5", "--rank", 4, "--alpha", 3, "--output", place / "out.toml"]
    _run(scored, *words)
    sites = _sites(place / "out.toml")
    assert (len(sites), {(config.rank, config.alpha) for config in sites.values()}) == (9, {(4, 3.0)})


def test_a_seed_decides_ties_and_the_file_is_the_same_again(place, capsys):
    write_scores(place / "flat.toml", Scores({SiteKey(layer, "q_proj"): 1.0 for layer in range(6)}))
    texts = []
    for number, seed in enumerate([0, 0, 1, 2, 3]):
        _run(place / "flat.toml", "--percentile", 0.5, "--seed", seed)
        texts.append((place / f"flat-version_{number}.toml").read_text())
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert "ties: 6 modules at the cut-off score, 3 of them drawn (seed 3)\n" in capsys.readouterr().out


def test_a_budget_of_parameters_is_kept(place, scored):
    _run(scored, "--budget-params", 1500, "--output", place / "out.toml")
    sites = _sites(place / "out.toml")
    sizes = {role: 8 * sum(widths) for role, widths in WIDTHS.items()}
    spent = sum(sizes[key.role] for key in sites)
    assert 1500 - min(sizes.values()) < spent <= 1500
    assert max(read_scores(scored).values.items(), key=lambda item: item[1])[0] in sites


def test_spread_ranks_cost_the_same_and_keep_one_scale(place, scored, capsys):
    _run(scored, "--percentile", 1, "--spread", "--output", place / "out.toml")
    sites, values = _sites(place / "out.toml"), read_scores(scored).values
    costs = {key: sum(WIDTHS[key.role]) for key in values}
    total, spent = 8 * sum(costs.values()), sum(costs[key] * sites[key].rank for key in sites)
    assert total - max(costs.values()) < spent <= total
    assert {config.alpha / config.rank for config in sites.values()} == {2.0}
    best, worst = max(values, key=values.get), min(values, key=values.get)
    assert sites[best].rank > 8 > sites[worst].rank >= 1
    capsys.readouterr()
    _run(scored, "--percentile", 1, "--spread", "--max-rank", 9, "--output", place / "nine.toml")
    assert max(config.rank for config in _sites(place / "nine.toml").values()) == 9


def test_widths_come_from_a_configuration_where_the_file_has_none(place, capsys):
    values = {SiteKey(0, role): 1.0 for role in ("q_proj", "v_proj", "w1", "residual1")}
    write_scores(place / "bare.toml", Scores(values))
    base = place / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(tiny_config(kinds.load(kinds.FAMILIES, "llama")).to_dict()))
    words = ["--load", base, "--percentile", 1, "--rank", 2]
    _run(place / "bare.toml", *words, "--output", place / "out.toml")
    rows = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:6]}
    # The tiny LLaMA: width 32, 4 heads of 8, 2 of them for keys and values, 48 in the feed-forward part.
    assert rows == {"q_proj": "128", "v_proj": "96", "w1": "160", "residual1": "128"}
    refusal = refused("tools.realloc_lora_rank", place / "bare.toml", "--spread", "--budget-params", 9)
    assert refusal == [
        f"error: {flag}: '{place / 'bare.toml'}' contains no widths; give --load DIR"
        for flag in ("--budget-params", "--spread")
    ]


@pytest.mark.parametrize("words", [("--budget-params", 999), ("--spread", "--percentile", 1)])
def test_a_role_that_the_network_lacks_has_no_cost(place, capsys, words):
    write_scores(place / "gated.toml", Scores({SiteKey(0, role): 1.0 for role in ("q_proj", "gate")}))
    (place / "base").mkdir()
    config = tiny_config(kinds.load(kinds.FAMILIES, "opt")).to_dict()
    (place / "base" / "config.json").write_text(json.dumps(config))
    assert main([str(word) for word in ("gated.toml", "--load", place / "base", *words)]) == 2
    refusal = f"error: {words[0]}: the network of --load has no module gate, which the score file has\n"
    assert capsys.readouterr().err == refusal


def test_shortcuts_get_a_file_of_their_own(place, shortened):
    _run(shortened, "--output", place / "out.toml")
    on = [str(key) for key in _sites(place / "out.toml")]
    assert on in [[f"layer_4/{drawn}", "layer_5/q_proj", "layer_5/v_proj"] for drawn in ("q_proj", "v_proj")]
    sites = resolve_shortcuts(read_shortcuts(place / "out-shortcuts.toml"), SIZE).sites
    best = [SiteKey(4, "shortcut1"), SiteKey(4, "shortcut2"), *(SiteKey(5, role) for role in SHORTCUT_ROLES)]
    assert list(sites) == best
    assert {(config.rank, config.alpha, config.is_on) for config in sites.values()} == {(8, 16.0, True)}


def test_off_leaves_shortcuts_alone_and_combined_needs_a_lora_module(place, shortened):
    _run(shortened, "--ags-mode", "off", "--output", place / "out.toml")
    assert len(_sites(place / "out.toml")) == 3
    assert not (place / "out-shortcuts.toml").exists()
    assert refused("tools.realloc_lora_rank", shortened, "--ags-mode", "combined") == [
        "error: --percentile: enables no LoRA module; a LoRA TOML needs at least one"
    ]
    _run(shortened, "--ags-mode", "combined", "--percentile", 0.75, "--output", place / "both.toml")
    lora, edits = _sites(place / "both.toml"), read_shortcuts(place / "both-shortcuts.toml").tables
    assert (len(lora), len(edits)) == (9 + 17 - 23, 23)


def test_all_faults_are_reported_together(place, scored):
    (place / "there.toml").write_text("")
    words = ["--percentile", 0.5, "--budget-params", 9, "--max-rank", 4, "--output", place / "there.toml"]
    assert refused("tools.realloc_lora_rank", place / "gone.toml", *words) == [
        "error: --budget-params: cannot be combined with --percentile",
        "error: --max-rank: only with --spread",
        f"error: --output: '{place / 'there.toml'}' already exists and is not overwritten",
        f"error: SCORES: cannot read '{place / 'gone.toml'}': No such file or directory",
    ]
    assert refused("tools.realloc_lora_rank", scored, "--percentile", 0.01) == [
        "error: --percentile: a share of 0.01 of 18 modules turns none on;"
        " the smallest that turns one on is 0.05556"
    ]
    assert refused("tools.realloc_lora_rank", scored, "--budget-params", 300) == [
        "error: --budget-params: 300 parameters are too few for any of the 18 modules; the smallest has 384"
    ]
    assert sorted(path.name for path in place.iterdir()) == ["scores.toml", "there.toml"]


def test_scores_above_the_cutoff_are_on(place, scored):
    _run(scored, "--output", place / "out.toml")
    on = _sites(place / "out.toml")
    values = read_scores(scored).values
    off = [rounded(value) for key, value in values.items() if key not in on]
    assert min(rounded(values[key]) for key in on) > max(off)
