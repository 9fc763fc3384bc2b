"""Alpaca is one JSON array; a tenth of it is held out; its prompt may be the published one."""

import json

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.gather import NeededSplits, gather
from dataset.suites.instruction import InstructionOptions
from dataset.tasks.alpaca import TASK

ROWS = [
    {"instruction": f"Double {n}.", "input": "" if n % 2 else "Be brief.", "output": str(2 * n)}
    for n in range(2, 42)
]
OPTIONAL = ("input",)
FILES = {"alpaca_data.json": json.dumps(ROWS, indent=4)}
PUBLISHED = (
    "Below is an instruction that describes a task"
    "{?input:, paired with an input that provides further context}."
    " Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n{?input:### Input:\n{input}\n\n}### Response:"
)
BOTH = NeededSplits(("train", "validation"))


def test_a_tenth_is_held_out_and_never_trained_on(tmp_path):
    (tmp_path / "alpaca_data.json").write_text(FILES["alpaca_data.json"])
    rows = gather(TASK.build(TASK.options()), BOTH, tmp_path)
    train, validation = (
        {example.texts[0] for example in rows.splits[name].examples} for name in BOTH.required
    )
    assert (len(train), len(validation)) == (36, 4)
    assert not train & validation
    options = InstructionOptions(validation_examples=7)
    assert len(gather(TASK.build(options), BOTH, tmp_path).splits["validation"].examples) == 7


def test_other_endings_hold_the_same_rows(tmp_path):
    (tmp_path / "alpaca_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = TASK.build(TASK.options())
    found = gather(task, NeededSplits(("train",)), tmp_path).splits["train"].examples
    assert found == [task.example(row) for row in ROWS]


def test_an_empty_output_is_refused_with_its_line(tmp_path):
    text = json.dumps([*ROWS, {"instruction": "Do.", "input": "", "output": ""}], indent=4)
    (tmp_path / "alpaca_data.json").write_text(text)
    task = TASK.build(TASK.options())
    with pytest.raises(InputFault, match=r"json:202: field 'output' is empty \(1 of 41 rows\)"):
        gather(task, BOTH, tmp_path)
    assert gather(task, BOTH, tmp_path, max_bad_rows=1).counts() == {"read": 41, "used": 40, "refused": 1}


def test_the_published_prompt_can_be_written_as_a_template():
    task = TASK.build(InstructionOptions(template=PUBLISHED))
    assert task.example(ROWS[1]).texts[0] == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the"
        " request.\n\n### Instruction:\nDouble 3.\n\n### Response:"
    )
    with_input = task.example(ROWS[0])
    assert with_input.texts[0].startswith(
        "Below is an instruction that describes a task, paired with an input that provides further context."
    )
    assert with_input.texts[0].endswith(
        "### Instruction:\nDouble 2.\n\n### Input:\nBe brief.\n\n### Response:"
    )
    assert not with_input.eos_after_prompt
