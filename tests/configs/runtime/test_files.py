"""Files appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from configs.runtime.files import (
    clear_leftovers,
    place_faults,
    read_regular,
    recover_directory,
    replacing,
    replacing_directory,
    sha256,
    write_bytes,
    write_text,
)

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def here(tmp_path):
    """Leave the directory empty, unlike for this folder's other tests."""
    return tmp_path


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a"
    write_text(path, "Ä\n")
    assert path.read_bytes() == "Ä\n".encode()
    write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_users_mask_decides_who_may_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_the_mask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    """A file that another thread makes at that instant would be writable for everybody."""

    def refuse(mask):
        raise AssertionError("umask is set")

    monkeypatch.setattr(os, "umask", refuse)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_a_body_that_puts_another_file_in_place_changes_no_permissions(tmp_path):
    write_text(tmp_path / "a", "x")
    with replacing(tmp_path / "b") as temporary:
        other = tmp_path / "other"
        other.write_text("y")
        other.chmod(0o600)
        os.replace(other, temporary)
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "a").stat().st_mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_full_disk_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch, call, old):
    path = tmp_path / "a"
    if old:
        path.write_text(old)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError) as caught:
        write_text(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == (["a"] if old else [])
    assert not old or path.read_text() == old


def test_a_failing_body_or_check_leaves_the_old_content(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def refuse(temporary):
        assert temporary.read_text() == "new"
        raise ValueError

    with pytest.raises(ValueError), replacing(path, check=refuse) as temporary:
        temporary.write_text("new")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_target_is_untouched_until_the_end(tmp_path):
    path = tmp_path / "a"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".a.")
        assert temporary.name.endswith(".tmp")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"


def test_other_bytes_read_back_are_an_error(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(type(path), "read_bytes", lambda self: b"other")
    with pytest.raises(OSError, match="the bytes read back differ"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    program = (
        "import os, pathlib, signal, sys; from configs.runtime.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('new'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=30)
    assert done.returncode == -9
    assert path.read_text() == "old"


WORDS = ("old", "new")


def _write_directory(path, word):
    with replacing_directory(path) as draft:
        for name in ("a", "b"):
            (draft / name).write_text(word)


def _content(path):
    return {file.name: file.read_text() for file in path.iterdir()}


def _whole_copies(parent):
    """Return the words of all directories that hold both files with one word."""
    copies = [_content(one) for one in parent.iterdir() if one.is_dir()]
    return [one["a"] for one in copies if set(one) == {"a", "b"} and one["a"] == one["b"]]


def test_a_directory_is_written_and_replaced(tmp_path):
    for word in WORDS:
        _write_directory(tmp_path / "d", word)
        assert _content(tmp_path / "d") == {"a": word, "b": word}
        assert os.listdir(tmp_path) == ["d"]


def test_a_failing_body_leaves_the_old_directory(tmp_path):
    _write_directory(tmp_path / "d", "old")
    with pytest.raises(KeyError), replacing_directory(tmp_path / "d") as draft:
        (draft / "a").write_text("new")
        raise KeyError
    assert os.listdir(tmp_path) == ["d"]
    assert _content(tmp_path / "d") == {"a": "old", "b": "old"}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_no_failing_step_loses_the_directory(tmp_path, monkeypatch, call, number, is_late, error):
    """Fail at one call, before or after it did its work: a whole directory has the name."""
    path, real, calls = tmp_path / "d", getattr(os, call), []
    _write_directory(path, "old")

    def step(*arguments):
        calls.append(arguments)
        fails = len(calls) == number + 1
        if fails and not is_late:
            raise error
        real(*arguments)
        if fails:
            raise error

    monkeypatch.setattr(os, call, step)
    with contextlib.suppress(OSError, KeyboardInterrupt):
        _write_directory(path, "new")
    monkeypatch.undo()
    if (call, number) != ("replace", 2):  # there it is the clearing up that fails
        assert os.listdir(tmp_path) == ["d"]
    assert _whole_copies(tmp_path)[0] in WORDS
    assert _content(path)["a"] == _content(path)["b"]
    _write_directory(path, "next")
    assert os.listdir(tmp_path) == ["d"]
    assert _content(path) == {"a": "next", "b": "next"}


def test_the_previous_copy_survives_a_failed_restore(tmp_path, monkeypatch):
    path, real, calls = tmp_path / "d", os.replace, []
    _write_directory(path, "old")

    def only_the_first(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        real(*arguments)

    monkeypatch.setattr(os, "replace", only_the_first)
    with pytest.raises(OSError):
        _write_directory(path, "new")
    monkeypatch.undo()
    assert not path.exists()
    assert _whole_copies(tmp_path) == ["old"]
    recover_directory(path)
    assert os.listdir(tmp_path) == ["d"]
    assert _content(path) == {"a": "old", "b": "old"}


_KILLED = """
import os, pathlib, shutil, signal, sys
from configs.runtime.files import replacing_directory
path, number, calls = pathlib.Path(sys.argv[1]), int(sys.argv[2]), 0
def killing(real):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return call
os.replace, os.unlink = killing(os.replace), killing(os.unlink)
with replacing_directory(path) as draft:
    for name in ("a", "b"):
        (draft / name).write_text("new")
"""


@pytest.mark.parametrize("recover", ["recover_directory", "clear_leftovers", "replacing_directory"])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_kill_at_any_step_leaves_a_whole_directory_that_is_found_again(tmp_path, number, recover):
    path = tmp_path / "runs" / "d"
    path.parent.mkdir()
    _write_directory(path, "old")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(number)], cwd=ROOT, timeout=30)
    assert done.returncode == -9
    whole = _whole_copies(path.parent)
    assert whole
    if recover == "recover_directory":
        recover_directory(path)
    elif recover == "clear_leftovers":
        clear_leftovers(tmp_path)
    else:
        with pytest.raises(KeyError), replacing_directory(path):
            raise KeyError
    assert os.listdir(path.parent) == ["d"]
    assert _content(path) in [{"a": word, "b": word} for word in whole]


def test_names_that_contain_each_other_are_not_confused(tmp_path):
    for name in ("d", "d.old", "d.new"):
        _write_directory(tmp_path / name, name)
    with replacing_directory(tmp_path / "d") as draft:
        (draft / "a").write_text("x")
        _write_directory(tmp_path / "d.old", "y")
        _write_directory(tmp_path / "d.new", "z")
    assert sorted(os.listdir(tmp_path)) == ["d", "d.new", "d.old"]
    assert [_content(tmp_path / name)["a"] for name in ("d", "d.old", "d.new")] == ["x", "y", "z"]


def test_a_link_to_a_directory_is_replaced_and_its_target_kept(tmp_path):
    _write_directory(tmp_path / "target", "old")
    (tmp_path / "d").symlink_to(tmp_path / "target")
    _write_directory(tmp_path / "d", "new")
    assert sorted(os.listdir(tmp_path)) == ["d", "target"]
    assert not (tmp_path / "d").is_symlink()
    assert [_content(tmp_path / name)["a"] for name in ("d", "target")] == ["new", "old"]


def test_the_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_place_that_exists_or_has_no_parent_is_refused(tmp_path):
    assert place_faults("--output", tmp_path / "new") == []
    taken = f"--output: '{tmp_path}' already exists and is not overwritten"
    assert place_faults("--output", tmp_path) == [taken]
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert place_faults("--x", tmp_path / "link") == [
        f"--x: '{tmp_path / 'link'}' already exists and is not overwritten"
    ]
    missing = tmp_path / "a" / "b"
    assert place_faults("--output", missing) == [f"--output: its directory '{tmp_path / 'a'}' does not exist"]


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular(tmp_path / "link") == b"abc"
    assert read_regular(tmp_path / "file", 2) == b"ab"
    for path in (tmp_path / "pipe", pathlib.Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
