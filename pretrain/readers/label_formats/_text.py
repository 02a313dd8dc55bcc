"""Text and tables that people and annotation tools saved, with every complaint pointing at a line
and column."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.safe_files import parquet, xlsx

MAX_BYTES = 2**30
MAX_FRAME = 10**8  # a month at 30 frames/s; a larger number is no frame
_LINE_BREAK = re.compile(r"\r\n|\n|\r")


def read_lines(path: Path, *, keep_ends: bool = False) -> list[str]:
    """The lines of a text file, UTF-8, or UTF-16 where the file says so by its first bytes; of an
    Excel workbook the rows of its first sheet, of a parquet its rows.

    Args:
        path: The file.
        keep_ends: Leave the line breaks in, which a quoted cell may hold.

    Raises:
        BadInput: If the file is empty, too large, or in another encoding.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadInput(
            f"{path} has {size / 2**30:.1f} GiB; label files are text of at most "
            f"{MAX_BYTES / 2**30:.0f} GiB"
        )
    if workbook := xlsx.csv_lines(path):
        return workbook
    raw = path.read_bytes()
    if raw.startswith(parquet.SIGNATURE):
        return parquet.csv_lines(path)
    text = decoded(raw, path)
    if not text.strip():
        raise BadInput(f"{path} is empty")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BadInput(
            f"{path}, line {line}: a zero byte; this is not text, or the file is damaged"
        )
    return list(io.StringIO(text, newline="")) if keep_ends else _LINE_BREAK.split(text)


def decoded(raw: bytes, path: Path) -> str:
    """Bytes as text.

    Raises:
        BadInput: With the line of the first byte that does not fit.
    """
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        byte = raw[error.start] if error.start < len(raw) else 0
        raise BadInput(
            f"{path}, line {line}: byte {byte:#04x} is not {encoding.removesuffix('-sig').upper()} "
            "text; save the file as UTF-8"
        ) from error


def delimiter_of(line: str) -> str:
    """Which of tab, semicolon and comma parts the cells of a heading."""
    return max("\t;,", key=line.count)


def cells_of(
    lines: Sequence[str], delimiter: str, path: Path, *, first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each line that is not blank; a line of delimiters alone is not blank.

    Raises:
        BadInput: If a line cannot be parted into cells.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield first_line + reader.line_num - 1, [cell_text(cell) for cell in cells]
    except csv.Error as error:
        raise BadInput(
            f"{path}, line {first_line + max(reader.line_num, 1) - 1}: {error}"
        ) from error


def cell_text(cell: str) -> str:
    """A cell without spaces around it and without the apostrophe that keeps a spreadsheet from
    taking a name for a formula."""
    return without_apostrophe(cell.strip())


def without_apostrophe(name: str) -> str:
    """The inverse of ``csv_text`` in ``finetune/report/tables.py``."""
    return name[1:] if re.match(r"'+[=+\-@\t\r]", name) else name


def heading_of(line: str) -> list[str]:
    """The names of the columns in a line that heads a table."""
    return [cell.strip().strip('"').strip() for cell in line.split(delimiter_of(line))]


def headed_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """A table whose first line names its columns: the names, and (line, cells) of each row.

    Raises:
        BadInput: If the file is no text, or two columns have one name.
    """
    lines = read_lines(path, keep_ends=True)
    rows = cells_of(lines, delimiter_of(lines[0]), path)
    _, heading = next(rows)
    twice = [name for name, number in Counter(heading).items() if number > 1]
    refuse([f"line 1: column {name!r} comes twice" for name in twice], about=str(path))
    return heading, rows


def frame_number(cell: str, where: str, *, lowest: int) -> int:
    """A cell as a whole frame number.

    Raises:
        BadInput: If it is something else; ``where`` says in which file and line.
    """
    if not re.fullmatch(r"\s*[+]?[0-9]{1,12}(\.0*)?\s*", cell):
        raise BadInput(f"{where}: {cell[:40]!r} is not a frame number (whole, from {lowest})")
    number = int(float(cell))
    if not lowest <= number <= MAX_FRAME:
        raise BadInput(f"{where}: frame {number} lies outside {lowest}…{MAX_FRAME}")
    return number


def seconds(cell: str, where: str) -> float:
    """A cell as a time in seconds.

    Raises:
        BadInput: If it is not a number, negative or absurdly large.
    """
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not -1e-9 <= number <= MAX_FRAME / 10 or "_" in cell:
        raise BadInput(f"{where}: {cell[:40]!r} is not a time in seconds")
    return max(0.0, number)


def marks_of_row(
    cells: Sequence[str], heading: Sequence[str], chosen: Sequence[int], where: str
) -> list[int]:
    """0, 1 or UNLABELLED in each of some columns, which are empty all or none.

    Raises:
        BadInput: If a cell is something else, or only some are empty.
    """
    marks = []
    for column in chosen:
        mark = zero_or_one(cells[column])
        if mark is None:
            raise BadInput(
                f"{where}, column {column + 1} ({heading[column]}): {cells[column][:40]!r} is "
                "neither 0 nor 1"
            )
        marks.append(mark)
    if UNLABELLED in marks and any(mark != UNLABELLED for mark in marks):
        raise BadInput(f"{where}: some cells are empty; a frame is labelled whole or not at all")
    return marks


def zero_or_one(cell: str) -> int | None:
    """0, 1 or UNLABELLED (empty); None for anything else."""
    return {
        "0": 0,
        "1": 1,
        "0.0": 0,
        "1.0": 1,
        "false": 0,
        "true": 1,
        "": UNLABELLED,
        "-1": UNLABELLED,
        "nan": UNLABELLED,
    }.get(cell.strip().lower())
