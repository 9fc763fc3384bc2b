"""Fetch a task's rows from the hub; the only module that imports `datasets`."""

from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants

from configs.runtime import hub
from configs.runtime.faults import InputFault, SystemFault
from dataset.rows.fields import printable
from dataset.task import Task

hub.route_messages()


def disable_cache() -> None:
    """Keep only the downloaded files, no prepared tables (`--disable-dataset-cache`)."""
    datasets.disable_caching()


def load(task: Task, split: str, *, offline: bool = False, cache: Path | None = None) -> list[dict[str, Any]]:
    """Return all rows of a split.

    Args:
        task: the data set, with its `hub` copy.
        split: the split's name on the hub.
        offline: use the local cache only.
        cache: cache directory; None for the default one of the library.

    Raises:
        InputFault: when the data set has no copy on the hub.
        SystemFault: when the rows cannot be fetched, or are not in the cache.
    """
    if task.hub is None:
        raise InputFault(f"--dataset-dir: required for {task.name}, which has no copy on the hub")
    repository, configuration = task.hub
    silence = None if offline else hub.silence()
    if offline or silence is not None:
        # Both libraries read these when they are called, not the environment.
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        rows = datasets.load_dataset(
            repository, configuration, split=split, cache_dir=str(cache) if cache is not None else None
        )
        if silence is not None:
            hub.note_cached(silence)
        return rows.to_list()
    # The libraries below also raise errors of httpx and pyarrow, whose only common class this is.
    except Exception as error:
        problem = "could not be fetched" if silence is None and not offline else "is not in the cache"
        reason = printable(next(iter(str(error).split("\n")), ""), 160)
        reason = (
            f"{type(error).__name__}: {reason}" if silence is None else f"the hub is not reached ({silence})"
        )
        raise SystemFault(
            f"--dataset: {repository} ({split}) {problem}: {reason};"
            " --dataset-dir can name a directory with the official files"
        ) from error
