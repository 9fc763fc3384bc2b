"""A field has the required type, or the reason names what it is."""

import math

import pytest

from dataset.rows.fields import class_field, label_field, number_field, printable, text_field, word_field
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
    assert [word_field({"a": value}, "a") for value in (1.0, -0.0, 1e3)] == ["1", "0", "1000"]
    assert [word_field({"a": value}, "a") for value in (True, False)] == ["true", "false"]
    for value, written in ((0.5, "0.5"), ([1], r"\[1\]"), (math.inf, "Infinity"), (math.nan, "NaN")):
        with pytest.raises(RowFault, match=f"field 'a' must be a word or a whole number, got {written}"):
            word_field({"a": value}, "a")


@pytest.mark.parametrize(
    ("value", "words", "expected"),
    [
        (1.0, ("yes", "no"), 1),
        (True, ("false", "true"), 1),
        (True, ("True", "False"), 0),
        (False, ("0", "1"), 0),
        (True, ("1", "0"), 0),
    ],
)
def test_labels_may_be_booleans_and_whole_floats(value, words, expected):
    assert label_field({"a": value}, "a", words) == expected


@pytest.mark.parametrize(
    ("value", "words", "written"),
    [
        (True, ("good", "bad"), "true"),
        (False, ("0", "1", "2"), "false"),
        (0.5, ("0", "1"), "0.5"),
        (2.0, ("0", "1"), "2.0"),
        (math.nan, ("0", "1"), "NaN"),
        ([True], ("0", "1"), "[true]"),
    ],
)
def test_other_labels_are_named_as_they_are_written(value, words, written):
    with pytest.raises(LabelFault) as caught:
        label_field({"a": value}, "a", words)
    assert (caught.value.value, caught.value.allowed) == (written, ", ".join(words))


def test_class_names_of_a_file_are_words_not_numbers_of_classes():
    words = ("2", "9", "10")
    assert [class_field({"a": value}, "a", words) for value in (2, "9", 10.0)] == [0, 1, 2]
    with pytest.raises(LabelFault, match="label '1' is not allowed"):
        class_field({"a": 1}, "a", words)
    assert class_field({"a": True}, "a", ("0", "1")) == 1
    with pytest.raises(LabelFault, match="label 'true' is not allowed"):
        class_field({"a": True}, "a", ("bad", "good"))


def test_shown_is_one_short_line():
    assert printable("a\nb\x1b") == "a\\nb\\x1b"
    assert len(printable("é" * 500)) == 63
    assert printable("\ud800") == "\\ud800"
