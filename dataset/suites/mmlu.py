"""MMLU: multiple-choice questions with four answers in 57 subjects, and their prompts.

Source: Hendrycks et al. 2020, 2009.03300, and its published files and prompts.
Differs: one space before the subject's name, where the published code writes two.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.runtime.faults import Findings, InputFault, suggestion
from dataset.rows.fields import label_field, text_field
from dataset.rows.readers import read_csv_without_header, refusal
from dataset.rows.task_rows import SplitRows, TaskRows
from dataset.task import CHOICES, Example, Refused, Row, RowFault, Selection, Task

SUBJECTS = {
    "stem": "abstract_algebra astronomy college_biology college_chemistry college_computer_science"
    " college_mathematics college_physics computer_security conceptual_physics electrical_engineering"
    " elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science"
    " high_school_mathematics high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history"
    " high_school_world_history international_law jurisprudence logical_fallacies moral_disputes"
    " moral_scenarios philosophy prehistory professional_law world_religions",
    "social_sciences": "econometrics high_school_geography high_school_government_and_politics"
    " high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality"
    " professional_psychology public_relations security_studies sociology us_foreign_policy",
    "other": "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management"
    " marketing medical_genetics miscellaneous nutrition professional_accounting professional_medicine"
    " virology",
}
"""Group -> its subjects, separated by spaces, as in the published code."""
GROUP_OF = {subject: group for group, subjects in SUBJECTS.items() for subject in subjects.split()}
LETTERS = "ABCD"
SHOTS = {"zs": 0, "fs": 5}
"""Value of `--mmlu-mode` -> number of solved questions of the same subject before the question (shots)."""
METRICS = ("mmlu", *(f"mmlu_{group}" for group in SUBJECTS))
_OTHER_MODE = {"zs": "fs", "fs": "zs"}
_FOLDERS = {"dev": "dev", "val": "validation", "test": "test"}
"""Official folder, which the names of its files end in too -> split on the hub."""
_COLUMNS = {"question": 0, **{letter: at for at, letter in enumerate(LETTERS, start=1)}, "answer": 5}


class Question(NamedTuple):
    """A question.

    Args:
        subject: one of the 57 subjects.
        question: its text.
        choices: four answers.
        answer: index of the right answer, from 0.
    """

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int


class Questions(NamedTuple):
    """The questions of a folder, the rows that were refused, and the source: the folder or `hub`."""

    questions: list[Question]
    refused: list[Refused]
    source: str


MMLU = Task(
    name="mmlu",
    objective=CHOICES,
    splits={},
    example=lambda row: Example((prompt(_of_hub(row), ()),), label=_of_hub(row).answer),
    metrics=METRICS,
    selection=Selection("mmlu", maximise=True),
    hub=("cais/mmlu", "all"),
    default_max_token_len=2048,
)
"""MMLU as an evaluation set."""


def folders(action: str) -> tuple[str, ...]:
    """Return the folders that an action reads; `dev` holds the solved questions."""
    return ("dev", "test") if action == "test" else ("dev", "val", "test")


def read_questions(directory: Path, action: str, max_bad_rows: int) -> dict[str, Questions]:
    """Return folder -> its questions, from the official files.

    Args:
        directory: folder `data` of the published archive, or its parent.
        action: the action of the command line.
        max_bad_rows: how many rows of all folders together may be refused.

    Raises:
        InputFault: one line for each finding.
    """
    root = directory / "data" if (directory / "data").is_dir() else directory
    findings = Findings()
    attempts = {name: findings.attempt(partial(_folder, root, name)) for name in folders(action)}
    found = {name: findings.settled(one) for name, one in attempts.items()}
    bad = [line for _, lines in found.values() for line in lines]
    if sum(len(one.refused) for one, _ in found.values()) > max_bad_rows:
        raise InputFault(*bad)
    return {name: one for name, (one, _) in found.items()}


def fetch_questions(action: str, fetch: Callable[[Task, str], Sequence[Row]]) -> dict[str, Questions]:
    """Return folder -> its questions, from the copy on the hub.

    Args:
        action: the action of the command line.
        fetch: (task, split name on the hub) -> rows.
    """
    return {
        name: Questions([_of_hub(row) for row in fetch(MMLU, _FOLDERS[name])], [], "hub")
        for name in folders(action)
    }


def with_questions(rows: TaskRows, found: Mapping[str, Questions], mode: str) -> TaskRows:
    """Return a run's examples with MMLU in place of every evaluation set.

    `validation` and `test` have the shots of the mode; a further test set has those of the other mode.

    Args:
        rows: the examples of the chosen data set.
        found: folder -> questions.
        mode: value of `--mmlu-mode`.

    Raises:
        InputFault: when the objective of the data set is not language modelling, or a subject has too few
            solved questions.
    """
    if rows.task.objective != "language_modeling":
        raise InputFault(
            "--mmlu-mode: needs a data set for language modelling,"
            f" {rows.task.name} is for {rows.task.objective}"
        )
    other = _OTHER_MODE[mode]
    sources = {"validation": ("val", mode), "test": ("test", mode), f"test_{other}": ("test", other)}
    evaluated = {
        name: _split(found, folder, SHOTS[shots])
        for name, (folder, shots) in sources.items()
        if folder in found
    }
    splits = {name: one for name, one in rows.splits.items() if name.partition("_")[0] == "train"}
    splits |= evaluated
    task = replace(rows.task, metrics=METRICS, selection=MMLU.selection, generation=None)
    kept = {part: [name for name in names if name in splits] for part, names in rows.parts.items()}
    parts = {part: names for part, names in kept.items() if names}
    return TaskRows(task, splits, parts, {**rows.tasks, **dict.fromkeys(evaluated, MMLU)})


def prompt(question: Question, solved: Sequence[Question]) -> str:
    """Return the text after which the network is to give the letter of the right answer.

    Args:
        question: the question.
        solved: questions of the same subject that come before it with their answers.
    """
    subject = question.subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return (
        head
        + "".join(f"{_question_text(one)} {LETTERS[one.answer]}\n\n" for one in solved)
        + _question_text(question)
    )


def _question_text(question: Question) -> str:
    choices = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, question.choices))
    return f"{question.question}{choices}\nAnswer:"


def _split(found: Mapping[str, Questions], folder: str, shots: int) -> SplitRows:
    solved: dict[str, list[Question]] = defaultdict(list)
    for one in found["dev"].questions:
        solved[one.subject].append(one)
    held = found[folder]
    few = {one.subject for one in held.questions if len(solved[one.subject]) < shots}
    if few:
        raise InputFault(
            *(
                f"--mmlu-dir: dev has {len(solved[one])} questions of {one}, but {shots} are needed"
                for one in sorted(few)
            )
        )
    examples = [
        Example((prompt(one, solved[one.subject][:shots]),), label=one.answer, gold=GROUP_OF[one.subject])
        for one in held.questions
    ]
    content = json.dumps([[one.texts, one.label] for one in examples], ensure_ascii=False)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return SplitRows(examples, len(examples) + len(held.refused), held.refused, held.source, digest)


def _folder(root: Path, name: str) -> tuple[Questions, list[str]]:
    """Read the files of all subjects in a folder; return their questions, and a line for each bad file."""
    ending = f"_{name}.csv"
    paths = sorted((root / name).glob(f"*{ending}"))
    if not paths:
        raise InputFault(f"--mmlu-dir: {root} has no files {name}/SUBJECT{ending}")
    strange = [path for path in paths if path.name.removesuffix(ending) not in GROUP_OF]
    if strange:
        near = suggestion(strange[0].name.removesuffix(ending), GROUP_OF)
        raise InputFault(f"--mmlu-dir: {strange[0]}: not a subject of MMLU{near}")
    found = Questions([], [], name)
    lines: list[str] = []
    for path in paths:
        rows = read_csv_without_header(path, _COLUMNS, len(_COLUMNS))
        refused = list(rows.refused)
        for line, row in rows.rows:
            try:
                found.questions.append(_of_file(path.name.removesuffix(ending), row))
            except RowFault as fault:
                refused.append(Refused(line, str(fault)))
        refused.sort()
        lines += [refusal(path, refused, rows.read)] if refused else []
        found.refused.extend(refused)
    return found, lines


def _of_file(subject: str, row: Row) -> Question:
    choices = tuple(text_field(row, letter) for letter in LETTERS)
    return Question(subject, text_field(row, "question"), choices, label_field(row, "answer", LETTERS))


def _of_hub(row: Row) -> Question:
    return Question(str(row["subject"]), str(row["question"]), tuple(row["choices"]), int(row["answer"]))
