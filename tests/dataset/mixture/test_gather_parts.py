"""Rows of all parts are gathered and accounted for, by part and in total."""

import json
from dataclasses import replace

import pytest

from configs.runtime.faults import InputFault
from dataset.mixture.gather_parts import Request, gather_parts, join
from dataset.mixture.parts import Part
from dataset.tasks.gsm8k import TASK as GSM8K
from dataset.tasks.local import TASK as LOCAL
from dataset.tasks.local import LocalOptions
from dataset.tasks.rte import TASK as RTE
from tests.support.tiny import gsm8k_rows, rte_rows, write_gsm8k, write_rte

TRAIN = Request("train", predict=False, max_bad_rows=0)


@pytest.fixture
def parts(tmp_path):
    """Return two parts of language modelling: 40 rows of GSM8K and 6 + 2 own ones."""
    for name, rows in {"own.jsonl": gsm8k_rows(6, seed=3), "dev.jsonl": gsm8k_rows(2, seed=4)}.items():
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    options = LocalOptions(
        train=str(tmp_path / "own.jsonl"),
        validation=str(tmp_path / "dev.jsonl"),
        prompt="question",
        response="answer",
    )
    gsm8k = GSM8K.build(GSM8K.options())
    word = "causal_language_modeling"
    return (
        Part(gsm8k, word, write_gsm8k(tmp_path / "gsm8k"), "gsm8k", where="run.toml: [[data.mix]] 1"),
        Part(LOCAL.build(options), word, None, "own", where="run.toml: [[data.mix]] 2"),
    )


def own_file(parts):
    return parts[1].task.splits["train"].files[0]


def test_splits_carry_their_parts_and_rows_add_up(parts):
    rows = join(parts, gather_parts(parts, TRAIN, {}))
    sizes = {name: len(split.examples) for name, split in rows.splits.items()}
    assert sizes == {
        "train_gsm8k": 38,
        "validation_gsm8k": 2,
        "train_own": 6,
        "validation_own": 2,
    }
    account = rows.account({"train_own": 1, "validation_gsm8k": 0}, {"gsm8k": 22, "own": 22})
    assert account["parts"] == {
        "gsm8k": {"read": 40, "used": 40, "refused": 0, "drawn_per_epoch": 22},
        "own": {"read": 8, "used": 7, "refused": 1, "drawn_per_epoch": 22},
    }
    assert [account[key] for key in ("read", "used", "refused")] == [48, 47, 1]
    assert account["reasons"] == ["train_own: 1 rows keep no target within --max-token-len"]
    assert set(rows.digests()) == set(sizes)


def test_rows_beyond_the_limit_of_a_test_are_not_selected(parts):
    rows = join(parts, gather_parts(parts, TRAIN, {}))
    account = rows.account({"validation_own": 1}, unscored={"validation_gsm8k": 1, "validation_own": 0})
    assert account["splits"]["validation_gsm8k"] == {"read": 2, "used": 1, "refused": 0, "not_selected": 1}
    assert account["parts"]["own"] == {"read": 8, "used": 7, "refused": 1, "not_selected": 0}
    assert account["read"] == account["used"] + account["refused"] + account["not_selected"]
    packed = {name: replace(task, packed=True) for name, task in rows.tasks.items()}
    unlimited = replace(rows, tasks=packed).account({}, unscored={"validation_gsm8k": 1})
    assert unlimited["splits"]["validation_gsm8k"] == {"read": 2, "used": 2, "refused": 0}


def test_the_task_is_what_the_parts_have_in_common(parts):
    task = join(parts, gather_parts(parts, TRAIN, {})).task
    assert (task.name, task.objective, task.selection.name) == ("mix", "language_modeling", "loss")
    assert task.generation is None and task.template is None
    assert set(task.metrics) == {"loss", "perplexity"}
    assert "validation_own" in task.splits


def test_a_split_keeps_its_parts_own_task(parts):
    """How an example is encoded is its part's matter: room for an answer, running text in blocks."""
    rows = join(parts, gather_parts(parts, TRAIN, {}))
    assert rows.tasks["train_gsm8k"].generation is not None
    assert rows.tasks["validation_own"].template == "{question}"
    assert set(rows.tasks) == set(rows.splits)


