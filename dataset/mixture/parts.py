"""The data sets of a run, bound to their options: the one `--dataset` names, or the parts of a mixture.

Needs no torch: a wrong entry is refused before the heavy libraries are imported.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from configs.command_line.bound import Bound, absolute
from configs.runtime import kinds
from configs.runtime.faults import Findings, InputFault, suggestion
from configs.schema.number_values import Real
from configs.schema.options import MIXTURE
from configs.toml.binding import bind
from dataset.task import Selection, Task, TaskKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class EntryOptions:
    """What every `[[data.mix]]` entry may hold; its other keys are those of its data set's `[data]` table."""

    dataset: str
    """The data set, a word of `--dataset`."""
    weight: Annotated[float, Real(0, low_open=True)] | None = None
    """Share of an epoch, relative to the other entries' weights; all entries have one, or none has."""
    name: str | None = None
    """What rows and metrics of the part are called; the data set's word by default."""
    dataset_dir: Path | None = None
    """The set's own files; `--dataset-dir` by default."""

    def __post_init__(self) -> None:
        """Refuse a name that could not stand in those of metrics and files."""
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(f"name: must be of letters, digits, '.', '_' and '-', got '{self.name}'")


ENTRY_KEYS = tuple(one.name for one in fields(EntryOptions))


@dataclass(frozen=True)
class MixtureOptions:
    """The `[data]` table of a mixture."""

    mix: tuple[Mapping[str, Any], ...] = ()
    """The parts, `[[data.mix]]`."""


@dataclass(frozen=True)
class Part:
    """A data set of a run.

    Args:
        task: the set, bound to its options.
        action: the word of `--task` it serves here.
        dataset_dir: where its own files are; None for the hub, or for files its options name.
        name: the part of a mixture; empty for the one data set of a run.
        weight: its relative share of an epoch; None for one by size.
        where: the entry a refusal names; empty for the one data set of a run.
        table: what an adapter's record keeps of `[data]`; empty for the part of a mixture.
    """

    task: Task
    action: str
    dataset_dir: Path | None
    name: str = ""
    weight: float | None = None
    where: str = ""
    table: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_remote(self) -> bool:
        """Tell whether its rows come from the hub."""
        return self.task.make_rows is None and self.task.hub is not None and self.dataset_dir is None

    def split(self, name: str) -> str:
        """Return a split's name in the run: `validation_mismatched` -> `validation_PART_mismatched`."""
        if not self.name:
            return name
        stem, _, rest = name.partition("_")
        return "_".join(word for word in (stem, self.name, rest) if word)


def located(where: str, line: str) -> str:
    """Return a refusal of a data set's options with the entry it is about.

    Args:
        where: the entry; empty for the one data set of a run.
        line: the refusal.
    """
    for word, key in (("data.", ""), ("--dataset-dir: ", "dataset_dir: ")):
        if where and line.startswith(word):
            return f"{where}: {key}{line.removeprefix(word)}"
    return line


