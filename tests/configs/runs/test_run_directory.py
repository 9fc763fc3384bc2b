"""A run's directory is new, its own, and free again when its process is gone."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.runs import run_directory
from configs.runs.run_directory import RunDirectory, create, reopen
from configs.runtime.faults import InputFault, SystemFault

ROOT = Path(__file__).parents[3]
HOLDER = """
import pathlib, sys, time
from configs.runs.run_directory import create, reopen
path = pathlib.Path(sys.argv[2])
run = create(path.parent, path.name, "") if sys.argv[1] == "create" else reopen(path)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def here(tmp_path):
    """Leave the directory empty, unlike for this folder's other tests."""
    return tmp_path


def _refused(function, *arguments):
    with pytest.raises(InputFault) as caught:
        function(*arguments)
    return str(caught.value)


def _is_free(path):
    try:
        reopen(path).release()
    except InputFault:
        return False
    return True


@pytest.fixture
def held(tmp_path):
    """Hold a run directory in another process."""
    processes = []

    def start(how: str, path: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, how, str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_automatic_names_are_numbered(tmp_path):
    parent = tmp_path / "deep" / "outputs"
    runs = [create(parent, None, "opt_rte") for _ in range(3)]
    assert [run.path.name for run in runs] == ["opt_rte", "opt_rte_1", "opt_rte_2"]
    for run in runs:
        assert sorted(os.listdir(run.path)) == [".lock"]
        run.release()
        assert sorted(os.listdir(run.path)) == []
    (parent / "opt_rte_3").write_text("a file takes a name too")
    assert create(parent, None, "opt_rte").path.name == "opt_rte_4"


def test_a_given_name_that_is_taken_is_refused(tmp_path):
    create(tmp_path, "mine", "x").release()
    message = f"--project: '{tmp_path / 'mine'}' already exists, and a run directory is never overwritten"
    assert _refused(create, tmp_path, "mine", "x") == message


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = _refused(create, tmp_path / "file" / "below", None, "x")
    assert message.startswith("--project-dir: ")
    assert _refused(create, tmp_path / "file", None, "x").startswith("--project-dir: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_parent_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    try:
        message = _refused(create, tmp_path, None, "x")
    finally:
        tmp_path.chmod(0o755)
    assert message == f"--project-dir: '{tmp_path}' is not writable"


def test_permission_denied_is_worded(tmp_path, monkeypatch):
    def deny(*arguments, **options):
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", deny)
    assert _refused(create, tmp_path, None, "x") == f"--project-dir: '{tmp_path}' is not writable"
    monkeypatch.undo()
    monkeypatch.setattr(run_directory.os, "access", lambda path, mode: False)
    assert _refused(reopen, tmp_path) == f"--load: '{tmp_path}' is not writable"


def test_a_missing_directory_is_not_reopened(tmp_path):
    assert _refused(reopen, tmp_path / "x") == f"--load: '{tmp_path / 'x'}' is not a run directory"


def test_a_second_lock_is_refused_until_the_first_is_released(tmp_path):
    run = create(tmp_path, "mine", "x")
    assert _refused(reopen, run.path) == f"{run.path}: another run is writing to this directory"
    run.release()
    run.release()
    reopen(run.path).release()
    assert os.listdir(run.path) == []


def test_who_locks_while_the_last_holder_releases_keeps_the_lock(tmp_path, monkeypatch):
    """Between the deletion of the lock's file and the release, the next holder makes a new file."""
    first = create(tmp_path, "mine", "x")
    release, others = first.lock.release, []

    def release_late():
        others.append(reopen(first.path))
        release()

    monkeypatch.setattr(first.lock, "release", release_late)
    first.release()
    assert not _is_free(first.path)
    others[0].release()
    assert _is_free(first.path)


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), OSError(errno.EIO, "EIO")])
def test_a_directory_that_cannot_be_locked_is_not_said_to_be_in_use(tmp_path, monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(run_directory.FileLock, "acquire", fail)
    with pytest.raises(SystemFault, match="cannot be locked"):
        reopen(tmp_path)


@pytest.mark.parametrize("how", ["create", "reopen"])
def test_kill_frees_the_lock_of_another_process(tmp_path, held, how):
    path = tmp_path / "mine"
    if how == "reopen":
        create(tmp_path, "mine", "x").release()
    process = held(how, path)
    assert _refused(reopen, path) == f"{path}: another run is writing to this directory"
    process.send_signal(signal.SIGKILL)
    process.wait()
    reopen(path).release()
    assert os.listdir(path) == []


def test_the_lock_is_not_handed_to_started_processes(tmp_path):
    run = create(tmp_path, "mine", "x")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        run.release()
        for _ in range(50):  # until the child has closed what it does not inherit
            if _is_free(run.path):
                break
            time.sleep(0.1)
        assert _is_free(run.path)
    finally:
        child.communicate(b"\n")


def test_leftovers_of_a_killed_run_are_removed_and_what_it_was_replacing_comes_back(tmp_path):
    run = RunDirectory(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".adapter.tmp").mkdir()
    for name in (".adapter.tmp/a", ".a.x.tmp", "checkpoints/.b.tmp", "c.tmp", "checkpoints/last.ckpt", ".d"):
        (tmp_path / name).write_text("")
    (tmp_path / ".model.old.tmp").mkdir()
    (tmp_path / ".model.old.tmp" / "e").write_text("")
    run.clear_leftovers()
    kept = sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file())
    assert kept == [".d", "c.tmp", "checkpoints/last.ckpt", "model/e"]


def test_the_paths_are_those_of_the_specification(tmp_path):
    run = RunDirectory(tmp_path)
    names = ("metrics", "summary", "last", "best", "adapter")
    found = [str(getattr(run, name).relative_to(tmp_path)) for name in names]
    assert found == [
        "metrics.csv",
        "summary.json",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "adapter",
    ]
