"""Parquet files of `local`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from configs.runtime.faults import InputFault
from dataset.rows.fields import printable
from dataset.task import Numbered, Refused, Rows

_BATCH_ROWS = 4096


def read_parquet(path: Path) -> Rows:
    """Read a parquet file; rows are numbered from 1.

    Raises:
        InputFault: when the file is not a readable parquet file.
    """
    found = Rows()
    try:
        with parquet.ParquetFile(path) as file:
            repeated = sorted(
                {name for name in file.schema_arrow.names if file.schema_arrow.names.count(name) > 1}
            )
            if repeated:
                raise InputFault(f"{path}: column '{printable(repeated[0])}' appears twice")
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in _rows(batch):
                    _account(found, row)
    # pyarrow has no common class for the errors of a broken file.
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise InputFault(f"{path}: not a readable parquet file: {printable(reason, 120)}") from error
    return found


def _account(found: Rows, row: dict[str, Any] | str) -> None:
    number = found.read + 1
    if isinstance(row, str):
        found.refused.append(Refused(number, row))
    else:
        found.rows.append(Numbered(number, row))


def _rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | str]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            yield _one(batch, index)


def _one(batch: pyarrow.RecordBatch, index: int) -> dict[str, Any] | str:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return f"byte 0x{error.object[error.start]:02x} is not UTF-8"


READ = read_parquet
