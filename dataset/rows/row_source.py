"""Where a split's rows come from: files, the hub, or the task itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.runtime.faults import InputFault
from dataset.task import Numbered, Row, Rows, Task

Fetch = Callable[[Task, str], Sequence[Row]]
"""(task, split name on the hub) -> rows: `dataset.rows.hub.load` with its options bound, imported late."""


@dataclass(frozen=True)
class SourceRows:
    """The rows of one split and where they were found.

    Args:
        where: path or hub name, for messages.
        source: file name, `hub` or `made`, for the record of a run, which holds no paths.
        rows: the rows.
    """

    where: str
    source: str
    rows: Rows


RowSource = Callable[[str], SourceRows]
"""Split name -> its rows; raises `MissingSplit`."""


class MissingSplit(Exception):
    """The source has no file or hub split for a split of the task."""


def row_source(task: Task, dataset_dir: Path | None, fetch: Fetch | None) -> RowSource:
    """Return a function that reads a split's rows: made by the task, from a directory, or from the hub.

    Args:
        task: the data set.
        dataset_dir: directory of the official files, or its parent; None for none.
        fetch: how rows come from the hub; None where the hub may not be used.

    Raises:
        InputFault: when there is no such directory, or none was given and the hub may not be used or has no
            copy.
    """
    make = task.make_rows
    if make is not None:
        return lambda name: SourceRows(task.name, "made", _numbered(make(name)))
    if dataset_dir is not None or _has_named_files(task):
        folders = _folders(task, dataset_dir)
        return lambda name: _read_file(task, name, folders)
    if task.hub is None:
        raise InputFault(f"--dataset-dir: required for {task.name}, which is not on the hub")
    if fetch is None:
        raise InputFault(f"--dataset-dir: required for {task.name}, the hub is not used here")
    return lambda name: _fetch(task, name, fetch)


def _has_named_files(task: Task) -> bool:
    """Return whether the user names the files; they may be relative to the current directory."""
    return task.hub is None and task.folder is None


def _folders(task: Task, dataset_dir: Path | None) -> list[Path]:
    if dataset_dir is None:
        return [Path()]
    if not dataset_dir.is_dir():
        raise InputFault(f"--dataset-dir: {dataset_dir} is not a directory")
    if _has_named_files(task):
        return [dataset_dir, Path()]
    children = dict.fromkeys(name for name in (task.folder, task.name) if name is not None)
    candidates = [dataset_dir, *(dataset_dir / name for name in children)]
    files = [file for split in task.splits.values() for file in split.files]
    found = [folder for folder in candidates if any((folder / file).is_file() for file in files)]
    if not found:
        raise InputFault(
            f"--dataset-dir: {dataset_dir} has no files of {task.name}: looked for {', '.join(files)}"
            f" there and in {', '.join(children)}"
        )
    return found[:1]


def _read_file(task: Task, name: str, folders: Sequence[Path]) -> SourceRows:
    split = task.splits[name]
    for path in (folder / file for folder in folders for file in split.files):
        if path.is_file():
            return SourceRows(str(path), path.name, split.read(path))
    candidates = " or ".join(split.files)
    if _has_named_files(task):
        raise MissingSplit(f"data.{name}: no file {candidates} in {' or '.join(map(str, folders))}")
    raise MissingSplit(f"--dataset-dir: {folders[0]} has no {candidates}, needed for '{name}' of {task.name}")


def _fetch(task: Task, name: str, fetch: Fetch) -> SourceRows:
    split = task.splits[name]
    if split.hub is None or task.hub is None:
        raise MissingSplit(f"--dataset-dir: required, the hub has no '{name}' of {task.name}")
    return SourceRows(f"{task.hub[0]} {split.hub}", "hub", _numbered(fetch(task, split.hub)))


def _numbered(rows: Sequence[Row]) -> Rows:
    return Rows([Numbered(number, row) for number, row in enumerate(rows, start=1)])