def bind_parts(bound: Bound, prompt: Mapping[str, str] | None = None) -> tuple[Bound, tuple[Part, ...]]:
    """Load the kinds of a run's data sets and bind their tables.

    Args:
        bound: the command line.
        prompt: the template to take, as a table, where a data set alone has one and its own table tells none.

    Returns:
        The command line, the files of its tables absolute and an action filled in that was not given; and the
        data sets.

    Raises:
        InputFault: for every key, value and action that does not fit.
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
        raise InputFault(f"--task: {bound.options.dataset} serves {', '.join(kind.actions)}, got '{action}'")
    table = absolute(table, kind.paths, bound.options.dataset_dir)
    has_prompt = "template" in _keys(kind) and "prompt" not in table
    task = _build(kind, {**prompt, **table} if prompt and has_prompt else table, action, where)
    action = action if bound.is_given("task") else task.serves or action
    part = Part(task, action, bound.options.dataset_dir, table=kind.recorded(table))
    return _with_action(bound.with_table("data", table), action), (part,)


def compose(parts: Sequence[Part], tasks: Sequence[Task]) -> Task:
    """Return the task of a run: the one data set's own, or what the parts of a mixture have in common.

    The best step of a mixture is that of the least loss over all parts.

    Args:
        parts: the data sets.
        tasks: their tasks in the same order, completed by their rows if these are known.

    Raises:
        InputFault: naming the parts whose objectives or labels differ.
    """
    if not parts[0].name:
        return tasks[0]
    first, faults = tasks[0], []
    labels = next((task.labels for task in tasks if task.labels), ())
    owner = next((part.name for part, task in zip(parts, tasks) if task.labels), "")
    for part, task in zip(parts, tasks):
        if task.objective != first.objective:
            faults.append(
                f"{part.where}: '{part.name}' is {task.objective}, but '{parts[0].name}' is"
                f" {first.objective}: the parts of a mixture have one objective"
            )
        elif task.labels and task.labels != labels:
            faults.append(
                f"{part.where}: '{part.name}' has the labels {', '.join(task.labels)}, but '{owner}' has"
                f" {', '.join(labels)}: the parts of a mixture have one list of labels"
            )
    if faults:
        raise InputFault(*faults)
    templates = {task.template for task in tasks}
    return Task(
        name=MIXTURE,
        objective=first.objective,
        splits={part.split(name): one for part, t in zip(parts, tasks) for name, one in t.splits.items()},
        example=first.example,
        metrics=tuple(dict.fromkeys([*(name for task in tasks for name in task.metrics), "loss"])),
        selection=Selection("loss", maximise=False),
        labels=labels,
        template=templates.pop() if len(templates) == 1 else None,
    )


def _bind_mixture(bound: Bound, where: str) -> tuple[Bound, tuple[Part, ...]]:
    entries = bind(MixtureOptions, bound.tables.get("data", {}), where).mix
    if not entries:
        raise InputFault(f"--dataset: {MIXTURE} needs its parts, [[data.mix]] in a config TOML")
    findings, parts, tables = Findings(), [], []
    places = [f"{where.removesuffix('[data]')}[[data.mix]] {number}" for number in range(1, len(entries) + 1)]
    for entry, place in zip(entries, places):
        found = findings.attempt(partial(_bind_entry, bound, entry, place))
        if found is not None:
            tables.append(found[0])
            parts.append(found[1])
    findings.lines += _name_faults(parts)
    findings.lines += _weight_faults(parts)
    findings.lines += _file_faults(parts)
    findings.settle()
    compose(parts, [part.task for part in parts])
    actions = {part.action for part in parts}
    is_language = parts[0].task.objective == "language_modeling"
    common = "causal_language_modeling" if is_language else "classification"
    action = actions.pop() if len(actions) == 1 else common
    if bound.is_given("task") and bound.options.task != action:
        raise InputFault(f"--task: the parts of the mixture serve {action}, got '{bound.options.task}'")
    return _with_action(bound.with_table("data", {"mix": tables}), action), tuple(parts)


def _bind_entry(bound: Bound, entry: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Part]:
    """Bind an entry; return its table with absolute paths, and the part."""
    findings = Findings()
    common = {key: value for key, value in entry.items() if key in ENTRY_KEYS}
    own = findings.attempt(partial(bind, EntryOptions, common, where))
    kind = findings.attempt(partial(_entry_kind, entry, where))
    findings.settle()
    given = bound.options.task if bound.is_given("task") else None
    action = given if given in kind.actions else kind.actions[0]
    directory = own.dataset_dir or bound.options.dataset_dir
    table = absolute(entry, kind.paths, directory)
    if own.dataset_dir is not None:
        table["dataset_dir"] = str(own.dataset_dir)
    options = {key: value for key, value in table.items() if key not in ENTRY_KEYS}
    try:
        task = _build(kind, options, action, where)
    except InputFault as refusal:
        raise InputFault(*(located(where, line) for line in refusal.lines)) from None
    action = action if action == given else task.serves or action
    return table, Part(task, action, directory, own.name or own.dataset, own.weight, where)


def _entry_kind(entry: Mapping[str, Any], where: str) -> TaskKind | None:
    """Load an entry's data set and check which keys it has; None where no word names one."""
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


def _build(kind: TaskKind, table: Mapping[str, Any], action: str, where: str) -> Task:
    told = {"task": action, **table} if "task" in _keys(kind) else table
    return kind.build(bind(kind.options, told, where))


def _keys(kind: TaskKind) -> list[str]:
    return [one.name for one in fields(kind.options)]


def _with_action(bound: Bound, action: str) -> Bound:
    return dataclasses.replace(bound, options=dataclasses.replace(bound.options, task=action))


def _name_faults(parts: Iterable[Part]) -> list[str]:
    faults, seen = [], []
    for part in parts:
        for other in seen:
            if part.name == other:
                faults.append(f"{part.where}: name: needed, another part is '{other}' too")
            elif f"{part.name}_".startswith(f"{other}_") or f"{other}_".startswith(f"{part.name}_"):
                faults.append(
                    f"{part.where}: name: '{part.name}' and '{other}' cannot be told apart in metrics' names"
                )
        seen.append(part.name)
    return faults


def _weight_faults(parts: Sequence[Part]) -> list[str]:
    missing = [part for part in parts if part.weight is None]
    if len(missing) == len(parts):
        return []
    return [f"{part.where}: weight: needed, other parts have one" for part in missing]


def _file_faults(parts: Sequence[Part]) -> list[str]:
    """Say which of the user's own files one part learns from and another is evaluated on."""
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
