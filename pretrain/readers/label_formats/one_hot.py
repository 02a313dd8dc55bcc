"""One-hot tables, as SimBA writes them: a row a frame and a column of 0 and 1 a behaviour, with or
without a first column that counts the frames.

Where poses or features stand in the same table, the behaviours are the columns of 0 and 1 at its
right end. A row of empty cells is an unlabelled frame.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import (
    delimiter_of,
    frame_number,
    headed_table,
    heading_of,
)
from pretrain.readers.score_sheets import OTHER, ScoreSheet

_INDEX = ("", "frame", "frames", "index", "unnamed: 0", "framenumber", "frameindex")
_SAMPLE = 500  # rows that tell behaviours from features


class OneHot(AbstractLabelFormat):
    """Every line is a frame."""

    description = "one-hot CSV"
    suffixes = (".csv", ".tsv")
    priority = -2  # other tables, too, may end in a column of 0 and 1

    def recognise(self, file: UnknownFile) -> bool:
        """By the last of its columns."""
        if len(file.lines) < 2 or not file.lines[1].strip():
            return False
        heading = heading_of(file.lines[0])
        if not heading[-1] or any(re.fullmatch(r"[-+\d.eE]+", name) for name in heading):
            return False  # no heading
        delimiter = delimiter_of(file.lines[0])
        rows = [line.split(delimiter) for line in file.lines[1:50] if line.strip()]
        last = [_binary(row[-1].strip().strip('"')) for row in rows if len(row) == len(heading)]
        return len(last) > len(rows) / 2 and sum(v in (0, 1) for v in last) > len(last) / 2

    def read(self, path: Path) -> list[ScoreSheet]:
        """One sheet; errors name line and column."""
        heading, rows = headed_table(path)
        sample = list(itertools.islice(rows, _SAMPLE))
        if not sample:
            raise BadInput(f"{path}, line 2: a heading and no frames")
        indexed = re.sub(r"[^a-z0-9: ]", "", heading[0].lower()) in _INDEX
        first = _first_behaviour(heading, sample, indexed=indexed)
        names, counted_from = tuple(heading[first:]), 0
        if not names or not all(names):
            raise BadInput(
                f"{path}, line 1: no behaviour columns of 0 and 1 with a name at its right end "
                f"({', '.join(heading[-5:])})"
            )
        marks = []
        for frame, (line, cells) in enumerate(itertools.chain(sample, rows)):
            where = f"{path}, line {line}"
            if line != frame + 2:
                raise BadInput(f"{where}: the line before it is blank; every line must be a frame")
            if len(cells) != len(heading):
                raise BadInput(f"{where}: {len(cells)} cells under {len(heading)} headings")
            if indexed:
                index = frame_number(cells[0], f"{where}, column 1", lowest=0)
                counted_from = min(index, 1) if frame == 0 else counted_from
                if index != counted_from + frame:
                    raise BadInput(
                        f"{where}, column 1: frame {index}, wanted {counted_from + frame}; frames "
                        "are counted from 0 or 1 without a gap"
                    )
            marks.append(_marks(cells, heading, first, where))
        behaviours = tuple(OTHER if name.lower() == "none" else name for name in names)
        return [
            ScoreSheet(
                path=path, recording=(), behaviours=behaviours, marks=np.array(marks, np.int8)
            )
        ]


def _marks(cells: Sequence[str], heading: Sequence[str], first: int, where: str) -> list[int]:
    """0, 1 or UNLABELLED for each behaviour."""
    marks = []
    for column in range(first, len(cells)):
        mark = _binary(cells[column])
        if mark is None:
            raise BadInput(
                f"{where}, column {column + 1} ({heading[column]}): {cells[column][:40]!r} is "
                "neither 0 nor 1"
            )
        marks.append(mark)
    if UNLABELLED in marks and any(mark != UNLABELLED for mark in marks):
        raise BadInput(f"{where}: some cells are empty; a frame is labelled whole or not at all")
    return marks


def _binary(cell: str) -> int | None:
    """0, 1 or UNLABELLED (empty); None for anything else."""
    return {
        "0": 0,
        "1": 1,
        "0.0": 0,
        "1.0": 1,
        "false": 0,
        "true": 1,
        "": UNLABELLED,
        "nan": UNLABELLED,
    }.get(cell.strip().lower())


def _first_behaviour(
    heading: Sequence[str], sample: Sequence[tuple[int, list[str]]], *, indexed: bool
) -> int:
    """Index of the first behaviour's column: what stands left of it is mostly neither 0 nor 1
    (poses, features)."""
    rows = [cells for _, cells in sample if len(cells) == len(heading)]
    first = len(heading)
    while first > int(indexed):
        if sum(_binary(cells[first - 1]) is None for cells in rows) > len(sample) / 2:
            break
        first -= 1
    return first
