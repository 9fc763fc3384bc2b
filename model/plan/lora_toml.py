"""The LoRA TOML: reading and checking what needs no model; `model.plan.resolution` does the rest.

The file has a `granularity` (`network`, `layer` or `head`), a table `[default]`, and tables that name sites;
`modules_to_save` names modules that are trained in full.
The most specific table of the chosen granularity replaces the others completely; keys are not merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from configs.runtime import kinds
from configs.runtime.faults import InputFault, suggestion, unknown
from configs.schema.number_values import Real, Whole
from configs.schema.values import Listed, Switch, Word
from configs.toml.reader import read_document
from model.plan.adapter_config import AdapterConfig
from model.plan.freezing_rule import Freezing, read_freezing
from model.plan.toml_tables import Form, NamedTable, named_tables
from model.site import FLOW, LINEAR_ROLES, SHORTCUT

Granularity = Literal["network", "layer", "head"]

LORA_FORM = Form(
    method=None,
    granularities=("network", "layer", "head"),
    roles={role: role for role in LINEAR_ROLES},
    keys={
        "r": ("rank", Whole(0)),
        "lora_alpha": ("alpha", Real(1e-30, 1e30)),
        "lora_dropout": ("dropout", Real(0, 1, high_open=True)),
        "adapter_name": ("adapter_name", Word(is_name=True)),
        "disable_adapter": ("disabled", Switch()),
        "importance_alpha": ("importance", Real(-1e30, 1e30)),
        "init_lora_weights": ("init", Switch()),
        "fan_in_fan_out": ("fan_in_fan_out", Switch()),
        "method": ("method", Word(is_name=True)),
    },
    required=("r", "lora_alpha", "lora_dropout", "adapter_name", "disable_adapter"),
    strength="importance_alpha",
    aliases={"init_lora_weghts": "init_lora_weights"},
)
"""The form of the LoRA TOML."""

_MODULES, _NAMES = "modules_to_save", Listed(Word())
_FREEZING = "freezing"


@dataclass(frozen=True)
class Plan:
    """A LoRA or shortcut TOML that passed the checks of its form.

    Args:
        path: the file.
        granularity: which tables count.
        default: the configuration of `[default]`.
        tables: name of a table of that granularity, e.g. `model_layer_0.q_proj`, -> its configuration.
        notes: lines to show once.
        modules_to_save: names of modules that are trained in full besides the adapters.
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
        """Return the names of the tables in which a method's own key has this value."""
        named = {"default": self.default, **self.tables}
        return [name for name, config in named.items() if config.extra.get(key) == value]

    def replacing(self, key: str, value: Any, by: Any) -> "Plan":
        """Return the plan with one value of a method's own key replaced by another."""

        def replaced(config: AdapterConfig) -> AdapterConfig:
            has_it = config.extra.get(key) == value
            return replace(config, extra={**config.extra, key: by}) if has_it else config

        tables = {name: replaced(config) for name, config in self.tables.items()}
        return replace(self, default=replaced(self.default), tables=tables)


def read_plan(path: Path, where: str = "--lora-config", form: Form = LORA_FORM) -> Plan:
    """Read a plan and check everything that can be checked without a model.

    Args:
        path: the file.
        where: the flag that named the file, for the message when it cannot be read.
        form: the tables and keys that the file may have.

    Raises:
        InputFault: with one line for each fault, naming file, table and key.
    """
    document = read_document(path, where).table
    _refuse_other_form(document, path, where, form)
    faults: list[str] = []
    granularity = document.get("granularity", "network")
    method = form.method or document.get("method", "lora")
    if granularity not in form.granularities:
        faults.append(f"granularity: {unknown('granularity', str(granularity), form.granularities)}")
    if not isinstance(method, str):
        faults.append("method: must be a string")
        method = "lora"
    modules, freezing = _training_settings(
        {key: document[key] for key in form.top_keys if key in document}, faults
    )
    tables: dict[str, AdapterConfig] = {}
    ignored = []
    for table in named_tables(document, form, faults):
        if granularity not in table.granularities and table.name != "default":
            ignored.append(f"[{table.written}]")
        elif (config := _config(table, method, form, faults)) is not None:
            tables[table.name] = config
    if "default" not in document:
        faults.append("[default]: required")
    if faults:
        raise InputFault(*(f"{path}: {fault}" for fault in faults))
    names = ", ".join(ignored)
    notes = (
        (f"{path}: granularity is {granularity}; tables of another one are ignored: {names}",)
        if ignored
        else ()
    )
    return Plan(path, granularity, tables.pop("default"), tables, notes, modules, freezing)


