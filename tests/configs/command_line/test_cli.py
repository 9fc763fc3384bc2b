"""The command line: one bad input per row, and what a right one means."""

import os
import re
from pathlib import Path

import pytest

from configs.command_line.cli import HelpRequested, parse
from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.schema.batch_limit import BatchLimit
from configs.schema.model_name import ModelName, model_name
from configs.schema.options import DEEPSPEED

WHOLE = "must be a whole number of at least"
BATCHES = "must be a whole number of at least 1, or a ratio in (0, 1] written with a dot"

FLAGS = [
    ("--batch-size -4", f"--batch-size: {WHOLE} 1, got -4"),
    ("--batch-size 0", f"--batch-size: {WHOLE} 1, got 0"),
    ("--batch-size=-4", f"--batch-size: {WHOLE} 1, got -4"),
    ("--batch-size 1_0", f"--batch-size: {WHOLE} 1, got 1_0"),
    ("--batch-size ４", f"--batch-size: {WHOLE} 1, got ４"),
    ("--batch-size 1e3", f"--batch-size: {WHOLE} 1, got 1e3"),
    ("--batch-size " + "9" * 30, "--batch-size: must be a whole number of at most 9223372036854775807"),
    ("--batch-size " + "9" * 9000, f"--batch-size: {WHOLE} 1, got 999"),
    ("--batch-size", "--batch-size: needs a value"),
    ("--batch-size --offline", "--batch-size: needs a value"),
    ("--batch-size 4 --batch-size 4", "--batch-size: given twice"),
    ("--gpu 1 --num-devices 1", "--num-devices: given twice"),
    ("--offline --no-offline", "--offline: given twice"),
    ("--offline=true", "--offline: takes no value, got true"),
    ("--model opt_lora", "--model: given twice"),
    ("--learning-rate inf", "--learning-rate: must be a finite number of at least 0, got inf"),
    ("--learning-rate -inf", "--learning-rate: must be a finite number of at least 0, got -inf"),
    ("--learning-rate -1e-3", "--learning-rate: must be a finite number of at least 0, got -1e-3"),
    ("--learning-rate nan", "--learning-rate: must be a finite number of at least 0, got nan"),
    ("--learning-rate 1e999", "--learning-rate: must be a finite number of at least 0, got 1e999"),
    ("--learning-rate 1_0.0", "--learning-rate: must be a finite number of at least 0, got 1_0.0"),
    ("--metric-red-tolerance inf", "--metric-red-tolerance: must be a finite number, got inf"),
    ("--warmup-ratio 1.5", "--warmup-ratio: must be a number in [0, 1], got 1.5"),
    ("--max-steps 0", f"--max-steps: {WHOLE} 1 or -1 (no limit), got 0"),
    ("--max-ep 3", "--max-ep: unknown option; did you mean '--max-epochs'?"),
    ("--acc gpu", "--acc: unknown option; did you mean '--accelerator'?"),
    ("--batch_size 3", "--batch_size: unknown option; did you mean '--batch-size'?"),
    ("-batch-size 3", "-batch-size: unknown option; did you mean '--batch-size'?"),
    ("--ofline", "--ofline: unknown option; did you mean '--offline'?"),
    ("--xyzzy 3", "--xyzzy: unknown option"),
    ("extra", "extra: unexpected argument"),
    ("--turn-on-percentile 1.2", "--turn-on-percentile: must be a number in (0, 1], got 1.2"),
    ("--turn-on-percentile 0", "--turn-on-percentile: must be a number in (0, 1], got 0"),
    ("--realloc-N often", f"--realloc-N: {BATCHES}, got often"),
    ("--realloc-N 0", f"--realloc-N: {BATCHES}, got 0"),
    ("--realloc-N 1.5", f"--realloc-N: {BATCHES}, got 1.5"),
    ("--realloc-n 3", "--realloc-n: unknown option; did you mean '--realloc-N'?"),
    ("--imp-limit-test-batches -3", f"--imp-limit-test-batches: {BATCHES}, got -3"),
    ("--importance-test-name gradnorm", "did you mean 'grad_norm'?"),
    ("--precision bf17", "--precision: no precision 'bf17', one of 16-mixed"),
    ("--dyrealloc-ags-mode separated", "--dyrealloc-ags-mode: 'separated' needs a model with shortcuts"),
    ("--dyrealloc-ags-mode combined", "got --model opt_lora"),
    ("--seed -1", "--seed: must be a whole number in [0, 4294967295], got -1"),
    ("--seeds 0,x", "--seeds: must be a whole number in [0, 4294967295], got x"),
    ("--seeds 0,0", "--seeds: must be a non-empty list without repetitions"),
    ("--seeds 0,1 --seed 1", "--seeds: cannot be combined with seed; a run has one seed, a sweep several"),
    ("--mmlu-dir data", "--mmlu-dir: only with --mmlu-mode"),
    ("--mmlu-mode zs --mmlu-dir gone", "--mmlu-dir: no directory"),
    (
        "--shortcut-config lora.toml",
        "--shortcut-config: 'opt_lora' has no shortcuts; did you mean --model opt_lora_ags?",
    ),
    ("--realloc-hist-path none.toml", "--realloc-hist-path: no file"),
    ("--auto-requeue", "--auto-requeue: not in a SLURM job"),
    ("--strategy ddpp", "--strategy: no strategy 'ddpp'"),
    ("--task sumarization", "--task: no task 'sumarization'"),
    ("--adam-beta1 1", "--adam-beta1: must be a number in [0, 1), got 1"),
    ("--adapter . --adapter ..", "--lora-config: not with several --adapter"),
    ("--adapter none", "--adapter: no directory"),
    ("--dataset-dir none", "--dataset-dir: no directory"),
    ("--dataset-saved-path none", "--dataset-dir: no directory"),
    ("--config none.toml", "--config: cannot read"),
    ("--config .", "--config: cannot read"),
    ("--load ./" + "n" * 5000, "--load: no file or directory './nnn"),
    ("--lora-config " + "n" * 5000, "--lora-config: given twice"),
    ("--dataset-dir " + "n" * 5000, "--dataset-dir: no directory"),
    ("--config /dev/zero", "--config: cannot read '/dev/zero': it is not a regular file"),
    ("--load ./none", "--load: no file or directory './none'"),
    ("--load none.ckpt --load-type pl", "--load: no file 'none.ckpt'"),
    ("--load-type pt", "--load-type: 'pt' needs --load"),
    ("--resume-training", "--resume-training: needs a run, --resume-training RUN or --load"),
    ("--resume-training --load lora.toml --load-type pl", "is not RUN/checkpoints/FILE"),
    ("--project a/b", "--project: must be the name of a directory"),
    ("--project ..", "--project: must be the name of a directory"),
    ("--project-dir lora.toml/x", "lora.toml' is not a directory"),
    ("--load a\x07b", "--load: must be a non-empty text without control characters"),
    ("--load \udc80", "--load: must be a non-empty text without control characters"),
]


