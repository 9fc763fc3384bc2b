"""Files of the earlier HeteroLoRA implementation: what they mean here, and what is refused with advice."""

import pytest

from configs.command_line.cli import parse
from configs.runtime.faults import InputFault
from configs.schema.batch_limit import BatchLimit
from model.network.family import Dimensions
from model.plan.lora_toml import read_plan
from model.plan.resolution import resolve
from model.plan.shortcut_toml import read_shortcuts, resolve_shortcuts
from model.site import HEAD_ROLES, LINEAR_ROLES, SiteKey
from tests.support.tree import ROOT

OLD = ROOT / "tests" / "data" / "migration"
SIZE = Dimensions(layers=3, heads=4, key_value_heads=4)
OPT_ROLES = tuple(role for role in LINEAR_ROLES if role != "gate")


@pytest.fixture(autouse=True)
def beside_the_files(monkeypatch):
    monkeypatch.chdir(OLD)


def _resolved(name):
    return resolve(read_plan(OLD / name), SIZE, OPT_ROLES)


def _ranks(resolution):
    return {(key.layer, key.role): config.rank for key, config in resolution.sites.items()}


def test_an_old_run_configuration_keeps_its_values_under_current_names():
    options = parse(["train", "--config", "run.toml"]).options
    assert (options.load, options.optimizer, options.pretrained, options.auto_requeue) == (
        None,
        "sgd",
        True,
        False,
    )
    assert (options.model, options.dataset, options.seed, options.batch_size) == ("opt_lora", "mrpc", 11, 24)
    assert (options.backbone_model, options.lora_config) == (
        "facebook/opt-350m",
        OLD / "adapter_network.toml",
    )
    assert (options.learning_rate, options.weight_decay, options.eta_min) == (3e-4, 0.0, 1e-6)
    assert (options.lr_scheduler, options.precision) == ("cosine_annealing", "16-mixed")
    assert (options.max_epochs, options.max_steps, options.accumulate_grad_batches) == (8, -1, 2)
    assert (options.num_workers, options.num_devices, options.nodes) == (4, 1, 1)
    assert (options.accelerator, options.strategy) == ("cpu", "ddp_find_unused_parameters_true")
    assert (options.shortcut_config, options.dataset_dir, options.mmlu_mode, options.project) == (None,) * 4
    assert (options.disable_dataset_cache, options.max_token_len) == (True, 256)
    assert options.project_dir == OLD / "ags_output"


def test_the_options_of_the_search_keep_counts_and_ratios_apart():
    options = parse(["train", "--config", "run.toml"]).options
    assert (options.importance_test_name, options.metric_red_tolerance) == ("snip", 0.02)
    assert options.imp_limit_test_batches == BatchLimit(count=16)
    assert options.alpha_limit_zptrain_batches == BatchLimit(ratio=0.05)
    assert options.realloc_N == BatchLimit(ratio=0.2)
    assert (options.turn_on_percentile, options.dyrealloc_ags_mode) == (0.3, "off")


def test_an_old_command_line_is_read_and_overrides_the_configuration():
    words = (
        "train opt_lora rte --config settings.toml --gpu 2 --cpu 3 --nodes 1 --optimizer adamw --pretrained"
    )
    done = parse([*words.split(), "--seed", "0", "--dataset-saved-path", "."])
    options = done.options
    assert (options.model, options.dataset, options.dataset_dir) == ("opt_lora", "rte", OLD)
    assert (options.num_devices, options.num_workers, options.optimizer) == (2, 3, "adamw")
    assert (options.seed, done.sources["seed"]) == (0, "command line")  # 0 is the default, and was typed
    assert (options.learning_rate, options.max_epochs) == (5e-5, 5)
    assert parse([*words.split()]).options.seed == 3


def test_a_plan_for_the_whole_network():
    resolution = _resolved("adapter_network.toml")
    assert _ranks(resolution) == {(layer, role): 6 for layer in range(3) for role in ("q_proj", "v_proj")}
    config = resolution.sites[SiteKey(0, "q_proj")]
    assert (config.alpha, config.dropout, config.adapter_name, config.init) == (12, 0.05, "qv-r6", True)


def test_a_plan_by_layer():
    resolution = _resolved("adapter_layer.toml")
    assert _ranks(resolution) == {(0, "w1"): 8, (2, "v_proj"): 8, (2, "w2"): 4}
    assert resolution.sites[SiteKey(2, "v_proj")].importance == 0.5
    assert [config.is_on for config in resolution.sites.values()].count(False) == 1


def test_a_plan_by_head():
    resolution = _resolved("adapter_head.toml")
    each = {"q_proj": 4, "v_proj": 4}  # every head has what one adapter over all heads had
    wanted = {(layer, role): 4 * rank for layer in range(3) for role, rank in each.items()}
    wanted |= {(layer, role): rank for layer in range(3) for role, rank in {"w1": 3, "w2": 2}.items()}
    assert _ranks(resolution) == wanted | {(1, "q_proj"): 4 * 5, (2, "w1"): 7}
    by_head = {key for key, config in resolution.sites.items() if key.role in HEAD_ROLES}
    assert all(len(resolution.sites[key].heads) == 4 for key in by_head)


def test_both_spellings_of_a_key_mean_the_same(tmp_path):
    text = (OLD / "adapter_network.toml").read_text()
    (tmp_path / "now.toml").write_text(text.replace("weghts", "weights"))
    assert read_plan(tmp_path / "now.toml").tables == read_plan(OLD / "adapter_network.toml").tables
    (tmp_path / "false.toml").write_text(text.replace("weghts = true", "weghts = false"))
    assert not read_plan(tmp_path / "false.toml").tables["all_layers.q_proj"].init


