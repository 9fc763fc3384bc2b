"""The command line: arguments and config files become one checked set of options."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import checks, inheritance
from configs.faults import InputFault
from configs.flags import SOURCE, CommandLine, read_command_line
from configs.help_text import help_text
from configs.options import Options
from configs.schema import entries
from configs.settings import Layer, Setting, stack
from configs.toml_files import read_document, read_options

_PATHS_OR_NAMES = ("model", "load", "backbone_model")


class HelpRequested(Exception):
    """`--help` was given: `text` is to be printed, the exit code is 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True)
class Bound:
    """A checked command line.

    Args:
        action: the word ACTION.
        options: effective options, all paths absolute.
        sources: field of `Options` -> `default`, `adapter`, `run`, a TOML file's path, or `command line`.
        tables: free TOML tables by name, e.g. `data`.
        table_files: the last file that wrote into each table.
        notes: lines to show once: options that are given but not used.
    """

    action: str
    options: Options
    sources: dict[str, str]
    tables: dict[str, Any]
    table_files: dict[str, Path]
    notes: tuple[str, ...]

    def is_given(self, name: str) -> bool:
        """Tell whether an option has a value that is not the built-in default's."""
        return self.sources[name] != "default"

    def with_table(self, name: str, content: Mapping[str, Any]) -> "Bound":
        """Return it with another content of a free table; an empty one is left as it was."""
        return dataclasses.replace(self, tables={**self.tables, name: dict(content)}) if content else self


def absolute(table: Mapping[str, Any], keys: Sequence[str], directory: Path | None) -> dict[str, Any]:
    """Return a table with the files it names made absolute, so that its record works from anywhere.

    Args:
        table: the table.
        keys: which of its keys name files.
        directory: where a relative file is looked for before the current directory.
    """
    content = dict(table)
    for key in keys:
        places = [place for place in (directory, Path()) if place is not None]
        found = [place / str(content.get(key)) for place in places if key in content]
        first = next((path for path in found if path.is_file()), None)
        if first is not None:
            content[key] = str(first.absolute())
    return content


def parse(argv: Sequence[str]) -> Bound:
    """Read and check everything that needs no heavy library.

    Args:
        argv: the words after `python -m main`.

    Raises:
        HelpRequested: when `--help` is among the words.
        InputFault: one line for every fault of flags, TOML files and paths.
    """
    line = read_command_line(argv)
    if line.wants_help:
        raise HelpRequested(help_text(line.action))
    files = _read_files(line.layer)
    given = stack([*files.values(), line.layer])
    if line.action != "test":
        given.settings |= inheritance.requeued(given.settings)
    run = inheritance.run_directory(given.settings)
    layer = _inherit(line, given, run)
    options = _options(layer.settings)
    if _is_one_run(line.action, layer.settings):
        options = dataclasses.replace(options, seeds=None)
    faults = [*layer.faults, *checks.faults(checks.Case(line.action, options, layer, run))]
    if faults or line.action is None:
        raise InputFault(*_ordered(faults, line))
    sources = {name: "default" for name in entries()}
    sources |= {name: setting.source for name, setting in layer.settings.items()}
    table_files = {name: path / "metadata.json" for path in options.adapter for name in layer.tables}
    table_files |= {name: path for path, one in files.items() for name in one.tables}
    if run is not None:
        table_files = {name: run / "config.toml" for name in layer.tables} | table_files
    notes = _notes(line.action, layer.settings)
    return Bound(line.action, options, sources, layer.tables, table_files, notes)


def _read_files(given: Layer) -> dict[Path, Layer]:
    files = {}
    for path in given.settings["config"].value if "config" in given.settings else ():
        try:
            files.pop(path, None)
            files[path] = read_options(read_document(path, "--config"), str(path))
        except InputFault as refusal:
            files[path] = Layer(faults=list(refusal.lines), touched={"model", "dataset", "lora_config"})
    return files


def _inherit(line: CommandLine, given: Layer, run: Path | None) -> Layer:
    """Lay what was given over what the adapter and the checkpoint's run recorded."""
    layers = []
    try:
        if line.action == "test" and "adapter" in given.settings:
            layers += [inheritance.recorded_adapter(path, given) for path in given.settings["adapter"].value]
        if run is not None:
            recorded = inheritance.recorded_run(run)
            if not _is_resumed(line, given, run):
                layers.append(inheritance.without_training(recorded, line.action))
                given.settings.pop("resume_training", None)
            else:
                given.faults += inheritance.changes(line.action, given, recorded, run)
                return stack([recorded, given, inheritance.place_of(run)])
    except InputFault as refusal:
        layers.append(Layer(faults=list(refusal.lines), touched={"model", "dataset", "lora_config"}))
    return stack([*layers, given])


def _is_resumed(line: CommandLine, given: Layer, run: Path) -> bool:
    """Tell whether RUN goes on; an importance test of another run's checkpoint is a run of its own."""
    setting = given.settings.get("resume_training")
    if setting is None or not setting.value or line.action == "test":
        return False
    return line.action != "imp-test" or inheritance.action_of(run) == "imp-test"


def _options(settings: Mapping[str, Setting]) -> Options:
    """Fill the schema: values that were given, defaults, and the defaults that depend on other options."""
    values = {name: setting.value for name, setting in settings.items()}
    for name in _PATHS_OR_NAMES:
        word = values.get(name)
        if word is not None and os.path.exists(word) and not word.endswith(("_lora", "_lora_ags")):
            values[name] = str(Path(word).absolute())
    options = Options(**values)
    pretrained = options.pretrained
    if pretrained is None:
        pretrained = inheritance.names_weights(options.load or options.backbone_model, options.model)
    return dataclasses.replace(options, pretrained=pretrained, project_dir=options.project_dir.absolute())


def _is_one_run(action: str | None, settings: Mapping[str, Setting]) -> bool:
    """Tell whether a TOML's list of seeds is set aside: by an action without seeds, or by a typed --seed."""
    if "seeds" not in settings or settings["seeds"].source == SOURCE:
        return False
    has_seed = "seed" in settings and settings["seed"].source == SOURCE
    return has_seed or action not in entries()["seeds"].option.actions


def _ordered(faults: list[str], line: CommandLine) -> list[str]:
    """Put the command line's faults first and drop repetitions."""
    return list(dict.fromkeys([*line.layer.faults, *faults]))


def _notes(action: str, settings: Mapping[str, Setting]) -> tuple[str, ...]:
    unused = [
        name
        for name, setting in settings.items()
        if action not in entries()[name].option.actions
        and setting.source not in ("run", "adapter")
        and (setting.source == SOURCE or setting.value != entries()[name].default)
    ]
    return (f"{action} does not use {', '.join(sorted(unused))}",) if unused else ()
