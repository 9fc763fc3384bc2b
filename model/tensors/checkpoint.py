"""Checkpoints: one safetensors file with tensors as they are and everything else as JSON.

A checkpoint holds the trained tensors, optimiser, schedule, callbacks, random states and the position in the
data, but not the frozen base.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import save
from torch import Tensor

from configs.runtime.faults import InputFault, NonFiniteFault
from configs.runtime.files import write_bytes
from model.tensors.checkpoint_file import BLANK, FORMAT, KEY, checkpoint_tree
from model.tensors.weights import load_tensors, require_finite

_FINITE = ("state.state_dict.", "state.optimizer_states.")
_PARTS: dict[str, type] = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "random": list,
    "position": dict,
    "facts": dict,
    "switches": dict,
}
"""What the checkpoint of a run holds, and of which kind."""
_NOT_EMPTY = ("optimizer_states", "lr_schedulers", "random")
"""Parts with an entry for each optimiser, schedule or process."""
_POSITION = ("epoch", "batches", "steps")


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically: the old file is replaced once the new one was read back.

    Args:
        state: nested dicts, lists and tuples of plain values, tensors and numpy arrays.
        path: the file to write.

    Raises:
        NonFiniteFault: when a tensor of the network or the optimiser is not finite; nothing is written.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "state", tensors)
    for name, tensor in tensors.items():
        if name.startswith(_FINITE) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
            shown = name.removeprefix(_FINITE[0])
            raise NonFiniteFault(f"{shown}: holds a value that is not finite; no checkpoint was written")
    text = json.dumps({"format": FORMAT, "sha256": BLANK, "state": tree})
    content = save(tensors, metadata={KEY: text})
    digest = hashlib.sha256(content).hexdigest()
    write_bytes(path, content.replace(BLANK.encode(), digest.encode(), 1))


def load_checkpoint(path: Path, flag: str = "--load") -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: the file.
        flag: the option that named it, for messages.

    Returns:
        the state that was saved, tensors on the CPU.

    Raises:
        InputFault: naming the file, when it is missing, truncated, changed, or of another kind or format.
    """
    tree = checkpoint_tree(path, flag)
    tensors = load_tensors(path, finite=False)
    require_finite(((name, one) for name, one in tensors.items() if name.startswith(_FINITE)), str(path))
    try:
        state = _restore(tree, tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputFault(f"{path}: its state is malformed") from None
    if not isinstance(state, dict):
        raise InputFault(f"{path}: its state is not a table")
    return state


def load_run(path: Path, flag: str = "--load") -> dict[str, Any]:
    """Read the checkpoint of a run, with every part that resuming needs.

    Args:
        path: the file.
        flag: the option that named it, for messages.

    Raises:
        InputFault: as `load_checkpoint`, or naming the parts that are missing or of another kind.
    """
    state = load_checkpoint(path, flag)
    lacking = [name for name, kind in _PARTS.items() if not isinstance(state.get(name), kind)]
    lacking += [name for name in _NOT_EMPTY if name not in lacking and not state[name]]
    if lacking:
        raise InputFault(f"{path}: lacks {', '.join(lacking)}; it is not a checkpoint of a run")
    if not all(type(state["position"].get(name)) is int for name in _POSITION):
        raise InputFault(f"{path}: position: must have {', '.join(_POSITION)}")
    return state


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return the value as JSON; its tensors are put into `tensors`, named by their path in the tree."""
    while name in tensors:  # key "a.b" of one dict and key "b" of its inner dict "a" differ
        name += "'"
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        pairs = [[_plain(key), _flatten(item, f"{name}.{key}", tensors)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        items = [_flatten(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    return _plain(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint can hold plain values and tensors, not {type(value).__name__}")


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "tuple":
        return tuple(_restore(item, tensors) for item in content)
    return {key: _restore(item, tensors) for key, item in content}


class RunCheckpointIO(CheckpointIO):
    """Lightning's reading and writing of checkpoints, in the format above."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint that Lightning collected."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        """Read a checkpoint, tensors on the CPU."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)
