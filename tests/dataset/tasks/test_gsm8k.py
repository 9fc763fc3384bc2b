"""GSM8K's gold is the number after the four hashes."""

import json

import pytest

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from dataset.task import RowFault
from dataset.tasks.gsm8k import TASK, Gsm8kOptions

ROWS = [
    {
        "question": f"Tom has {n} pens and buys {n}. How many?",
        "answer": f"{n}+{n} = <<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}",
    }
    for n in range(1, 41)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
FILES = {"train.jsonl": LINES, "test.jsonl": LINES}


def test_prompt_and_response_join_to_the_whole_text():
    example = TASK.build(Gsm8kOptions()).example(ROWS[0])
    assert example.texts == ("Question: Tom has 1 pens and buys 1. How many?\nAnswer:",)
    assert example.response == " 1+1 = <<1+1=2>>2\n#### 2"
    assert example.gold == "2"


def test_calculator_marks_can_be_left_out():
    example = TASK.build(Gsm8kOptions(calculator_marks=False)).example(ROWS[0])
    assert example.response == " 1+1 = 2\n#### 2"


def test_answer_without_number_is_refused():
    with pytest.raises(RowFault, match="no number after '####'"):
        TASK.build(Gsm8kOptions()).example({"question": "Why?", "answer": "Because."})


def test_braces_in_a_question_stay():
    example = TASK.build(Gsm8kOptions()).example({"question": "{answer} {x}?", "answer": "#### 1"})
    assert example.texts == ("Question: {answer} {x}?\nAnswer:",)


@pytest.mark.parametrize("template", ["no field", "{question} {other}", "{question}{question}"])
def test_template_must_hold_the_question(template):
    with pytest.raises(InputFault, match="data.template: must hold"):
        TASK.build(Gsm8kOptions(template=template))


def test_validation_examples_is_a_count():
    assert TASK.build(Gsm8kOptions(validation_examples=120)).holdout == 120
    with pytest.raises(InputFault, match="validation_examples"):
        bind(Gsm8kOptions, {"validation_examples": 0}, "[data]")
