"""Two processes on one machine: one record, one set of numbers, one end."""

import json

import pytest
import torch

from dataset.suites.rouge import score_rouge
from model.tensors.checkpoint import load_checkpoint
from tests.dataset.tasks.test_billsum import FILES, ROWS
from tests.support.runs import ENTRY, comparable, files, launch, pair, program, rows, run, summary


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def words(ground):
    """Two epochs of four updates of eight examples, seven rows to evaluate on, no dropout."""

    def make(batch_size, **options):
        folder = ground.rte("RTE7", train=32, dev=7)
        options = {"dataset_dir": folder, "checkpoint_every_n_steps": 1, **options}
        return ground.words("llama", batch_size=batch_size, **options)

    return make


def _named(directory, words):
    return [*words, "--project-dir", directory.parent, "--project", directory.name]


def _both(directory, words, code=0, driver=()):
    """Run in two processes and return directory and what was printed."""
    words = words if directory is None else _named(directory, words)
    module = "tests.support.killed" if driver else "main"
    done = program(*driver, *words, "--num-devices", 2, "--accelerator", "cpu", module=module)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def two(place, words):
    """A run of two processes with batches of four each."""
    pair(place / "two", *words(4))
    return place / "two"


@pytest.fixture(scope="module")
def one(place, words):
    """The same run in one process with batches of eight."""
    return run(place / "one", *words(8))


def _weights(directory):
    return load_checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"]


def test_two_processes_compute_what_one_does(two, one):
    assert list(rows(two)) == list(rows(one))
    torch.testing.assert_close(list(rows(two).values()), list(rows(one).values()), rtol=1e-4, atol=0)
    torch.testing.assert_close(_weights(two), _weights(one), rtol=1e-4, atol=1e-5)
    for name in ("val/accuracy", "val/macro_f1", "val/loss"):
        found, expected = (list(rows(done, name).values()) for done in (two, one))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert summary(two)["rows"] == summary(one)["rows"]
    assert summary(two)["metric"]["name"] == summary(one)["metric"]["name"]


