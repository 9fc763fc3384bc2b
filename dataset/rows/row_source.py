"""Where a split's rows are: in files, on the hub, or made by the task itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.runtime.faults import InputFault
from dataset.task import Numbered, Row, Rows, Task

Fetch = Callable[[Task, str], list[Row]]
"""(task, split name on the hub) -> rows: `dataset.rows.hub.load` with its options bound, imported late."""


@dataclass(frozen=True)
class Found:
    """Where a split's rows were found: `where` for messages, `source` without a path for the record."""

    where: str
    source: str
    rows: Rows


class Missing(Exception):
    """A split's file is not there."""


def source_of(task: Task, dataset_dir: Path | None, fetch: Fetch | None) -> Callable[[str], Found]:
    """Return split name -> its rows: made by the task, from a directory, or from the hub.

    Raises:
        InputFault: when there is no such directory, or none was named and the hub must not be asked. The
            returned function raises `Missing`.
    """
    if task.rows is not None:
        return lambda name: Found(task.name, "made", _numbered(task.rows(name)))
    if dataset_dir is not None or task.hub is None:
        # Without a hub copy the files were named by the user, relative to the current directory.
        folders = _folders(task, dataset_dir)
        return lambda name: _file(task, name, folders)
    if fetch is None:
        raise InputFault(f"--dataset-dir: needed for {task.name}, the hub is not asked")
    return lambda name: _hub(task, name, fetch)


def _folders(task: Task, dataset_dir: Path | None) -> list[Path]:
    if dataset_dir is None:
        return [Path()]
    if not dataset_dir.is_dir():
        raise InputFault(f"--dataset-dir: {dataset_dir} is no directory")
    if task.hub is None:
        return [dataset_dir, Path()]
    children = dict.fromkeys(name for name in (task.folder, task.name) if name is not None)
    places = [dataset_dir, *(dataset_dir / name for name in children)]
    files = [file for split in task.splits.values() for file in split.files]
    held = [place for place in places if any((place / file).is_file() for file in files)]
    if not held:
        raise InputFault(
            f"--dataset-dir: {dataset_dir} holds no files of {task.name}: looked for {', '.join(files)}"
            f" there and in {', '.join(children)}"
        )
    return held[:1]


def _file(task: Task, name: str, folders: Sequence[Path]) -> Found:
    split = task.splits[name]
    for path in (folder / file for folder in folders for file in split.files):
        if path.is_file():
            return Found(str(path), path.name, split.read(path))
    wanted_files = " or ".join(split.files)
    if task.hub is None:
        raise Missing(f"data.{name}: no file {wanted_files} in {' or '.join(map(str, folders))}")
    raise Missing(f"--dataset-dir: {folders[0]} holds no {wanted_files}, needed for '{name}' of {task.name}")


def _hub(task: Task, name: str, fetch: Fetch) -> Found:
    split = task.splits[name]
    if split.hub is None or task.hub is None:
        raise Missing(f"--dataset-dir: needed, the hub has no '{name}' of {task.name}")
    return Found(f"{task.hub[0]} {split.hub}", "hub", _numbered(fetch(task, split.hub)))


def _numbered(rows: Sequence[Row]) -> Rows:
    return Rows([Numbered(number, row) for number, row in enumerate(rows, start=1)])
