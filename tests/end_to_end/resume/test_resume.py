"""A run that was killed or stopped and resumed leaves the same bytes as an uninterrupted one."""

import random
import shutil
import time

import pytest

from model.tensors.checkpoint import load_checkpoint
from tests.support.killed import child
from tests.support.runs import comparable, files, fork, launch, run, summary

STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def words(ground):
    """Two epochs of five batches in three updates, the last one of a single batch."""
    return ground.words(
        lora_config=ground.plan("resume", lora_dropout=0.1),
        dataset_dir=ground.rte("RTE36", train=36),
        accumulate_grad_batches=2,
        checkpoint_every_n_steps=2,
        log_every_n_steps=1,
        lr_scheduler="cosine_annealing",
        warmup_ratio=0.3,
        early_stopping_patience=5,
    )


@pytest.fixture(scope="module")
def whole(place, words):
    """The run that was not interrupted."""
    return run(place / "whole", *words)


def _interrupted(directory, words, point, step, name="SIGKILL", code=-9):
    """Run until the signal comes and return the run directory."""
    words = [*words, "--project-dir", directory.parent, "--project", directory.name]
    _fork(directory, words, point, step, name, code)
    return directory


def _fork(directory, words, point, step, name="SIGKILL", code=-9):
    log = directory.with_name(f"{directory.name}.log")
    assert fork(child, point, step, name, [str(word) for word in words], log) == code, log.read_text()


def _resume_words(directory):
    checkpoint = directory / "checkpoints" / "last.ckpt"
    return ["train", "--resume-training", "--load", str(checkpoint), "--load-type", "pl"]


def _assert_equal(directory, whole):
    assert comparable(directory) == comparable(whole)
    for name in ("config.toml", "samples.jsonl"):
        if (whole / name).exists():
            assert (directory / name).read_bytes() == (whole / name).read_bytes()
    events = {name for name in files(directory) if name.startswith("tensorboard/")}
    assert files(directory) - events == {n for n in files(whole) if not n.startswith("tensorboard/")}
    for name in ("best.ckpt", "last.ckpt"):
        found, expected = (load_checkpoint(run / "checkpoints" / name) for run in (directory, whole))
        assert found["position"] == expected["position"]
        assert all(found["state_dict"][n].equal(tensor) for n, tensor in expected["state_dict"].items())


@pytest.mark.parametrize(
    ("point", "step"),
    [
        ("recorded", 2),  # no checkpoint since the start: rows are cut back to nothing
        pytest.param("step", 2, marks=pytest.mark.slow),
        ("step", 3),  # the epoch's last update, not evaluated yet
        ("best", 3),  # best.ckpt is newer than last.ckpt
        pytest.param("epoch", 3, marks=pytest.mark.slow),
        pytest.param("recorded", 5, marks=pytest.mark.slow),
        pytest.param("epoch", 6, marks=pytest.mark.slow),  # trained, nothing exported
        pytest.param("export", 6, marks=pytest.mark.slow),
        ("report", 6),  # all but the summary
    ],
)
def test_a_killed_run_resumes_exactly(place, words, whole, point, step):
    directory = _interrupted(place / f"{point}{step}", words, point, step)
    assert not (directory / "summary.json").exists()
    assert launch(*_resume_words(directory)) == 0
    _assert_equal(directory, whole)


@pytest.mark.parametrize(
    ("point", "step"),
    [pytest.param("step", 1, marks=pytest.mark.slow), ("step", 4), ("validation", 3)],
)
def test_a_stopped_run_is_reported_and_resumes_exactly(place, words, whole, point, step):
    directory = _interrupted(place / f"stop-{point}{step}", words, point, step, "SIGTERM", 143)
    log = (place / f"{directory.name}.log").read_text()
    assert f"error: stopped by signal 15 after step {step}\n" in log
    assert "Traceback" not in log
    position = load_checkpoint(directory / "checkpoints" / "last.ckpt")["position"]
    assert position["steps"] == step
    assert launch(*_resume_words(directory)) == 0
    _assert_equal(directory, whole)


def test_a_run_resumes_twice_and_after_it_was_moved(place, words, whole, tmp_path, monkeypatch):
    directory = _interrupted(place / "moved", words, "recorded", 2)
    _fork(directory, _resume_words(directory), "step", 5)
    moved = tmp_path / "elsewhere" / "other-name"
    moved.parent.mkdir()
    shutil.move(directory, moved)
    monkeypatch.chdir(tmp_path)
    assert launch(*_resume_words(moved)) == 0
    _assert_equal(moved, whole)
    assert not directory.exists()


def test_a_shortened_record_is_refused_before_training(place, words, capsys):
    directory = _interrupted(place / "shortened", words, "step", 4)
    record = directory / "metrics.csv"
    record.write_bytes(record.read_bytes()[:-20])
    kept = {name: (directory / name).read_bytes() for name in files(directory) - {".lock"}}
    capsys.readouterr()
    assert launch(*_resume_words(directory)) == 2
    assert f"error: {record}: has {len(kept['metrics.csv'])} bytes" in capsys.readouterr().err
    assert {name: (directory / name).read_bytes() for name in files(directory)} == kept


