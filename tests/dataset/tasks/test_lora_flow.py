"""LoRA-Flow's prompts, its system prompts beside the rows, and the number of an answer as gold."""

import json
import re

import pytest

from configs.command_line.cli import parse
from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from dataset.mixture.bind_parts import bind_parts
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.task import RowFault
from dataset.tasks.lora_flow import TASK, LoraFlowOptions

OPTIONS = LoraFlowOptions(pair="es_math", system="Responde en español.")
OPTIONAL = ("type",)
ROWS = [
    {
        "type": "GSM_AnsAug",
        "query": f"Ana tiene {n} lápices y compra {n}. ¿Cuántos tiene?",
        "response": f"{n} + {n} = {2 * n}.\n#### {2 * n}\nLa respuesta es: {2 * n}",
    }
    for n in range(1, 9)
]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


DEV = [{"question": row["query"], "answer": row["response"]} for row in ROWS]
TEST = [{"question": row["query"], "answer": row["response"].split()[-1]} for row in ROWS]
FILES = {
    "train/es_math_train.jsonl": lines(ROWS),
    "dev/es_math_dev.jsonl": lines(DEV),
    "test/es_math_test.jsonl": lines(TEST),
}
SYSTEMS = {"es_math": "Eres un asistente.", "ru_math": "Ты ассистент."}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a directory with the official files and system prompts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora.toml").write_text("")
    place = tmp_path / "lora_flow"
    for name, text in {**FILES, "system_prompts.json": json.dumps(SYSTEMS)}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def bound(text, *words):
    """Bind `[data]` and return the single part of the run."""
    with open("run.toml", "w") as file:
        file.write(text)
    line = ["train", "llama_lora", "lora_flow", "--config", "run.toml", "--lora-config", "lora.toml", *words]
    return bind_parts(parse(line))


def test_the_prompt_has_the_tags_of_instruction_and_system():
    example = TASK.build(LoraFlowOptions("es_math", suffix="Paso a paso:", system="Corto.")).example(ROWS[0])
    question = "Ana tiene 1 lápices y compra 1. ¿Cuántos tiene?"
    assert example.texts == (f"[INST] <<SYS>>\nCorto.\n<</SYS>>\n\n{question} [/INST]Paso a paso:",)
    assert example.response == " 1 + 1 = 2.\n#### 2\nLa respuesta es: 2"
    assert example.gold == "2"
    plain = TASK.build(LoraFlowOptions("es_math", system="")).example(ROWS[0])
    assert plain.texts == (f"[INST] {question} [/INST]",)


def test_training_development_and_test_rows_are_read(folder):
    task = TASK.build(OPTIONS)
    rows = gather(task, needed_splits(task, "train"), folder.parent).splits
    train, dev, test = (rows[name].examples for name in ("train", "validation", "test"))
    assert train == dev
    assert [one.texts for one in test] == [one.texts for one in train]
    assert [one.gold for one in test] == [one.gold for one in train] == [str(2 * n) for n in range(1, 9)]
    assert test[0].response == " 2"


def test_a_worked_answer_need_not_end_in_a_number():
    row = {"question": "¿Qué día es?", "answer": "La respuesta es: domingo"}
    assert TASK.build(OPTIONS).example(row).gold is None


def test_a_gold_answer_keeps_its_value():
    task = TASK.build(OPTIONS)
    for written, gold in (
        ("2,125", "2125"),
        ("-3.50", "-3.50"),
        ("$18.", "18"),
        ("0.00000001", "0.00000001"),
    ):
        example = task.example({"question": "?", "answer": written})
        assert example.gold == gold
        assert task.generation.score(f"La respuesta es: {written}", example.gold) == {"exact_match": 1.0}


def test_a_test_row_without_a_number_is_refused(folder):
    test = [*TEST, {"question": "?", "answer": "domingo 7"}, {"question": "?", "answer": ""}]
    (folder / "test/es_math_test.jsonl").write_text(lines(test))
    with pytest.raises(InputFault, match=r"jsonl:9: field 'answer' is not a number \(2 of 10 rows\)"):
        gather(TASK.build(OPTIONS), NeededSplits(("test",)), folder)
    rows = gather(TASK.build(OPTIONS), NeededSplits(("test",)), folder, max_bad_rows=2).splits["test"]
    assert [reason for _, reason in rows.refused] == [
        "field 'answer' is not a number",
        "field 'answer' is empty",
    ]


