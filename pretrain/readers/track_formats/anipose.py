"""Anipose's CSV of points in space: a row a frame, ``nose_x``, ``nose_y``, ``nose_z``,
``nose_score`` and more of each point, and ``fnum``, the number of the frame.

The score is the confidence; errors, numbers of cameras and the alignment of the axes are left
aside.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.track_formats._deeplabcut import Layout
from pretrain.readers.track_formats.deeplabcut import cells_of_lines, table_of
from pretrain.readers.tracks import Tracks

_COLUMN = re.compile(r"(.+)_(x|y|z|score)")


class Anipose(AbstractTrackFormat):
    """Columns are found by their names, in any order."""

    description = "Anipose CSV (3D)"
    suffixes = (".csv",)
    name_endings = ("3d",)

    def recognise(self, file: UnknownFile) -> bool:
        """By the frame's number and a point in space."""
        cells = [cell.strip(b' "\r') for cell in file.head.split(b"\n", 1)[0].split(b",")]
        names = {cell.decode("utf-8", "replace") for cell in cells}
        points = (name[:-2] for name in names if name.endswith("_z"))
        return any({f"{point}_x", f"{point}_y", f"{point}_error"} <= names for point in points)

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name line and column."""
        raw = path.read_bytes()
        (heading,) = cells_of_lines([raw.split(b"\n", 1)[0]], path)
        matches = {c: m for c, name in enumerate(heading) if (m := _COLUMN.fullmatch(name))}
        axes = {"score": "likelihood"}
        layout = Layout(
            [("", match[1], axes.get(match[2], match[2])) for match in matches.values()],
            path=path,
            scorer="",
        )
        if names_only:
            return layout.no_tracks()
        table = table_of(raw, path, columns=len(heading), header_rows=1)
        if "fnum" in heading:
            number = table.column(heading.index("fnum")).to_numpy()
            wrong = np.flatnonzero(number != np.arange(len(number)))
            if len(wrong):
                raise BadInput(
                    f"{path}, line {wrong[0] + 2}: fnum is {number[wrong[0]]:g}, wanted "
                    f"{wrong[0]}; frames must be counted from 0 without a gap"
                )
        columns = list(matches)
        cells = np.column_stack([table.column(column).to_numpy() for column in columns])
        if not len(cells):
            raise BadInput(f"{path}, line 2: a heading and no frames")

        def where(column: int, frame: int) -> str:
            return f"line {frame + 2}, column {columns[column] + 1} ({heading[columns[column]]})"

        return layout.tracks(*layout.points(cells, where))
