"""Subjects, prompts as they were published, and rows of both origins."""

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.task_rows import SplitRows, TaskRows
from dataset.suites.mmlu import GROUP_OF, METRICS, SUBJECTS, Question, fetch_questions, prompt, with_questions
from dataset.task import CHOICES, Example, Selection, Task

SOLVED = Question("us_foreign_policy", "Who?", ("I", "You", "He", "She"), 2)
ASKED = Question("us_foreign_policy", "Why?", ("a", "b", "c", "d"), 0)
TASK = Task(
    "gsm8k", "language_modeling", {}, lambda row: Example(("",)), ("loss",), Selection("loss", maximise=False)
)


def test_there_are_57_subjects_in_four_groups():
    assert len(GROUP_OF) == sum(len(subjects.split()) for subjects in SUBJECTS.values()) == 57
    assert {group: len(subjects.split()) for group, subjects in SUBJECTS.items()} == {
        "stem": 18, "humanities": 13, "social_sciences": 12, "other": 14,
    }  # fmt: skip
    assert METRICS == ("mmlu", "mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other")


def test_a_prompt_ends_where_the_letter_is_expected():
    head = "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
    asked = "Why?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    assert prompt(ASKED, []) == head + asked
    assert prompt(ASKED, [SOLVED]) == f"{head}Who?\nA. I\nB. You\nC. He\nD. She\nAnswer: C\n\n{asked}"


def _fetch(task, split):
    count = {"dev": 5, "validation": 2, "test": 3}[split]
    row = {"subject": "astronomy", "choices": ["a", "b", "c", "d"], "answer": 3}
    assert task.hub == ("cais/mmlu", "all")
    return [{**row, "question": f"{split} {number}?"} for number in range(count)]


def test_hub_rows_replace_every_evaluation_set():
    train = SplitRows([Example(("p",), response="r")], 1, [], "train.jsonl", "digest")
    rows = TaskRows(TASK, {"train": train, "validation": train, "test": train})
    found = with_questions(rows, fetch_questions("train", _fetch), "fs")
    assert {name: len(one.examples) for name, one in found.splits.items()} == {
        "train": 1, "validation": 2, "test": 3, "test_zs": 3,
    }  # fmt: skip
    assert found.splits["train"] is train
    assert {name: task.objective for name, task in found.tasks.items()} == dict.fromkeys(
        ("validation", "test", "test_zs"), CHOICES
    )
    assert (found.task.metrics, found.task.selection) == (METRICS, Selection("mmlu", maximise=True))
    five, none = (found.splits[name].examples[0] for name in ("test", "test_zs"))
    assert five.texts[0].count("Answer:") == 6
    assert all(f"dev {number}?" in five.texts[0] for number in range(5))
    assert none.texts[0].count("Answer:") == 1
    assert (none.label, none.gold) == (3, "stem")
    assert found.splits["test"].digest != found.splits["test_zs"].digest


def test_testing_reads_no_validation_questions():
    found = with_questions(TaskRows(TASK, {}), fetch_questions("test", _fetch), "zs")
    assert set(found.splits) == {"test", "test_fs"}


def test_too_few_solved_questions_are_refused():
    few = fetch_questions("test", lambda task, split: _fetch(task, split)[:4])
    with pytest.raises(InputFault, match="dev has 4 questions of astronomy, but 5 are needed"):
        with_questions(TaskRows(TASK, {}), few, "zs")