def test_rows_that_are_not_selected_are_counted_in_every_part(parts):
    chosen = replace(parts[0].task, select=lambda row: "has 1 pens" in row["question"])
    some = (replace(parts[0], task=chosen), parts[1])
    account = join(some, gather_parts(some, TRAIN, {})).account({})
    left_out = account["parts"]["gsm8k"]["not_selected"]
    assert 0 < left_out == account["not_selected"] < 40
    assert account["parts"]["gsm8k"]["used"] == 40 - left_out
    assert account["parts"]["own"]["not_selected"] == 0


def test_bad_rows_of_all_parts_count_together(parts):
    for path in (own_file(parts), parts[0].dataset_dir / "train.jsonl"):
        with open(path, "a") as stream:
            stream.write('{"question": "no answer"}\n')
    with pytest.raises(InputFault) as caught:
        gather_parts(parts, TRAIN, {})
    assert len(caught.value.lines) == 2
    assert caught.value.lines[0].startswith(f"{parts[0].dataset_dir / 'train.jsonl'}:41: ")
    with pytest.raises(InputFault, match=r"own.jsonl:7: .*\(1 of 7 rows\)") as caught:
        gather_parts(parts, Request("train", predict=False, max_bad_rows=1), {})
    assert len(caught.value.lines) == 1
    rows = join(parts, gather_parts(parts, Request("train", predict=False, max_bad_rows=2), {}))
    parted = rows.account({})["parts"]
    assert [parted[name]["refused"] for name in ("gsm8k", "own")] == [1, 1]
    assert len(rows.reasons()) == 2
    assert rows.reasons()[1].startswith("train_own own.jsonl:7: ")


def test_a_place_that_lacks_the_set_is_reported_with_its_entry(parts, tmp_path):
    lost = (Part(parts[0].task, "", tmp_path / "nowhere", "gsm8k", where=parts[0].where), parts[1])
    with pytest.raises(InputFault) as caught:
        gather_parts(lost, TRAIN, {})
    expected = f"run.toml: [[data.mix]] 1: dataset_dir: {tmp_path / 'nowhere'} is not a directory"
    assert caught.value.lines == (expected,)


def test_parts_of_the_hub_are_missing_until_they_are_fetched(parts):
    remote = Part(parts[0].task, "", None, "far")
    found = gather_parts((remote, parts[1]), TRAIN, {})
    assert set(found) == {"own"}
    asked = []

    def fetch(task, split):
        asked.append((task.name, split))
        return gsm8k_rows(30)

    whole = gather_parts((remote, parts[1]), TRAIN, found, fetch)
    assert asked == [("gsm8k", "train")]
    assert whole["own"] is found["own"]
    assert len(join((remote, parts[1]), whole).splits["train_far"].examples) == 29


def test_labels_known_from_rows_are_compared(tmp_path):
    def own(words):
        path = tmp_path / f"{'-'.join(words)}.tsv"
        pairs = "".join(f"{first}\t{words[i % 2]}\n" for i, (first, *_) in enumerate(rte_rows(8)))
        path.write_text(f"text\tlabel\n{pairs}")
        return Part(LOCAL.build(LocalOptions(train=str(path))), "classification", None, "own", where="here")

    rte = Part(RTE.build(RTE.options()), "classification", write_rte(tmp_path / "RTE"), "rte", where="there")
    same = (rte, own(("entailment", "not_entailment")))
    task = join(same, gather_parts(same, TRAIN, {})).task
    assert task.labels == ("entailment", "not_entailment")
    assert task.metrics == ("accuracy", "macro_f1", "f1", "matthews", "loss")
    other = (rte, own(("no", "yes")))
    with pytest.raises(InputFault) as caught:
        join(other, gather_parts(other, TRAIN, {}))
    assert caught.value.lines == (
        "here: 'own' has the labels no, yes, but 'rte' has entailment, not_entailment:"
        " all parts of a mixture must have the same labels in the same order",
    )


def test_one_data_set_stays_as_it_is(parts):
    alone = (Part(parts[0].task, parts[0].action, parts[0].dataset_dir),)
    rows = join(alone, gather_parts(alone, TRAIN, {}))
    assert rows.task is parts[0].task
    assert set(rows.splits) == {"train", "validation", "test"}
    assert "parts" not in rows.account({})
