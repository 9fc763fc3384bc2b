"""Parquet rows are numbered; a broken file is a fault."""

import random

import pyarrow
import pytest
from pyarrow import parquet

from configs.runtime.faults import Fault, InputFault
from dataset.rows.formats.parquet import READ


def test_rows_are_numbered_and_nulls_stay(tmp_path):
    parquet.write_table(pyarrow.table({"a": ["x", None], "b": [1, 2]}), tmp_path / "a.parquet")
    assert [tuple(row) for row in READ(tmp_path / "a.parquet").rows] == [
        (1, {"a": "x", "b": 1}),
        (2, {"a": None, "b": 2}),
    ]


def test_text_that_is_not_utf8_is_refused(tmp_path):
    column = pyarrow.array([b"x", b"\xff", b"y"]).cast(pyarrow.binary())
    broken = pyarrow.StringArray.from_buffers(3, column.buffers()[1], column.buffers()[2])
    parquet.write_table(pyarrow.table({"a": broken}), tmp_path / "a.parquet")
    rows = READ(tmp_path / "a.parquet")
    assert [line for line, _ in rows.rows] == [1, 3]
    assert [tuple(refused) for refused in rows.refused] == [(2, "byte 0xff is not UTF-8")]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("a,b\n")
    with pytest.raises(InputFault, match="a.parquet: not a readable parquet file"):
        READ(tmp_path / "a.parquet")


def test_mutated_files_give_rows_or_a_fault(tmp_path):
    path, generator = tmp_path / "a.parquet", random.Random(3)
    parquet.write_table(pyarrow.table({"a": ["x", "yy", "é"] * 20, "b": list(range(60))}), path)
    content = path.read_bytes()
    for _ in range(150):
        data = bytearray(content[: generator.randrange(len(content)) if generator.random() < 0.2 else None])
        for _ in range(generator.randint(1, 4)):
            if data:
                data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            READ(path)
        except Fault:
            continue