@pytest.mark.slow  # the killed run's loading processes notice it after five seconds
def test_a_run_with_loading_processes_resumes_exactly(place, words, whole):
    directory = _interrupted(place / "workers", [*words, "--num-workers", "2"], "step", 4)
    assert launch(*_resume_words(directory), "--num-workers", "1") == 0
    assert comparable(directory) == comparable(whole)


def test_a_run_of_one_process_may_change_its_loading(place, words, whole):
    directory = _interrupted(place / "no-workers", words, "epoch", 3)
    assert launch(*_resume_words(directory), "--num-workers", "2") == 0
    _assert_equal(directory, whole)


def test_a_language_model_resumes_exactly(ground, place):
    words = ["train", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--batch-size", "8"]
    words += ["--lora-config", ground.plan("resume", lora_dropout=0.1), "--dataset-dir", ground.gsm8k()]
    words += ["--max-steps", "7", "--learning-rate", "0.01", "--checkpoint-every-n-steps", "1"]
    whole = run(place / "language", *words)
    directory = _interrupted(place / "language-killed", words, "step", 6)
    assert launch(*_resume_words(directory)) == 0
    _assert_equal(directory, whole)


def test_a_mixture_resumes_exactly(ground, place):
    """Seven batches an epoch; killed in the third, amid a round of either part."""
    words = ["train", "llama_lora", "--load", ground.host("llama"), "--config", ground.mixture()]
    words += ["--lora-config", ground.plan("resume", lora_dropout=0.1), "--batch-size", "8"]
    words += ["--max-epochs", "3", "--learning-rate", "0.01", "--checkpoint-every-n-steps", "4"]
    whole = run(place / "mixture", *words)
    directory = _interrupted(place / "mixture-killed", words, "step", 17)
    assert launch(*_resume_words(directory)) == 0
    _assert_equal(directory, whole)


def test_early_stopping_is_part_of_the_checkpoint(ground, place):
    words = ground.words(learning_rate=0, max_epochs=9, early_stopping_patience=2)
    whole = run(place / "patience", *words)
    assert summary(whole)["steps"] == 12
    for point, step in (("epoch", 8), ("export", 12)):
        directory = _interrupted(place / f"patience-{point}{step}", words, point, step)
        assert launch(*_resume_words(directory)) == 0
        _assert_equal(directory, whole)


def test_a_finished_run_is_complete(whole, capsys):
    before = {name: (whole / name).read_bytes() for name in files(whole)}
    assert launch(*_resume_words(whole)) == 0
    assert capsys.readouterr().out == f"complete: {whole}\n"
    assert {name: (whole / name).read_bytes() for name in files(whole)} == before


def test_a_changed_option_is_refused(place, words, capsys):
    directory = _interrupted(place / "changed", words, "step", 2)
    before = {name: (directory / name).read_bytes() for name in files(directory)}
    assert launch(*_resume_words(directory), "--learning-rate", "0.5") == 2
    error = capsys.readouterr().err
    assert error == "error: --learning-rate: learning_rate: the run began with 0.01, got 0.5\n"
    assert {name: (directory / name).read_bytes() for name in files(directory)} == before


def test_changed_data_are_refused(ground, place, capsys):
    rows = ground.rte("RTE_changing", train=36)
    words = ground.words(lora_config=ground.plan(), dataset_dir=rows, checkpoint_every_n_steps=1)
    directory = _interrupted(place / "data", words, "step", 2)
    train = next(rows.rglob("train.tsv"))
    train.write_text(train.read_text().replace("The ", "A ", 1))
    assert launch(*_resume_words(directory)) == 2
    assert capsys.readouterr().err == "error: --dataset: train of rte changed since the run was started\n"


def test_the_same_option_may_be_repeated(place, words, whole):
    directory = _interrupted(place / "repeated", words, "step", 2)
    assert launch(*_resume_words(directory), "--learning-rate", "1e-2", "--max-epochs", "2") == 0
    _assert_equal(directory, whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("point", ["recorded", "step"])
def test_every_step_may_be_the_last(place, words, whole, point, step):
    directory = _interrupted(place / f"every-{point}{step}", words, point, step)
    assert launch(*_resume_words(directory)) == 0
    _assert_equal(directory, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_every_instant_may_be_the_last(place, words, whole, seed):
    """Kill at random instants until the run is complete; at the end it equals the uninterrupted one."""
    generator = random.Random(seed)
    directory = place / f"instant{seed}"
    for attempt in range(30):
        start = [*words, "--project-dir", place, "--project", directory.name]
        begun = (directory / "checkpoints" / "last.ckpt").exists()
        if not begun:
            shutil.rmtree(directory, ignore_errors=True)
        log = place / f"instant{seed}-{attempt}.log"
        argued = [str(word) for word in (_resume_words(directory) if begun else start)]
        code = fork(child, None, 0, "", argued, log, after=generator.uniform(0.3, 1.6))
        assert code in (0, -9), log.read_text()
        if code == 0:
            break
        time.sleep(0.01)
    else:
        assert launch(*_resume_words(directory)) == 0
    _assert_equal(directory, whole)
