"""Headers of safetensors files, read strictly and without torch.

Source: huggingface/safetensors, the format described in its README.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault

_LARGEST_HEADER = 100_000_000
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


REAL = ("F16", "BF16", "F32", "F64")
"""Formats of floating-point numbers that weights may have."""


class DoubledKey(ValueError):
    """A key that occurs twice in a JSON object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} occurs twice")
        self.key = key


@dataclass(frozen=True)
class TensorInfo:
    """The header's description of one tensor.

    Args:
        dtype: the format's name of the number format, e.g. `F32`.
        shape: sizes, outermost first.
        offsets: first byte and the byte after the last, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return name -> description of the tensors, after checking that they fill the file exactly.

    Raises:
        InputFault: naming the file and its fault.
    """
    header, data_bytes = _parse(path)
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items()}
    _check_layout(path, tensors, data_bytes)
    return tensors


def is_index(name: str) -> bool:
    """Return whether a tensor of this name is a buffer of indices or a mask, which may be integers."""
    return name.endswith(("_ids", "_mask", "num_batches_tracked"))


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        InputFault: naming the file, when it is no safetensors file or its metadata are not strings.
    """
    header, _ = _parse(path)
    return header.get("__metadata__", {})


def _parse(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header and the number of bytes after it."""
    text, data_bytes = _header_bytes(path)
    try:
        header = json.loads(text.decode(), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputFault(f"{path}: its header is not valid JSON ({_first_line(error)})") from None
    if not isinstance(header, dict):
        raise InputFault(f"{path}: its header is not a JSON object")
    notes = header.get("__metadata__", {})
    if not isinstance(notes, dict) or not all(type(value) is str for value in notes.values()):
        raise InputFault(f"{path}: __metadata__: must be an object of strings")
    return header, data_bytes


def _header_bytes(path: Path) -> tuple[bytes, int]:
    """Return the raw header and the number of bytes after it; an impossible length is refused unread."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if len(prefix) < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise InputFault(f"{path}: is truncated or not a safetensors file ({size} bytes)")
            return stream.read(length), size - 8 - length
    except OSError as error:
        raise InputFault(f"{path}: cannot be read ({error.strerror})") from None


def _tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputFault(f"{path}: {name}: must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in _BITS:
        raise InputFault(f"{path}: {name}: unknown number format {dtype!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InputFault(f"{path}: {name}: invalid shape {shape!r} or data_offsets {offsets!r}")
    bits = _BITS[dtype] * math.prod(shape)
    if bits != 8 * (offsets[1] - offsets[0]):
        needed = -(-bits // 8)
        raise InputFault(
            f"{path}: {name}: {dtype} of shape {shape} takes {needed} bytes, its offsets say "
            f"{offsets[1] - offsets[0]}"
        )
    return TensorInfo(dtype, tuple(shape), (offsets[0], offsets[1]))


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """Refuse gaps, overlaps, and a file that is longer or shorter than its tensors."""
    end = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].offsets):
        if info.offsets[0] != end:
            fault = "overlaps" if info.offsets[0] < end else "leaves a gap after"
            raise InputFault(f"{path}: {name}: {fault} the tensor before it")
        end = info.offsets[1]
    if end != data_bytes:
        raise InputFault(f"{path}: its header describes {end} bytes of tensors, the file has {data_bytes}")


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its pairs, as the `object_pairs_hook` of `json.loads`.

    Raises:
        DoubledKey: when a key occurs twice.
    """
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise DoubledKey(next(name for name in names if names.count(name) > 1))
    return table


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
