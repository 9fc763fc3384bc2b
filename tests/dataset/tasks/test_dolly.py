"""Dolly's categories select rows, and those left out are counted."""

import json

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.gather import NeededSplits, gather
from dataset.tasks.dolly import CATEGORIES, TASK, DollyOptions

ROWS = [
    {
        "instruction": f"Name {n} rivers.",
        "context": "" if n % 2 else "Rivers flow.",
        "response": "Elbe",
        "category": CATEGORIES[n % 8],
    }
    for n in range(24)
]
OPTIONAL = ("context",)
FILES = {"databricks-dolly-15k.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS)}
BOTH = NeededSplits(("train", "validation"))


def written(folder, rows):
    (folder / "databricks-dolly-15k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_context_and_response_are_input_and_output():
    example = TASK.build(TASK.options()).example(ROWS[0])
    assert example.texts == ("Name 0 rivers.\nRivers flow.",)
    assert (example.response, example.eos_after_prompt, example.task_type) == ("Elbe", True, CATEGORIES[0])


def test_rows_of_other_categories_are_counted_as_not_selected(tmp_path):
    task = TASK.build(DollyOptions(categories=("open_qa", "brainstorming")))
    rows = gather(task, BOTH, written(tmp_path, ROWS))
    assert rows.counts() == {"read": 24, "used": 6, "refused": 0, "not_selected": 18}
    account = rows.account({"train": 2})
    assert account["splits"] == {
        "train": {"read": 23, "used": 3, "refused": 2, "not_selected": 18},
        "validation": {"read": 1, "used": 1, "refused": 0, "not_selected": 0},
    }
    for counts in (account, *account["splits"].values()):
        assert counts["read"] == counts["used"] + counts["refused"] + counts["not_selected"]


def test_a_row_of_an_unknown_category_is_refused_with_any_selection(tmp_path):
    task = TASK.build(DollyOptions(categories=("open_qa",)))
    broken = [{**ROWS[6], "category": "openqa"}, {**ROWS[6], "category": None}, *ROWS]
    with pytest.raises(
        InputFault, match=r"jsonl:1: field 'category': .*did you mean 'open_qa'.*\(2 of 26 rows\)"
    ):
        gather(task, BOTH, written(tmp_path, broken))
    counts = gather(task, BOTH, tmp_path, max_bad_rows=2).counts()
    assert counts == {"read": 26, "used": 3, "refused": 2, "not_selected": 21}


def test_a_selection_without_rows_is_reported(tmp_path):
    task = TASK.build(DollyOptions(categories=("open_qa",)))
    with pytest.raises(InputFault, match="no row is selected"):
        gather(task, BOTH, written(tmp_path, ROWS[:2]))


@pytest.mark.parametrize(
    ("categories", "fault"),
    [
        (
            ("open_qa", "sumarization"),
            "data.categories: no category 'sumarization'.*did you mean 'summarization'",
        ),
        (("open_qa", "open_qa"), "data.categories: a category appears twice"),
        ((), "data.categories: must hold at least one"),
    ],
)
def test_categories_that_do_not_fit_are_refused(categories, fault):
    with pytest.raises(InputFault, match=fault):
        TASK.build(DollyOptions(categories=categories))
