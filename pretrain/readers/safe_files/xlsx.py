"""Excel workbooks from strangers, as the lines of a CSV."""

from __future__ import annotations

import csv
import io
import itertools
import zipfile
from pathlib import Path

from pretrain.errors import BadInput
from pretrain.readers.safe_files.zip import ZIP_ERRORS, refuse_bomb

_ROOM_BYTES = 2**28


def csv_lines(path: Path, *, rows: int | None = None) -> list[str]:
    """The first sheet of a workbook, a line a row, cells parted by commas.

    Args:
        path: A file that may be a workbook.
        rows: Of how many rows; all where left out.

    Returns:
        Lines; none where the file is no workbook.

    Raises:
        BadInput: If openpyxl is absent, or the workbook is damaged.
    """
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            if "xl/workbook.xml" not in archive.namelist():
                return []
            refuse_bomb(archive, path, room_bytes=_ROOM_BYTES)
        return _lines(path, rows)
    except BadInput:
        raise
    except (*ZIP_ERRORS, TypeError, AttributeError, SyntaxError) as error:
        raise BadInput(
            f"{path}: the workbook is truncated or damaged ({error or type(error).__name__})"
        ) from error


def _lines(path: Path, rows: int | None) -> list[str]:
    try:
        import openpyxl
    except ImportError:
        raise BadInput(
            f"{path} is an Excel workbook; reading it needs openpyxl: "
            "pip install 'ethoray[trackers]'"
        ) from None
    with path.open("rb") as file:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        table = list(itertools.islice(book.worksheets[0].iter_rows(values_only=True), rows))
    width, text = max(map(len, table), default=0), io.StringIO()
    for row in table:
        cells = ["" if cell is None else " ".join(str(cell).splitlines()) for cell in row]
        csv.writer(text, lineterminator="\n").writerow(cells + [""] * (width - len(cells)))
    return text.getvalue().split("\n")[:-1]
