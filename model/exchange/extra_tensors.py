"""Adapters that PEFT has no form for, in `extra.safetensors` next to PEFT's files.

A tensor's name there is `SITE.NAME`, for example `layer_0/residual1.A`; `metadata.json` describes for each
site how its adapter is rebuilt.
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
"""The key of `metadata.json` that describes the file."""


@dataclass(frozen=True)
class Recipe:
    """How an adapter is rebuilt.

    Args:
        method: a kind of `model.adapters.methods`.
        rank: R.
        alpha: scaling constant.
        strength: importance coefficient, which multiplies the delta.
        keys: the method's own keys, as in a TOML.
        converted: PEFT's files hold a LoRA of the same effect as well.
    """

    method: str
    rank: Annotated[int, Whole(1)]
    alpha: Annotated[float, Real(0, low_open=True)]
    strength: Annotated[float, Real()] = 1.0
    keys: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    converted: bool = False


@dataclass(frozen=True)
class Extra:
    """An adapter that PEFT has no form for: how it is rebuilt, and its tensors by name."""

    recipe: Recipe
    tensors: Mapping[str, Tensor]


def write_extra(directory: Path, extra: Mapping[str, Extra]) -> dict[str, Any]:
    """Write the tensors into an existing directory and return their description for the metadata."""
    tensors = {
        f"{site}.{name}": tensor.detach().cpu().clone().contiguous()
        for site, one in extra.items()
        for name, tensor in one.tensors.items()
    }
    write_bytes(directory / EXTRA, save(tensors, metadata={"format": "pt"}))
    return {site: _described(one.recipe) for site, one in extra.items()}


def _described(recipe: Recipe) -> dict[str, Any]:
    table = {**vars(recipe), "keys": dict(recipe.keys)}
    if not recipe.converted:
        del table["converted"]
    return table


def read_extra(directory: Path, metadata: Mapping[str, Any], where: Path) -> dict[str, Extra]:
    """Read the adapters of `extra.safetensors`, by site; none without that file.

    Args:
        directory: the adapter's.
        metadata: content of its metadata.json.
        where: path of that file.

    Raises:
        InputFault: naming file and site or tensor, when tensors and descriptions do not belong together, when
            the file was changed, or when a description is malformed.
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
    return {site: _extra(described[site], found[site], f"{where}: {KEY}: {site}") for site in found}


def _extra(described: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Extra:
    """Return the adapter of a site; a rank above every size of its tensors is refused before it is built."""
    recipe = bind(Recipe, described, where)
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=1)
    if recipe.rank > max(largest, 1):
        raise InputFault(f"{where}: rank: {recipe.rank}, but the largest size of its tensors is {largest}")
    return Extra(recipe, tensors)
