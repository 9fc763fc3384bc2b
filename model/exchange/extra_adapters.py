"""Make adapters again from what stands beside PEFT's files."""

from collections.abc import Mapping, Sequence
from typing import Any

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import AdapterKind
from model.exchange.extra_tensors import EXTRA, Extra, Recipe
from model.exchange.peft_format import PeftAdapter
from model.injection.attachment import Attachment
from model.injection.residual_stream import Wiring
from model.plan.adapter_config import AdapterConfig
from model.site import SHORTCUT_ROLES, SiteKey
from model.tensors.weights import assign


def load_kind(method: str) -> AdapterKind:
    """Return a kind of adapter by its name."""
    return kinds.load(kinds.ADAPTERS, method)


def config_of(key: SiteKey, recipe: Recipe, where: str) -> AdapterConfig:
    """Return what plans a site as a description says.

    Raises:
        InputFault: for a method that there is not, or that does not stand at such a place.
    """
    kinds.check(kinds.ADAPTERS, recipe.method, f"{where}: method")
    kind = load_kind(recipe.method)
    in_stream, in_peft = kind.place == "stream", kind.export is not None
    if in_peft != recipe.converted or in_stream != (key.role in SHORTCUT_ROLES):
        raise InputFault(f"{where}: method: '{recipe.method}' does not stand here")
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
    """Load tensors into attachments, by site, that a plan has made.

    Raises:
        InputFault: when sites, methods, ranks, alphas or keys that decide shapes differ from the plan's.
    """
    odd = set(extra) ^ {name for name, one in attachments.items() if one.active}
    odd -= {name for name in odd & set(attachments) if name in extra}  # off here, on in the file
    if odd:
        raise InputFault(f"{where}: its sites differ from the configuration's, first at {min(odd)}")
    for name, one in extra.items():
        attachment, recipe = attachments[name], one.recipe
        adapter, method = attachment.adapter, methods[attachment.site.key]
        told = (recipe.method, recipe.rank, recipe.alpha)
        if told != (method, adapter.rank, adapter.alpha):
            raise InputFault(
                f"{where}: {name}: {_words(*told)}, the configuration says"
                f" {_words(method, adapter.rank, adapter.alpha)}"
            )
        kind = load_kind(recipe.method)
        ours, fresh = kind.keys(adapter), kind.optional_tensors(adapter, recipe.keys)
        odd_keys = [key for key, value in ours.items() if recipe.keys.get(key, value) != value]
        fault = _odd(f"{where}: {name}", odd_keys, recipe.keys, ours)
        if not set(kind.fixed_keys).isdisjoint(odd_keys):
            raise fault
        try:
            assign(adapter, one.tensors, f"{where}: {EXTRA}: {name}", allow_missing=fresh)
        except InputFault:
            if not odd_keys:
                raise
            # Shapes differ because a key does; that is what its writer can mend.
            raise fault from None
        except ValueError as refusal:
            raise InputFault(f"{where}: {EXTRA}: {name}: {refusal}") from None
        attachment.strength = recipe.strength


def _odd(where: str, names: Sequence[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> InputFault:
    told, said = (_listed({name: keys[name] for name in names}) for keys in (theirs, ours))
    return InputFault(f"{where}: {told}, the configuration says {said}")


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in keys.items())


def _words(method: str, rank: int, alpha: float) -> str:
    return f"{method} with r = {rank} and alpha = {alpha:g}"
