"""A requeued SLURM job resumes exactly; `scontrol` and the variables are simulated."""

import signal

import pytest

from configs.command_line.cli import parse
from configs.runtime.faults import InputFault
from model.tensors.checkpoint import load_checkpoint
from model.training.callbacks.checkpoints import Checkpoints
from tests.support.runs import comparable, launch, run

SCONTROL = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/called"\nexit {code}\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Set the variables of a job of one task, and a `scontrol` that records its arguments."""

    def make(code=0, **variables):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "scontrol").write_text(SCONTROL.format(code=code))
        (folder / "scontrol").chmod(0o755)
        names = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
        names |= {"JOB_ID": "77", "JOB_NAME": "tiny", "NNODES": "1", **variables}
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        for name, value in names.items():
            monkeypatch.setenv(f"SLURM_{name}", value)

    return make


@pytest.fixture
def signalled(monkeypatch):
    """Send SIGUSR1 just before the second optimiser step is booked, once."""
    booked = Checkpoints.on_train_batch_end
    sent = []

    def armed(self, trainer, *arguments):
        if trainer.global_step == 2 and not sent:
            sent.append(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR1)
        booked(self, trainer, *arguments)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", armed)


@pytest.fixture(scope="module")
def words(ground):
    plan = ground.plan("requeue", lora_dropout=0.1)
    return [*ground.words(lora_config=plan, accumulate_grad_batches=2), "--auto-requeue"]


@pytest.fixture
def start(tmp_path, capsys):
    """Run a command line in RUN; return its exit code, what it printed and its faults."""

    def call(words):
        place = ["--project-dir", tmp_path / "runs", "--project", "job"]
        code = launch(*words, *place)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


def test_the_same_command_resumes_where_slurm_ended_it(tmp_path, words, cluster, signalled, start):
    directory = tmp_path / "runs" / "job"
    cluster()
    code, _, faults = start(words)
    assert (code, faults) == (138, ["error: stopped by signal 10 after step 2, the job is queued again"])
    assert (tmp_path / "bin" / "called").read_text() == "requeue 77\n"
    assert load_checkpoint(directory / "checkpoints" / "last.ckpt")["position"]["steps"] == 2
    assert not list(directory.rglob("hpc_ckpt*"))
    code, _, faults = start(words)  # not started again by SLURM
    assert code == 2
    assert "already exists" in faults[0]
    cluster(RESTART_COUNT="1")
    assert start(words)[0] == 0
    assert comparable(directory) == comparable(run(tmp_path / "whole", *words[:-1]))
    code, said, _ = start(words)
    assert (code, said[-1]) == (0, f"complete: {directory}")


def test_other_options_after_a_restart_are_refused(words, cluster, signalled, start):
    cluster()
    assert start(words)[0] == 138
    place = words.index("--learning-rate") + 1
    cluster(RESTART_COUNT="1")
    code, _, faults = start([*words[:place], "0.5", *words[place + 1 :]])
    assert code == 2
    assert "learning_rate: the run began with 0.01, got 0.5" in faults[0]


def test_a_scontrol_that_refuses_leaves_the_checkpoint(tmp_path, words, cluster, signalled, start):
    cluster(code=3, ARRAY_JOB_ID="70", ARRAY_TASK_ID="3")
    code, _, faults = start(words)
    assert (code, faults) == (4, ["error: --auto-requeue: scontrol requeue 70_3: exit code 3"])
    checkpoint = tmp_path / "runs" / "job" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(checkpoint)["position"]["steps"] == 2


def test_what_a_job_needs_is_checked_first(tmp_path, words, cluster, monkeypatch):
    words = [str(word) for word in words]
    cluster()
    with pytest.raises(InputFault, match="--auto-requeue: needs --project"):
        parse(words)
    assert parse([*words, "--project", "a"]).options.auto_requeue
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputFault, match="scontrol"):
        parse([*words, "--project", "a"])
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(InputFault, match="not in a SLURM job"):
        parse([*words, "--project", "a"])
    assert launch(*words, "--dry-run") == 0