def _refuse_other_form(document: Mapping[str, Any], path: Path, where: str, form: Form) -> None:
    """Recognise a shortcut TOML given as LoRA TOML, and the reverse, by the keys of its default table."""
    default = document.get("default")
    keys = set(default) if isinstance(default, dict) else set()
    is_lora = form.method is None
    own, other = ("lora_alpha", "shortcut_alpha") if is_lora else ("shortcut_alpha", "lora_alpha")
    if other in keys and own not in keys:
        kind, flag = ("shortcut", "--shortcut-config") if is_lora else ("LoRA", "--lora-config")
        raise InputFault(f"{where}: {path} is a {kind} TOML (its default has {other}); give it as {flag}")


def _training_settings(keys: Mapping[str, Any], faults: list[str]) -> tuple[tuple[str, ...], Freezing | None]:
    """Return the modules to train in full and the freezing rule that the top-level keys give."""
    modules: tuple[str, ...] = ()
    freezing: Freezing | None = None
    if _MODULES in keys:
        try:
            modules = _NAMES.take(keys[_MODULES])
        except ValueError as refusal:
            faults.append(f"{_MODULES}: {refusal}")
    if _FREEZING in keys:
        try:
            freezing = read_freezing(keys[_FREEZING], f"[{_FREEZING}]")
        except InputFault as fault:
            faults += fault.lines
    return modules, freezing


def _config(table: NamedTable, method: str, form: Form, faults: list[str]) -> AdapterConfig | None:
    """Return the configuration that a table gives; None when it has a fault."""
    before, name, keys = len(faults), table.written, table.keys
    values: dict[str, Any] = {"method": method}  # field of `AdapterConfig` -> checked value
    extra = {}
    for written, value in keys.items():
        key = form.aliases.get(written, written)
        if key != written and key in keys:
            faults.append(f"[{name}] {written}: given twice, as it is an alias of {key}")
        elif key in form.keys:
            field_name, kind = form.keys[key]
            try:
                values[field_name] = kind.take(value)
            except ValueError as refusal:
                faults.append(f"[{name}] {written}: {refusal}")
        elif key in form.top_keys:
            faults.append(f"[{name}] {written}: belongs to the top level of the file, before all tables")
        else:
            faults += _unknown_key(name, key, keys, form)
            extra[key] = value
    faults += [f"[{name}] {key}: required" for key in form.required if key not in keys]
    known = [kind for kind in kinds.names(kinds.ADAPTERS) if kind not in (SHORTCUT, FLOW)]
    if form.method is None and values["method"] not in known:
        faults.append(f"[{name}] method: {unknown('adapter method', values['method'], known)}")
    return AdapterConfig(**values, extra=extra) if len(faults) == before else None


def _unknown_key(name: str, key: str, keys: Mapping[str, Any], form: Form) -> list[str]:
    """Return a fault for an unknown key; if it may be the method's own, only for a clear misspelling."""
    if form.method is not None:
        return [f"[{name}] {key}: unknown key{suggestion(key, form.keys)}"]
    near = get_close_matches(key, form.keys, n=1, cutoff=0.9)
    return [f"[{name}] {key}: unknown key; did you mean '{near[0]}'?"] if near and near[0] not in keys else []