@pytest.mark.parametrize(("words", "message"), FLAGS)
def test_a_bad_flag_is_one_line(bound, here, words, message):
    with pytest.raises(InputFault) as refusal:
        bound(*words.split(" "))
    assert len(refusal.value.lines) == 1
    assert message in refusal.value.lines[0]
    assert refusal.value.exit_code == 2
    assert [path.name for path in here.iterdir()] == ["lora.toml"]


@pytest.mark.parametrize("word", DEEPSPEED)
def test_deepspeed_needs_its_package(bound, monkeypatch, word):
    monkeypatch.setattr("configs.command_line.strategy_checks.find_spec", lambda name: None)
    with pytest.raises(InputFault) as refusal:
        bound("--strategy", word)
    line = f"--strategy: '{word}' needs the package deepspeed: pip install deepspeed; did you mean 'fsdp'?"
    assert refusal.value.lines == (line,)
    monkeypatch.setattr("configs.command_line.strategy_checks.find_spec", lambda name: name == "deepspeed")
    assert bound("--strategy", word, "--precision", "bf16").options.strategy == word


@pytest.mark.parametrize(
    ("action", "words", "message"),
    [
        ("train", "--precision 16", "'deepspeed_stage_3' needs --precision 32-true or bf16-mixed, got"),
        ("train", "--compile", "--compile: cannot be combined with 'deepspeed_stage_3'"),
        (
            "imp-test",
            "",
            "imp-test needs unsharded weights, but deepspeed_stage_3 shards them; did you mean 'ddp'?",
        ),
        ("train-dyrealloc", "", "deepspeed_stage_3 cannot switch modules while training"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused(here, monkeypatch, action, words, message):
    monkeypatch.setattr("configs.command_line.strategy_checks.find_spec", lambda name: name == "deepspeed")
    command = f"{action} opt_lora mrpc --lora-config lora.toml --strategy deepspeed_stage_3 {words}"
    with pytest.raises(InputFault) as refusal:
        parse(command.split())
    assert len(refusal.value.lines) == 1
    assert message in refusal.value.lines[0]


COMMANDS = [
    ("", "ACTION: required, one of train, test, imp-test, train-dyrealloc"),
    (
        "tain opt_lora mrpc --lora-config lora.toml",
        "no action 'tain', one of imp-test, test, train, train-dyrealloc; did you mean 'train'?",
    ),
    ("imp-test plain mrpc", "--model: imp-test needs adapters, got the plain model 'plain'"),
    ("train-dyrealloc plain mrpc", "--model: train-dyrealloc needs adapters, got the plain model 'plain'"),
    ("imp-test opt_lora mrpc --lora-config lora.toml --realloc-N often", "--realloc-N: must be"),
    ("train opt_lora --lora-config lora.toml", "--dataset: required"),
    ("train --dataset mrpc", "--model: required"),
    ("train --modle opt_lora --dataset mrpc --lora-config lora.toml", "did you mean '--model'?"),
    ("train opt_lora mrcp --lora-config lora.toml", "--dataset: no data set 'mrcp'"),
    ("train opt_lora mrcp --lora-config lora.toml", "did you mean 'mrpc'?"),
    ("train opt_lora mrpc", "--lora-config: required with 'opt_lora'"),
    ("train opt_lora mrpc --lora-config none.toml", "--lora-config: no file"),
    (
        "train otp_lora mrpc --lora-config lora.toml",
        "no model family 'otp', one of auto, bert, llama, opt, roberta",
    ),
    ("train auto_lora mrpc", "--lora-config: required with 'auto_lora'"),
    ("train auto_lroa mrpc", "--model: no model 'auto_lroa'; did you mean 'auto_lora'?"),
    ("train opt_lroa mrpc", "--model: no model 'opt_lroa'; did you mean 'opt_lora'?"),
    ("train facebook/opt-125m mrpc --lora-config lora.toml", "--lora-config: not for the plain model"),
    ("train ./none mrpc", "--model: no file or directory './none'"),
]


@pytest.mark.parametrize(("words", "message"), COMMANDS)
def test_a_bad_command_is_refused(words, message):
    with pytest.raises(InputFault) as refusal:
        parse(words.split())
    assert any(message in line for line in refusal.value.lines)
    assert len(refusal.value.lines) == (3 if not words else 1)


def test_auto_leaves_the_family_to_the_network(here):
    assert model_name("auto_lora") == ModelName(None, "lora")
    done = parse(["train", "auto_lora", "mrpc", "--lora-config", "lora.toml"])
    assert done.options.model == "auto_lora"


def test_shortcuts_need_both_plans(here):
    words = ["train", "opt_lora_ags", "mrpc"]
    with pytest.raises(InputFault) as refusal:
        parse(words)
    assert [line.split(":")[0] for line in refusal.value.lines] == ["--lora-config", "--shortcut-config"]
    with pytest.raises(InputFault, match="^--shortcut-config: required with 'opt_lora_ags'"):
        parse([*words, "--lora-config", "lora.toml"])
    plans = ["--lora-config", "lora.toml", "--shortcut-config", "lora.toml"]
    assert parse([*words, *plans]).options.shortcut_config == here / "lora.toml"
    with pytest.raises(InputFault, match="^--shortcut-config: no file"):
        parse([*words, *plans[:3], "none.toml"])


def test_all_faults_come_at_once(here):
    (here / "a.toml").write_text("max_epochs = 0\nlerning_rate = 1\n")
    with pytest.raises(InputFault) as refusal:
        parse(["train", "--batch-size", "-4", "--config", "a.toml", "--max-ep", "3"])
    starts = [line.split(":")[0] for line in refusal.value.lines]
    path = str(here / "a.toml")
    assert starts == ["--batch-size", "--max-ep", path, path, "--dataset", "--model"]


def test_the_command_line_wins_even_with_the_default(bound, here):
    (here / "a.toml").write_text("max_epochs = 3\nseed = 1\nbatch_size = 2\n")
    (here / "b.toml").write_text("seed = 2\n")
    done = bound("--max-epochs", "20", "--config", "a.toml", "--config", "b.toml")
    assert (done.options.max_epochs, done.options.seed, done.options.batch_size) == (20, 2, 2)
    assert done.sources["max_epochs"] == "command line"
    assert done.sources["seed"] == str(here / "b.toml")
    assert done.sources["nodes"] == "default"
    assert done.is_given("seed")
    assert not done.is_given("nodes")
    assert bound("--config", "b.toml", "--config", "a.toml").options.seed == 1


def test_old_names_are_understood(bound, here):
    (here / "a.toml").write_text(
        'load_name = "facebook/opt-125m"\ntraining_optimizer = "sgd"\nis_pretrained = false\n'
        'is_to_auto_requeue = false\nbackbone_model = "NA"\nlr_scheduler = "NA"\nprecision = 16\n'
    )
    options = bound("--config", "a.toml", "--gpu", "2", "--cpu", "3", "--head-learning-rate", "NA").options
    assert (options.load, options.optimizer, options.pretrained) == ("facebook/opt-125m", "sgd", False)
    assert (options.num_devices, options.num_workers, options.backbone_model) == (2, 3, None)
    assert (options.lr_scheduler, options.precision, options.head_learning_rate) == ("none", "16-mixed", None)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("64", "64-true"), ("32", "32-true"), ("bf16", "bf16-mixed"), ("bf16-true", "bf16-true")],
)
def test_precision_names_are_translated(bound, word, meant):
    assert bound("--precision", word).options.precision == meant


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1", BatchLimit(count=1)), ("1.0", BatchLimit(ratio=1.0)), ("1e-1", BatchLimit(ratio=0.1))],
)
def test_a_number_is_a_count_or_a_ratio(bound, here, text, limit):
    assert bound("--realloc-N", text).options.realloc_N == limit
    (here / "a.toml").write_text(f"realloc_N = {text}\n")
    assert bound("--config", "a.toml").options.realloc_N == limit


