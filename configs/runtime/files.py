"""The one writer: files appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def place_faults(flag: str, path: Path) -> list[str]:
    """Say why the file or directory that a flag names cannot be made: nothing is written over."""
    if os.path.lexists(path):
        return [f"{flag}: '{path}' exists, nothing is written over"]
    return [] if path.parent.is_dir() else [f"{flag}: no directory '{path.parent}' to make it in"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: temporary file beside the target, fsync, reading back, replace.

    Raises:
        OSError: as the system gives it, or when other bytes are read than were written; no temporary file is
            left and the old content stays.
    """

    def check(temporary: Path) -> None:
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "other bytes were read back than were written", str(path))

    with replacing(path, check) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def replacing(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the body ends it is synced, checked and put in place.

    Args:
        path: the file to (re)place.
        check: reads the finished temporary file back and raises if it is not what was meant.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        if check is not None:
            check(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`; when the body ends its files are synced and it takes the place.

    Files that belong together appear together. An older directory steps aside first: a kill between the two
    moves leaves it as `.NAME.old.tmp`, and nothing half written ever bears the name.
    """
    draft, old = (path.with_name(f".{path.name}.{word}") for word in ("tmp", "old.tmp"))
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for file in draft.rglob("*"):
            _sync(file)
        _sync(draft)
        if path.exists():
            os.replace(path, old)
        os.replace(draft, path)
        _sync(path.parent)
    finally:
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
