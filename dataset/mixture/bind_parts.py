"""Bind the data sets of a run to the command line and its `[data]` table.

Needs no torch: a wrong entry is refused before the heavy libraries are imported.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from configs.command_line.bound import Bound, absolute
from configs.runtime import kinds
from configs.runtime.faults import Findings, InputFault, suggestion
from configs.schema.number_values import Real
from configs.schema.options import MIXTURE
from configs.toml.binding import bind
from dataset.mixture.parts import Part, joint_task, with_entry
from dataset.task import Task, TaskKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class EntryOptions:
    """What every `[[data.mix]]` entry may hold; its other keys are those of its data set's `[data]` table."""

    dataset: str
    """The data set, a word of `--dataset`."""
    weight: Annotated[float, Real(1e-30, 1e30)] | None = None
    """Share of an epoch, relative to the weights of the other entries; all entries have one, or none has."""
    name: str | None = None
    """Name of the part in rows and metrics; the data set's word by default."""
    dataset_dir: Path | None = None
    """Directory of the set's own files; `--dataset-dir` by default."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot be part of the names of metrics and files."""
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(f"name: must be of letters, digits, '.', '_' and '-', got '{self.name}'")


ENTRY_KEYS = tuple(one.name for one in fields(EntryOptions))


@dataclass(frozen=True)
class MixtureOptions:
    """The `[data]` table of a mixture."""

    mix: tuple[Mapping[str, Any], ...] = ()
    """The parts, `[[data.mix]]`."""


def bind_parts(bound: Bound, prompt: Mapping[str, str] | None = None) -> tuple[Bound, tuple[Part, ...]]:
    """Load the kinds of a run's data sets and bind their tables.

    Args:
        bound: the command line.
        prompt: a table with the template to use where a single data set takes one and its own table has none.

    Returns:
        The command line, with absolute file names in its tables and `--task` filled in where it was not
        given; and the data sets.

    Raises:
        InputFault: for every key, value and `--task` that does not fit.
    """
    where = f"{bound.table_files['data']}: [data]" if "data" in bound.tables else "[data]"
    if bound.options.dataset == MIXTURE:
        return _bind_mixture(bound, where)
    table = bound.tables.get("data", {})
    if "mix" in table:
        raise InputFault(f"{where}: mix: needs --dataset {MIXTURE}, got '{bound.options.dataset}'")
    kind: TaskKind = kinds.load(kinds.TASKS, bound.options.dataset)
    action = bound.options.task if bound.is_given("task") else kind.actions[0]
    if action not in kind.actions:
        raise InputFault(f"--task: {bound.options.dataset} is for {', '.join(kind.actions)}, got '{action}'")
    table = absolute(table, kind.paths, bound.options.dataset_dir)
    has_prompt = "template" in _keys(kind) and "prompt" not in table
    own = {**prompt, **table} if prompt and has_prompt else table
    task = _build(kind, own, action, where, bound.options.dataset_dir)
    action = action if bound.is_given("task") else task.action or action
    part = Part(task, action, bound.options.dataset_dir, table=kind.recorded(table))
    return _with_action(bound.with_table("data", table), action), (part,)


def _bind_mixture(bound: Bound, where: str) -> tuple[Bound, tuple[Part, ...]]:
    entries = bind(MixtureOptions, bound.tables.get("data", {}), where).mix
    if not entries:
        raise InputFault(f"--dataset: {MIXTURE} needs its parts, [[data.mix]] in a config TOML")
    findings = Findings()
    parts: list[Part] = []
    tables: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        entry_name = f"{where.removesuffix('[data]')}[[data.mix]] {number}"
        found = findings.attempt(partial(_bind_entry, bound, entry, entry_name))
        if found is not None:
            tables.append(found[0])
            parts.append(found[1])
    findings.lines += _name_faults(parts)
    findings.lines += _weight_faults(parts)
    findings.lines += _file_faults(parts)
    findings.settle()
    joint_task(parts, [part.task for part in parts])
    actions = {part.action for part in parts}
    is_language = parts[0].task.objective == "language_modeling"
    common = "causal_language_modeling" if is_language else "classification"
    action = actions.pop() if len(actions) == 1 else common
    if bound.is_given("task") and bound.options.task != action:
        raise InputFault(f"--task: the parts of the mixture are for {action}, got '{bound.options.task}'")
    return _with_action(bound.with_table("data", {"mix": tables}), action), tuple(parts)


