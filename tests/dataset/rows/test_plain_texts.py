"""Plain files become texts; what holds none is refused."""

import json

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.plain_texts import Text, read_texts, texts_of_rows
from dataset.task import Numbered, Refused, Rows


def _read(*arguments):
    return {name: [one.text for one in texts] for name, texts in read_texts(*arguments).items()}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [{"q": "Why?", "a": "So.", "n": 3}, {"q": "Who?", "a": None, "n": 4}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_row_is_all_its_text_or_the_fields_asked_for(rows):
    assert _read([rows], None, 0) == {"rows.jsonl": ["Why?\nSo.", "Who?"]}
    assert _read([rows], ("a", "q"), 0) == {"rows.jsonl": ["So.\nWhy?", "Who?"]}


def test_lines_of_running_text_are_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("One line.\n\n  \nAnother.\n")
    assert _read([path], None, 0) == {"a.txt": ["One line.\n", "Another.\n"]}


def test_a_text_comes_with_its_row(rows, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("One line.\n\n")
    found = read_texts([rows, path], ("q",), 0)
    assert [one.row for one in found["rows.jsonl"]] == [
        {"q": "Why?", "a": "So.", "n": 3},
        {"q": "Who?", "a": None, "n": 4},
    ]
    assert [one.row for one in found["a.txt"]] == [{"text": "One line.\n"}]


def test_equal_names_keep_their_directories(rows, tmp_path):
    other = tmp_path / "other" / rows.name
    other.parent.mkdir()
    other.write_text(rows.read_text())
    assert list(read_texts([rows, other], None, 0)) == [str(rows), str(other)]


def test_faults_of_all_files_are_reported_together(rows, tmp_path):
    (tmp_path / "b.doc").write_text("x")
    with pytest.raises(InputFault) as refused:
        read_texts([rows, tmp_path / "b.doc"], ("qq",), 0)
    assert refused.value.lines == (
        f"--fields: {rows}: no field 'qq'; did you mean 'q'?",
        f"{tmp_path / 'b.doc'}: no format 'doc', one of csv, json, jsonl, parquet, tsv, txt",
    )


def test_a_row_without_text_counts_as_bad(rows):
    with pytest.raises(InputFault, match=r":2: the requested fields hold no text \(1 of 2 rows"):
        read_texts([rows], ("a",), 0)
    assert _read([rows], ("a",), 1) == {"rows.jsonl": ["So."]}
    with pytest.raises(InputFault, match="holds no text"):
        read_texts([rows], ("n",), 2)


def test_the_rows_that_are_kept_are_those_of_the_texts():
    empty, first, second = {"q": ""}, {"q": "Why?"}, {"q": "Who?"}
    rows = Rows(
        [Numbered(1, empty), Numbered(3, first), Numbered(4, empty), Numbered(5, second)],
        [Refused(2, "invalid JSON")],
    )
    texts, kept = texts_of_rows(rows, ("q",))
    assert texts == [Text("Why?", first), Text("Who?", second)]
    assert kept.rows == [Numbered(3, first), Numbered(5, second)]
    assert [line for line, _ in kept.refused] == [1, 2, 4]
    assert kept.read == rows.read
