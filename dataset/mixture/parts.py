"""The data sets of a run: the one that `--dataset` names, or the parts of a mixture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from configs.schema.options import MIXTURE
from dataset.task import Selection, Task


@dataclass(frozen=True)
class Part:
    """A data set of a run.

    Args:
        task: the data set, bound to its options.
        action: the value of `--task` that it is used for.
        dataset_dir: directory of its own files; None for the hub, or for files that its options name.
        name: name of the part of a mixture; empty for the single data set of a run.
        weight: its relative share of an epoch; None for a share by size.
        where: the entry `[[data.mix]]` that messages name; empty for the single data set of a run.
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
        """Whether its rows come from the hub."""
        return self.task.make_rows is None and self.task.hub is not None and self.dataset_dir is None

    def split(self, name: str) -> str:
        """Return a split's name in the run: `validation_mismatched` -> `validation_PART_mismatched`."""
        if not self.name:
            return name
        stem, _, rest = name.partition("_")
        return "_".join(word for word in (stem, self.name, rest) if word)


def with_entry(where: str, line: str) -> str:
    """Return a message about a data set's options with the `[[data.mix]]` entry that it is about.

    Args:
        where: the entry; empty for the single data set of a run.
        line: the message.
    """
    for word, key in (("data.", ""), ("--dataset-dir: ", "dataset_dir: ")):
        if where and line.startswith(word):
            return f"{where}: {key}{line.removeprefix(word)}"
    return line


def joint_task(parts: Sequence[Part], tasks: Sequence[Task]) -> Task:
    """Return the task of a run: that of its single data set, or what the parts of a mixture have in common.

    The best step of a mixture is the one with the smallest loss over all parts.

    Args:
        parts: the data sets.
        tasks: their tasks in the same order, completed by their rows if these are known.

    Raises:
        InputFault: for every part whose objective or labels differ.
    """
    if not parts[0].name:
        return tasks[0]
    first = tasks[0]
    labels = next((task.labels for task in tasks if task.labels), ())
    faults = _differences(parts, tasks, labels)
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


def _differences(parts: Sequence[Part], tasks: Sequence[Task], labels: Sequence[str]) -> list[str]:
    """Return a line for each part whose objective is not the first part's or whose labels are others."""
    faults = []
    objective = tasks[0].objective
    owner = next((part.name for part, task in zip(parts, tasks) if task.labels), "")
    for part, task in zip(parts, tasks):
        if task.objective != objective:
            faults.append(
                f"{part.where}: '{part.name}' is {task.objective}, but '{parts[0].name}' is"
                f" {objective}: all parts of a mixture must have the same objective"
            )
        elif task.labels and task.labels != labels:
            faults.append(
                f"{part.where}: '{part.name}' has the labels {', '.join(task.labels)}, but '{owner}' has"
                f" {', '.join(labels)}: all parts of a mixture must have the same labels in the same order"
            )
    return faults
