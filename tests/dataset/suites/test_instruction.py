"""An instruction record becomes the published prompt: instruction, input where there is one, end token."""

from dataclasses import replace

import pytest

from configs.runtime.faults import InputFault
from configs.schema.batch_keys import IGNORE_INDEX
from configs.toml.binding import bind
from dataset.encoding.collate import Collate
from dataset.encoding.encode import encode_pairs
from dataset.suites.instruction import (
    TEMPLATE,
    Columns,
    InstructionOptions,
    instruction_example,
    instruction_task,
)
from dataset.task import RowFault
from tests.support.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()


def ids(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_ids_labels_and_mask_are_those_of_the_form():
    start, end, limit = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, 14
    records = [("Add.", "1 2", "3"), ("Say hi.", "", "hi there"), ("Say a very long thing.", "", "x")]
    rows = [dict(zip(("instruction", "input", "output"), record)) for record in records]
    encoded = encode_pairs([instruction_example(TEMPLATE, Columns(), r) for r in rows], TOKENIZER, limit)
    batch = Collate(TOKENIZER.pad_token_id)([encoded[index] for index in range(len(encoded))])
    assert encoded.dropped == 1
    for number, (instruction, given, output) in enumerate(records[:2]):
        source = [start, *ids(instruction + (f"\n{given}" if given else "")), end]
        target = [*ids(output), end]
        whole, labels = (source + target)[:limit], ([IGNORE_INDEX] * len(source) + target)[:limit]
        padding = batch["input_ids"].shape[1] - len(whole)
        assert batch["input_ids"][number].tolist() == whole + [TOKENIZER.pad_token_id] * padding
        assert batch["labels"][number].tolist() == labels + [IGNORE_INDEX] * padding
        assert batch["attention_mask"][number].tolist() == [1] * len(whole) + [0] * padding


@pytest.mark.parametrize("row", [{"input": ""}, {"input": None}, {}])
def test_the_input_may_be_empty_or_left_out(row):
    example = instruction_example(TEMPLATE, Columns(), {"instruction": "Go.", "output": "Gone.", **row})
    assert example.texts == ("Go.",)


def test_columns_are_named_as_in_the_row():
    columns = Columns("instruction", "context", "response")
    with pytest.raises(RowFault, match="field 'context' must be text, got int"):
        instruction_example(TEMPLATE, columns, {"instruction": "a", "context": 3, "response": "b"})
    with pytest.raises(RowFault, match="field 'instruction' is empty"):
        instruction_example(TEMPLATE, columns, {"instruction": "", "context": "a", "response": "b"})


@pytest.mark.parametrize(("value", "kind"), [("sums", "sums"), (3, "3"), ("", ""), (None, ""), (0, "0")])
def test_the_type_of_task_is_kept_and_no_loss_sees_it(value, kind):
    row = {"instruction": "Go.", "output": "Gone."}
    plain = instruction_example(TEMPLATE, Columns(), row)
    assert plain.task_type == ""
    assert instruction_example(TEMPLATE, Columns(), {**row, "task_type": value}) == replace(
        plain, task_type=kind
    )
    columns = Columns(task_type="sort")
    assert instruction_example(TEMPLATE, columns, {**row, "sort": value, "task_type": []}).task_type == kind


def test_a_type_of_task_is_a_word_or_a_whole_number():
    row = {"instruction": "Go.", "output": "Gone.", "task_type": [1]}
    with pytest.raises(RowFault, match="field 'task_type' must be a word or a whole number, got"):
        instruction_example(TEMPLATE, Columns(), row)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"template": "plain"}, "data.template: must hold a column"),
        (
            {"template": "{instruction} {output}"},
            "data.template: no field 'output', one of instruction, input",
        ),
        ({"template": "{input}"}, "data.template: must hold {instruction}"),
        ({"validation_examples": 0}, "validation_examples: must be a whole number of at least 1, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, fault):
    with pytest.raises(InputFault, match=fault):
        instruction_task("a", ("a.jsonl",), "a/b", bind(InstructionOptions, options, "[data]"))
