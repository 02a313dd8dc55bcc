"""SLEAP's analysis CSV: a row an instance, with its track, its frame (from 0) and x, y and score of
each node. Points that a person placed have no score. Rows without a track are of one animal."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.hdf5 import refuse_bad_names, refuse_too_large
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.track_formats.deeplabcut import cells_of_lines, table_of
from pretrain.readers.tracks import Tracks, clean_points

_FIXED = ("track", "frame_idx")


class SleapCsv(AbstractTrackFormat):
    """An animal a track."""

    description = "SLEAP analysis CSV"
    suffixes = (".csv",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its first columns."""
        return file.head.removeprefix(b"\xef\xbb\xbf").startswith(b"track,frame_idx,")

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name the line. Tracks are named by rows, so all are read in any case."""
        raw = path.read_bytes()
        heading = cells_of_lines(raw.split(b"\n", 1)[:1], path)[0]
        column_of = {name: number for number, name in enumerate(heading)}
        keypoints = tuple(name.removesuffix(".x") for name in heading if name.endswith(".x"))
        columns = [f"{k}.{axis}" for k in keypoints for axis in ("x", "y", "score")]
        lacking = [name for name in (*_FIXED, *columns) if name not in column_of]
        if lacking or len(column_of) < len(heading) or not keypoints:
            raise BadInput(f"{path}, line 1: no column {', '.join(lacking[:5]) or 'of a node'}")
        table = table_of(raw, path, columns=len(heading), header_rows=1, texts=(0,))
        frame_N = table.column(column_of["frame_idx"]).to_numpy()
        if not len(frame_N):
            raise BadInput(f"{path}, line 2: a heading and no instances")
        wrong = np.flatnonzero(~((frame_N >= 0) & (frame_N < 1e8) & (frame_N == frame_N.round())))
        if len(wrong):
            raise BadInput(f"{path}, line {wrong[0] + 2}: {frame_N[wrong[0]]} is no frame")
        track_N = [name or "" for name in table.column(0).to_pylist()]
        animals = tuple(sorted(dict.fromkeys(track_N), key=_number))
        if "" in animals and len(animals) > 1:
            first = track_N.index("") + 2
            raise BadInput(f"{path}, line {first}: an instance without a track; track it in SLEAP")
        animal_N = np.array([animals.index(name) for name in track_N])
        animals = animals if animals != ("",) else ("animal",)
        refuse_bad_names(path, nodes=keypoints)
        shape = (int(frame_N.max()) + 1, len(animals))
        refuse_too_large(
            shape[0] * shape[1] * len(keypoints) * 24, name="line 2, frames", path=path
        )
        line_TM = np.zeros(shape, np.int64)
        values = np.full((*shape, len(keypoints), 3), np.nan)
        cells = np.stack([table.column(column_of[name]).to_numpy() for name in columns], 1)
        for n, at in enumerate(zip(frame_N.astype(np.int64), animal_N, strict=True)):
            if line_TM[at]:
                raise BadInput(
                    f"{path}, line {n + 2}: frame {at[0]} has two instances of one animal, as line "
                    f"{line_TM[at]} says; track the animals in SLEAP first"
                )
            line_TM[at], values[at] = n + 2, cells[n].reshape(-1, 3)
        position, confidence = clean_points(
            values[..., :2],
            values[..., 2],
            about=str(path),
            where=lambda t, m, k, x: f"line {line_TM[t, m]}, {keypoints[k]}",
        )
        return Tracks(
            name=recording_stem(path),
            animals=animals,
            keypoints=keypoints,
            position_TMKX=position[:0] if names_only else position,
            confidence_TMK=confidence[:0] if names_only else confidence,
        )


def _number(name: str) -> int:
    """Under which ``track_2`` comes before ``track_10``; other names keep their order."""
    digits = re.search(r"\d{1,9}$", name)
    return int(digits[0]) if digits else -1
