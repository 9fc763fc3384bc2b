"""A SLURM job that is queued again goes on exactly; `scontrol` and the variables are stood in for."""

import pytest

from configs.faults import InputFault
from model.checkpoint import load_checkpoint
from tests.runs import comparable, launch, program, run

SCONTROL = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/called"\nexit {code}\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Variables of a job of one task, and a `scontrol` that writes down what it was asked."""

    def make(code=0, **variables):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "scontrol").write_text(SCONTROL.format(code=code))
        (folder / "scontrol").chmod(0o755)
        names = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
        names |= {"JOB_ID": "77", "JOB_NAME": "tiny", "NNODES": "1", **variables}
        slurm = {f"SLURM_{name}": value for name, value in names.items()}
        return {"PATH": f"{folder}:/usr/bin:/bin", **slurm}

    return make


@pytest.fixture(scope="module")
def words(ground):
    plan = ground.plan("requeue", lora_dropout=0.1)
    return [*ground.words(lora_config=plan, accumulate_grad_batches=2), "--auto-requeue"]


def _start(directory, words, environment, point=()):
    module = "tests.killed" if point else "main"
    words = [*point, *words, "--project-dir", directory.parent, "--project", directory.name]
    return program(*words, module=module, **environment)


def test_the_same_command_goes_on_where_slurm_ended_it(tmp_path, words, cluster):
    directory = tmp_path / "runs" / "job"
    done = _start(directory, words, cluster(), ("step", 2, 0, "SIGUSR1"))
    assert done.returncode == 138, done.stderr
    assert "error: stopped by signal 10 after step 2, the job is queued again" in done.stderr.splitlines()
    assert (tmp_path / "bin" / "called").read_text() == "requeue 77\n"
    assert load_checkpoint(directory / "checkpoints" / "last.ckpt")["position"]["steps"] == 2
    assert not list(directory.rglob("hpc_ckpt*"))
    refused = _start(directory, words, cluster())  # not started again by SLURM
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    again = cluster(RESTART_COUNT="1")
    done = _start(directory, words, again)
    assert done.returncode == 0, done.stderr
    whole = run(tmp_path / "whole", *words[:-1])
    assert comparable(directory) == comparable(whole)
    assert f"complete: {directory}" in _start(directory, words, again).stdout.splitlines()


def test_other_options_after_a_restart_are_refused(tmp_path, words, cluster):
    directory = tmp_path / "runs" / "job"
    assert _start(directory, words, cluster(), ("step", 2, 0, "SIGUSR1")).returncode == 138
    place = words.index("--learning-rate") + 1
    words = [*words[:place], "0.5", *words[place + 1 :]]
    done = _start(directory, words, cluster(RESTART_COUNT="1"))
    assert done.returncode == 2
    assert "learning_rate: the run began with 0.01, got 0.5" in done.stderr


def test_a_scontrol_that_refuses_leaves_the_checkpoint(tmp_path, words, cluster):
    directory = tmp_path / "runs" / "job"
    array = {"ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3"}
    done = _start(directory, words, cluster(code=3, **array), ("step", 2, 0, "SIGUSR1"))
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == "error: --auto-requeue: scontrol requeue 70_3: exit code 3"
    assert load_checkpoint(directory / "checkpoints" / "last.ckpt")["position"]["steps"] == 2


def test_what_a_job_needs_is_checked_first(tmp_path, words, cluster, monkeypatch):
    from configs.cli import parse

    words = [str(word) for word in words]
    for name, value in cluster().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputFault, match="--auto-requeue: needs --project"):
        parse(words)
    assert parse([*words, "--project", "a"]).options.auto_requeue
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputFault, match="scontrol"):
        parse([*words, "--project", "a"])
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(InputFault, match="no SLURM job"):
        parse([*words, "--project", "a"])
    assert launch(*words, "--dry-run") == 0
