"""The LoRA TOML: read it without a model, resolve it against one.

The file has a `granularity` (`network`, `layer` or `head`), a table `[default]`, and tables that name sites;
`modules_to_save` names modules that train whole.
The most specific table of the chosen granularity replaces the others completely; keys are not merged.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.runtime import kinds
from configs.runtime.faults import InputFault, suggestion, unknown
from configs.schema.number_values import Real, Whole
from configs.schema.values import Listed, Switch, Word
from configs.toml.reader import read_document
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import disagreement, projection
from model.plan.freezing_rule import Freezing, read_freezing
from model.plan.toml_tables import Form, NamedTable, head_of, layer_of, named_tables
from model.site import HEAD_ROLES, LINEAR_ROLES, SHORTCUT, SiteKey

if TYPE_CHECKING:
    from model.network.family import Dimensions

Granularity = Literal["network", "layer", "head"]

LORA = Form(
    method=None,
    granularities=("network", "layer", "head"),
    roles={role: role for role in LINEAR_ROLES},
    keys={
        "r": ("rank", Whole(0)),
        "lora_alpha": ("alpha", Real(0, low_open=True)),
        "lora_dropout": ("dropout", Real(0, 1, high_open=True)),
        "adapter_name": ("adapter_name", Word(is_name=True)),
        "disable_adapter": ("disabled", Switch()),
        "importance_alpha": ("importance", Real()),
        "init_lora_weights": ("init", Switch()),
        "fan_in_fan_out": ("fan_in_fan_out", Switch()),
        "method": ("method", Word(is_name=True)),
    },
    required=("r", "lora_alpha", "lora_dropout", "adapter_name", "disable_adapter"),
    strength="importance_alpha",
    aliases={"init_lora_weghts": "init_lora_weights"},
)
"""The LoRA TOML."""

_WHOLE, _NAMES = "modules_to_save", Listed(Word())
_FREEZING = "freezing"


@dataclass(frozen=True)
class Plan:
    """A LoRA or shortcut TOML whose own form is right.

    Args:
        path: the file.
        granularity: which tables count.
        default: the configuration of `[default]`.
        tables: name of a table of that granularity, e.g. `model_layer_0.q_proj`, -> its configuration.
        notes: lines to show once.
        modules_to_save: names of modules that train whole beside the adapters.
        freezing: when matrices stop training; None: never.
    """

    path: Path
    granularity: Granularity
    default: AdapterConfig
    tables: Mapping[str, AdapterConfig]
    notes: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    freezing: Freezing | None = None

    def matching(self, key: str, value: Any) -> list[str]:
        """Return the names of tables whose method's own key has this value."""
        named = {"default": self.default, **self.tables}
        return [name for name, config in named.items() if config.extra.get(key) == value]

    def replacing(self, key: str, value: Any, by: Any) -> "Plan":
        """Return the plan with another value of a method's own key wherever it has this one."""

        def replaced(config: AdapterConfig) -> AdapterConfig:
            has_it = config.extra.get(key) == value
            return replace(config, extra={**config.extra, key: by}) if has_it else config

        tables = {name: replaced(config) for name, config in self.tables.items()}
        return replace(self, default=replaced(self.default), tables=tables)


@dataclass(frozen=True)
class Resolution:
    """A plan laid over a model.

    Args:
        layers: per layer, role -> its configuration, or one per head for q, k and v; every role is present.
        sites: the sites of the family with r > 0, disabled ones included, in order.
        notes: lines to show once.
    """

    layers: tuple[Mapping[str, AdapterConfig | tuple[AdapterConfig, ...]], ...]
    sites: Mapping[SiteKey, AdapterConfig]
    notes: tuple[str, ...] = ()


def read_plan(path: Path, where: str = "--lora-config", form: Form = LORA) -> Plan:
    """Read a plan and check all that needs no model.

    Args:
        path: the file.
        where: the flag that named it, for the case that there is no such file.
        form: what the file may say.

    Raises:
        InputFault: a line for each fault, naming file, table and key.
    """
    document = read_document(path, where).table
    faults: list[str] = []
    granularity = document.get("granularity", "network")
    method = form.method or document.get("method", "lora")
    if granularity not in form.granularities:
        faults.append(f"granularity: {unknown('granularity', str(granularity), form.granularities)}")
    if not isinstance(method, str):
        faults.append("method: must be a string")
        method = "lora"
    whole, freezing = _of_the_run({key: document[key] for key in form.top_keys if key in document}, faults)
    configs, ignored = {}, []
    for one in named_tables(document, form, faults):
        if granularity in one.granularities or one.name == "default":
            configs[one.name] = _config(one, method, form, faults)
        else:
            ignored.append(f"[{one.written}]")
    if "default" not in document:
        faults.append("[default]: required")
    if faults:
        raise InputFault(*(f"{path}: {fault}" for fault in faults))
    text = f"{path}: granularity is {granularity}; ignored, of another one: {', '.join(ignored)}"
    tables = {name: config for name, config in configs.items() if config}
    notes = (text,) if ignored else ()
    return Plan(path, granularity, tables.pop("default"), tables, notes, whole, freezing)


