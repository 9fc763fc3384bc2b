"""Files are found, rows are accounted for, bad input is refused before torch is imported."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from configs.runtime.faults import InputFault, SystemFault
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.rows.readers import read_jsonl
from dataset.tasks.gsm8k import TASK as GSM8K
from dataset.tasks.gsm8k import Gsm8kOptions
from dataset.tasks.mrpc import TASK as MRPC
from dataset.tasks.sst2 import TASK as SST2
from tests.dataset.tasks import test_gsm8k, test_mrpc, test_sst2

TRAIN = NeededSplits(("train",))


def sst2(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv").write_bytes(content)
    return gather(SST2.build(SST2.options()), TRAIN, folder)


def test_line_with_a_field_too_many_is_named(tmp_path):
    lines = (test_mrpc.HEADER + "1\t10\t11\tA .\tB .\n" * 12).split("\n")
    lines[8] += "\textra"
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    with pytest.raises(InputFault) as caught:
        gather(MRPC.build(MRPC.options()), TRAIN, tmp_path)
    assert caught.value.lines == (f"{tmp_path / 'train.tsv'}:9: 6 fields instead of 5 (1 of 12 rows)",)


def test_cut_off_last_line_is_named(tmp_path):
    (tmp_path / "train.jsonl").write_text(test_gsm8k.LINES[:-9])
    with pytest.raises(InputFault, match=r"train.jsonl:40: invalid JSON.*\(1 of 40 rows\)"):
        gather(GSM8K.build(GSM8K.options()), TRAIN, tmp_path)


def test_label_outside_the_set_is_counted(tmp_path):
    with pytest.raises(InputFault) as caught:
        sst2(tmp_path, b"sentence\tlabel\na\t7\nb\t1\nc\t7\nd\tx\ne\t7\n")
    path = tmp_path / "train.tsv"
    assert caught.value.lines == (
        f"{path}:2: label '7' in 3 of 5 rows, allowed 0, 1",
        f"{path}:5: label 'x' in 1 of 5 rows, allowed 0, 1",
    )


def test_very_many_wrong_labels_are_summed_up(tmp_path):
    rows = "".join(f"a\tlabel{number}\n" for number in range(20))
    with pytest.raises(InputFault) as caught:
        sst2(tmp_path, f"sentence\tlabel\n{rows}".encode())
    assert len(caught.value.lines) == 9
    assert caught.value.lines[-1].endswith("train.tsv: 12 more labels are not allowed")


def test_crlf_quotes_and_null_change_nothing(tmp_path):
    plain = b'sentence\tlabel\nsaid " no \t0\nnull\t1\nNA\t1\n'
    first = sst2(tmp_path / "plain", plain)
    second = sst2(tmp_path / "crlf", plain.replace(b"\n", b"\r\n"))
    assert first.splits["train"].examples == second.splits["train"].examples
    assert first.digests() == second.digests()
    assert first.counts() == {"read": 3, "used": 3, "refused": 0}


def test_byte_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(
        InputFault, match=r"train.tsv:3: byte 0xff at position 2 is not UTF-8 \(1 of 2 rows\)"
    ):
        sst2(tmp_path, b"sentence\tlabel\na\t1\nb\xff\t1\n")


def test_empty_sentence_and_missing_rows_are_refused(tmp_path):
    with pytest.raises(InputFault, match=r"train.tsv:2: field 'sentence' is empty \(1 of 2 rows\)"):
        sst2(tmp_path, b"sentence\tlabel\n\t1\nb\t1\n")
    with pytest.raises(InputFault, match="train.tsv: no row can be used"):
        sst2(tmp_path, b"sentence\tlabel\n")


def test_allowed_bad_rows_count_over_all_splits(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\na\t1\nb\n")
    task = SST2.build(SST2.options())
    with pytest.raises(InputFault) as caught:
        gather(task, needed_splits(task, "train"), tmp_path, max_bad_rows=1)
    assert len(caught.value.lines) == 2
    rows = gather(task, needed_splits(task, "train"), tmp_path, max_bad_rows=2)
    assert rows.counts() == {"read": 4, "used": 2, "refused": 2}
    assert rows.reasons()[1] == "validation dev.tsv:3: 1 fields instead of 2"


@pytest.mark.parametrize("place", [".", "SST-2", "sst2"])
def test_folder_its_parent_and_the_task_name_are_found(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv").write_text(test_sst2.LABELLED)
    task = SST2.build(SST2.options())
    assert gather(task, TRAIN, tmp_path).counts()["used"] == 2
    with pytest.raises(InputFault, match=r"has no dev.tsv, needed for 'validation' of sst2"):
        gather(task, needed_splits(task, "train"), tmp_path)


def test_missing_directories_and_files_are_named(tmp_path):
    task = SST2.build(SST2.options())
    with pytest.raises(InputFault, match="--dataset-dir: .*none is not a directory"):
        gather(task, TRAIN, tmp_path / "none")
    with pytest.raises(InputFault, match="looked for train.tsv, dev.tsv, test.tsv there and in SST-2, sst2"):
        gather(task, TRAIN, tmp_path)
    with pytest.raises(InputFault, match="--dataset-dir: required for sst2"):
        gather(task, TRAIN, None)


def test_validation_is_the_last_twentieth_in_stored_order(tmp_path):
    (tmp_path / "train.jsonl").write_text(test_gsm8k.LINES)
    task = GSM8K.build(GSM8K.options())
    rows = gather(task, needed_splits(task, "train"), tmp_path)
    train, validation = rows.splits["train"].examples, rows.splits["validation"].examples
    whole = [task.example(row) for row in test_gsm8k.ROWS]
    assert (len(train), len(validation)) == (38, 2)
    assert sorted(train + validation, key=whole.index) == whole
    assert train == sorted(train, key=whole.index)
    assert rows.counts() == {"read": 40, "used": 40, "refused": 0}
    assert gather(task, needed_splits(task, "train"), tmp_path).digests() == rows.digests()
    counted = GSM8K.build(Gsm8kOptions(validation_examples=7))
    assert len(gather(counted, needed_splits(counted, "train"), tmp_path).splits["validation"].examples) == 7
    with pytest.raises(InputFault, match="40 rows are too few to hold out 40"):
        task = GSM8K.build(Gsm8kOptions(validation_examples=40))
        gather(task, needed_splits(task, "train"), tmp_path)


def test_generated_answers_need_the_test_file_only_in_test(tmp_path):
    (tmp_path / "train.jsonl").write_text(test_gsm8k.LINES)
    task = GSM8K.build(GSM8K.options())
    assert "test" not in gather(task, needed_splits(task, "train"), tmp_path).splits
    with pytest.raises(InputFault, match="has no test.jsonl"):
        gather(task, needed_splits(task, "test"), tmp_path)


def test_official_files_without_a_hub_copy_are_looked_for_in_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(test_gsm8k.LINES)
    task = replace(GSM8K.build(GSM8K.options()), hub=None)
    with pytest.raises(InputFault, match="--dataset-dir: required for gsm8k, which is not on the hub"):
        gather(task, TRAIN, None)
    with pytest.raises(InputFault, match="empty has no files of gsm8k: looked for train.jsonl, test.jsonl"):
        (tmp_path / "empty").mkdir()
        gather(task, TRAIN, tmp_path / "empty")
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "train.jsonl").rename(tmp_path / "gsm8k" / "train.jsonl")
    assert gather(task, TRAIN, tmp_path).counts()["used"] == 40
    with pytest.raises(InputFault, match="--dataset-dir: .*gsm8k has no test.jsonl, needed for 'test'"):
        gather(task, NeededSplits(("test",)), tmp_path)


def test_hub_rows_come_through_the_given_function():
    asked = []

    def fetch(task, split):
        asked.append((task.hub, split))
        return [*test_sst2.ROWS, {"sentence": "x", "label": -1}]

    task = SST2.build(SST2.options())
    rows = gather(task, TRAIN, None, max_bad_rows=1, fetch=fetch)
    assert asked == [(("nyu-mll/glue", "sst2"), "train")]
    assert rows.reasons() == ["train hub:3: the label is missing"]

    def refuse(task, split):
        raise SystemFault("--dataset: gone")

    with pytest.raises(SystemFault):
        gather(task, TRAIN, None, fetch=refuse)


def test_unlabelled_test_rows_have_no_label(tmp_path):
    for name, text in test_sst2.FILES.items():
        (tmp_path / name).write_text(text)
    task = SST2.build(SST2.options())
    rows = gather(task, needed_splits(task, "test", predict=True), tmp_path)
    assert list(rows.splits) == ["validation", "test"]
    assert rows.splits["test"].examples[0].label is None


def test_digests_follow_the_examples(tmp_path):
    first = sst2(tmp_path / "a", b"sentence\tlabel\na\t1\nb\t0\n").digests()
    second = sst2(tmp_path / "b", b"sentence\tlabel\na\t1\nb\t1\n").digests()
    assert first != second


def test_bad_files_are_refused_without_torch(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\n")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from configs.runtime import kinds\nfrom dataset.rows.gather import NeededSplits, gather\n"
        "for kind in kinds.names(kinds.TASKS):\n    kinds.load(kinds.TASKS, kind)\n"
        "kind = kinds.load(kinds.TASKS, 'sst2')\ntask = kind.build(kind.options())\n"
        "try:\n    gather(task, NeededSplits(('train',)), Path(sys.argv[1]))\n"
        "except Exception as fault:\n    print(fault)\n"
        "print({'torch', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert "no column 'label'" in run.stdout
    assert run.stdout.endswith("set()\n")


def test_examples_know_their_rows(tmp_path):
    lines = [line if n % 5 else "{}" for n, line in enumerate(test_gsm8k.LINES.splitlines())]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    task = GSM8K.build(GSM8K.options())
    rows = gather(task, NeededSplits(("train", "validation")), tmp_path, max_bad_rows=len(lines))
    stored = read_jsonl(tmp_path / "train.jsonl").rows
    held = rows.splits.values()
    places = sorted(place for split in held for place in split.row_indices)
    assert places == [n for n in range(len(lines)) if n % 5]
    for split in held:
        assert split.examples == [task.example(stored[place].row) for place in split.row_indices]
