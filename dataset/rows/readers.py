"""Read delimited and JSON-lines files by strict rules: no line is lost, no value is guessed.

Strict UTF-8; a byte-order mark is dropped; only LF and CRLF end a line, so that a lone CR, U+2028 or U+001C
inside a sentence is text. In TSV a quotation mark is text, `NA` is a word, spaces are kept. Blank lines
hold no row in JSON lines and at the end of a table; inside a table they are refused: a record may be broken.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.runtime import kinds
from configs.runtime.faults import InputFault, suggestion
from configs.runtime.files import require_regular
from dataset.rows.fields import printable
from dataset.rows.json_values import json_value
from dataset.task import Numbered, Refused, RowFault, Rows

MAX_LINE_BYTES = 4 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_JSON_SPACE = " \t\r"
_CSV_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(?:,|\Z)')

Line = tuple[int, str | None, str]
"""(number from 1, text or None, the reason when there is no text)."""


def read_tsv(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    """Read a tab-separated file with a header; a line with another number of fields is refused.

    Args:
        path: the file.
        columns: field name -> column of the header; None takes all columns under their own names.

    Raises:
        InputFault: when the file cannot be read, or its header lacks a column or has one twice.
    """
    return _with_header(path, _lines(path), columns, lambda text: text.split("\t"))


def read_tsv_without_header(path: Path, columns: Mapping[str, int], width: int) -> Rows:
    """Read a tab-separated file without a header.

    Args:
        path: the file.
        columns: field name -> index of the column, from 0.
        width: number of columns; a line with another number is refused.

    Raises:
        InputFault: when the file cannot be read.
    """
    return _records(_lines(path), dict(columns), width, lambda text: text.split("\t"))


def read_csv(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    """Read a comma-separated file with a header, quoted as in RFC 4180.

    Args:
        path: the file.
        columns: field name -> column of the header; None takes all columns under their own names.

    Raises:
        InputFault: when the file cannot be read, or its header lacks a column or has one twice.
    """
    return _with_header(path, _csv_records(list(_lines(path))), columns, _csv_fields)


def read_csv_without_header(path: Path, columns: Mapping[str, int], width: int) -> Rows:
    """Read a comma-separated file without a header, quoted as in RFC 4180.

    Args:
        path: the file.
        columns: field name -> index of the column, from 0.
        width: number of columns; a record with another number is refused.

    Raises:
        InputFault: when the file cannot be read.
    """
    return _records(_csv_records(list(_lines(path))), dict(columns), width, _csv_fields)


def read_jsonl(path: Path) -> Rows:
    """Read a file with one JSON object per line; blank lines are skipped and not counted.

    Raises:
        InputFault: when the file cannot be read.
    """
    found = Rows()
    for number, text, reason in _lines(path):
        if text is not None and not text.strip(_JSON_SPACE):
            continue
        try:
            if text is None:
                raise RowFault(reason)
            found.rows.append(Numbered(number, _json_object(text)))
        except RowFault as fault:
            found.refused.append(Refused(number, str(fault)))
    return found


def read_lines(path: Path) -> Rows:
    """Read running text: each line is a row whose field `text` ends in a line feed, or is `""` when blank.

    Raises:
        InputFault: when the file cannot be read.
    """
    found = Rows()
    for number, text, reason in _lines(path):
        if text is None:
            found.refused.append(Refused(number, reason))
        else:
            found.rows.append(Numbered(number, {"text": f"{text}\n" if text.strip() else ""}))
    return found


def read_by_ending(path: Path) -> Rows:
    """Read a file with the reader of its extension, a kind of `kinds.FORMATS`.

    Raises:
        InputFault: when the file cannot be read in its format.
    """
    return kinds.load(kinds.FORMATS, path.suffix.removeprefix(".").lower())(path)


def accept(path: Path, rows: Rows, max_bad_rows: int) -> None:
    """Refuse a file that has more refused rows than allowed.

    Raises:
        InputFault: naming the first refused line and their number.
    """
    if len(rows.refused) > max_bad_rows:
        raise InputFault(refusal(path, rows.refused, rows.read))


def refusal(path: Path | str, refused: Sequence[Refused], read: int) -> str:
    """Return the message about a file's refused rows: line and reason of the first, and their number."""
    line, reason = refused[0]
    return f"{path}:{line}: {reason} ({len(refused)} of {read} rows)"


