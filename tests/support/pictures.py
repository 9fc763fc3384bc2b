"""Pictures without their pixels: figures are built as ever, and what is saved of them is one blank dot.

Most of the time of a tiny run goes into drawing. Tests of whole runs look at which pictures are there; pixels
are drawn by the tests of `model.figures`, of the router maps and of the tools, and by
`tests/end_to_end/runs/test_pictures.py`.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


BLANK = b"\x89PNG\r\n\x1a\n" + b"".join(
    (
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(b"\0\xff")),
        _chunk(b"IEND", b""),
    )
)
"""A PNG of one white dot."""


def _save(figure: Figure, target: Any, **options: Any) -> None:
    if isinstance(target, str | Path):
        Path(target).write_bytes(BLANK)
    else:
        target.write(BLANK)


_DRAWN = Figure.savefig


@contextmanager
def _saved_by(function: Callable[..., None]) -> Iterator[None]:
    before, Figure.savefig = Figure.savefig, function
    try:
        yield
    finally:
        Figure.savefig = before


def blank_pictures() -> AbstractContextManager[None]:
    """Let every figure be saved as a blank dot."""
    return _saved_by(_save)


def drawn_pictures() -> AbstractContextManager[None]:
    """Let figures be drawn after all, where `blank_pictures` holds."""
    return _saved_by(_DRAWN)
