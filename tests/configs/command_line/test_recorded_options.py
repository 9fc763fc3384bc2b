"""What a checkpoint's run and an adapter recorded, and what a resumed run may not change."""

import json

import pytest

from configs.command_line.cli import parse
from configs.command_line.config_file import config_text
from configs.command_line.recorded_options import EVALUATION
from configs.runtime.faults import InputFault
from configs.schema.lookup import option_specs

RECORDED = """model = "opt_lora"
dataset = "mrpc"
load = "facebook/opt-125m"
lora_config = "/gone/plan.toml"
learning_rate = 0.001
batch_size = 4
max_epochs = 3
seed = 7
num_workers = 2
project_dir = "/somewhere/else"
resume_training = false

[data]
x = 1
"""


@pytest.fixture
def run(here):
    """A run directory that was moved after it was written."""
    directory = here / "runs" / "one"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / "last.ckpt").write_text("")
    (directory / "config.toml").write_text(RECORDED)
    (directory / "lora.toml").write_text("# the plan\n")
    return directory


@pytest.fixture
def resume(run):
    def make(*words):
        load = ["--load", "runs/one/checkpoints/last.ckpt", "--load-type", "pl"]
        return parse(["train", "--resume-training", *load, *words])

    return make


def test_names_of_evaluation_options_exist():
    assert set(EVALUATION) <= set(option_specs())


def test_resume_takes_everything_from_the_run(resume, run):
    bound = resume()
    options = bound.options
    assert (options.model, options.dataset, options.learning_rate) == ("opt_lora", "mrpc", 0.001)
    assert (options.project_dir, options.project) == (run.parent, "one")
    assert (options.backbone_model, options.pretrained) == ("facebook/opt-125m", True)
    assert (options.lora_config, options.num_workers) == (run / "lora.toml", 2)
    assert options.load == str(run / "checkpoints" / "last.ckpt")
    assert bound.sources["learning_rate"] == bound.sources["backbone_model"] == "run"
    assert bound.sources["load"] == "command line"
    assert (bound.tables, bound.table_files) == ({"data": {"x": 1}}, {"data": run / "config.toml"})


def test_resume_accepts_what_is_equal_or_free(resume, run, here):
    (here / "plan.toml").write_text("# the plan\n")
    words = "--learning-rate 1e-3 --num-workers 5 --log-level error --lora-config plan.toml --project-dir x"
    options = resume(*words.split(), "--backbone-model", "facebook/opt-125m").options
    assert (options.num_workers, options.log_level, options.project_dir) == (5, "error", run.parent)


def test_resume_refuses_changes(resume, here):
    (here / "new.toml").write_text("seed = 8\n[data]\nx = 2\ny = 3\n")
    with pytest.raises(InputFault) as refusal:
        resume(
            "--learning-rate",
            "0.01",
            "--max-steps",
            "9",
            "--config",
            "new.toml",
            "--lora-config",
            "lora.toml",
        )
    assert set(refusal.value.lines) == {
        "--learning-rate: learning_rate: the run began with 0.001, got 0.01",
        "--max-steps: max_steps: the run began with -1, got 9",
        f"--lora-config: lora_config: the run began with {here}/runs/one/lora.toml, got {here}/lora.toml",
        f"{here}/new.toml:1: seed: the run began with 7, got 8",
        "[data]: data.x: the run began with 1, got 2",
        "[data]: data.y: the run began with none, got 3",
    }


def test_resume_without_recorded_weights_draws_them_again(resume, run):
    text = RECORDED.replace('load = "facebook/opt-125m"\n', "")
    (run / "config.toml").write_text(text)
    options = resume().options
    assert (options.pretrained, options.backbone_model) == (False, None)


def test_test_takes_model_and_evaluation_from_the_run(run):
    load = ["--load", "runs/one/checkpoints/last.ckpt", "--load-type", "pl"]
    bound = parse(["test", *load, "--batch-size", "9"])
    options = bound.options
    assert (options.model, options.seed, options.batch_size) == ("opt_lora", 7, 9)
    assert options.backbone_model == "facebook/opt-125m"
    assert options.lora_config == run / "lora.toml"
    assert options.learning_rate == 1e-4
    assert options.project is None
    assert bound.notes == ()
    (run.parent / "again.toml").write_text(config_text(bound))
    assert parse(["test", "--config", str(run.parent / "again.toml")]).options == options


