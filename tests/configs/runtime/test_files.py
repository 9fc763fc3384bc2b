"""Files appear whole or not at all."""

import errno
import hashlib
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from configs.runtime.files import place_faults, replacing, sha256, write_bytes, write_text


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
    with pytest.raises(OSError, match="other bytes were read back"):
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
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, timeout=30)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_the_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_place_that_exists_or_has_no_parent_is_refused(tmp_path):
    assert place_faults("--output", tmp_path / "new") == []
    assert place_faults("--output", tmp_path) == [f"--output: '{tmp_path}' exists, nothing is written over"]
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert place_faults("--x", tmp_path / "link") == [
        f"--x: '{tmp_path / 'link'}' exists, nothing is written over"
    ]
    missing = tmp_path / "a" / "b"
    assert place_faults("--output", missing) == [f"--output: no directory '{tmp_path / 'a'}' to make it in"]