def test_pretrained_follows_load(bound):
    assert bound().options.pretrained is False
    assert bound("--load", "facebook/opt-125m").options.pretrained is True
    assert bound("--load", "facebook/opt-125m", "--no-pretrained").options.pretrained is False


def test_a_typed_seed_and_typed_seeds_win_over_a_toml(bound, here):
    (here / "a.toml").write_text("seeds = [1, 2]\n")
    assert bound("--config", "a.toml").options.seeds == (1, 2)
    one = bound("--config", "a.toml", "--seed", "7").options
    assert (one.seed, one.seeds) == (7, None)
    (here / "b.toml").write_text("seed = 7\n")
    assert bound("--config", "b.toml", "--seeds", "1,2").options.seeds == (1, 2)
    with pytest.raises(InputFault, match="cannot be combined with seed"):
        bound("--config", "a.toml", "--config", "b.toml")


def test_seeds_are_for_training(bound, here):
    with pytest.raises(InputFault) as refusal:
        bound("--seeds", "1,2", action="test")
    assert refusal.value.lines == (
        "--seeds: only for train, train-dyrealloc; test makes a single run, give --seed",
    )
    (here / "a.toml").write_text("seeds = [1, 2]\nseed = 3\n")
    done = bound("--config", "a.toml", action="test")
    assert (done.options.seeds, done.options.seed) == (None, 3)
    assert done.notes == ("test does not use seeds",)


