"""Readers lose nothing, guess nothing and name every line they refuse."""

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.runtime.faults import Fault, InputFault
from dataset.rows import readers
from dataset.rows.readers import accept, read_csv, read_jsonl, read_tsv, read_tsv_without_header

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\t"), min_size=1).filter(
    lambda text: not text.endswith("\r")
)
ODD = ["a\rb", "a\u2028b", "a\x1cb", "a\x85b", "null", "NA", '"', "end ", "\x00", "\ufeff"]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(rows, name="sentence"):
    return [row[name] for _, row in rows.rows]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("has_last_end", [True, False])
def test_tsv_keeps_every_sentence(tmp_path, end, mark, has_last_end):
    lines = ["sentence\tlabel", *(f"{sentence}\t1" for sentence in ODD)]
    path = write(tmp_path / "a.tsv", mark + end.join(lines) + (end if has_last_end else ""))
    rows = read_tsv(path, {"sentence": "sentence"})
    assert texts(rows) == ODD
    assert [line for line, _ in rows.rows] == list(range(2, 2 + len(ODD)))
    assert rows.refused == []


def test_tsv_with_one_field_too_many_is_named(tmp_path):
    lines = ["a\tb", *(["x\ty"] * 7), "x\ty\tz", "x\ty"]
    path = write(tmp_path / "a.tsv", "\n".join(lines))
    rows = read_tsv(path)
    assert (len(rows.rows), rows.read) == (8, 9)
    with pytest.raises(InputFault) as caught:
        accept(path, rows, 0)
    assert caught.value.lines == (f"{path}:9: 3 fields instead of 2 (1 of 9 rows)",)
    accept(path, rows, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r":1: is empty"),
        (b"a\tb\n", r":1: no column 'label', the header has a, b"),
        (b"lable\n", r"did you mean 'lable'"),
        (b"label\tlabel\n", r":1: column 'label' appears twice"),
        (b"\xff\xfelabel\n", r":1: is UTF-16; save it as UTF-8"),
    ],
)
def test_broken_headers_are_refused(tmp_path, content, message):
    with pytest.raises(InputFault, match=message):
        read_tsv(write(tmp_path / "a.tsv", content), {"label": "label"})


def test_bytes_that_are_not_utf8_and_empty_and_long_lines_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 20)
    path = write(tmp_path / "a.tsv", b"a\tb\nx\ty\nx\t\xe9y\n\n" + b"x" * 90 + b"\ny\tz\n")
    rows = read_tsv(path)
    assert [line for line, _ in rows.rows] == [2, 6]
    assert [tuple(refused) for refused in rows.refused] == [
        (3, "byte 0xe9 at position 3 is not UTF-8"),
        (4, "the line is empty"),
        (5, "the line is longer than 20 bytes"),
    ]


def test_without_header_columns_go_by_number(tmp_path):
    path = write(tmp_path / "a.tsv", "s\t1\t\tOne.\ns\t0\t*\tTwo.")
    rows = read_tsv_without_header(path, {"sentence": 3, "label": 1}, 4)
    assert [row for _, row in rows.rows] == [
        {"sentence": "One.", "label": "1"},
        {"sentence": "Two.", "label": "0"},
    ]


