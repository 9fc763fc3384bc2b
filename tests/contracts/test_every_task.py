"""Every data set keeps the contract; its rows are in `tests/dataset/tasks/test_<kind>.py`.

ROWS as the hub gives them, FILES in the official layout; where needed OPTIONS and OPTIONAL fields.
"""

from dataclasses import fields, replace
from importlib import import_module

import pytest

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.schema.batch_keys import IGNORE_INDEX
from configs.toml.binding import bind
from dataset.encoding.collate import Collate
from dataset.encoding.encode import encode
from dataset.encoding.preview import preview
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.task import RowFault
from tests.support.batches import check_batch
from tests.support.tiny import byte_tokenizer

KINDS = kinds.names(kinds.TASKS)
METRICS = {"accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "loss", "perplexity"}
ACTIONS = ("train", "test", "imp-test", "train-dyrealloc")


class Case:
    def __init__(self, kind, folder):
        self.kind = kinds.load(kinds.TASKS, kind)
        cases = import_module(f"tests.dataset.tasks.test_{kind}")
        self.task = self.kind.build(cases.OPTIONS if hasattr(cases, "OPTIONS") else self.kind.options())
        self.rows, self.folder = cases.ROWS, folder
        self.optional = ("idx", *getattr(cases, "OPTIONAL", ()))  # may be empty
        for name, text in cases.FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(text.encode())

    def gather(self, needed):
        return gather(self.task, needed, self.folder)

    def examples(self):
        task = self.completed()
        return [task.example(row) for row in self.rows if task.select is None or task.select(row)]

    def completed(self):
        return self.task if self.task.complete is None else self.task.complete(self.rows)


@pytest.fixture(params=KINDS)
def case(request, tmp_path):
    return Case(request.param, tmp_path)


def test_the_facts_of_a_task_are_consistent(case, request):
    task = case.completed()
    assert task.name in request.node.name
    assert task.selection.name in task.metrics
    assert set(task.metrics) <= METRICS
    assert (task.objective == "classification") == (len(task.labels) > 1)
    assert (task.objective == "language_modeling" and not task.packed) == (task.template is not None)
    assert task.objective == "language_modeling" or not task.packed
    assert case.kind.actions


def test_a_number_of_examples_or_tokens_is_at_least_1(case):
    for field in fields(case.kind.options):
        if field.name.endswith("_examples") or field.name == "max_new_tokens":
            with pytest.raises(InputFault, match=f"{field.name}: must be .* of at least 1, got 0"):
                bind(case.kind.options, {field.name: 0}, "[data]")


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_finds_its_splits(case, action):
    needed = needed_splits(case.task, action, predict=True)
    rows = case.gather(needed)
    assert set(needed.required) <= set(rows.splits)
    counts = rows.counts()
    assert counts["read"] == counts["used"] + counts.get("not_selected", 0)
    assert counts["used"] > 0 == counts["refused"]
    labelled = {name for name, split in rows.task.splits.items() if split.labelled} | {"validation"}
    for name in labelled & set(rows.splits):
        assert all(e.label is not None or e.response for e in rows.splits[name].examples)


def test_files_and_hub_give_the_same_examples(case):
    if case.task.make_rows is not None:
        pytest.skip("makes its own rows")
    task = case.completed()
    from_files = gather(task, NeededSplits(("train",)), case.folder).splits["train"].examples
    assert from_files == case.examples()


def test_labels_are_in_range(case):
    task = case.completed()
    labels = [example.label for example in case.examples()]
    if task.objective == "classification":
        assert sorted(set(labels)) == list(range(len(task.labels)))


def test_a_row_without_a_field_is_refused(case):
    task = case.completed()
    for name in case.rows[0]:
        for broken in ({**case.rows[0], name: ""}, {**case.rows[0], name: None}):
            if name in case.optional:
                continue
            with pytest.raises(RowFault):
                if task.select is not None:
                    task.select(broken)
                task.example(broken)


def test_prompt_is_masked_and_target_kept(case):
    task, tokenizer = case.completed(), byte_tokenizer()
    if task.objective != "language_modeling" or task.packed:
        pytest.skip("learns no response to a prompt")
    examples = case.examples()
    encoded = encode(task, "train", examples, tokenizer, 4096)
    for index, example in enumerate(examples):
        ids, labels = encoded[index]["input_ids"], encoded[index]["labels"]
        learned = labels != IGNORE_INDEX
        assert tokenizer.decode(ids[learned]) == f"{example.response}</s>"
        assert tokenizer.decode(ids[~learned]) == f"<s>{example.texts[0]}{'</s>' * example.eos_after_prompt}"
        assert (labels[learned] == ids[learned]).all()
    assert preview(encoded, 0, tokenizer).endswith(f"[[{examples[0].response}</s>]]")


def test_running_text_is_learned_completely(case):
    task, tokenizer = case.completed(), byte_tokenizer()
    if not task.packed:
        pytest.skip("learns no running text")
    examples = case.examples()
    encoded = encode(task, "train", examples, tokenizer, 16)
    items = [encoded[index] for index in range(len(encoded))]
    assert all(len(item["input_ids"]) == 16 for item in items[:-1])
    learned = [item["input_ids"][item["labels"] != IGNORE_INDEX] for item in items]
    assert "".join(tokenizer.decode(ids) for ids in learned) == "".join(e.response for e in examples)
    assert preview(encoded, 0, tokenizer).startswith("<s>[[")


def test_texts_carry_their_labels(case):
    task, tokenizer = case.completed(), byte_tokenizer(encoder=True)
    if task.objective == "language_modeling":
        pytest.skip("learns text")
    examples = case.examples()
    encoded = encode(task, "train", examples, tokenizer, 4096)
    batch = Collate(tokenizer.pad_token_id)([encoded[i] for i in range(len(encoded))])
    assert batch["labels"].tolist() == pytest.approx([example.label for example in examples])
    assert batch["labels"].dtype.is_floating_point == (task.objective == "regression")
    texts = [
        tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"])
    ]
    assert texts == [f"<s>{'</s>'.join(example.texts)}</s>" for example in examples]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_batch_holds_the_keys_of_its_table(case, split):
    task = case.completed()
    tokenizer = byte_tokenizer(encoder=task.objective != "language_modeling", segments=True)
    encoded = encode(task, split, case.examples(), tokenizer, 512)
    batch = Collate(tokenizer.pad_token_id)([encoded[index] for index in range(len(encoded))])
    check_batch(batch)
    assert ("labels" in batch) == (encoded.purpose == "learn") != ("index" in batch)


def test_perfect_answer_scores_one_spoiled_less_and_wrong_zero(case):
    task = case.completed()
    if task.generation is None:
        pytest.skip("generates nothing")
    for row in case.rows:
        example = task.example(row)
        assert set(task.generation.score(example.response, example.gold).values()) == {1.0}
        for wrong in ("", "#### ", "no idea"):
            assert set(task.generation.score(wrong, example.gold).values()) == {0.0}
        spoiled = task.generation.score(f"{example.response}9", example.gold)
        assert all(0.0 <= value < 1.0 for value in spoiled.values())
        assert not set(spoiled) & set(task.metrics)


def test_the_document_is_shortened_first(case):
    task, tokenizer = case.completed(), byte_tokenizer()
    if task.generation is None:
        pytest.skip("generates nothing")
    wholes = [task.example(row) for row in case.rows]
    if wholes[0].document_span is None:
        pytest.skip("summarises nothing")
    limit = 2 * task.generation.max_new_tokens
    long = [_with_document(example, "word " * limit) for example in wholes]
    trained, tested = (encode(task, name, long, tokenizer, limit) for name in ("train", "test"))
    for index, whole in enumerate(wholes):
        prompt = tested[index]["input_ids"]
        assert len(prompt) == int(trained.prompt_lengths[index]) == task.generation.max_new_tokens
        assert prompt.tolist() == trained[index]["input_ids"][: len(prompt)].tolist()
        begin, end = whole.document_span
        text = tokenizer.decode(prompt)
        assert text.startswith(f"<s>{whole.texts[0][:begin]}word word ")
        assert text.endswith(whole.texts[0][end:])
    assert trained.cut == tested.cut == len(long)


def _with_document(example, text):
    begin, end = example.document_span
    prompt = example.texts[0][:begin] + text + example.texts[0][end:]
    return replace(example, texts=(prompt,), document_span=(begin, begin + len(text)))


def test_unknown_labels_are_refused(case):
    task = case.completed()
    if task.objective == "classification":
        name = "label" if "label" in case.rows[0] else "kind"
        # A boolean is taken where the labels are 0 and 1 alone (`dataset.rows.fields`).
        booleans = () if {str(row[name]) for row in case.rows} <= {"0", "1"} else (True,)
        for label in ("7", 7, -2, "Entailment", *booleans, 0.5, " 0"):
            with pytest.raises(RowFault):
                task.example({**case.rows[0], name: label})
