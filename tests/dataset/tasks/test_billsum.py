"""BillSum's prompt holds the bill; its test set is Congress or California."""

import json

import pytest

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from dataset.rows.gather import NeededSplits, gather
from dataset.rows.row_source import MissingSplit, row_source
from dataset.tasks.billsum import TASK, BillSumOptions

NAMES = ("school", "river", "forest", "harbor", "museum")
ROWS = [
    {
        "text": f"SECTION {number}. SHORT TITLE.\n\n    This Act may be cited as the {name} Act.",
        "summary": f"The {name} Act - names section {number} for a {name}.",
    }
    for number, name in enumerate(NAMES * 8)
]
LINES = "".join(json.dumps({"bill_id": f"1_hr{i}", **row}) + "\n" for i, row in enumerate(ROWS))
FILES = {"us_train_data_final_OFFICIAL.jsonl": LINES, "us_test_data_final_OFFICIAL.jsonl": LINES}


def test_prompt_summary_and_gold():
    example = TASK.build(BillSumOptions()).example(ROWS[0])
    assert example.texts == (f"Bill: {ROWS[0]['text']}\nSummary:",)
    assert example.response == f" {ROWS[0]['summary']}"
    assert example.gold == ROWS[0]["summary"]
    assert example.texts[0][slice(*example.document_span)] == ROWS[0]["text"]


def test_a_template_may_hold_the_title_and_braces_stay():
    row = {"title": "{text} of a title", "text": "{title} of a text", "summary": "s"}
    example = TASK.build(BillSumOptions(template="{title}: {text} -> ")).example(row)
    assert example.texts == ("{text} of a title: {title} of a text -> ",)
    assert example.texts[0][slice(*example.document_span)] == "{title} of a text"
    assert example.response == "s"
    closed = TASK.build(BillSumOptions(template="{?title:{title}: }{text}{eos}")).example(
        {**row, "title": ""}
    )
    assert (closed.texts, closed.response, closed.eos_after_prompt) == ((row["text"],), "s", True)
    assert closed.document_span == (0, len(row["text"]))


def test_californian_bills_are_another_test_set(tmp_path):
    row = {"external_id": "ca-1", "title": "t", "text": "a bill", "summary": "a summary"}
    (tmp_path / "billsum_v4_1").mkdir()
    (tmp_path / "billsum_v4_1" / "ca_test_data_final_OFFICIAL.jsonl").write_text(json.dumps(row) + "\n")
    task = TASK.build(bind(BillSumOptions, {"test": "ca"}, "[data]"))
    examples = gather(task, NeededSplits(("test",)), tmp_path).splits["test"].examples
    assert [example.gold for example in examples] == ["a summary"]
    with pytest.raises(MissingSplit, match="has no us_train_data_final_OFFICIAL.jsonl"):
        row_source(task, tmp_path, None)("train")


def test_hub_splits_follow_the_option():
    asked = []

    def fetch(task, split):
        asked.append((*task.hub, split))
        return ROWS

    for options in (BillSumOptions(), BillSumOptions(test="ca")):
        gather(TASK.build(options), NeededSplits(("train", "validation", "test")), None, fetch=fetch)
    hub = ("FiscalNote/billsum", None)
    assert asked == [(*hub, "train"), (*hub, "test"), (*hub, "train"), (*hub, "ca_test")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "{title}"}, r"data.template: must hold \{text\} once"),
        ({"template": "{text}{text}"}, r"data.template: must hold \{text\} once"),
        (
            {"template": "{title}{?title:{text}}"},
            r"data.template: must hold \{text\} once, and not in an optional part",
        ),
        ({"validation_examples": 0}, "validation_examples: must be a whole number of at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: must be a whole number of at least 1, got 0"),
    ],
)
def test_options_are_refused(options, message):
    with pytest.raises(InputFault, match=message):
        TASK.build(bind(BillSumOptions, options, "[data]"))