def test_a_sweep_resumes_without_resume_training_and_with_an_existing_project(bound, here):
    (here / "outputs" / "mine").mkdir(parents=True)
    assert bound("--seeds", "1", "--project", "mine").options.project == "mine"
    with pytest.raises(InputFault) as refusal:
        bound("--seeds", "1", "--resume-training", "--load", "a/b", "--load-type", "hf")
    assert (
        "--seeds: cannot be combined with --resume-training; the same command resumes a sweep"
        in refusal.value.lines[-1]
    )


def test_paths_become_absolute_and_hub_names_stay(bound, here):
    (here / "base").mkdir()
    options = bound("--load", "base", "--project-dir", "runs", "--dataset-dir", ".").options
    assert (options.load, options.project_dir, options.dataset_dir) == (
        str(here / "base"),
        here / "runs",
        here,
    )
    assert options.lora_config == here / "lora.toml"
    assert bound().options.project_dir == here / "outputs"
    for name in ("facebook/opt-125m", "gpt2", "package:module/model"):
        assert bound("--load", name).options.load == name


def test_free_tables_are_merged_by_key(bound, here):
    (here / "a.toml").write_text("[data]\nx = 1\ny = 1\n[[data.mix]]\nname = 'p'\n")
    (here / "b.toml").write_text("[data]\ny = 2\n")
    done = bound("--config", "a.toml", "--config", "b.toml")
    assert done.tables == {"data": {"x": 1, "y": 2, "mix": [{"name": "p"}]}}
    assert done.table_files == {"data": here / "b.toml"}