def test_two_processes_leave_one_record(two, one, place):
    plain = [{name for name in files(done) if not name.startswith("tensorboard/")} for done in (two, one)]
    assert plain[0] == plain[1]
    assert len([name for name in files(two) if "events" in name]) == 1
    assert not [path for path in place.iterdir() if "_1" in path.name]
    lines = (two / "metrics.csv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1 + 8 + 2 * 3


def _check_error_of_rank_1(directory, printed):
    named = [line for line in printed.splitlines() if "rank 1" in line and "an invented fault" in line]
    assert named == ["error: rank 1: RuntimeError: an invented fault"]
    # The other process sees that it is alone; the defect's traceback is that of rank 1.
    assert "error: another process of the run has ended: " in printed
    assert not (directory / "summary.json").exists()


def test_an_error_in_one_process_ends_both(place, words):
    directory = place / "raising"
    printed = pair(directory, *words(4), driver=("recorded", 3, "1", "raise"), codes=(4, 1))
    _check_error_of_rank_1(directory, printed)


@pytest.mark.slow
def test_an_error_in_a_process_that_the_program_started_ends_both(place, words):
    directory = place / "raising-launched"
    done = _both(directory, words(4), 4, ("recorded", 3, 1, "raise"))
    _check_error_of_rank_1(directory, done.stderr)


@pytest.mark.slow
def test_a_stopped_run_of_two_processes_resumes_exactly(place, words, two):
    directory = place / "stopped"
    done = _both(directory, words(4), 143, ("step", 5, 0, "SIGTERM"))
    assert "error: stopped by signal 15 after step 5" in done.stderr.splitlines()
    checkpoint = directory / "checkpoints" / "last.ckpt"
    assert load_checkpoint(checkpoint)["position"]["steps"] == 5
    resume = ["train", "--resume-training", "--load", checkpoint, "--load-type", "pl"]
    _both(None, resume)
    assert comparable(directory) == comparable(two)
    assert (directory / "config.toml").read_bytes() == (two / "config.toml").read_bytes()


@pytest.mark.slow
def test_equal_runs_of_two_processes_are_equal(place, words, two):
    _both(place / "again", words(4))
    assert comparable(place / "again") == comparable(two)


@pytest.mark.slow
def test_two_processes_test_each_row_once(place, two, ground):
    words = ["test", "llama_lora", "rte", "--load", ground.host("llama"), "--adapter", two / "adapter"]
    words += ["--dataset-dir", ground.rte("RTE7")]
    _both(place / "test-two", words)
    run(place / "test-one", *words)
    found, expected = (summary(place / name) for name in ("test-two", "test-one"))
    assert set(found["metrics"]) == set(expected["metrics"])
    for name, value in expected["metrics"].items():
        torch.testing.assert_close(found["metrics"][name], value, rtol=1e-5, atol=0)
    assert found["metrics"]["test/accuracy"] == summary(two)["metric"]["value"]
    assert found["rows"] == expected["rows"]


@pytest.mark.slow
def test_a_killed_run_of_two_processes_resumes_exactly(place, words, ground):
    options = {"lora_config": ground.plan("dropout2", lora_dropout=0.2), "accumulate_grad_batches": 3}
    _both(place / "dropout", words(4, **options))
    directory = place / "dropout-killed"
    _both(directory, words(4, **options), -9, ("step", 3, 0, "SIGKILL"))
    checkpoint = directory / "checkpoints" / "last.ckpt"
    _both(None, ["train", "--resume-training", "--load", checkpoint, "--load-type", "pl"])
    assert comparable(directory) == comparable(place / "dropout")


@pytest.mark.slow
def test_a_lost_process_ends_the_run(place, words):
    done = _both(place / "lost", words(4), 4, ("step", 3, 1, "SIGKILL"))
    assert "Traceback" not in done.stderr
    faults = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(faults) == 1
    assert faults[0].startswith("error: another process of the run has ended: ")
    assert not (place / "lost" / "summary.json").exists()


@pytest.mark.slow
def test_a_signal_to_the_second_process_stops_both(place, words, two):
    done = _both(place / "second", words(4), 143, ("step", 2, 1, "SIGTERM"))
    assert "error: stopped by signal 15 after step 2" in done.stderr.splitlines()
    assert load_checkpoint(place / "second" / "checkpoints" / "last.ckpt")["position"]["steps"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true"])
def test_modules_that_are_off_train_under_ddp(place, words, ground, strategy):
    off = {"all_layers": {"v_proj": {**ENTRY, "disable_adapter": True}}}
    options = {"lora_config": ground.plan("off", off), "max_epochs": 1}
    _both(place / f"off-{strategy}", words(4, strategy=strategy, **options))
    run(place / f"off-one-{strategy}", *words(8, **options))
    found, expected = (place / f"{name}-{strategy}" for name in ("off", "off-one"))
    torch.testing.assert_close(list(rows(found).values()), list(rows(expected).values()), rtol=1e-4, atol=0)


@pytest.mark.slow
def test_two_processes_answer_each_prompt_once(place, ground):
    words = ["train", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    words += ["--dataset-dir", ground.gsm8k(), "--max-steps", 2, "--limit-test-samples", 3]
    _both(place / "answers", [*words, "--batch-size", 4])
    run(place / "answers-one", *words, "--batch-size", 8)
    found, expected = ((place / name / "samples.jsonl").read_text() for name in ("answers", "answers-one"))
    assert len(found.splitlines()) == len(expected.splitlines()) == 3


@pytest.mark.slow
def test_two_processes_count_each_summary_once(place, ground, tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "data.toml").write_text("[data]\nmax_new_tokens = 12\n")
    words = ["train", "llama_lora", "billsum", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    words += ["--config", tmp_path / "data.toml", "--dataset-dir", tmp_path, "--max-steps", 2]
    words += ["--limit-test-samples", 3, "--write-predictions"]
    _both(place / "summed", [*words, "--batch-size", 4])
    lines = (place / "summed" / "predictions_test.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    scores = [score_rouge(one["prediction"], row["summary"]) for one, row in zip(answers, ROWS)]
    for name in ("rouge1", "rouge2", "rougeL"):
        mean = sum(score[name] for score in scores) / 3
        assert summary(place / "summed")["metrics"][f"test/{name}"] == pytest.approx(mean, rel=1e-12)


@pytest.mark.slow
def test_plain_launch_and_torchrun_give_the_same_bytes(place, two, words):
    _both(place / "plain", words(4))
    assert comparable(place / "plain") == comparable(two)
    named = [*_named(place / "torchrun", words(4)), "--num-devices", 2, "--accelerator", "cpu"]
    torchrun = ("--nproc_per_node", 2, "--master_port", 29613, "-m", "main")
    done = program(*torchrun, *named, module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    assert comparable(place / "torchrun") == comparable(two)


def test_a_launcher_that_does_not_fit_leaves_nothing(place, words, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = sorted(place.iterdir())
    assert launch(*_named(place / "unfit", words(4))) == 2
    assert "WORLD_SIZE=2" in capsys.readouterr().err
    assert sorted(place.iterdir()) == before
