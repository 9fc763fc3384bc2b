"""A field is what it should be, or the reason says what it is."""

import pytest

from dataset.rows.fields import label_field, number_field, printable, text_field, word_field
from dataset.task import LabelFault, RowFault


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "field 'a' is missing"),
        ({"a": ""}, "field 'a' is empty"),
        ({"a": None}, "field 'a' is empty"),
        ({"a": 3}, "field 'a' must be text, got int"),
        ({"a": "\ud800"}, "an unpaired surrogate"),
    ],
)
def test_text_is_text(row, reason):
    with pytest.raises(RowFault, match=reason):
        text_field(row, "a")


def test_text_is_left_alone():
    assert text_field({"a": " null \r\x1c"}, "a") == " null \r\x1c"


def test_labels_are_words_or_numbers_of_the_set():
    assert label_field({"a": "no"}, "a", ("yes", "no")) == 1
    assert label_field({"a": 1}, "a", ("yes", "no")) == 1
    with pytest.raises(LabelFault) as caught:
        label_field({"a": 7}, "a", ("yes", "no"))
    assert (caught.value.value, caught.value.allowed) == ("7", "yes, no")


def test_numbers_are_finite_and_within_limits():
    assert number_field({"a": "-1.5e2"}, "a") == -150.0
    for value in ("1e999", float("inf"), "٣", True, [], 10**400):
        with pytest.raises(LabelFault, match="finite numbers"):
            number_field({"a": value}, "a")


def test_words_may_be_whole_numbers():
    assert word_field({"a": 3}, "a") == "3"
    for value in (True, 0.5, []):
        with pytest.raises(RowFault):
            word_field({"a": value}, "a")


def test_shown_is_one_short_line():
    assert printable("a\nb\x1b") == "a\\nb\\x1b"
    assert len(printable("é" * 500)) == 63
    assert printable("\ud800") == "\\ud800"
