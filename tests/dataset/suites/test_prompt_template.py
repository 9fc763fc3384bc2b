"""A template's fields, its parts that depend on a field, and its end."""

import pytest

from dataset.suites.prompt_template import (
    ends_with_eos,
    field_span,
    fill,
    placeholders,
    required_fields,
    template_faults,
)
from dataset.task import RowFault

INSTRUCTION = "{instruction}{?input:\n{input}}{eos}"


def test_fill_reads_each_field_once():
    assert fill("{a}-{b}", {"a": "{b}", "b": ""}) == "{b}-"
    with pytest.raises(RowFault, match="field 'a' is empty"):
        fill("{a}{b}", {"a": "", "b": ""})
    with pytest.raises(RowFault, match="field 'b' is missing"):
        fill("{a}{b}", {"a": "x"})


def test_a_part_is_kept_where_its_field_is_not_empty():
    assert fill(INSTRUCTION, {"instruction": "Add.", "input": "1 2"}) == "Add.\n1 2"
    for row in ({"input": ""}, {"input": None}, {}):
        assert fill(INSTRUCTION, {"instruction": "Add.", **row}) == "Add."
    assert fill("A{?b:, with more}.", {"b": "x"}) == "A, with more."
    with pytest.raises(RowFault, match="field 'input' must be text, got int"):
        fill(INSTRUCTION, {"instruction": "Add.", "input": 3})
    with pytest.raises(RowFault, match="field 'instruction' is missing"):
        fill(INSTRUCTION, {"input": "x"})


def test_the_position_of_a_field_is_that_in_the_filled_template():
    template = "{title}{?note: ({note})}: {text}. {title}{eos}"
    for row in ({"note": "{text}"}, {"note": ""}, {}):
        row |= {"title": "{text}", "text": "the text"}
        assert fill(template, row)[slice(*field_span(template, "text", row))] == "the text"
    with pytest.raises(RowFault, match="field 'text' is empty"):
        field_span(template, "text", {"title": "x", "text": ""})


def test_a_field_is_never_read_as_a_template():
    row = {"instruction": "{?input:x}{eos}{input}", "input": "{instruction}{eos}"}
    assert fill(INSTRUCTION, row) == "{?input:x}{eos}{input}\n{instruction}{eos}"


def test_needed_fields_come_first_and_each_optional_one_once():
    template = "{?input:With {extra}. }{instruction}{?input: {input}}"
    assert placeholders(template) == ["instruction", "input", "extra"]
    assert required_fields(template) == ["instruction"]


def test_the_end_placeholder_is_special_only_at_the_end():
    assert ends_with_eos(INSTRUCTION)
    assert not ends_with_eos("{eos}{a}")
    assert placeholders("{eos}{a}{eos}") == ["eos", "a"]


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("plain", "must hold a column in braces"),
        ("{eos}", "must hold a column in braces"),
        ("{a}{?b:never", "an optional part {?name:...} is not closed"),
        ("{a}{?b:x{?c:y}}", "an optional part {?name:...} is not closed, or holds another one"),
    ],
)
def test_a_template_that_lacks_something_is_reported(template, fault):
    assert [one[: len(fault)] for one in template_faults(template)] == [fault]


def test_a_valid_template_has_no_fault():
    assert template_faults(INSTRUCTION) == template_faults("{a} [INST] {?b:{b}}") == []
