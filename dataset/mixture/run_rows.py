"""The examples of one run: files are read before the heavy libraries are imported, the hub after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from configs.runtime import kinds
from configs.runtime.faults import Findings
from dataset.mixture.gather_parts import Request, gather_parts, join
from dataset.mixture.parts import Part
from dataset.rows.task_rows import TaskRows
from dataset.suites.mmlu import Questions, fetch_questions, read_questions, with_questions


@dataclass(frozen=True)
class RunRows:
    """What was read so far.

    Args:
        parts: the data set, or those of a mixture.
        request: what the run needs of them.
        found: part -> its examples; parts that must be fetched from the hub are missing.
        questions: folder -> questions of MMLU, if they are used and come from files.
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
        """Return the examples of all data sets, with MMLU in place of the evaluation sets if it is used.

        Raises:
            InputFault: when the parts, or the data set and MMLU, cannot be combined.
        """
        rows = join(self.parts, self.found)
        if self.request.mmlu is None or self.questions is None:
            return rows
        return with_questions(rows, self.questions, self.request.mmlu)


def read_rows(parts: Sequence[Part], request: Request, mmlu_dir: Path | None, findings: Findings) -> RunRows:
    """Read all rows that are in files; faults are collected in `findings`.

    Args:
        parts: the data sets; empty when their tables had faults.
        request: what the run needs of them.
        mmlu_dir: directory of the files of MMLU; None fetches them later.
        findings: collects the faults of all files.
    """
    found = findings.attempt(partial(gather_parts, parts, request, {})) or {}
    questions = None
    if mmlu_dir is not None and request.mmlu:
        allowed = request.max_bad_rows - sum(rows.counts()["refused"] for rows in found.values())
        questions = findings.attempt(partial(read_questions, mmlu_dir, request.action, allowed))
    rows = RunRows(parts, request, found, questions)
    if parts and rows.is_complete:
        findings.attempt(rows.joined)
    return rows


def fetch_rows(rows: RunRows, *, offline: bool, use_cache: bool) -> TaskRows:
    """Return all examples of the run, after fetching from the hub what is not in files.

    Args:
        rows: what was read from files.
        offline: use the local cache of the hub only.
        use_cache: whether the library of the hub may keep prepared tables on disk.

    Raises:
        InputFault: for what cannot be fetched, and when the parts cannot be combined.
    """
    if rows.is_complete:
        return rows.joined()
    # The library of the hub takes a second to import, and most runs name their files.
    if not use_cache:
        kinds.import_late("dataset.rows.hub", "disable_cache")()
    fetch = partial(kinds.import_late("dataset.rows.hub", "load"), offline=offline)
    found = gather_parts(rows.parts, rows.request, rows.found, fetch)
    questions = rows.questions
    if rows.request.mmlu and not questions:
        questions = fetch_questions(rows.request.action, fetch)
    return replace(rows, found=found, questions=questions).joined()