def test_a_row_of_another_form_is_refused():
    for row, missing in (({"query": "?"}, "response"), ({"data": ["?", "!"]}, "question")):
        with pytest.raises(RowFault, match=f"field '{missing}' is missing"):
            TASK.build(OPTIONS).example(row)


@pytest.mark.parametrize(
    ("pair", "text"),
    [("es_math", "La respuesta es: 18"), ("ru_math", "Ответ: 18"), ("zh_math", "答案是：18")],
)
def test_each_language_has_its_phrase(pair, text):
    score = TASK.build(LoraFlowOptions(pair, system="")).generation.score
    assert score(f"{text} = 17", "18") == {"exact_match": 1.0}


def test_another_phrase_can_be_given():
    score = TASK.build(LoraFlowOptions("es_math", system="", answer_phrase="Total")).generation.score
    assert score("Total: 18. La respuesta es: 17", "18") == {"exact_match": 1.0}


@pytest.mark.parametrize("pair", ["zh_code", "ru_code", "es_code"])
def test_code_pairs_are_refused(pair):
    with pytest.raises(InputFault, match=f"data.pair: '{pair}' is scored by running generated programs"):
        TASK.build(LoraFlowOptions(pair))


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({}, "data.system: required, --dataset-dir has no system_prompts.json"),
        ({"system": "{a}"}, "data.system: must not hold braces"),
        ({"system": "", "suffix": "{eos}"}, "data.suffix: must not hold braces"),
        ({"system": "", "answer_phrase": " \uff1a"}, "data.answer_phrase: must hold a word"),
    ],
)
def test_wrong_options_are_refused(keys, fault):
    with pytest.raises(InputFault, match=re.escape(fault)):
        TASK.build(LoraFlowOptions("es_math", **keys))


def test_the_pair_is_required_and_known():
    with pytest.raises(InputFault, match=r"\[data\]: pair: required"):
        bind(LoraFlowOptions, {}, "[data]")
    with pytest.raises(InputFault, match=r"pair: .*'es_maths'.*did you mean 'es_math'"):
        bind(LoraFlowOptions, {"pair": "es_maths"}, "[data]")


@pytest.mark.parametrize("place", ["lora_flow", "."])
def test_the_system_prompt_is_read_beside_the_rows(folder, place):
    run, (part,) = bound('[data]\npair = "es_math"\n', "--dataset-dir", place)
    assert part.task.template == "[INST] <<SYS>>\nEres un asistente.\n<</SYS>>\n\n{question} [/INST]"
    assert run.tables["data"] == part.table == {"pair": "es_math"}
    _, (own,) = bound('[data]\npair = "es_math"\nsystem = "Corto."\n', "--dataset-dir", place)
    assert "Corto." in own.task.template
    assert own.table == {"pair": "es_math", "system": "Corto."}


def test_a_missing_or_damaged_file_of_system_prompts_is_named(folder):
    words = ("--dataset-dir", "lora_flow")
    path = folder / "system_prompts.json"
    for text, fault in (
        (b'{"ru_math": "x"}', "has no text for 'es_math', needed without data.system"),
        (b'["es_math"]', "has no text for 'es_math'"),
        (b"{", "invalid JSON"),
        (b"\xff", "is not UTF-8"),
    ):
        path.write_bytes(text)
        with pytest.raises(InputFault, match=f"system_prompts.json: {fault}"):
            bound('[data]\npair = "es_math"\n', *words)
    path.unlink()
    with pytest.raises(InputFault, match="data.system: required"):
        bound('[data]\npair = "es_math"\n', *words)
    with pytest.raises(InputFault, match="--dataset-dir: required for lora_flow"):
        bound('[data]\npair = "es_math"\n')


def test_a_code_pair_is_refused_before_its_files_are_looked_for(folder):
    with pytest.raises(InputFault) as caught:
        bound('[data]\npair = "es_code"\n')
    assert [line.split(":")[0] for line in caught.value.lines] == ["data.pair", "--dataset-dir"]


def test_a_part_of_a_mixture_reads_its_own_system_prompt(folder):
    entry = (
        '[[data.mix]]\ndataset = "lora_flow"\nname = "{0}"\npair = "{0}_math"\ndataset_dir = "lora_flow"\n'
    )
    text = 'dataset = "mix"\n' + entry.format("es") + entry.format("ru")
    with open("run.toml", "w") as file:
        file.write(text)
    _, parts = bind_parts(
        parse(["train", "llama_lora", "--config", "run.toml", "--lora-config", "lora.toml"])
    )
    assert [SYSTEMS[f"{part.name}_math"] in part.task.template for part in parts] == [True, True]
