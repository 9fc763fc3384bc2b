"""A JSON array gives its rows and their lines, or a fault with its line."""

import json
import random

import pytest

from configs.runtime.faults import Fault, InputFault
from dataset.rows.formats.json import READ


def read(folder, text):
    path = folder / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return READ(path)


def test_rows_have_the_line_they_begin_in(tmp_path):
    rows = read(tmp_path, '\ufeff\n[\n {"a": "x\\ny"},\n\n {"a":\n 2}, {"a": 3}\n]\n')
    assert [tuple(row) for row in rows.rows] == [(3, {"a": "x\ny"}), (5, {"a": 2}), (6, {"a": 3})]


def test_an_element_that_is_no_object_is_refused(tmp_path):
    rows = read(tmp_path, '[{"a": 1},\n3, []]')
    assert [row for _, row in rows.rows] == [{"a": 1}]
    assert [tuple(refused) for refused in rows.refused] == [
        (2, "expected a JSON object, got int"),
        (2, "expected a JSON object, got list"),
    ]


def test_an_empty_array_has_no_rows(tmp_path):
    assert read(tmp_path, " [ ] ").read == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "a.json:1: expected a JSON array"),
        ('\n{"a": 1}', "a.json:2: expected a JSON array"),
        ('[{"a": 1}\n', "a.json:2: the array is not closed"),
        ('[{"a": 1}\n {"a": 1}]', "a.json:2: the array is not closed"),
        ('[{"a": 1},\n]', "a.json:2: invalid JSON"),
        ('[\n{"a": 1, "a": 2}]', "a.json:2: key 'a' appears twice"),
        ("[NaN]", "a.json:1: invalid JSON: NaN"),
        ("[]\n[]", "a.json:1: unexpected text after the array"),
        ("[" * 100_000, "a.json:1: invalid JSON: nested too deep"),
        (b'[\n"\xff"]', "a.json:2: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_no_array_is_refused_with_its_line(tmp_path, text, fault):
    with pytest.raises(InputFault, match=fault):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(InputFault, match="a.json: cannot be read"):
        READ(tmp_path / "a.json")


def test_mutated_files_give_rows_or_a_fault(tmp_path):
    content = json.dumps([{"a": "é", "b": [1, {"c": None}]}] * 5, indent=1).encode()
    generator = random.Random(3)
    for _ in range(200):
        data = bytearray(content[: generator.randrange(len(content)) if generator.random() < 0.2 else None])
        for _ in range(generator.randint(1, 4)):
            if data:
                data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            read(tmp_path, bytes(data))
        except Fault:
            continue
