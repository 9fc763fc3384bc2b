"""Local data: formats by ending, columns by name, labels from the training file."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.tasks.local import TASK, LocalOptions

OPTIONS = LocalOptions(train="a.csv", validation="b.tsv", text="words", label="kind")
ROWS = [{"words": 'said "no", left', "kind": "bad"}, {"words": "two\nlines", "kind": "good"}]
FILES = {
    "a.csv": 'kind,words\nbad,"said ""no"", left"\ngood,"two\nlines"\n',
    "b.tsv": 'words\tkind\n"x\tgood\ny\tbad\n',
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).write_text(text)


def test_labels_come_sorted_from_the_training_file(tmp_path):
    write(tmp_path, FILES)
    rows = gather(TASK.build(OPTIONS), NeededSplits(("train", "validation")), tmp_path)
    assert rows.task.labels == ("bad", "good")
    assert [example.label for example in rows.splits["validation"].examples] == [1, 0]
    assert rows.task.metrics == ("accuracy", "f1", "macro_f1", "matthews")


def test_numbers_sort_as_numbers(tmp_path):
    write(tmp_path, {"a.jsonl": "".join(json.dumps({"text": "x", "label": n}) + "\n" for n in (10, 9, 2))})
    rows = gather(TASK.build(LocalOptions(train="a.jsonl")), NeededSplits(("train",)), tmp_path)
    assert rows.task.labels == ("2", "9", "10")
    assert [example.label for example in rows.splits["train"].examples] == [2, 1, 0]


@pytest.mark.parametrize(
    ("values", "labels", "ids"),
    [
        ((True, False, True), ("false", "true"), [1, 0, 1]),
        ((1.0, 0.0, 1), ("0", "1"), [1, 0, 1]),
        ((3.0, 1.0, 20.0), ("1", "3", "20"), [1, 0, 2]),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_labels_may_be_booleans_or_whole_floats(tmp_path, values, labels, ids, ending):
    rows = [{"text": "x", "label": value} for value in values]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write(tmp_path, {f"a.{ending}": lines if ending == "jsonl" else json.dumps(rows)})
    found = gather(TASK.build(LocalOptions(train=f"a.{ending}")), NeededSplits(("train",)), tmp_path)
    assert found.task.labels == labels
    assert [example.label for example in found.splits["train"].examples] == ids


def test_floats_of_parquet_are_labels(tmp_path):
    parquet.write_table(pyarrow.table({"text": ["x", "y"], "label": [1.0, 0.0]}), tmp_path / "a.parquet")
    found = gather(TASK.build(LocalOptions(train="a.parquet")), NeededSplits(("train",)), tmp_path)
    assert [example.label for example in found.splits["train"].examples] == [1, 0]


def test_labels_that_cannot_be_read_are_named_as_written(tmp_path):
    lines = "".join(json.dumps({"text": "x", "label": value}) + "\n" for value in (0.25, [1]))
    write(tmp_path, {"a.jsonl": lines})
    fault = "field 'label' must be a word or a whole number, got 0.25"
    for labels, where in (
        ((), r"a.jsonl: column 'label' must hold at least 2 labels, got 0: "),
        (("0", "1"), "1: "),
    ):
        with pytest.raises(InputFault, match=where + fault):
            task = TASK.build(LocalOptions(train="a.jsonl", labels=labels))
            gather(task, NeededSplits(("train",)), tmp_path)


def test_test_action_takes_labels_from_the_training_file(tmp_path):
    write(tmp_path, FILES | {"c.csv": "words,kind\nz,good\n"})
    task = TASK.build(LocalOptions(train="a.csv", test="c.csv", text="words", label="kind"))
    rows = gather(task, needed_splits(task, "test"), tmp_path)
    assert list(rows.splits) == ["test"]
    assert rows.splits["test"].examples[0].label == 1


def test_given_labels_need_no_training_file(tmp_path):
    write(tmp_path, {"c.csv": "text,label\nz,b\n"})
    task = TASK.build(LocalOptions(test="c.csv", labels=("a", "b")))
    assert gather(task, needed_splits(task, "test"), tmp_path).splits["test"].examples[0].label == 1
    task = TASK.build(LocalOptions(test="c.csv"))
    with pytest.raises(InputFault, match="data.labels: required"):
        gather(task, needed_splits(task, "test"), tmp_path)


def test_files_are_relative_to_the_current_directory_too(tmp_path, monkeypatch):
    write(tmp_path, FILES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for place in (None, tmp_path / "elsewhere"):
        assert gather(TASK.build(OPTIONS), NeededSplits(("train",)), place).counts()["used"] == 2


def test_language_modelling_from_parquet_with_a_template(tmp_path):
    table = pyarrow.table({"ask": ["Why?", "{input}"], "input": ["", "é"], "answer": ["So.", "Yes."]})
    parquet.write_table(table, tmp_path / "a.parquet")
    options = LocalOptions(train="a.parquet", template="{ask}\n{input}", response="answer")
    rows = gather(TASK.build(options), NeededSplits(("train",)), tmp_path)
    assert [example.texts[0] for example in rows.splits["train"].examples] == ["Why?\n", "{input}\né"]
    assert rows.task.objective == "language_modeling"
    assert rows.task.selection.name == "perplexity"
    assert not rows.task.selection.maximise


def test_prompt_and_response_columns_have_default_names(tmp_path):
    write(tmp_path, {"a.jsonl": '{"prompt": "p", "response": "r"}\n'})
    task = TASK.build(LocalOptions(train="a.jsonl", objective="language_modeling"))
    example = gather(task, NeededSplits(("train",)), tmp_path).splits["train"].examples[0]
    assert (example.texts, example.response) == (("p",), "r")


def test_the_given_task_sets_the_objective():
    task = TASK.build(LocalOptions(train="a.csv", task="causal_language_modeling"))
    assert (task.objective, task.template) == ("language_modeling", "{prompt}")
    assert TASK.build(LocalOptions(train="a.csv", response="r")).objective == "language_modeling"
    assert TASK.build(LocalOptions(train="a.csv")).objective == "classification"


def test_documents_with_summaries(tmp_path):
    write(tmp_path, {"a.jsonl": '{"article": "A {long} text.", "headline": "Text"}\n' * 20})
    task = TASK.build(LocalOptions(train="a.jsonl", document="article", summary="headline"))
    assert (task.objective, task.action, task.template) == (
        "language_modeling",
        "summarization",
        "Document: {article}\nSummary:",
    )
    example = gather(task, NeededSplits(("train",)), tmp_path).splits["train"].examples[0]
    assert example.texts == ("Document: A {long} text.\nSummary:",)
    assert (example.response, example.gold) == (" Text", "Text")
    assert example.texts[0][slice(*example.document_span)] == "A {long} text."
    assert task.generation.max_new_tokens == 128
    assert set(task.generation.score("text", "Text")) == {"rouge1", "rouge2", "rougeL"}


def test_summarization_is_chosen_by_the_task_or_by_a_column():
    asked = TASK.build(LocalOptions(train="a.csv", task="summarization"))
    assert (asked.template, asked.generation.max_new_tokens) == ("Document: {document}\nSummary:", 128)
    named = TASK.build(LocalOptions(train="a.csv", template="{body} ->", document="body", max_new_tokens=9))
    assert (named.template, named.generation.max_new_tokens) == ("{body} ->", 9)
    assert TASK.build(LocalOptions(train="a.csv", prompt="p")).action == "causal_language_modeling"
    assert TASK.build(LocalOptions(train="a.csv")).action is None


def test_a_missing_summary_column_is_named(tmp_path):
    write(tmp_path, {"a.csv": "document,sumary\nx,y\n"})
    task = TASK.build(LocalOptions(train="a.csv", task="summarization"))
    with pytest.raises(InputFault, match="no column 'summary', the first row has .*; did you mean 'sumary'"):
        gather(task, NeededSplits(("train",)), tmp_path)


def test_regression_of_pairs(tmp_path):
    write(tmp_path, {"a.tsv": "text\tother\tlabel\nx\ty\t-1.5\n"})
    task = TASK.build(LocalOptions(train="a.tsv", text_pair="other", objective="regression"))
    example = gather(task, NeededSplits(("train",)), tmp_path).splits["train"].examples[0]
    assert (example.texts, example.label) == (("x", "y"), -1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data.train: --dataset local needs at least one file"),
        ({"train": "a.cvs"}, "data.train: a.cvs: no format 'cvs', one of csv, .*did you mean 'csv'"),
        ({"train": "a.csv", "validation": "a.csv"}, "data.train: a.csv is also an evaluation file"),
        ({"train": "a.csv", "labels": ("a",)}, "data.labels: must be at least 2, got 1"),
        ({"train": "a.csv", "labels": ("a", "a")}, "data.labels: a label appears twice"),
        ({"train": "a.csv", "template": "{a}", "prompt": "b"}, "data.prompt: cannot be combined"),
        ({"train": "a.csv", "template": "a"}, "data.template: must hold a column"),
        (
            {"train": "a.csv", "template": "{a}", "summary": "s"},
            r"data.template: must hold \{document\} once",
        ),
        ({"train": "a.csv", "document": "d", "response": "r"}, "data.response: not for summarization"),
        (
            {"train": "a.csv", "task": "summarization", "objective": "classification"},
            "data.objective: not for summarization",
        ),
        ({"train": "a.csv", "max_new_tokens": 0}, "max_new_tokens: must be a whole number"),
    ],
)
def test_options_are_refused(options, message):
    with pytest.raises(InputFault, match=message):
        TASK.build(bind(LocalOptions, options, "[data]"))


def test_one_label_is_too_few(tmp_path):
    write(tmp_path, {"a.csv": "text,label\nx,1\ny,1\n"})
    with pytest.raises(InputFault, match="must hold at least 2 labels, got 1"):
        gather(TASK.build(LocalOptions(train="a.csv")), NeededSplits(("train",)), tmp_path)


def test_options_bind_from_toml():
    assert bind(LocalOptions, {"train": "a.csv", "labels": ["x", "y"]}, "[data]").labels == ("x", "y")
    with pytest.raises(InputFault, match="unknown key 'trian'; did you mean 'train'"):
        bind(LocalOptions, {"trian": "a.csv"}, "[data]")


def test_misspelt_columns_and_files_are_named(tmp_path):
    write(tmp_path, FILES)
    task = TASK.build(LocalOptions(train="a.csv", text="word", label="kid"))
    with pytest.raises(InputFault) as caught:
        gather(task, NeededSplits(("train",)), tmp_path)
    path = tmp_path / "a.csv"
    assert caught.value.lines == (
        f"{path}: no column 'word', the first row has kind, words; did you mean 'words'?",
        f"{path}: no column 'kid', the first row has kind, words; did you mean 'kind'?",
    )
    task = TASK.build(LocalOptions(train="none.csv"))
    with pytest.raises(InputFault, match=f"data.train: no file none.csv in {tmp_path} or ."):
        gather(task, NeededSplits(("train",)), tmp_path)


def test_a_missing_validation_file_means_the_training_rows(tmp_path):
    write(tmp_path, {"a.tsv": "text\tlabel\n" + "x\t0\ny\t1\n" * 20})
    task = TASK.build(LocalOptions(train="a.tsv"))
    rows = gather(task, needed_splits(task, "test"), tmp_path)
    assert {name: len(split.examples) for name, split in rows.splits.items()} == {
        "train": 38,
        "validation": 2,
    }
    task = TASK.build(LocalOptions(test="a.tsv", labels=("0", "1")))
    with pytest.raises(InputFault, match="data.train: 'train' of local is needed, but no file is given"):
        gather(task, needed_splits(task, "train"), tmp_path)


INSTRUCTIONS = [
    {"instruction": "Add.", "input": "1 2", "output": "3", "task_type": "math"},
    {"instruction": "Say hi.", "input": "", "output": "hi", "task_type": "chat"},
    {"instruction": "Say ho.", "output": "ho"},
]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_instruction_rows_become_prompts_and_responses(tmp_path, ending):
    lines = "".join(json.dumps(row) + "\n" for row in INSTRUCTIONS)
    write(tmp_path, {f"a.{ending}": lines if ending == "jsonl" else json.dumps(INSTRUCTIONS)})
    task = TASK.build(LocalOptions(train=f"a.{ending}", form="instruction"))
    examples = gather(task, NeededSplits(("train",)), tmp_path).splits["train"].examples
    assert [example.texts[0] for example in examples] == ["Add.\n1 2", "Say hi.", "Say ho."]
    assert [example.response for example in examples] == ["3", "hi", "ho"]
    assert [example.task_type for example in examples] == ["math", "chat", ""]
    assert all(example.eos_after_prompt for example in examples)
    assert task.selection.name == "perplexity"


def test_instruction_rows_may_have_another_prompt_and_response(tmp_path):
    options = LocalOptions(
        train="a.jsonl", form="instruction", template="{instruction}:", response="task_type"
    )
    example = TASK.build(options).example(INSTRUCTIONS[0])
    assert (example.texts, example.response, example.eos_after_prompt) == (("Add.:",), "math", False)


COLUMNS = "the first row has instruction, input, output, task_type"


def test_instruction_rows_without_the_form_are_refused_with_a_hint(tmp_path):
    write(tmp_path, {"a.jsonl": json.dumps(INSTRUCTIONS[0]) + "\n"})
    task = TASK.build(LocalOptions(train="a.jsonl", task="causal_language_modeling"))
    with pytest.raises(InputFault) as caught:
        gather(task, NeededSplits(("train",)), tmp_path)
    assert [line.partition("no column ")[2] for line in caught.value.lines] == [
        f"'prompt', {COLUMNS}; `form = \"instruction\"` reads instruction, input, output",
        f"'response', {COLUMNS}; `form = \"instruction\"` reads instruction, input, output",
    ]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"prompt": "a"}, "data.prompt: cannot be combined with template or form"),
        ({"template": "{question}"}, "data.template: no field 'question', one of instruction, input"),
        ({"objective": "classification"}, "data.form: only for language modelling"),
    ],
)
def test_options_that_contradict_the_form_are_refused(options, fault):
    with pytest.raises(InputFault, match=fault):
        TASK.build(LocalOptions(train="a.jsonl", form="instruction", **options))


def test_a_column_of_task_types_is_read_where_it_is_named(tmp_path):
    write(tmp_path, {"a.tsv": "text\tlabel\tsort\nx\tno\tfirst\ny\tyes\t2\n"})
    for options in ({"train": "a.tsv"}, {"train": "a.tsv", "labels": ("no", "yes")}, {"prompt": "text"}):
        named = {"train": "a.tsv", "response": "label" if "prompt" in options else None, **options}
        for column, kinds in ((None, ["", ""]), ("sort", ["first", "2"])):
            rows = gather(
                TASK.build(LocalOptions(**named, task_type=column)), NeededSplits(("train",)), tmp_path
            )
            assert [example.task_type for example in rows.splits["train"].examples] == kinds
    task = TASK.build(LocalOptions(train="a.tsv", task_type="srt"))
    with pytest.raises(InputFault, match="no column 'srt', the first row has .*; did you mean 'sort'"):
        gather(task, NeededSplits(("train",)), tmp_path)


def test_an_instructions_type_may_be_in_another_column():
    task = TASK.build(LocalOptions(train="a.jsonl", form="instruction", task_type="input"))
    assert [task.example(row).task_type for row in INSTRUCTIONS] == ["1 2", "", ""]
