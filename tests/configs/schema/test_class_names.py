"""Names are matched without case and punctuation; a table that names no classes, or two, is noted."""

import pytest

from configs.schema.class_names import are_no_names, head_notes, label_order, saved_labels

SINGLE = "single_label_classification"


def test_labels_are_matched_by_name():
    assert label_order(["NOT_ENTAILMENT", "Entailment"], ["entailment", "not entailment"]) == [1, 0]
    assert label_order(["a", "b"], ["a", "c"]) is None
    assert label_order(["a", "b", "c"], ["a", "b"]) is None
    assert label_order(["a", "A"], ["a", "b"]) is None


def test_names_come_from_either_table():
    assert saved_labels({"id2label": {"0": "x", "1": "y"}}) == ["x", "y"]
    assert saved_labels({"label2id": {"x": 1, "y": 0}}) == ["y", "x"]
    assert saved_labels({"id2label": {"1": "x", "2": "y"}}) == saved_labels({}) == []
    assert saved_labels({"id2label": ["x", "y"]}) == []


def test_numbers_are_no_names():
    assert are_no_names(["LABEL_0", "1"])
    assert not are_no_names(["LABEL_0", "yes"])


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ({"id2label": {"0": "x", "5": "y"}}, "id2label of the base does not number its classes from 0"),
        (
            {"id2label": {"0": "x", "1": "y"}, "label2id": {"y": 0, "x": 1}},
            "id2label and label2id of the base",
        ),
        ({"problem_type": "regression"}, f"trained for regression; it is used for {SINGLE}"),
    ],
)
def test_contradictions_are_noted(config, note):
    (found,) = head_notes(config, SINGLE)
    assert note in found


def test_tables_that_agree_need_no_note():
    tables = {"id2label": {"0": "x", "1": "y"}, "label2id": {"y": 1, "x": 0}}
    assert head_notes(tables | {"problem_type": SINGLE}, SINGLE) == head_notes({}, SINGLE) == ()