def test_unused_options_are_named_once(bound, here):
    (here / "a.toml").write_text(
        "turn_on_percentile = 0.5\nscore_init = 'as_is'\nconstant_warmup_epochs = 0\n"
    )
    done = bound("--realloc-N", "0.1", "--budget-params", "9", "--config", "a.toml")
    assert done.notes == ("train does not use budget_params, realloc_N, score_init, turn_on_percentile",)
    assert bound().notes == ()
    assert bound("--learning-rate", "1", action="test").notes == ("test does not use learning_rate",)


def test_an_adapter_replaces_the_plan_and_a_checkpoint_outside_its_run_does_not(here):
    (here / "x.ckpt").write_text("")
    assert parse(["train", "opt_lora", "mrpc", "--adapter", "."]).options.adapter == (here,)
    with pytest.raises(InputFault) as refusal:
        parse(["test", "opt_lora", "mrpc", "--load", "x.ckpt", "--load-type", "pl"])
    expected = "--lora-config: required with 'opt_lora', unless --adapter or the checkpoint of a run is given"
    assert refusal.value.lines == (expected,)


def test_a_taken_project_is_refused_at_once(bound, here):
    (here / "runs" / "mine").mkdir(parents=True)
    with pytest.raises(InputFault) as refusal:
        bound("--project-dir", "runs", "--project", "mine")
    taken = here / "runs" / "mine"
    assert refusal.value.lines == (
        f"--project: '{taken}' already exists, and a run directory is never overwritten",
    )


def test_a_named_base_means_its_weights(here):
    assert parse(
        ["train", "opt_lora", "mrpc", "--adapter", ".", "--backbone-model", "a/b"]
    ).options.pretrained


def test_a_directory_without_permission_is_refused(bound, here, monkeypatch):
    (here / "locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != here / "locked")
    with pytest.raises(InputFault) as refusal:
        bound("--project-dir", "locked/runs")
    assert refusal.value.lines == (f"--project-dir: '{here / 'locked'}' is not writable",)


def test_help_with_and_without_an_action():
    with pytest.raises(HelpRequested) as request:
        parse(["--help"])
    text = request.value.text
    flags = re.findall(r"^  (--[a-zA-Z0-9-]+)", text, re.MULTILINE)
    assert len(flags) == len(set(flags)) > 60
    assert "--dataset-dir, --dataset-saved-path" in text
    assert "--offline, --no-offline" in text
    known = ", ".join(kinds.names(kinds.HEURISTICS))
    assert f"one of {known}; default: constant" in " ".join(text.split())
    with pytest.raises(HelpRequested) as request:
        parse(["test", "--help", "--batch-size", "-4"])
    assert "main test" in request.value.text
    assert "--learning-rate" not in request.value.text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RANK", "1", ()),
        ("WORLD_SIZE", "2", ()),
        ("LOCAL_RANK", "3", ("--num-devices", "2")),
        ("PL_TRAINER_FAST_DEV_RUN", "1", ()),
    ],
)
def test_an_environment_that_does_not_fit_is_refused_by_name(bound, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputFault, match=name):
        bound(*words)


@pytest.mark.parametrize("value", ["False", "true", "0"])
def test_a_switch_with_a_boolean_says_that_it_takes_none(here, value):
    with pytest.raises(InputFault) as refused:
        parse(["train", "--dry-run", value, "opt_lora", "mrpc"])
    assert f"--dry-run: takes no value, got {value}; write --dry-run or --no-dry-run" in refused.value.lines
    assert not any("given twice" in line for line in refused.value.lines)


def test_moments_are_noted_where_the_optimizer_has_none(here):
    words = ["train", "./tiny", "mrpc", "--optimizer", "sgd", "--adam-beta2", "0.95"]
    (here / "tiny").mkdir()
    assert parse(words).notes == ("the optimizer sgd does not use adam_beta2",)
    assert parse([*words[:3], *words[5:]]).notes == ()