def _lines(path: Path) -> Iterator[Line]:
    try:
        require_regular(path)
        with path.open("rb") as stream:
            number = 0
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                is_long = len(raw) > MAX_LINE_BYTES
                while is_long and not raw.endswith(b"\n") and (rest := stream.readline(MAX_LINE_BYTES)):
                    raw = rest
                yield _line(number, b"" if is_long else raw, is_long)
    except OSError as error:
        raise InputFault(f"{path}: cannot be read: {error.strerror}") from error


_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte-order marks of UTF-16, as spreadsheets write them."""


def _line(number: int, raw: bytes, is_long: bool) -> Line:
    if is_long:
        return number, None, f"the line is longer than {MAX_LINE_BYTES} bytes"
    if number == 1:
        raw = raw.removeprefix(_BOM)
    raw = raw[: -2 if raw.endswith(b"\r\n") else -1] if raw.endswith(b"\n") else raw
    try:
        return number, raw.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        if raw.startswith(_UTF16):
            return number, None, "is UTF-16; save it as UTF-8"
        return number, None, f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"


def _with_header(
    path: Path,
    lines: Iterator[Line],
    columns: Mapping[str, str] | None,
    split: Callable[[str], list[str]],
) -> Rows:
    number, text, reason = next(lines, (1, None, "is empty, expected a header"))
    if text is None:
        raise InputFault(f"{path}:{number}: {reason}")
    try:
        header = split(text)
    except RowFault as fault:
        raise InputFault(f"{path}:{number}: {fault}") from fault
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputFault(f"{path}:{number}: column '{printable(repeated[0])}' appears twice in the header")
    chosen = {name: name for name in header} if columns is None else columns
    columns_there = printable(", ".join(header), 200)
    faults = [
        f"{path}:{number}: no column '{word}', the header has {columns_there}{suggestion(word, header)}"
        for word in chosen.values()
        if word not in header
    ]
    if faults:
        raise InputFault(*faults)
    return _records(lines, {name: header.index(word) for name, word in chosen.items()}, len(header), split)


def _records(
    lines: Iterator[Line], columns: dict[str, int], width: int, split: Callable[[str], list[str]]
) -> Rows:
    found = Rows()
    for number, text, reason in _without_blank_end(lines):
        try:
            if text is None:
                raise RowFault(reason)
            fields = split(text)
            if len(fields) != width:
                raise RowFault(f"{len(fields)} fields instead of {width}" if text else "the line is empty")
            row = {name: fields[index] for name, index in columns.items()}
            found.rows.append(Numbered(number, row))
        except RowFault as fault:
            found.refused.append(Refused(number, str(fault)))
    return found


def _without_blank_end(lines: Iterator[Line]) -> Iterator[Line]:
    """Yield all lines up to the last one that is not empty."""
    held: list[Line] = []
    for line in lines:
        held.append(line)
        if line[1] != "":
            yield from held
            held.clear()


def _csv_records(lines: list[Line]) -> Iterator[Line]:
    """Join the lines of a quoted field with line feeds; a record has an even number of quotation marks."""
    start = 0
    while start < len(lines):
        number, text, reason = lines[start]
        end = start + 1
        if text is not None and text.count('"') % 2:
            joined, end = _join(lines, start)
            # Unclosed: only this line is refused, so that the lines below are still read.
            text, reason = joined, "" if joined is not None else "a quotation mark is never closed"
        yield number, text, reason
        start = end


def _join(lines: list[Line], start: int) -> tuple[str | None, int]:
    parts: list[str] = []
    is_open, size = False, 0
    for end in range(start, len(lines)):
        text = lines[end][1]
        if text is None or size > MAX_LINE_BYTES:
            break
        parts.append(text)
        size += len(text)
        is_open ^= bool(text.count('"') % 2)
        if not is_open:
            joined = "\n".join(parts)
            # The joined lines are no record: the quotation mark did not begin a quoted field.
            return (joined, end + 1) if _is_csv(joined) else (None, start + 1)
    return None, start + 1


def _is_csv(text: str) -> bool:
    try:
        _csv_fields(text)
    except RowFault:
        return False
    return True


def _csv_fields(text: str) -> list[str]:
    fields: list[str] = []
    position = 0
    while True:
        match = _CSV_FIELD.match(text, position)
        if match is None:
            raise RowFault(
                f"a quotation mark inside field {len(fields) + 1}: quote the field and double the mark"
            )
        quoted, plain = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        position = match.end()
        if not match.group().endswith(","):
            return fields
        if position == len(text):
            return [*fields, ""]


def _json_object(text: str) -> dict[str, Any]:
    value = json_value(text)
    if not isinstance(value, dict):
        hint = "; a file of one array has the ending .json" if type(value) is list else ""
        raise RowFault(f"expected a JSON object, got {type(value).__name__}{hint}")
    return value