def _with_another_head(tmp_path, old, new):
    """Return the head plan with one line changed in the table of layer 1, q_proj, head 3."""
    before, table, after = (OLD / "adapter_head.toml").read_text().partition("[model_layer_1.q_proj.head_3]")
    path = tmp_path / "plan.toml"
    path.write_text(before + table + after.replace(old, new, 1))
    return path


def test_heads_keep_their_own_ranks(tmp_path):
    path = _with_another_head(tmp_path, "r = 5", "r = 1")
    config = resolve(read_plan(path), SIZE, OPT_ROLES).sites[SiteKey(1, "q_proj")]
    assert [head.rank for head in config.heads] == [5, 5, 5, 1]


def test_heads_that_differ_in_what_they_share_are_refused(tmp_path):
    path = _with_another_head(tmp_path, "lora_dropout = 0.0", "lora_dropout = 0.1")
    with pytest.raises(InputFault) as refusal:
        resolve(read_plan(path), SIZE, OPT_ROLES)
    (line,) = refusal.value.lines
    assert line.startswith(f"{path}: [model_layer_1.q_proj.head_3] lora_dropout: ")
    assert line.endswith("the heads of one projection share this setting")


def test_a_refusal_names_what_to_write():
    with pytest.raises(InputFault) as refusal:
        parse(["train", "opt_lora", "mrpc", "--config", "refused.toml", "--alpha", "0.5"])
    file = OLD / "refused.toml"
    coefficient = "a fixed coefficient belongs in the LoRA TOML, as importance_alpha in its tables"
    assert refusal.value.lines == (
        f"--alpha: unknown option; {coefficient}",
        f"{file}:3: to_debug: no longer an option; write dry_run = true to check a run, or max_steps = 1"
        " to try one step",
        f"{file}:4: github_ci: no longer an option; it was for that program's own tests; leave it out",
        f"{file}:5: alpha: no longer an option; {coefficient}",
        f"{file}:6: importance_test_name: no heuristic 'jacob_cov', one of alpha_test, constant, fisher,"
        " grad_norm, snip, synflow",
        f'{file}:7: is_to_auto_requeue: must be true or false, got "yes"',
        f"{file}:8: imp_limit_test_batches: must be a whole number of at least 1, or a ratio in (0, 1]"
        " written with a dot, got 0",
    )


def test_an_old_and_a_new_name_together_are_refused(tmp_path):
    (tmp_path / "both.toml").write_text('optimizer = "adam"\ntraining_optimizer = "sgd"\n')
    with pytest.raises(InputFault) as refusal:
        parse(["train", "--config", "run.toml", "--config", str(tmp_path / "both.toml")])
    assert refusal.value.lines == (
        f"{tmp_path / 'both.toml'}:2: training_optimizer: given twice, as it is an alias of optimizer",
    )


SEARCH = ("imp-test", "opt_lora", "rte", "--lora-config", "adapter_network.toml")
SHORTCUTS = """granularity = "network"
[default]
r = 4
shortcut_alpha = 4
proj_dropout = 0.0
projector_name = "old"
KEY = true
fan_in_fan_out = false
disable_projector = false
"""


@pytest.mark.parametrize("key", ["init_lora_weghts", "init_lora_weights"])
def test_shortcuts_take_the_keys_that_were_copied_from_lora(tmp_path, key):
    path = tmp_path / "shortcuts.toml"
    path.write_text(SHORTCUTS.replace("KEY", key))
    sites = resolve_shortcuts(read_shortcuts(path), SIZE).sites
    assert {config.init for config in sites.values()} == {True}
    path.write_text(SHORTCUTS.replace("KEY = true", f"{key} = false"))
    assert {config.init for config in resolve_shortcuts(read_shortcuts(path), SIZE).sites.values()} == {False}


def test_a_shortcut_whose_weight_is_said_to_be_transposed_is_refused(tmp_path):
    path = tmp_path / "shortcuts.toml"
    path.write_text(SHORTCUTS.replace("KEY", "init_lora_weights").replace("out = false", "out = true"))
    with pytest.raises(InputFault, match=r"\[default\] fan_in_fan_out: there is no linear"):
        resolve_shortcuts(read_shortcuts(path), SIZE)


@pytest.mark.parametrize("word", ["GRAD-NORM", "ALPHA-TEST", "SNIP", "SYNFLOW", "CONSTANT"])
def test_heuristics_may_be_spelt_as_in_the_readme(word):
    found = parse([*SEARCH, "--importance-test-name", word]).options
    assert found.importance_test_name == word.lower().replace("-", "_")


def test_an_earlier_name_of_the_scoring_batches_is_refused_with_both_new_options(tmp_path):
    (tmp_path / "run.toml").write_text("alpha_test_batch_num = 32\n")
    with pytest.raises(InputFault) as refusal:
        parse([*SEARCH, "--config", str(tmp_path / "run.toml")])
    (line,) = refusal.value.lines
    assert "imp_limit_test_batches = N" in line
    assert 'importance_test_name = "alpha_test"' in line


def test_an_earlier_variant_of_a_model_is_refused_with_the_nearest_one():
    with pytest.raises(InputFault, match="did you mean 'opt_lora_ags'"):
        parse(["train", "opt_lora_ags_layer_residual", "rte"])


@pytest.mark.parametrize("word", ["wikitext-2-v1", "wikitext-2-raw-v1"])
def test_words_of_the_hub_for_wikitext(word):
    assert parse(["test", "facebook/opt-350m", word]).options.dataset == word
