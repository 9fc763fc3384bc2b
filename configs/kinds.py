"""A folder of files is a registry: list its kinds, load one kind's constant."""

from importlib import import_module
from pathlib import Path
from typing import Any

from configs.faults import InputFault, unknown

_ROOT = Path(__file__).resolve().parent.parent


def names(package: str) -> tuple[str, ...]:
    """Return the kinds in a folder such as `model.adapters`, sorted; nothing is imported."""
    folder = _ROOT.joinpath(*package.split("."))
    return tuple(sorted(f.stem for f in folder.glob("*.py") if f.stem != "__init__"))


def check(package: str, kind: str, where: str, what: str) -> None:
    """Refuse a kind the folder does not hold.

    Raises:
        InputFault: naming `where`, every kind there is, and the nearest one.
    """
    if kind not in names(package):
        raise InputFault(f"{where}: {unknown(what, kind, names(package))}")


def load(package: str, kind: str, constant: str) -> Any:
    """Import `<package>.<kind>` and return its constant, e.g. `load("model.adapters", "lora", "ADAPTER")`."""
    return getattr(import_module(f"{package}.{kind}"), constant)