def _bind_entry(bound: Bound, entry: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Part]:
    """Bind an entry; return its table with absolute paths, and the part."""
    kind, own = _entry(entry, where)
    given = bound.options.task if bound.is_given("task") else None
    action = given if given in kind.actions else kind.actions[0]
    directory = own.dataset_dir or bound.options.dataset_dir
    table = absolute(entry, kind.paths, directory)
    if own.dataset_dir is not None:
        table["dataset_dir"] = str(own.dataset_dir)
    options = {key: value for key, value in table.items() if key not in ENTRY_KEYS}
    try:
        task = _build(kind, options, action, where, directory)
    except InputFault as refusal:
        raise InputFault(*(with_entry(where, line) for line in refusal.lines)) from None
    action = action if action == given else task.action or action
    return table, Part(task, action, directory, own.name or own.dataset, own.weight, where)


def _entry(entry: Mapping[str, Any], where: str) -> tuple[TaskKind, EntryOptions]:
    """Return the kind of an entry's data set, and the keys that every entry may hold."""
    findings = Findings()
    common = {key: value for key, value in entry.items() if key in ENTRY_KEYS}
    own = findings.attempt(partial(bind, EntryOptions, common, where))
    kind = findings.attempt(partial(_entry_kind, entry, where))
    return findings.settled(kind), findings.settled(own)


def _entry_kind(entry: Mapping[str, Any], where: str) -> TaskKind | None:
    """Load an entry's data set and check its keys; None where `dataset` is no word, which `bind` refuses."""
    word = entry.get("dataset")
    if not isinstance(word, str):
        return None
    kinds.check(kinds.TASKS, word, f"{where}: dataset")
    kind: TaskKind = kinds.load(kinds.TASKS, word)
    known = [*ENTRY_KEYS, *_keys(kind)]
    faults = [f"{where}: unknown key '{key}'{suggestion(key, known)}" for key in entry if key not in known]
    if faults:
        raise InputFault(*faults)
    return kind


def _build(kind: TaskKind, table: Mapping[str, Any], action: str, where: str, directory: Path | None) -> Task:
    options: Any = bind(kind.options, {"task": action, **table} if "task" in _keys(kind) else table, where)
    return kind.build(options if kind.with_files is None else kind.with_files(options, directory))


def _keys(kind: TaskKind) -> list[str]:
    return [one.name for one in fields(kind.options)]


def _with_action(bound: Bound, action: str) -> Bound:
    return dataclasses.replace(bound, options=dataclasses.replace(bound.options, task=action))


def _name_faults(parts: Iterable[Part]) -> list[str]:
    faults: list[str] = []
    seen: list[str] = []
    for part in parts:
        for other in seen:
            if part.name == other:
                faults.append(f"{part.where}: name: required, another part is named '{other}' too")
            elif f"{part.name}_".startswith(f"{other}_") or f"{other}_".startswith(f"{part.name}_"):
                faults.append(
                    f"{part.where}: name: '{part.name}' and '{other}' cannot be distinguished"
                    " in the names of metrics"
                )
        seen.append(part.name)
    return faults


def _weight_faults(parts: Sequence[Part]) -> list[str]:
    missing = [part for part in parts if part.weight is None]
    if len(missing) == len(parts):
        return []
    return [f"{part.where}: weight: required, other parts have one" for part in missing]


def _file_faults(parts: Sequence[Part]) -> list[str]:
    """Return a line for each of the user's files that one part trains on and another evaluates on."""
    named = [
        (part, name, file)
        for part in parts
        if part.task.hub is None
        for name, split in part.task.splits.items()
        for file in split.files
    ]
    learned = {file: part.name for part, name, file in named if name == "train"}
    return [
        f"{part.where}: {name}: {file} is the training file of '{learned[file]}'"
        for part, name, file in named
        if name != "train" and file in learned
    ]
