"""The command line: merge arguments and config files into one checked set of options."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.command_line import checks, named_run, recorded_options
from configs.command_line.bound import Bound
from configs.command_line.config_file import read_options
from configs.command_line.flags import SOURCE, CommandLine, read_command_line
from configs.command_line.help_text import help_text
from configs.runtime.faults import InputFault
from configs.runtime.version import DISTRIBUTION, program_version
from configs.schema.lookup import option_specs
from configs.schema.options import Options
from configs.schema.settings import Layer, Setting, stack
from configs.toml.reader import read_document

_PATHS_OR_NAMES = ("model", "load", "backbone_model")


class HelpRequested(Exception):
    """`--help` or `--version` was given: `text` is to be printed, the exit code is 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def parse(argv: Sequence[str]) -> Bound:
    """Read the command line and its config files, and check what needs no heavy library.

    Args:
        argv: the arguments after `python -m main`.

    Raises:
        HelpRequested: when `--help` or `--version` is among the words.
        InputFault: with a line for every fault in flags, TOML files and paths.
    """
    line = read_command_line(argv)
    if line.wants_help:
        raise HelpRequested(help_text(line.action))
    if line.wants_version:
        raise HelpRequested(f"{DISTRIBUTION} {program_version()}")
    files = _read_files(line.layer)
    given = stack([*files.values(), line.layer])
    named = named_run.checkpoint_settings(given.settings)
    notes = []
    if named and named["load"].value != given.settings["load"].value:
        notes.append(f"{given.settings['load'].value}: taken is its checkpoint {named['load'].value}")
    given.settings |= named
    if line.action != "test":
        given.settings |= recorded_options.requeued(given.settings)
    run = recorded_options.run_directory(given.settings)
    layer = _inherit(line, given, run)
    options = _options(layer.settings)
    if _is_one_run(line.action, layer.settings):
        options = dataclasses.replace(options, seeds=None)
    faults = [*layer.faults, *checks.faults(checks.Case(line.action, options, layer, run))]
    if faults or line.action is None:
        raise InputFault(*_ordered(faults, line))
    sources = {name: "default" for name in option_specs()}
    sources |= {name: setting.source for name, setting in layer.settings.items()}
    table_files = {name: path / "metadata.json" for path in options.adapter for name in layer.tables}
    table_files |= {name: path for path, one in files.items() for name in one.tables}
    if run is not None:
        table_files = {name: run / "config.toml" for name in layer.tables} | table_files
    notes += _notes(line.action, layer.settings)
    return Bound(line.action, options, sources, layer.tables, table_files, tuple(notes))


def _read_files(given: Layer) -> dict[Path, Layer]:
    files: dict[Path, Layer] = {}
    for path in given.settings["config"].value if "config" in given.settings else ():
        try:
            files.pop(path, None)
            files[path] = read_options(read_document(path, "--config"), str(path))
        except InputFault as refusal:
            files[path] = Layer(faults=list(refusal.lines), touched={"model", "dataset", "lora_config"})
    return files


def _inherit(line: CommandLine, given: Layer, run: Path | None) -> Layer:
    """Merge the given options over those recorded with the adapter and the checkpoint's run."""
    layers = []
    try:
        if line.action == "test" and "adapter" in given.settings:
            layers += [
                recorded_options.recorded_adapter(path, given) for path in given.settings["adapter"].value
            ]
        if run is not None:
            recorded = recorded_options.recorded_run(run)
            if not _is_resumed(line, given, run):
                layers.append(recorded_options.without_training(recorded, line.action))
                given.settings.pop("resume_training", None)
            else:
                given.faults += recorded_options.changes(line.action, given, recorded, run)
                return stack([recorded, given, recorded_options.place_of(run)])
    except InputFault as refusal:
        layers.append(Layer(faults=list(refusal.lines), touched={"model", "dataset", "lora_config"}))
    return stack([*layers, given])


def _is_resumed(line: CommandLine, given: Layer, run: Path) -> bool:
    """Return whether RUN is resumed; an importance test of another run's checkpoint is a new run."""
    setting = given.settings.get("resume_training")
    if setting is None or not setting.value or line.action == "test":
        return False
    return line.action != "imp-test" or recorded_options.action_of(run) == "imp-test"


def _options(settings: Mapping[str, Setting]) -> Options:
    """Complete the options: given values, defaults, and the defaults that depend on other options."""
    values = {name: setting.value for name, setting in settings.items()}
    for name in _PATHS_OR_NAMES:
        word = values.get(name)
        if word and os.path.exists(word) and not word.endswith(("_lora", "_lora_ags")):
            values[name] = str(Path(word).absolute())
    if values.get("pretrained") is None:
        weights = values.get("load") or values.get("backbone_model")
        values["pretrained"] = recorded_options.names_weights(weights, values.get("model"))
    options = Options(**values)
    return dataclasses.replace(options, project_dir=options.project_dir.absolute())


def _is_one_run(action: str | None, settings: Mapping[str, Setting]) -> bool:
    """Return whether a TOML's list of seeds is ignored: by an action without seeds, or for a typed --seed."""
    if "seeds" not in settings or settings["seeds"].source == SOURCE:
        return False
    has_seed = "seed" in settings and settings["seed"].source == SOURCE
    return has_seed or action not in option_specs()["seeds"].option.actions


def _ordered(faults: list[str], line: CommandLine) -> list[str]:
    """Put the faults of the command line first and drop repetitions."""
    return list(dict.fromkeys([*line.layer.faults, *faults]))


def _notes(action: str, settings: Mapping[str, Setting]) -> list[str]:
    unused = [
        name
        for name, setting in settings.items()
        if action not in option_specs()[name].option.actions
        and setting.source not in ("run", "adapter")
        and (setting.source == SOURCE or setting.value != option_specs()[name].default)
    ]
    notes = [f"{action} does not use {', '.join(sorted(unused))}"] if unused else []
    moments = [
        name
        for name in ("adam_beta1", "adam_beta2", "adam_epsilon")
        if name in settings and settings[name].value != option_specs()[name].default
    ]
    if moments and "optimizer" in settings and settings["optimizer"].value == "sgd":
        notes.append(f"the optimizer sgd does not use {', '.join(moments)}")
    return notes
