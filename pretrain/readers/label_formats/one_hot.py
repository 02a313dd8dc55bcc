"""One-hot tables, as SimBA writes them: a row a frame and a column of 0 and 1 a behaviour, with or
without a first column that counts the frames.

Where poses or features stand in the same table, the behaviours are the columns of 0 and 1 at its
right end, but for those that are SimBA's own: probabilities, and counts of badly tracked points. A
row of empty cells, or of -1 (DeepEthogram), is an unlabelled frame. Where the first column is a
time (BORIS' binary tables), it says when a row was, at whatever rate.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import (
    delimiter_of,
    frame_number,
    headed_table,
    heading_of,
    marks_of_row,
    seconds,
    zero_or_one,
)
from pretrain.readers.score_sheets import OTHER, Bout, Marks, ScoreSheet

_INDEX = ("", "frame", "frames", "index", "unnamed: 0", "framenumber", "frameindex")
_TIME = ("time", "times", "time (s)", "time_s", "seconds")
_FEATURE = re.compile(
    r"^(low_prob_detections|probability|sum|movement)_|_(x|y|p|likelihood)$", re.I
)
_SAMPLE = 500  # rows that tell behaviours from features


class OneHot(AbstractLabelFormat):
    """Every line is a frame."""

    description = "one-hot CSV or xlsx"
    suffixes = (".csv", ".tsv", ".xlsx")
    priority = -2  # other tables, too, may end in a column of 0 and 1

    def recognise(self, file: UnknownFile) -> bool:
        """By the last of its columns."""
        if len(file.lines) < 2 or not file.lines[1].strip():
            return False
        heading = heading_of(file.lines[0])
        if not heading[-1] or any(re.fullmatch(r"[-+\d.eE]+", name) for name in heading):
            return False  # no heading
        if _FEATURE.search(heading[-1]):
            return False  # poses or features alone
        delimiter = delimiter_of(file.lines[0])
        rows = [line.split(delimiter) for line in file.lines[1:50] if line.strip()]
        last = [zero_or_one(row[-1].strip().strip('"')) for row in rows if len(row) == len(heading)]
        return len(last) > len(rows) / 2 and sum(v in (0, 1) for v in last) > len(last) / 2

    def read(self, path: Path) -> list[ScoreSheet]:
        """One sheet; errors name line and column."""
        heading, rows = headed_table(path)
        sample = list(itertools.islice(rows, _SAMPLE))
        if not sample:
            raise BadInput(f"{path}, line 2: a heading and no frames")
        indexed = re.sub(r"[^a-z0-9: ]", "", heading[0].lower()) in _INDEX
        timed = heading[0].strip().lower() in _TIME
        first = _first_behaviour(heading, sample, indexed=indexed or timed)
        chosen = [c for c in range(first, len(heading)) if not _FEATURE.search(heading[c])]
        names, counted_from = tuple(heading[c] for c in chosen), 0
        if not names or not all(names):
            raise BadInput(
                f"{path}, line 1: no behaviour columns of 0 and 1 with a name at its right end "
                f"({', '.join(heading[-5:])})"
            )
        marks, times = [], []
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
            marks.append(marks_of_row(cells, heading, chosen, where))
            if timed:
                times.append(seconds(cells[0], f"{where}, column 1"))
        behaviours = tuple(OTHER if name.lower() == "none" else name for name in names)
        if timed:
            return [_timed(path, behaviours, np.array(marks, np.int8), np.array(times))]
        return [
            ScoreSheet(
                path=path, recording=(), behaviours=behaviours, marks=np.array(marks, np.int8)
            )
        ]


def _timed(
    path: Path, behaviours: tuple[str, ...], marks: Marks, times: npt.NDArray[np.float64]
) -> ScoreSheet:
    """A table of times as bouts in seconds; each row holds until the next."""
    steps = np.diff(times)
    if not len(steps) or not (steps > 0).all():
        raise BadInput(f"{path}, column 1: times must rise from row to row")
    ends = np.append(times[1:], times[-1] + np.median(steps))
    bouts = []
    for c, name in enumerate(behaviours):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], marks[:, c] == 1, [0]]).astype(int)))
        bouts += [
            Bout(float(times[start]), float(ends[stop - 1]), name)
            for start, stop in edges.reshape(-1, 2)
        ]
    looked_at = np.flatnonzero((marks != UNLABELLED).any(1))
    observed = (
        (float(times[looked_at[0]]), float(ends[looked_at[-1]])) if len(looked_at) else (0.0, 0.0)
    )
    return ScoreSheet(
        path=path,
        recording=(),
        behaviours=behaviours,
        bouts=tuple(sorted(bouts, key=lambda bout: bout.start)),
        in_seconds=True,
        observed=observed,
    )


def _first_behaviour(
    heading: Sequence[str], sample: Sequence[tuple[int, list[str]]], *, indexed: bool
) -> int:
    """Index of the first behaviour's column: what stands left of it is mostly neither 0 nor 1
    (poses, features)."""
    rows = [cells for _, cells in sample if len(cells) == len(heading)]
    first = len(heading)
    while first > int(indexed):
        feature = _FEATURE.search(heading[first - 1])
        if (
            not feature
            and sum(zero_or_one(cells[first - 1]) is None for cells in rows) > len(sample) / 2
        ):
            break
        first -= 1
    return first