def _of_the_run(keys: Mapping[str, Any], faults: list[str]) -> tuple[tuple[str, ...], Freezing | None]:
    """Return what top-level keys say about training: modules that train whole, and when matrices stop."""
    whole, freezing = (), None
    if _WHOLE in keys:
        try:
            whole = _NAMES.take(keys[_WHOLE])
        except ValueError as refusal:
            faults.append(f"{_WHOLE}: {refusal}")
    if _FREEZING in keys:
        try:
            freezing = read_freezing(keys[_FREEZING], f"[{_FREEZING}]")
        except InputFault as refusal:
            faults += refusal.lines
    return whole, freezing


def _config(table: NamedTable, method: str, form: Form, faults: list[str]) -> AdapterConfig | None:
    """Check the keys of one table; None when there is a fault."""
    before, name, keys = len(faults), table.written, table.keys
    values, extra = {"method": method}, {}
    for written, value in keys.items():
        key = form.aliases.get(written, written)
        if key != written and key in keys:
            faults.append(f"[{name}] {written}: given twice, it is another name of {key}")
        elif key in form.keys:
            field_name, kind = form.keys[key]
            try:
                values[field_name] = kind.take(value)
            except ValueError as refusal:
                faults.append(f"[{name}] {written}: {refusal}")
        else:
            faults += _unknown_key(name, key, keys, form)
            extra[key] = value
    faults += [f"[{name}] {key}: required" for key in form.required if key not in keys]
    known = [kind for kind in kinds.names(kinds.ADAPTERS) if kind != SHORTCUT]
    if form.method is None and values["method"] not in known:
        faults.append(f"[{name}] method: {unknown('adapter method', values['method'], known)}")
    return AdapterConfig(**values, extra=extra) if len(faults) == before else None


def _unknown_key(name: str, key: str, keys: Mapping[str, Any], form: Form) -> list[str]:
    """Refuse a key; one that may be the method's own is refused only when it was clearly misspelt."""
    if form.method is not None:
        return [f"[{name}] {key}: unknown key{suggestion(key, form.keys)}"]
    near = get_close_matches(key, form.keys, n=1, cutoff=0.9)
    return [f"[{name}] {key}: unknown key; did you mean '{near[0]}'?"] if near and near[0] not in keys else []


def resolve(plan: Plan, dimensions: "Dimensions", roles: Collection[str]) -> Resolution:
    """Lay a plan over a model.

    Args:
        plan: the plan.
        dimensions: counts of layers and heads.
        roles: the linear roles the family has.

    Raises:
        InputFault: for a layer or head outside the model, heads of one projection that disagree in what they
            share, and a plan that turns on no site.
    """
    faults = outside(plan, dimensions)
    layers, sites, absent = [], {}, set()
    for layer in range(dimensions.layers):
        found: dict[str, AdapterConfig | tuple[AdapterConfig, ...]] = {}
        for role in LINEAR_ROLES:
            named = [lookup(plan, layer, role, head) for head in range(_head_count(role, dimensions))]
            found[role] = tuple(config for _, config in named) if role in HEAD_ROLES else named[0][1]
            config = named[0][1]
            if plan.granularity == "head" and role in HEAD_ROLES:
                faults += [f"{plan.path}: {text}" for text in disagreement(f"{role} in layer {layer}", named)]
                config = projection([one for _, one in named])
            if role not in roles:
                absent.update([role] if config.rank else [])
            elif config.rank:
                sites[SiteKey(layer, role)] = config
        layers.append(found)
    if not faults and not any(config.is_on for config in sites.values()):
        faults.append(
            f"{plan.path}: turns on no site: every one is disabled, has r = 0 or importance_alpha = 0,"
            " or is of a role the model lacks"
        )
    if faults:
        raise InputFault(*faults)
    names = ", ".join(role for role in LINEAR_ROLES if role in absent)
    notes = (f"{plan.path}: the model has no {names}; ignored",) if absent else ()
    return Resolution(tuple(layers), sites, notes)


def _head_count(role: str, dimensions: "Dimensions") -> int:
    if role not in HEAD_ROLES:
        return 1
    return dimensions.heads if role == "q_proj" else dimensions.key_value_heads


def lookup(plan: Plan, layer: int, role: str, head: int) -> tuple[str, AdapterConfig]:
    """Return name and configuration of the most specific table."""
    if plan.granularity == "network":
        names = [f"all_layers.{role}"]
    elif plan.granularity == "layer":
        names = [f"model_layer_{layer}.{role}"]
    else:
        end = f"{role}.head_{head}" if role in HEAD_ROLES else role
        names = [f"model_layer_{layer}.{end}", f"headwise_default.{end}"]
    found = next((name for name in names if name in plan.tables), "default")
    return found, plan.tables.get(found, plan.default)


def outside(plan: Plan, dimensions: "Dimensions") -> list[str]:
    """Return a fault for each table of a layer or head that the model does not have."""
    faults = []
    for name in plan.tables:
        layer, head = layer_of(name), head_of(name)
        where = f"{plan.path}: [{name}]"
        if layer is not None and layer >= dimensions.layers:
            faults.append(f"{where}: no layer {layer}, the model has layers 0 to {dimensions.layers - 1}")
        count = _head_count(name.split(".")[1], dimensions)
        if head is not None and head >= count:
            faults.append(f"{where}: no head {head}, this projection has heads 0 to {count - 1}")
    return faults
