"""Fetch a task's rows from the hub; the only file that imports `datasets`."""

from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants

from configs.runtime.faults import InputFault, SystemFault
from dataset.rows.fields import shown
from dataset.task import Task


def disable_cache() -> None:
    """Keep nothing but the download itself (`--disable-dataset-cache`)."""
    datasets.disable_caching()


def load(task: Task, split: str, *, offline: bool = False, cache: Path | None = None) -> list[dict[str, Any]]:
    """Return all rows of a split.

    Args:
        task: the data set, with its `hub` copy.
        split: the split's name on the hub.
        offline: use only what the cache holds.
        cache: another cache directory than the library's own.

    Raises:
        InputFault: when the set has no hub copy.
        SystemFault: when the hub cannot be reached or does not answer as expected.
    """
    if task.hub is None:
        raise InputFault(f"--dataset-dir: required for {task.name}, which has no copy on the hub")
    repository, configuration = task.hub
    if offline:
        # Both libraries read these when they are called, not the environment.
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        rows = datasets.load_dataset(
            repository, configuration, split=split, cache_dir=str(cache) if cache is not None else None
        )
        return rows.to_list()
    # The libraries below raise httpx and pyarrow errors too, which share no class but this one.
    except Exception as error:
        place = "is not in the cache" if offline else "could not be fetched"
        reason = shown(next(iter(str(error).split("\n")), ""), 160)
        raise SystemFault(
            f"--dataset: {repository} ({split}) {place}: {type(error).__name__}: {reason};"
            " --dataset-dir names a directory with the official files"
        ) from error
