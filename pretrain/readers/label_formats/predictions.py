"""The CSV that ``ethoray predict`` writes: frame, time_s, label, then for each behaviour a column
``p_NAME`` and one of 0 and 1, which is what is read.

Columns are known by their position, so that behaviours may have any name: ``frame``, ``p_x``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import (
    cells_of,
    delimiter_of,
    frame_number,
    marks_of_row,
    read_lines,
    without_apostrophe,
)
from pretrain.readers.score_sheets import ScoreSheet

_FIRST = ["frame", "time_s", "label"]
_BEGINS = re.compile(r'("?)frame\1([\t;,])\1time_s\1\2\1label\1\2"?p_')


class Predictions(AbstractLabelFormat):
    """Every line is a frame; one of empty cells is unlabelled."""

    description = "CSV of ethoray predict"
    suffixes = (".csv",)
    priority = 1  # behaviours named start and stop would make it an interval table

    def recognise(self, file: UnknownFile) -> bool:
        """By how its heading begins: names of behaviours may hold line breaks."""
        return bool(file.lines) and _BEGINS.match(file.lines[0]) is not None

    def read(self, path: Path) -> list[ScoreSheet]:
        """One sheet; errors name line and column."""
        lines = read_lines(path, keep_ends=True)
        delimiter = delimiter_of(lines[0])
        rows, marks = cells_of(lines, delimiter, path), []
        next(rows)
        heading = [
            without_apostrophe(cell) for cell in next(csv.reader(lines, delimiter=delimiter))
        ]
        names = _behaviours(heading)
        if not names:
            raise BadInput(
                f"{path}, line 1: after frame, time_s and label there must be a column p_NAME for "
                "each behaviour, then one named like each, in the same order"
            )
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
                path=path, recording=(), behaviours=tuple(names), marks=np.array(marks, np.int8)
            )
        ]


def _behaviours(heading: Sequence[str]) -> list[str]:
    """Names of the columns of 0 and 1; none where this is another table."""
    names = list(heading[(len(heading) + len(_FIRST)) // 2 :])
    is_ours = [*heading] == [*_FIRST, *(f"p_{name}" for name in names), *names]
    return names if is_ours and all(names) else []