def test_csv_follows_rfc_4180(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffa,b\r\n"x, ""y""",\r\n"two\r\nlines",z\r\n,"last"')
    rows = read_csv(path)
    assert [(line, *row.values()) for line, row in rows.rows] == [
        (2, 'x, "y"', ""),
        (3, "two\nlines", "z"),
        (5, "", "last"),
    ]


def test_csv_refuses_stray_and_unclosed_quotes_line_by_line(tmp_path):
    path = write(tmp_path / "a.csv", 'a,b\nx"y",z\n1,2\n"open,3\n4,5\n6,7,8\n9,"q"r\n')
    rows = read_csv(path)
    assert [line for line, _ in rows.rows] == [3, 5]
    assert [line for line, _ in rows.refused] == [2, 4, 6, 7]
    assert rows.read == 6


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1', "invalid JSON: Expecting ',' delimiter at character 8"),
        ("[1]", "expected a JSON object, got list"),
        ("\u00a0", "invalid JSON"),
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": ' + "9" * 5000 + "}", "invalid JSON: Exceeds the limit"),
        ('{"a":' * 100_000, "nested too deep"),
    ],
)
def test_jsonl_refuses_what_is_no_object(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", '{"a": "x"}\n' + line + '\n{"a": "\\u2028"}\n')
    rows = read_jsonl(path)
    assert texts(rows, "a") == ["x", "\u2028"]
    assert rows.refused[0].line == 2
    assert reason in rows.refused[0].reason


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_of_jsonl_hold_no_row(tmp_path, mark, end):
    lines = [mark, '{"a": "x"}', "", " \t", '{"a": "y"', '{"a": "z"}', "", "  ", ""]
    rows = read_jsonl(write(tmp_path / "a.jsonl", end.join(lines)))
    assert [(line, row["a"]) for line, row in rows.rows] == [(2, "x"), (6, "z")]
    assert [line for line, _ in rows.refused] == [5]
    assert rows.read == 3


@pytest.mark.parametrize("read", [read_csv, read_tsv])
def test_blank_lines_at_the_end_of_a_table_hold_no_row(tmp_path, read):
    mark = "," if read is read_csv else "\t"
    lines = ["a,b", "x,y", "", "z,w", ",", "", "", ""]
    rows = read(write(tmp_path / "a.table", "\r\n".join(lines).replace(",", mark)))
    assert [tuple(row.values()) for _, row in rows.rows] == [("x", "y"), ("z", "w"), ("", "")]
    assert [tuple(refused) for refused in rows.refused] == [(3, "the line is empty")]


def test_cut_off_last_line_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": "x"}\n{"a": "y"}\n{"a": "z')
    with pytest.raises(InputFault, match=r"a.jsonl:3: invalid JSON: .* \(1 of 3 rows\)"):
        accept(path, read_jsonl(path), 0)


def test_unreadable_file_is_a_fault(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputFault, match="cannot be read"):
            read_jsonl(place)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_readers_return_what_was_written(tmp_path_factory, pairs, end):
    folder = tmp_path_factory.mktemp("written")
    header = [("a", "b")]
    tsv = write(folder / "a.tsv", end.join("\t".join(pair) for pair in header + pairs))
    assert [tuple(row.values()) for _, row in read_tsv(tsv).rows] == pairs
    quoted = [",".join('"' + text.replace('"', '""') + '"' for text in pair) for pair in header + pairs]
    assert [
        tuple(row.values()) for _, row in read_csv(write(folder / "a.csv", end.join(quoted))).rows
    ] == pairs
    lines = end.join(json.dumps({"a": a, "b": b}, ensure_ascii=False) for a, b in pairs)
    assert [tuple(row.values()) for _, row in read_jsonl(write(folder / "a.jsonl", lines)).rows] == pairs


SEEDS = {
    read_tsv: b'\xef\xbb\xbfa\tb\r\nx "\ty\r\nnull\t\xc3\xa9\r\n',
    read_csv: b'a,b\n"x ""q""",y\n"two\nlines",\xc3\xa9\n',
    read_jsonl: b'{"a": "x\\u2028", "b": [1, 2.5e3, null]}\n{"a": "\xc3\xa9", "b": {"c": true}}\n',
}


def mutate(content, generator):
    data = bytearray(content)
    for _ in range(generator.randint(1, 6)):
        at = generator.randrange(len(data) + 1)
        kind = generator.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = generator.randrange(256)
        elif kind == 1:
            del data[at : at + generator.randint(1, 8)]
        elif kind == 2:
            data[at:at] = generator.choice(
                [b'"', b"\n", b"\r", b"\t", b"{", b"\\ud800", b"\xff", b"\x00", b","]
            )
        else:
            data[at:at] = data[: generator.randrange(len(data) + 1)]
    return bytes(data)


@pytest.mark.parametrize("read", SEEDS, ids=lambda read: read.__name__)
def test_mutated_files_give_rows_or_a_fault(tmp_path, read):
    generator, begin = random.Random(7), time.monotonic()
    path = tmp_path / "mutated"
    for _ in range(400):
        path.write_bytes(mutate(SEEDS[read], generator))
        try:
            rows = read(path)
        except Fault:
            continue
        lines = [line for line, _ in rows.rows] + [line for line, _ in rows.refused]
        assert len(lines) == len(set(lines)) == rows.read
    assert time.monotonic() - begin < 10


def test_the_form_that_another_ending_names_is_said(tmp_path):
    """Of a list in lines, of lines in a list, and of UTF-16 as spreadsheets write it."""
    (tmp_path / "a.jsonl").write_text('[{"a": 1}]')
    assert (
        "a file of one array has the ending .json"
        in readers.read_jsonl(tmp_path / "a.jsonl").refused[0].reason
    )
    (tmp_path / "a.json").write_text('{"a": 1}\n{"a": 2}')
    with pytest.raises(InputFault, match="a file with an object on each line has the ending .jsonl"):
        readers.read_by_ending(tmp_path / "a.json")
    (tmp_path / "b.jsonl").write_bytes('{"a": 1}\n'.encode("utf-16"))
    assert readers.read_jsonl(tmp_path / "b.jsonl").refused[0].reason == "is UTF-16; save it as UTF-8"
