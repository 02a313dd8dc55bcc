"""The CSV that ``ethoray predict`` writes: frame, time_s, label, then for each behaviour a column
``p_NAME`` and one of 0 and 1, which is what is read.

Columns are known by their position, so that behaviours may have any name: ``frame``, ``p_x``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import (
    cell_text,
    delimiter_of,
    frame_number,
    headed_table,
    marks_of_row,
)
from pretrain.readers.score_sheets import OTHER, ScoreSheet

_FIRST = ["frame", "time_s", "label"]


class Predictions(AbstractLabelFormat):
    """Every line is a frame; one of empty cells is unlabelled."""

    description = "CSV of ethoray predict"
    suffixes = (".csv",)
    priority = 1  # behaviours named start and stop would make it an interval table

    def recognise(self, file: UnknownFile) -> bool:
        """By its heading."""
        return bool(file.lines) and bool(_behaviours(_heading(file.lines[0])))

    def read(self, path: Path) -> list[ScoreSheet]:
        """One sheet; errors name line and column."""
        heading, rows = headed_table(path, names_repeat=True)
        names, marks = _behaviours(heading), []
        columns = range(len(heading) - len(names), len(heading))
        for frame, (line, cells) in enumerate(rows):
            where = f"{path}, line {line}"
            if len(cells) != len(heading):
                raise BadInput(f"{where}: {len(cells)} cells under {len(heading)} headings")
            if (index := frame_number(cells[0], f"{where}, column 1", lowest=0)) != frame:
                raise BadInput(
                    f"{where}, column 1: frame {index} where {frame} should be; every line is a "
                    "frame, counted from 0 without a gap"
                )
            marks.append(marks_of_row(cells, heading, columns, where))
        if not marks:
            raise BadInput(f"{path}, line 2: a heading and no frames")
        return [
            ScoreSheet(
                path=path,
                recording=(),
                behaviours=tuple(OTHER if name.lower() == "none" else name for name in names),
                marks=np.array(marks, np.int8),
            )
        ]


def _heading(line: str) -> list[str]:
    return [
        cell_text(cell) for row in csv.reader([line], delimiter=delimiter_of(line)) for cell in row
    ]


def _behaviours(heading: Sequence[str]) -> list[str]:
    """Names of the columns of 0 and 1; none where this is another table."""
    names = list(heading[(len(heading) + len(_FIRST)) // 2 :])
    is_ours = [*heading] == [*_FIRST, *(f"p_{name}" for name in names), *names]
    return names if is_ours and all(names) else []
