"""A folder of files is a registry: list its kinds, load the constant of one."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault, unknown

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Registry:
    """A folder whose files are kinds.

    Args:
        folder: its dotted name.
        constant: the name that each of its files defines.
        noun: what messages call a kind.
    """

    folder: str
    constant: str
    noun: str


ACTIONS = Registry("model.run.actions", "ACTION", "action")
ADAPTERS = Registry("model.adapters.methods", "ADAPTER", "adapter method")
FAMILIES = Registry("model.network.families", "FAMILY", "model family")
FORMATS = Registry("dataset.rows.formats", "READ", "format")
HEURISTICS = Registry("model.search.heuristics", "HEURISTIC", "heuristic")
QUANTIZERS = Registry("model.network.quantizers", "QUANTIZER", "base dtype")
TASKS = Registry("dataset.tasks", "TASK", "data set")
REGISTRIES = (ACTIONS, ADAPTERS, FAMILIES, FORMATS, HEURISTICS, QUANTIZERS, TASKS)


def names(registry: Registry) -> tuple[str, ...]:
    """Return the kinds in a registry's folder, sorted; nothing is imported."""
    return _stems(_ROOT.joinpath(*registry.folder.split(".")))


@cache
def _stems(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(f.stem for f in folder.glob("*.py") if f.stem != "__init__"))


def check(registry: Registry, kind: str, where: str) -> None:
    """Raise for a kind that the folder does not contain.

    Raises:
        InputFault: naming `where`, every kind, and the closest one.
    """
    if kind not in names(registry):
        raise InputFault(f"{where}: {unknown(registry.noun, kind, names(registry))}")


def load(registry: Registry, kind: str) -> Any:
    """Import one kind and return its constant, e.g. `load(ADAPTERS, "lora")`."""
    return import_late(f"{registry.folder}.{kind}", registry.constant)


def import_late(module: str, name: str) -> Any:
    """Return a name of a module that is imported only now, since it or its libraries are rarely needed."""
    return getattr(import_module(module), name)
