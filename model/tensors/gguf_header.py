"""Headers of GGUF files, read strictly and without torch.

Source: ggml-org/ggml, its description of GGUF (versions 2 and 3) and the block sizes of its number formats.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST_KEPT_ARRAY = 64
# type number -> (values in a block, bytes of a block)
_BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110)},
    **{22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8)},
    **{29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66)},
}


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Args:
        fields: metadata; of long arrays only the length is kept.
        tensors: name -> sizes, innermost first.
    """

    fields: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]


def read_gguf_header(path: Path) -> GgufHeader:
    """Return a GGUF file's metadata and tensors, after checking that every tensor lies within the file.

    Raises:
        InputFault: naming the file and its fault.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).header()
    except (struct.error, UnicodeDecodeError, LookupError, ArithmeticError, TypeError, RecursionError):
        raise InputFault(f"{path}: is truncated or damaged (its header cannot be parsed)") from None
    except ValueError:
        raise InputFault(f"{path}: is empty") from None
    except OSError as error:
        raise InputFault(f"{path}: cannot be read ({error.strerror})") from None


class _Reader:
    """A GGUF file and the position up to which it was read."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self._at = path, content, 0

    def header(self) -> GgufHeader:
        """Read everything before the tensors' data."""
        if self._content[:4] != b"GGUF":
            raise InputFault(f"{self._path}: is not a GGUF file (its first bytes are {self._content[:4]!r})")
        self._at = 4
        version = self._number("I")
        if version not in (2, 3):
            raise InputFault(f"{self._path}: GGUF version {version} is not supported, only 2 and 3")
        tensor_count, field_count = self._number("Q"), self._number("Q")
        fields = {self._string(): self._value(self._number("I")) for _ in range(field_count)}
        infos = [self._info() for _ in range(tensor_count)]
        self._check_extent(infos, fields.get("general.alignment", 32))
        return GgufHeader(fields, {name: sizes for name, sizes, _, _ in infos})

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return name, sizes, type number and offset of the next tensor."""
        name = self._string()
        sizes = tuple(self._number("Q") for _ in range(self._number("I")))
        return name, sizes, self._number("I"), self._number("Q")

    def _check_extent(self, infos: list[tuple[str, tuple[int, ...], int, int]], alignment: int) -> None:
        start = -(-self._at // alignment) * alignment
        for name, sizes, kind, offset in infos:
            values, width = _BLOCKS.get(kind, (1, 0))
            end = start + offset + -(-math.prod(sizes) // values) * width
            if end > len(self._content):
                raise InputFault(
                    f"{self._path}: {name}: ends at byte {end}, the file has {len(self._content)} bytes"
                )

    def _number(self, code: str) -> Any:
        value = struct.unpack_from(f"<{code}", self._content, self._at)[0]
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._number("Q")
        if length > len(self._content) - self._at:
            raise InputFault(f"{self._path}: is truncated (a string of {length} bytes does not fit)")
        text = self._content[self._at : self._at + length]
        self._at += length
        return text.decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        item, count = self._number("I"), self._number("Q")
        if count > _LONGEST_KEPT_ARRAY:
            return self._skip(item, count)
        return [self._value(item) for _ in range(count)]

    def _skip(self, item: int, count: int) -> int:
        """Skip a long array (a vocabulary) and return its length."""
        if item not in _SCALARS:
            for _ in range(count):
                self._value(item)
        else:
            self._at += count * struct.calcsize(f"<{_SCALARS[item]}")
        return count
