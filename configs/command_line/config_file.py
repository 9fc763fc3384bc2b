"""The options in a `--config` file, and the effective configuration as a table and as config.toml."""

from pathlib import Path
from typing import Any

from configs.command_line.bound import Bound
from configs.runtime import console
from configs.runtime.faults import suggestion
from configs.schema.batch_limit import BatchLimit
from configs.schema.foreign_names import foreign_advice
from configs.schema.lookup import keys, option_specs
from configs.schema.options import FREE_TABLES, RETIRED
from configs.schema.settings import NONE_WORD, Layer, Setting
from configs.toml.reader import Document
from configs.toml.writer import toml_text, value_text


def read_options(document: Document, source: str) -> Layer:
    """Read and check every key of a config file; faults are collected, not raised.

    Args:
        document: the file.
        source: the origin of these values, as the effective configuration names it.
    """
    layer = Layer()
    for key, value in document.table.items():
        if key in FREE_TABLES and isinstance(value, dict):
            layer.tables[key] = value
        elif key in keys():
            _take(layer, document, key, source)
        else:
            layer.faults.append(f"{document.at(key)}: {_refusal(key, value)}")
            near = "" if key in RETIRED else suggestion(key, keys())
            layer.touched.update([keys()[near.split("'")[1]].name] if near else [])
    return layer


def _refusal(key: str, value: Any) -> str:
    if key in FREE_TABLES:
        return f"{key}: must be a table, [{key}]"
    if key == "config":
        return "config: only allowed on the command line"
    if key in RETIRED:
        return f"{key}: no longer an option; {RETIRED[key]}"
    advice = foreign_advice(key, dashes=False)
    if advice is not None:
        return f"unknown key '{key}'; {advice}"
    what = "table" if isinstance(value, dict) else "key"
    return f"unknown {what} '{key}'{suggestion(key, [*keys(), *FREE_TABLES])}"


def _take(layer: Layer, document: Document, key: str, source: str) -> None:
    spec, value = keys()[key], document.table[key]
    where = f"{document.at(key)}: {key}"
    if spec.name in layer.settings:
        layer.faults.append(f"{where}: given twice, as it is an alias of {spec.name}")
        return
    try:
        checked = spec.default if value == NONE_WORD else spec.kind.take(value)
    except ValueError as refusal:
        layer.faults.append(f"{where}: {refusal}")
        layer.touched.add(spec.name)
        return
    layer.settings[spec.name] = Setting(checked, source, where)


def config_text(bound: Bound) -> str:
    """Return the config.toml of a run: flat keys with their sources as comments, then the free tables.

    With `--config` it gives the same options again; it has no `project`, so a new directory is made.
    """
    lines = []
    for name, spec in option_specs().items():
        value = getattr(bound.options, name)
        # Defaults that follow from other options are derived again from the options given over this file.
        is_derived = spec.option.derived and bound.sources[name] == "default"
        if name not in ("config", "project") and not is_derived and value is not None and value != ():
            lines.append(f"{name} = {value_text(_plain(value))}  # {bound.sources[name]}")
    if bound.tables:
        lines.append(f"\n{toml_text(bound.tables).rstrip()}")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BatchLimit):
        return value.ratio if value.count is None else value.count
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def show_config(bound: Bound, *, everything: bool) -> None:
    """Print the options with their sources.

    Args:
        bound: the checked command line.
        everything: print the defaults too, not only the given options.
    """
    rows = [
        (name, _word(getattr(bound.options, name)), source)
        for name, source in bound.sources.items()
        if name != "config" and (everything or source != "default")
    ]
    console.table("Configuration", ("option", "value", "source"), rows)


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
