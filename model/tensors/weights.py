"""The one loader of tensors: safetensors first, plain state dicts second, nothing that could run code."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.runtime.faults import InputFault
from model.tensors.safetensors_header import read_header

_NAMED_AT_MOST = 8


def load_tensors(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file into memory, header first.

    Args:
        path: the file.
        finite: whether every value must be finite; a checkpoint's best score may still be infinite.

    Raises:
        InputFault: naming the file, and the tensor that holds a value which is not finite.
    """
    read_header(path)
    tensors = load_file(path)
    if finite:
        require_finite(tensors.items(), str(path))
    return tensors


def load_state_dict_file(path: Path) -> dict[str, Tensor]:
    """Read a plain state dict as `torch.save` writes it; a file that holds anything but tensors is refused.

    Raises:
        InputFault: naming the file, and the tensor that holds a value which is not finite.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception:
        # Damaged files raise anything; torch's own words advise the reader to trust the file.
        raise InputFault(
            f"{path}: is damaged or holds more than tensors; only plain state dicts are read"
        ) from None
    if not isinstance(content, dict) or not all(
        type(name) is str and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputFault(f"{path}: is no state dict, a table of names and tensors")
    require_finite(content.items(), str(path))
    return dict(content)


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Refuse tensors with NaN or infinite values.

    Raises:
        InputFault: naming every such tensor.
    """
    broken = [name for name, tensor in tensors if tensor.is_floating_point() and not _is_finite(tensor)]
    if broken:
        raise InputFault(f"{where}: values that are not finite in {_listed(broken)}")


def _is_finite(tensor: Tensor) -> bool:
    # A sum needs no mask of the tensor's size; it may overflow, so only its verdict "finite" counts.
    if tensor.dtype.itemsize >= 2 and bool(tensor.sum(dtype=torch.float64).isfinite()):
        return True
    return bool(
        tensor.to(torch.float32).isfinite().all() if tensor.dtype.itemsize < 2 else tensor.isfinite().all()
    )


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, allow_missing: Collection[str] = ()
) -> None:
    """Copy tensors into a module's parameters and buffers by name; nothing is copied unless everything fits.

    Args:
        module: takes the values; its types and devices stay.
        tensors: state-dict name -> value.
        where: names the origin in messages.
        allow_missing: state-dict names that the tensors may lack (tied weights).

    Raises:
        InputFault: with a line each for missing, unexpected and wrongly shaped tensors.
    """
    targets = module.state_dict(keep_vars=True)
    missing = [name for name in targets if name not in tensors and name not in allow_missing]
    unexpected = [name for name in tensors if name not in targets]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(target.shape)}"
        for name, target in targets.items()
        if name in tensors and tensors[name].shape != target.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    lines = [f"{where}: {what}: {_listed(names)}" for what, names in found.items() if names]
    if lines:
        raise InputFault(*lines)
    module.load_state_dict(tensors, strict=False)  # a module may take its tensors in a manner of its own


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
