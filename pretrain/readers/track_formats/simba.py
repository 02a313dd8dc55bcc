"""SimBA's poses: ``input_csv`` and ``outlier_corrected_movement_location`` of a project.

A row is a frame: its index from 0, then x, y and p of each point. One header row names them
(``Nose_1_x``), in ``input_csv`` the third of three. An animal is the number that ends the names
of its points (``Nose_1``), or the word before them (``Simon_Nose_1``, ``Animal_1_Nose``); where
names do not part so that every animal has the same points, they are points of one animal. A point
at (0, 0) is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.track_formats.deeplabcut import Columns, cells_of_lines, read_csv
from pretrain.readers.tracks import Tracks

_POINT = re.compile(r"(.+)_(x|y|p|likelihood)", re.I)
_ANIMALS = (
    r"(?P<point>.+)_(?P<animal>\d+)",
    r"(?P<animal>[^_]+)_(?P<point>.+)_\d+",
    r"(?P<animal>[^_]*\d|[^_]+_\d+)_(?P<point>.+)",
)


class SimbaPoses(AbstractTrackFormat):
    """Tables that hold poses and nothing else; with features or targets they are no tracks."""

    description = "SimBA pose CSV"
    suffixes = (".csv",)
    priority = 1  # before DeepLabCut, whose first header row SimBA may keep

    def recognise(self, file: UnknownFile) -> bool:
        """By the names of its columns."""
        return _header_rows([line.encode() for line in file.lines[:3]]) is not None

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name line and column."""
        return read_csv(path, _header, names_only=names_only)


def _header_rows(lines: Sequence[bytes]) -> int | None:
    """How many rows name the columns; None where none of them does."""
    for rows in (1, 3):
        cells = [cell.strip(b' "\r') for cell in lines[rows - 1].split(b",")] if lines[2:] else []
        if len(cells) > 3 and all(
            _POINT.fullmatch(cell.decode("utf-8", "replace")) for cell in cells[1:]
        ):
            return rows
    return None


def _header(raw: bytes, path: Path) -> tuple[Columns, int]:
    rows = _header_rows(raw.split(b"\n", 3)[:3])
    if rows is None:
        raise BadInput(
            f"{path}, line 1: no heading of columns such as Nose_1_x, Nose_1_y, Nose_1_p"
        )
    cells = cells_of_lines(raw.split(b"\n", rows)[:rows], path)[-1][1:]
    columns = [_POINT.fullmatch(cell.strip()) for cell in cells]
    names = [column[1] for column in columns if column]
    named = _named(list(dict.fromkeys(names)))
    axes = [column[2].lower() for column in columns if column]
    return [
        ("", *named[name], "likelihood" if axis == "p" else axis)
        for name, axis in zip(names, axes, strict=True)
    ], rows


def _named(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(animal, point) of each name."""
    for pattern in _ANIMALS:
        matches = [re.fullmatch(pattern, name) for name in names]
        parted = [(match["animal"], match["point"]) for match in matches if match]
        animals, points = ({pair[i] for pair in parted} for i in (0, 1))
        if len(parted) == len(set(parted)) == len(names) == len(animals) * len(points):
            return {
                name: (f"animal{animal}" if animal.isdecimal() else animal, point)
                for name, (animal, point) in zip(names, parted, strict=True)
            }
    return {name: ("", name) for name in names}
