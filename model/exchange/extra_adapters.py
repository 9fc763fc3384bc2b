"""Rebuild the adapters that PEFT has no form for, from `extra.safetensors` and its description."""

from collections.abc import Mapping, Sequence
from typing import Any

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import Adapter, AdapterKind
from model.exchange.extra_tensors import EXTRA, Extra, Recipe
from model.exchange.peft_format import PeftAdapter
from model.injection.attachment import Attachment
from model.injection.residual_stream import Wiring
from model.plan.adapter_config import AdapterConfig
from model.site import SHORTCUT_ROLES, SiteKey
from model.tensors.weights import assign


def load_kind(method: str) -> AdapterKind:
    """Return the kind of adapter of a method."""
    return kinds.load(kinds.ADAPTERS, method)


def config_of(key: SiteKey, recipe: Recipe, where: str) -> AdapterConfig:
    """Return the configuration of a site that rebuilds the described adapter.

    Raises:
        InputFault: for an unknown method, or one that cannot be used at this site.
    """
    kinds.check(kinds.ADAPTERS, recipe.method, f"{where}: method")
    kind = load_kind(recipe.method)
    in_stream, in_peft = kind.place == "stream", kind.export is not None
    if in_peft != recipe.converted or in_stream != (key.role in SHORTCUT_ROLES):
        raise InputFault(f"{where}: method: '{recipe.method}' cannot be used at this site")
    return AdapterConfig(
        rank=recipe.rank,
        alpha=recipe.alpha,
        dropout=0.0,
        adapter_name="default",
        disabled=False,
        importance=recipe.strength,
        method=recipe.method,
        extra=recipe.keys,
    )


def recorded_wiring(adapter: PeftAdapter) -> Wiring | None:
    """Return how the shortcuts of an adapter are wired according to its metadata, None without shortcuts.

    Raises:
        InputFault: when the metadata does not describe a wiring.
    """
    table = adapter.metadata.get("shortcuts")
    if table is None:
        has_any = any(name.rpartition("/")[2] in SHORTCUT_ROLES for name in adapter.extra)
        return Wiring("exact") if has_any else None
    where = f"{adapter.source}: metadata.json: shortcuts"
    if not isinstance(table, dict):
        raise InputFault(f"{where}: must be a table")
    return bind(Wiring, table, where)


def load_extra(
    attachments: Mapping[str, Attachment],
    methods: Mapping[SiteKey, str],
    extra: Mapping[str, Extra],
    where: str,
) -> None:
    """Load tensors into attachments that exist already.

    Args:
        attachments: site -> attachment.
        methods: kind of adapter by site.
        extra: site -> the adapter that a file holds.
        where: the adapter's directory, named in faults.

    Raises:
        InputFault: when sites, methods, ranks, alphas or keys that decide shapes differ.
    """
    differing = set(extra) ^ {name for name, one in attachments.items() if one.active}
    differing -= {
        name for name in differing & set(attachments) if name in extra
    }  # on in the file and disabled here
    if differing:
        raise InputFault(f"{where}: its sites differ from the configuration's, first at {min(differing)}")
    for name, one in extra.items():
        attachment, recipe = attachments[name], one.recipe
        adapter, method = attachment.adapter, methods[attachment.site.key]
        if (recipe.method, recipe.rank, recipe.alpha) != (method, adapter.rank, adapter.alpha):
            theirs = _description(recipe.method, recipe.rank, recipe.alpha)
            ours = _description(method, adapter.rank, single_alpha(adapter))
            raise InputFault(f"{where}: {name}: {theirs}, the configuration says {ours}")
        kind = load_kind(recipe.method)
        keys, optional = kind.keys(adapter), kind.optional_tensors(adapter, recipe.keys)
        differing_keys = [key for key, value in keys.items() if recipe.keys.get(key, value) != value]
        fault = _key_fault(f"{where}: {name}", differing_keys, recipe.keys, keys)
        if not set(kind.fixed_keys).isdisjoint(differing_keys):
            raise fault
        try:
            assign(adapter, one.tensors, f"{where}: {EXTRA}: {name}", allow_missing=optional)
        except InputFault:
            if not differing_keys:
                raise
            # Shapes differ because a key does, and the key is what the user can correct.
            raise fault from None
        except ValueError as refusal:
            raise InputFault(f"{where}: {EXTRA}: {name}: {refusal}") from None
        attachment.strength = recipe.strength


def single_alpha(adapter: Adapter) -> float:
    """Return the alpha of an adapter; a LoRA by head, which has several, is in PEFT's file only."""
    assert not isinstance(adapter.alpha, list)
    return adapter.alpha


def _key_fault(
    where: str, names: Sequence[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> InputFault:
    recorded, configured = (", ".join(f"{name} = {keys[name]}" for name in names) for keys in (theirs, ours))
    return InputFault(f"{where}: {recorded}, the configuration says {configured}")


def _description(method: str, rank: int, alpha: float) -> str:
    return f"{method} with r = {rank} and alpha = {alpha:g}"
