"""Parquet files from strangers: names of columns, columns, or the lines of a CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pretrain.errors import BadInput
from pretrain.readers.safe_files.hdf5 import refuse_too_large

SIGNATURE = b"PAR1"
_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError)


def columns(path: Path) -> tuple[str, ...]:
    """The names of the columns; none where the file is no parquet or damaged."""
    try:
        return tuple(pq.read_schema(path).names)
    except _ERRORS:
        return ()


def read_columns(path: Path, names: Sequence[str] | None = None) -> pa.Table:
    """Some columns, or all.

    Raises:
        BadInput: If the file is damaged, lacks one, or states more than it can hold.
    """
    try:
        file = pq.ParquetFile(path)
        lacking = sorted(set(names or ()) - set(file.schema_arrow.names))
        if lacking:
            raise BadInput(f"{path} has no column {', '.join(lacking)}")
        width = 8 * len(names or file.schema_arrow.names)
        refuse_too_large(file.metadata.num_rows * width, name="its table", path=path)
        # One thread: pyarrow's pool for reading tables now and then aborts the process at its end.
        return file.read(columns=names, use_threads=False)
    except BadInput:
        raise
    except _ERRORS as error:
        raise BadInput(f"{path}: the parquet file is truncated or damaged ({error})") from error


def csv_lines(path: Path, *, rows: int | None = None) -> list[str]:
    """The table as the lines of a CSV, with a heading.

    Args:
        path: A parquet file.
        rows: Of how many rows, to see what it is; all where left out.

    Returns:
        Lines; none where so many rows were asked for and the table is no CSV (lists, bytes).

    Raises:
        BadInput: If the file is damaged, or holds what no CSV can.
    """
    try:
        if rows is None:
            table = read_columns(path)
        else:
            batches = pq.ParquetFile(path).iter_batches(rows, use_threads=False)
            table = pa.Table.from_batches([next(batches)])
        sink = io.BytesIO()
        pacsv.write_csv(table, sink)
        return sink.getvalue().decode("utf-8").splitlines()
    except BadInput:
        raise
    except (*_ERRORS, StopIteration) as error:
        if rows is not None:
            return []
        raise BadInput(f"{path}: the parquet file is empty or damaged ({error!r})") from error
