"""The one writer: files and directories appear whole or not at all, and no kill costs an existing copy.

Unfinished files are in the target's directory, with a name that begins with a dot and ends in `.tmp`.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_DRAFT, _OLD = ".new.tmp", ".old.tmp"
"""Endings of a directory that is being written, and of the whole one that it replaces."""
_SYNC_MODE = os.O_RDWR if os.name == "nt" else os.O_RDONLY
"""How a file is opened to be synced: Windows syncs only what may be written."""


def place_faults(flag: str, path: Path) -> list[str]:
    """Return why the file or directory that a flag names cannot be created; nothing is overwritten."""
    if os.path.lexists(path):
        return [f"{flag}: '{path}' already exists and is not overwritten"]
    return [] if path.parent.is_dir() else [f"{flag}: its directory '{path.parent}' does not exist"]


def picture_faults(flag: str, path: Path) -> list[str]:
    """Return why the PNG that a flag names cannot be created."""
    if path.suffix.lower() != ".png":
        return [f"{flag}: '{path.name}' must end in .png, the format of the picture"]
    return place_faults(flag, path)


def require_regular(path: Path) -> None:
    """Refuse a pipe or a device, which might never end or never begin.

    Raises:
        OSError: from the system, and for what is no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_regular(path: Path, most: int = -1) -> bytes:
    """Read a file from outside; a pipe or a device, which might never end or never begin, is refused.

    Args:
        path: the file.
        most: bytes that are read at most; -1: all.

    Raises:
        OSError: from the system, and for what is no regular file.
    """
    require_regular(path)
    with path.open("rb") as stream:
        return stream.read(most)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: temporary file in the same directory, fsync, read back, rename.

    Raises:
        OSError: from the system, or when the bytes read back differ from those written; the temporary file is
            removed and the old content stays.
    """

    def check(temporary: Path) -> None:
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "the bytes read back differ from those written", str(path))

    with replacing(path, check) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def replacing(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield an empty temporary file next to `path`; then it is synced, checked and renamed to `path`.

    Args:
        path: the file to create or replace.
        check: reads the finished temporary file back and raises if it is not what was meant.

    Raises:
        OSError: from the system; the temporary file is removed and the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)  # as the user's umask decides; asking for it would set it
    try:
        yield temporary
        _sync(temporary)
        if check is not None:
            check(temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory next to `path`; then its files are synced and it is renamed to `path`.

    Files that belong together appear together. A directory that exists already is renamed to `.NAME.old.tmp`
    first and deleted once the new one has its name, so that a whole one exists at every instant. A kill in
    between leaves it under that name: `recover_directory` gives it back, and is called here before anything
    is written.

    Raises:
        OSError: from the system; a directory that was there keeps its name, or gets it back.
    """
    recover_directory(path)
    draft = _beside(path, _DRAFT)
    draft.mkdir()
    try:
        yield draft
        for file in draft.rglob("*"):
            _sync(file)
        _sync(draft)
        if os.path.lexists(path):
            os.replace(path, _beside(path, _OLD))
        os.replace(draft, path)
        _sync(path.parent)
    finally:
        recover_directory(path)


def recover_directory(path: Path) -> None:
    """Finish what an interrupted `replacing_directory` left: one complete directory at `path`, no copies.

    A draft is deleted. The older directory gets its name back where no other one has it, and is deleted where
    the new one is in place.

    Raises:
        OSError: when it cannot be renamed back; it then stays where it is.
    """
    draft, old = _beside(path, _DRAFT), _beside(path, _OLD)
    _remove(draft)
    if not os.path.lexists(old):
        return
    if not os.path.lexists(path):
        os.replace(old, path)
        return
    with contextlib.suppress(OSError):
        os.replace(old, draft)  # a half deleted directory must not bear the name of a whole one
        _remove(draft)


def clear_leftovers(directory: Path) -> None:
    """Delete what killed writers left anywhere below a directory; what they were replacing is given back.

    Raises:
        OSError: when a directory cannot be renamed back; it then stays where it is.
    """
    for leftover in sorted(directory.rglob(".*.tmp")):
        if leftover.name.endswith(_OLD):
            recover_directory(leftover.with_name(leftover.name[1 : -len(_OLD)]))
        else:
            _remove(leftover)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Write a file or a directory through to the disk; Windows opens no directory and syncs without it."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, _SYNC_MODE)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _remove(path: Path) -> None:
    """Delete a file, a link or a directory tree; what cannot be deleted stays, and does no harm."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
