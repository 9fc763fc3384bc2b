"""The rows of one run: those in files are read before the heavy libraries load, those of a hub after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from configs.runtime import kinds
from configs.runtime.faults import Findings
from dataset.mixture.gather_parts import Request, gather_parts, join
from dataset.mixture.parts import Part
from dataset.rows.task_rows import TaskRows
from dataset.suites.mmlu import Questions, from_hub, read_files


@dataclass(frozen=True)
class RunRows:
    """What has been read so far.

    Args:
        parts: the data set, or those of a mixture.
        request: what the run needs of them.
        found: part -> its rows; parts that must be fetched from the hub are missing.
        questions: those of MMLU, if they come from files.
    """

    parts: Sequence[Part]
    request: Request
    found: Mapping[str, TaskRows]
    questions: Mapping[str, Questions] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to be fetched."""
        return len(self.found) == len(self.parts) and bool(self.request.mmlu) == bool(self.questions)

    def joined(self) -> TaskRows:
        """Return the rows of the run's one data set, or of all parts together.

        Raises:
            InputFault: when the parts do not go together.
        """
        return join(self.parts, self.found, self.request.mmlu, self.questions)


def read_rows(parts: Sequence[Part], request: Request, mmlu_dir: Path | None, findings: Findings) -> RunRows:
    """Read every row that lies in a file; faults are collected in `findings`.

    Args:
        parts: the data sets; empty where their tables had faults.
        request: what the run needs of them.
        mmlu_dir: directory of MMLU's files; None fetches them later.
        findings: collects the faults of all files.
    """
    found = findings.attempt(partial(gather_parts, parts, request, {})) or {}
    questions = None
    if mmlu_dir is not None and request.mmlu:
        allowed = request.max_bad_rows - sum(rows.counts()["refused"] for rows in found.values())
        questions = findings.attempt(partial(read_files, mmlu_dir, request.action, allowed))
    rows = RunRows(parts, request, found, questions)
    if parts and rows.is_complete:
        findings.attempt(rows.joined)
    return rows


def fetch_rows(rows: RunRows, *, offline: bool, use_cache: bool) -> TaskRows:
    """Return all rows of the run, after fetching from the hub what was not in files.

    Args:
        rows: what was read from files.
        offline: never ask a hub, only its local cache.
        use_cache: whether the hub's library may keep prepared tables on disk.

    Raises:
        InputFault: for what cannot be fetched, and when the parts do not go together.
    """
    if rows.is_complete:
        return rows.joined()
    # The hub's library takes a second to import, and most runs name their files.
    if not use_cache:
        kinds.import_late("dataset.rows.hub", "disable_cache")()
    fetch = partial(kinds.import_late("dataset.rows.hub", "load"), offline=offline)
    found = gather_parts(rows.parts, rows.request, rows.found, fetch)
    questions = rows.questions
    if rows.request.mmlu and not questions:
        questions = from_hub(rows.request.action, fetch)
    return replace(rows, found=found, questions=questions).joined()
