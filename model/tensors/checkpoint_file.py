"""The file of a checkpoint as far as it can be checked without torch: its kind, format and digest."""

import hashlib
import json
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from model.tensors.safetensors_header import metadata as read_metadata

FORMAT = 2
KEY = "run"
"""The single key of the file's metadata, as safetensors writes several in random order."""
BLANK = "0" * 64
"""Placeholder for the digest while it is computed."""
_ARCHIVE = b"PK\x03\x04"  # first bytes of a PyTorch file; no length of a safetensors header


def checkpoint_tree(path: Path, flag: str = "--load") -> Any:
    """Return what a checkpoint holds besides tensors, after checking that it is whole and unchanged.

    Args:
        path: the file.
        flag: the option that named it, for messages.

    Returns:
        nested JSON in which tensors are named.

    Raises:
        InputFault: naming the file, when it is missing, truncated, changed, or of another kind or format.
    """
    if not path.is_file():
        raise InputFault(f"{flag}: no file {path}")
    with path.open("rb") as stream:
        if stream.read(4) == _ARCHIVE:
            raise InputFault(
                f"{path}: is a PyTorch archive, not a checkpoint of this project; --load-type pt reads the"
                " plain state dict of a stock network, --adapter an adapter in PEFT's format"
            )
    text = read_metadata(path).get(KEY)
    if text is None:
        raise InputFault(f"{path}: is a safetensors file, but not a checkpoint of this project")
    try:
        content = json.loads(text)
        written, digest, tree = content["format"], content["sha256"], content["state"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputFault(f"{path}: its metadata cannot be read: {error}") from None
    if written != FORMAT:
        raise InputFault(f"{path}: checkpoint format {written}, this version reads {FORMAT}")
    if _digest(path, str(digest)) != digest:
        raise InputFault(f"{path}: its content has changed since it was written")
    return tree


def _digest(path: Path, written: str) -> str:
    """Return the SHA-256 of the file with the placeholder for the digest."""
    with path.open("rb") as stream:
        length = stream.read(8)
        header = stream.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(length + header.replace(written.encode(), BLANK.encode(), 1))
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
