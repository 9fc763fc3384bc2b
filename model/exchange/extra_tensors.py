"""What PEFT has no place for: adapters of other kinds, in `extra.safetensors` beside PEFT's files.

A tensor's name there is `SITE.NAME`, e.g. `layer_0/residual1.A`; `metadata.json` says of each site how its
adapter is made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from safetensors.torch import save
from torch import Tensor

from configs.runtime.faults import InputFault
from configs.runtime.files import sha256, write_bytes
from configs.schema.number_values import Real, Whole
from configs.toml.binding import bind
from model.tensors.weights import load_tensors

EXTRA = "extra.safetensors"
KEY = "extra"
"""Where `metadata.json` describes what the file holds."""


@dataclass(frozen=True)
class Recipe:
    """How an adapter is made again.

    Args:
        method: a kind of `model.adapters`.
        rank: R.
        alpha: its scaling constant.
        strength: coefficient that multiplies its effect.
        keys: the method's own keys, as in a TOML.
        converted: PEFT's files hold a LoRA of the same effect for it.
    """

    method: str
    rank: Annotated[int, Whole(1)]
    alpha: Annotated[float, Real(0, low_open=True)]
    strength: Annotated[float, Real()] = 1.0
    keys: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    converted: bool = False


@dataclass(frozen=True)
class Extra:
    """An adapter that PEFT cannot hold: how it is made, and its tensors by name."""

    recipe: Recipe
    tensors: Mapping[str, Tensor]


def write_extra(directory: Path, extra: Mapping[str, Extra]) -> dict[str, Any]:
    """Write the tensors into an existing directory and return what the metadata says of them."""
    tensors = {
        f"{site}.{name}": tensor.detach().cpu().clone().contiguous()
        for site, one in extra.items()
        for name, tensor in one.tensors.items()
    }
    write_bytes(directory / EXTRA, save(tensors))
    return {site: _described(one.recipe) for site, one in extra.items()}


def _described(recipe: Recipe) -> dict[str, Any]:
    table = {**vars(recipe), "keys": dict(recipe.keys)}
    if not recipe.converted:
        del table["converted"]
    return table


def read_extra(directory: Path, metadata: Mapping[str, Any], where: Path) -> dict[str, Extra]:
    """Read what stands beside PEFT's files, by site.

    Args:
        directory: the adapter's.
        metadata: content of its metadata.json.
        where: that file.

    Raises:
        InputFault: naming file and site or tensor, when one is there without the other, when the bytes are
            not those that were written, or when a description is none.
    """
    path, described = directory / EXTRA, metadata.get(KEY, {})
    if not isinstance(described, dict) or not all(isinstance(one, dict) for one in described.values()):
        raise InputFault(f"{where}: {KEY}: must be a table of sites")
    if not path.exists():
        if described:
            raise InputFault(f"{directory}: holds no {EXTRA}, which {where.name} describes")
        return {}
    if metadata.get("sha256", {}).get(EXTRA) != sha256(path):
        raise InputFault(f"{path}: its bytes are not those that {where.name} records")
    found: dict[str, dict[str, Tensor]] = {site: {} for site in described}
    for name, tensor in load_tensors(path).items():
        site, _, rest = name.partition(".")
        if site not in found:
            raise InputFault(f"{path}: tensor {name}: {where.name} does not describe its site")
        found[site][rest] = tensor
    return {
        site: Extra(bind(Recipe, described[site], f"{where}: {KEY}: {site}"), found[site]) for site in found
    }
