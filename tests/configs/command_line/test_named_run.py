"""`--load RUN` and `--resume-training RUN` find the checkpoint that is meant."""

import pytest

from configs.command_line.cli import parse
from configs.command_line.named_run import checkpoint_settings, is_run
from configs.runtime.faults import InputFault
from configs.schema.settings import Setting

RECORDED = (
    'model = "opt_lora"\ndataset = "mrpc"\nload = "facebook/opt-125m"\nlora_config = "/gone/plan.toml"\n'
)


@pytest.fixture
def run(here):
    directory = here / "runs" / "one"
    (directory / "checkpoints").mkdir(parents=True)
    for name in ("last", "best"):
        (directory / "checkpoints" / f"{name}.ckpt").write_text("")
    (directory / "config.toml").write_text(RECORDED)
    (directory / "lora.toml").write_text("# the plan\n")
    return directory


def _given(**values):
    return {name: Setting(value, "command line", name) for name, value in values.items()}


def _found(**values):
    return {name: one.value for name, one in checkpoint_settings(_given(**values)).items()}


def test_a_directory_means_the_best_checkpoint_or_the_last_to_go_on_from(run):
    best, last = (str(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert _found(load=str(run)) == {"load": best, "load_type": "pl"}
    assert _found(load=str(run), load_type="pl") == {"load": best, "load_type": "pl"}
    assert _found(load=str(run), resume_training=True)["load"] == last
    assert _found(load=str(run), resume_training=False)["load"] == best
    (run / "checkpoints" / "best.ckpt").unlink()
    assert _found(load=str(run))["load"] == last


def test_what_is_not_a_run_or_of_another_type_is_left_alone(run, here):
    assert _found(load=str(here)) == _found(load="facebook/opt-125m") == _found() == {}
    assert _found(load=str(run), load_type="hf") == {}
    assert not is_run(str(here / "none.ckpt"))


def test_a_checkpoint_file_needs_no_type(run):
    file = str(run / "checkpoints" / "best.ckpt")
    assert _found(load=file) == {"load": file, "load_type": "pl"}
    assert _found(load=file, load_type="pt") == {}


@pytest.mark.parametrize(
    "words",
    [
        ["--resume-training", "runs/one"],
        ["--resume-training=runs/one"],
        ["--resume-training", "runs/one/"],
        ["--resume-training", "runs/one/checkpoints/last.ckpt"],
        ["--resume-training", "--load", "runs/one"],
        ["--load", "runs/one", "--resume-training"],
    ],
)
def test_a_run_is_resumed_by_its_directory(run, words):
    bound = parse(["train", *words])
    assert bound.options.resume_training
    assert bound.options.load == str(run / "checkpoints" / "last.ckpt")
    assert (bound.options.project_dir, bound.options.project) == (run.parent, "one")


def test_the_checkpoint_of_a_directory_is_noted(run):
    bound = parse(["test", "--load", "runs/one"])
    assert bound.options.load == str(run / "checkpoints" / "best.ckpt")
    assert bound.notes == ("runs/one: taken is its checkpoint runs/one/checkpoints/best.ckpt",)
    assert parse(["test", "--load", "runs/one/checkpoints/best.ckpt"]).notes == ()


def test_words_behind_the_flag_that_are_no_run_are_positional(run, here):
    (here / "tiny").mkdir()
    bound = parse(["train", "--resume-training", "opt_lora", "mrpc", "--load", "runs/one"])
    assert bound.options.model == "opt_lora"
    with pytest.raises(InputFault, match="--load: given twice"):
        parse(["train", "--resume-training", "runs/one", "--load", "runs/one"])
    with pytest.raises(InputFault, match="needs a run"):
        parse(["train", "--resume-training", "tiny", "mrpc"])
    with pytest.raises(InputFault, match="--no-resume-training: takes no value"):
        parse(["train", "--no-resume-training=runs/one"])


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("config.toml", ["--resume-training", "runs/one"]),
        ("checkpoints/last.ckpt", ["--resume-training", "runs/one"]),
        ("config.toml", ["--load", "runs/one"]),
    ],
)
def test_a_run_that_is_not_whole_is_named_with_what_it_lacks(run, gone, words):
    (run / gone).unlink()
    with pytest.raises(InputFault) as refusal:
        parse(["train", *words])
    assert f"'runs/one' is no whole run, it has no {gone.rpartition('/')[2]}" in str(refusal.value)
