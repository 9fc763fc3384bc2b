"""Loading tensors, from safetensors files and plain state dicts; nothing that could run code is read."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.runtime.faults import InputFault
from model.tensors.safetensors_header import is_index, read_header

_NAMED_AT_MOST = 8
_REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_tensors(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file into memory, after checking its header.

    Args:
        path: the file.
        finite: whether to refuse values that are not finite.

    Returns:
        name -> tensor on the CPU.

    Raises:
        InputFault: naming the file and its fault, or the tensors with values that are not finite.
    """
    read_header(path)
    tensors = load_file(path)
    if finite:
        require_finite(tensors.items(), str(path))
    return tensors


def values_differ(files: Sequence[Path], one: str, other: str) -> bool:
    """Return whether files hold two tensors with different values; no further ones are read.

    Args:
        files: the files of a network's weights.
        one: end of a tensor's name.
        other: end of the other's.
    """
    first, second = (
        next((found for path in files if (found := _tensor(path, ending)) is not None), None)
        for ending in (one, other)
    )
    return first is not None and second is not None and not torch.equal(first, second)


def _tensor(path: Path, ending: str) -> Tensor | None:
    """Return the first tensor of a file whose name has an ending; None without one."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as content:
            names = [name for name in content.keys() if name.endswith(ending)]  # noqa: SIM118 - no mapping
            return content.get_tensor(names[0]) if names else None
    tensors = load_state_dict_file(path)
    return next((value for name, value in tensors.items() if name.endswith(ending)), None)


def load_state_dict_file(path: Path) -> dict[str, Tensor]:
    """Read a plain state dict, as `torch.save` writes it.

    Returns:
        name -> tensor on the CPU.

    Raises:
        InputFault: naming the file, when it contains anything but tensors, or tensors whose values are not
            finite.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception:
        # Damaged files raise any exception; torch's own message advises to trust the file.
        raise InputFault(
            f"{path}: is damaged or contains more than tensors; only plain state dicts are read"
        ) from None
    if not isinstance(content, dict) or not all(
        type(name) is str and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputFault(f"{path}: is not a state dict, a mapping of names to tensors")
    require_finite(content.items(), str(path))
    return dict(content)


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Refuse tensors with NaN or infinite values.

    Args:
        tensors: name and tensor.
        where: the file or source, for the message.

    Raises:
        InputFault: naming the tensors.
    """
    names = [name for name, tensor in tensors if tensor.is_floating_point() and not _is_finite(tensor)]
    if names:
        raise InputFault(f"{where}: values that are not finite in {_listed(names)}")


def require_real(path: Path) -> None:
    """Refuse a file of pickled tensors with integers where floating-point numbers belong, reading no values.

    Raises:
        InputFault: naming the file, and the tensors with their number formats.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, weights_only=True, map_location="meta")
        formats = {name: tensor.dtype for name, tensor in content.items()}
    except Exception:
        return  # whoever loads the values reports what is wrong with the file
    wrong = [
        f"{name} is {dtype}".replace("torch.", "")
        for name, dtype in formats.items()
        if dtype not in _REAL and not is_index(name)
    ]
    if wrong:
        raise InputFault(f"{path}: must be floating-point numbers: {_listed(wrong)}")


def _is_finite(tensor: Tensor) -> bool:
    # A sum needs no mask of the tensor's size. It may overflow, so only a finite sum is conclusive.
    if tensor.dtype.itemsize >= 2 and bool(tensor.sum(dtype=torch.float64).isfinite()):
        return True
    return bool(
        tensor.to(torch.float32).isfinite().all() if tensor.dtype.itemsize < 2 else tensor.isfinite().all()
    )


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, allow_missing: Collection[str] = ()
) -> None:
    """Copy tensors into a module's parameters and buffers by name, if all of them fit.

    Args:
        module: gets the values; its number formats and devices are kept.
        tensors: state-dict name -> value.
        where: the file or source, for messages.
        allow_missing: state-dict names that may be missing (tied weights).

    Raises:
        InputFault: with one line each for missing and unexpected tensors, wrong shapes, and integers in place
            of floating-point numbers.
    """
    targets = module.state_dict(keep_vars=True)
    missing = [name for name in targets if name not in tensors and name not in allow_missing]
    unexpected = [name for name in tensors if name not in targets]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(target.shape)}"
        for name, target in targets.items()
        if name in tensors and tensors[name].shape != target.shape
    ]
    formats = [
        f"{name} {tensors[name].dtype}".replace("torch.", "")
        for name, target in targets.items()
        if name in tensors and tensors[name].is_floating_point() != target.is_floating_point()
    ]
    found = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes, "wrong data type": formats}
    lines = [f"{where}: {what}: {_listed(names)}" for what, names in found.items() if names]
    if lines:
        raise InputFault(*lines)
    module.load_state_dict(tensors, strict=False)  # modules may override how they load their tensors


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
