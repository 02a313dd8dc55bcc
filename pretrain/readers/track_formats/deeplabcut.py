"""DeepLabCut's CSV: three header rows (scorer, bodyparts, coords) for one animal, four
(individuals) for several.

A row is a frame: its index from 0, then a cell a column. Points DeepLabCut did not find have empty
x and y (and, in its multi-animal files, likelihood 1.0). Coordinates x, y, with z in 3D files; a
likelihood may be absent. Bodyparts that belong to no animal (individual "single") are left out, and
the log says so.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.track_formats._deeplabcut import (
    IMAGES,
    NO_RECORDING,
    Layout,
    first_index,
)
from pretrain.readers.tracks import Tracks

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_HEADER_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class DeepLabCutCsv(AbstractTrackFormat):
    """Columns are found by their names, in any order."""

    description = "DeepLabCut CSV"
    suffixes = (".csv",)
    name_endings = ("dlc", "deeplabcut")

    def recognise(self, file: UnknownFile) -> bool:
        """By its first cell."""
        first_line = file.head.split(b"\n", 1)[0].removeprefix(b"\xef\xbb\xbf")
        first_cell = first_line.split(b",")[0].strip(b'" \r\t').lower()
        return first_cell in (b"scorer", b"individuals", b"bodyparts")

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name line and column."""
        return read_csv(path, _header, names_only=names_only)


Columns = list[tuple[str, str, str, str]]
"""Scorer, individual, bodypart and coordinate of each column after the index."""


def read_csv(
    path: Path, header: Callable[[bytes, Path], tuple[Columns, int]], *, names_only: bool
) -> Tracks:
    """Reads a table with a row a frame and an index in the first column.

    Args:
        path: The file.
        header: From its bytes, its columns and how many rows name them.
        names_only: Read no frames.

    Raises:
        BadInput: If it is damaged, with line and column.
    """
    with path.open("rb") as file:
        raw = file.read(_HEADER_BYTES) if names_only else file.read()
    columns, header_rows = header(raw, path)
    layout = Layout([column[1:] for column in columns], path=path, scorer=columns[0][0])
    if names_only:
        return layout.no_tracks()
    last = raw[raw.rfind(b"\n") + 1 :]
    if last.strip() and last.count(b",") != len(columns):
        line = raw.count(b"\n") + 1
        raise BadInput(
            f"{path}, line {line}: the last line has {last.count(b',') + 1} cells under "
            f"{len(columns) + 1} headings and no line break, so the file looks cut off"
        )
    if last.strip():
        _log.warning("%s: the last line has no line break; it has all its cells and is read", path)
    table = table_of(raw, path, columns=len(columns) + 1, header_rows=header_rows)
    index = table.column(0).to_numpy()
    if not len(index):
        raise BadInput(f"{path}, line {header_rows + 1}: a header and no frames")
    first = first_index(index, lambda frame: f"{path}, line {header_rows + frame + 1}, column 1")
    cells = np.column_stack([column.to_numpy() for column in table.columns[1:]])

    def where(column: int, frame: int) -> str:
        return (
            f"line {header_rows + frame + 1}, column {column + 2} "
            f"({', '.join(filter(None, columns[column][1:]))})"
        )

    return layout.tracks(*layout.points(cells, where), counted_from=first)


def _header(raw: bytes, path: Path) -> tuple[Columns, int]:
    """The columns, and the count of header rows."""
    if not raw.strip():
        raise BadInput(f"{path} is empty")
    lines = raw[:_HEADER_BYTES].split(b"\n", 5)[:5]
    rows: dict[str, list[str]] = {}
    for line, cells in enumerate(cells_of_lines(lines, path), start=1):
        level = cells[0].strip().lower() if cells else ""
        if level not in _LEVELS:
            break
        if level in rows or _LEVELS.index(level) < len(rows):
            raise BadInput(
                f"{path}, line {line}: header row {level!r} out of order; wanted "
                f"{', '.join(_LEVELS)}"
            )
        rows[level] = [cell.strip() for cell in cells[1:]]
        if "coords" in rows:
            break
    missing = [level for level in ("bodyparts", "coords") if level not in rows]
    if missing:
        hint = (
            " (it is separated by ';': save it with commas)"
            if b";" in lines[0] and b"," not in lines[0]
            else ""
        )
        raise BadInput(
            f"{path}, line {len(rows) + 1}: no header row {missing[0]!r}; DeepLabCut's CSV begins "
            f"with {', '.join(_LEVELS)}{hint}"
        )
    widths = {level: len(cells) for level, cells in rows.items()}
    if len(set(widths.values())) > 1 or not widths["coords"]:
        counts = ", ".join(f"{level} {width}" for level, width in widths.items())
        raise BadInput(
            f"{path}, lines 1-{len(rows)}: header rows differ in their number of columns ({counts})"
        )
    blank = [""] * widths["coords"]
    return list(zip(*(rows.get(level, blank) for level in _LEVELS), strict=True)), len(rows)


def cells_of_lines(lines: Sequence[bytes], path: Path) -> list[list[str]]:
    """The cells of the first lines of a CSV.

    Raises:
        BadInput: If a line is no UTF-8 or cannot be parted, with its number.
    """
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            cells = next(
                csv.reader([line.removeprefix(b"\xef\xbb\xbf").decode("utf-8").rstrip("\r")]), []
            )
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}, line {number}: byte {error.start + 1} is not UTF-8; save the file as "
                "UTF-8"
            ) from error
        except csv.Error as error:
            raise BadInput(f"{path}, line {number}: {error}") from error
        parsed.append(cells)
    return parsed


def table_of(
    raw: bytes, path: Path, *, columns: int, header_rows: int, texts: Sequence[int] = ()
) -> pa.Table:
    """A CSV of numbers, NaN where a cell is empty, and in some columns of text.

    Raises:
        BadInput: If a cell is no number, or a row has another number of cells; with the line.
    """
    names = [str(column) for column in range(columns)]
    longest = max(len(line) for line in raw[:_HEADER_BYTES].split(b"\n"))
    try:
        return pacsv.read_csv(
            pa.py_buffer(raw),
            # One thread, because only then do errors carry the row.
            read_options=pacsv.ReadOptions(
                skip_rows=header_rows,
                column_names=names,
                use_threads=False,
                block_size=max(1 << 20, 4 * longest),
            ),
            parse_options=pacsv.ParseOptions(ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.float64())
                | {names[column]: pa.string() for column in texts},
                null_values=["", "nan", "NaN", "NA", "null"],
            ),
        )
    except (pa.ArrowException, ValueError, OverflowError) as error:
        message = _as_an_editor_counts(str(error), header_rows)
        hint = f": {NO_RECORDING}" if IMAGES.search(message) else ""
        raise BadInput(f"{path}: {message}{hint}") from error


def _as_an_editor_counts(error: str, header_rows: int) -> str:
    """Arrow's message with lines and columns counted as a text editor does."""
    error = error.splitlines()[0].removeprefix("CSV parse error: ")
    error = re.sub(r"In CSV column #(\d+): ", lambda m: f"column {int(m[1]) + 1}: ", error)
    error = re.sub(r"Row #(\d+)", lambda m: f"line {int(m[1])}", error)
    if "straddling" in error:
        return "a line is far longer than the header: line breaks are missing"
    if "could not skip" in error.lower():
        return f"line {header_rows}: it ends in its heading"
    if "empty csv" in error.lower():
        return f"line {header_rows + 1}: a header and no frames"
    return error