def test_a_new_run_from_a_checkpoint_takes_base_and_sites_only(run):
    load = ["--load", "runs/one/checkpoints/last.ckpt", "--load-type", "pl"]
    options = parse(["train", "opt_lora", "rte", *load]).options
    assert (options.backbone_model, options.lora_config) == ("facebook/opt-125m", run / "lora.toml")
    assert (options.seed, options.batch_size, options.learning_rate) == (0, 16, 1e-4)


def test_a_recorded_backbone_takes_precedence_over_the_recorded_load(resume, run):
    text = RECORDED.replace("[data]", 'load_type = "pl"\nbackbone_model = "org/base"\n[data]')
    (run / "config.toml").write_text(text)
    assert resume().options.backbone_model == "org/base"


def test_a_spoilt_record_is_named(resume, run):
    (run / "config.toml").write_text(RECORDED.replace("seed = 7", "seed = -7"))
    with pytest.raises(InputFault) as refusal:
        resume()
    assert refusal.value.lines[0].startswith(f"{run / 'config.toml'}:8: seed: must be")
    (run / "config.toml").write_text("x")
    with pytest.raises(InputFault) as refusal:
        resume()
    assert refusal.value.lines[0].startswith(f"{run / 'config.toml'}:1: ")


OWN = {"sha256": {"adapter_model.safetensors": "0" * 64}}
"""What marks a metadata.json as written by this program."""


@pytest.mark.parametrize("text", ["[]", '{"evaluation": 3}', '{"evaluation": "mmlu 0.41"}', '{"sha256": 1}'])
def test_metadata_of_another_tool_is_not_used(adapter, text):
    adapter.write_text(text)
    assert parse(["test", "opt_lora", "mrpc", "--adapter", "adapter"]).options.batch_size == 16


@pytest.fixture
def adapter(here):
    """An adapter that recorded how it was evaluated."""
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_config.json").write_text("{}")
    path = here / "adapter" / "metadata.json"
    path.write_text(
        json.dumps(OWN | {"evaluation": {"batch_size": 3, "precision": "bf16-true", "seed": None}})
    )
    return path


def test_test_takes_evaluation_options_from_an_adapter(adapter):
    words = ["opt_lora", "mrpc", "--adapter", "adapter", "--precision", "32"]
    bound = parse(["test", *words])
    assert (bound.options.batch_size, bound.options.precision, bound.options.seed) == (3, "32-true", 0)
    assert bound.sources["batch_size"] == "adapter"
    assert parse(["train", *words]).options.batch_size == 16


def test_an_adapter_may_be_named_by_its_run(adapter, here):
    """`here` holds the directory `adapter`, as a run does."""
    assert parse(["test", "opt_lora", "mrpc", "--adapter", "."]).options.batch_size == 3


def test_the_data_table_of_an_adapter_is_used_for_its_own_data_set_only(adapter, here):
    table = {"template": "{question}", "validation_examples": 3}
    adapter.write_text(json.dumps(OWN | {"evaluation": {"dataset": "gsm8k", "data": table}}))
    (here / "own.toml").write_text('[data]\ntemplate = "Q: {question}"\n')
    words = ["test", "opt_lora", "--adapter", "adapter"]
    bound = parse(words)
    assert bound.tables == {"data": table}
    assert bound.table_files == {"data": adapter}
    assert parse([*words, "--dataset", "mrpc"]).tables == {}
    merged = parse([*words, "--config", "own.toml"])
    assert merged.tables == {"data": {"template": "Q: {question}", "validation_examples": 3}}
    assert merged.table_files == {"data": here / "own.toml"}
    (here / "own.toml").write_text('[data]\nprompt = "question"\n')
    merged = parse([*words, "--config", "own.toml"])
    assert merged.tables == {"data": {"prompt": "question", "validation_examples": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(OWN | {"evaluation": {"data": 3}}), "evaluation.data: must be an object"),
        (json.dumps(OWN | {"evaluation": {"batch_size": "3"}}), "evaluation.batch_size: must be a whole"),
        (json.dumps(OWN | {"evaluation": {"batch_sise": 3}}), "unknown key; did you mean 'batch_size'?"),
        (json.dumps(OWN | {"evaluation": 3}), "evaluation: must be an object"),
        ("{", "is not valid JSON"),
        ("[" * 100000, "is not valid JSON"),
    ],
)
def test_spoilt_adapter_metadata_is_refused(adapter, text, message):
    adapter.write_text(text)
    with pytest.raises(InputFault) as refusal:
        parse(["test", "opt_lora", "mrpc", "--adapter", "adapter"])
    assert len(refusal.value.lines) == 1
    assert refusal.value.lines[0].startswith(str(adapter))
    assert message in refusal.value.lines[0]
