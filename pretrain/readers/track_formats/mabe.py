"""Tracks of the MABe mouse challenge of 2025: a parquet with a row for each point that was seen.

Columns are video_frame (from 0), mouse_id, bodypart, x and y; frames, mice and parts that no row
names are missing. Mice are called mouse1, mouse2… Rate and size of the image stand elsewhere, in
the challenge's table of videos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.hdf5 import refuse_bad_names, refuse_too_large
from pretrain.readers.safe_files.parquet import read_columns
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

_NAMES, _NUMBERS = ("mouse_id", "bodypart"), ("video_frame", "x", "y")


class MabeTracks(AbstractTrackFormat):
    """Rows in any order."""

    description = "MABe tracking parquet"
    suffixes = (".parquet",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its columns."""
        return {*_NAMES, "x", "y"} <= set(file.parquet)

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame, mouse and body part."""
        table = read_columns(path, _NAMES if names_only else (*_NAMES, *_NUMBERS))
        mouse_N, mice = _codes(table, "mouse_id", path)
        part_N, keypoints = _codes(table, "bodypart", path)
        order = sorted(range(len(mice)), key=lambda m: (len(mice[m]), mice[m]))
        animals = tuple(f"mouse{mice[m]}" for m in order)
        refuse_bad_names(path, mice=animals, body_parts=keypoints)
        points = no_frames(len(animals), len(keypoints), 2)
        if not names_only:
            frame_N, x_N, y_N = (_numbers(table, name, path) for name in _NUMBERS)
            if not ((frame_N >= 0) & (frame_N == np.rint(frame_N)) & (frame_N < 10**8)).all():
                raise BadInput(f"{path}: video_frame holds what is no frame number from 0")
            at = frame_N.astype(np.int64), np.argsort(order)[mouse_N], part_N
            shape = (int(at[0].max()) + 1, len(animals), len(keypoints))
            refuse_too_large(int(np.prod(shape)) * 24, name="video_frame", path=path)
            position, rows = np.full((*shape, 2), np.nan), np.zeros(shape, np.int64)
            position[at] = np.stack([x_N, y_N], axis=1)
            np.add.at(rows, at, 1)
            if (rows > 1).any():
                t, m, k = (int(i) for i in np.argwhere(rows > 1)[0])
                raise BadInput(f"{path}: frame {t}, {animals[m]}, {keypoints[k]} has several rows")
            points = clean_points(
                position,
                (rows > 0).astype(np.float64),
                about=str(path),
                where=lambda t, m, k, x: f"frame {t}, {animals[m]}, {keypoints[k]}",
            )
        return Tracks(
            name=recording_stem(path),
            animals=animals,
            keypoints=keypoints,
            position_TMKX=points[0],
            confidence_TMK=points[1],
        )


def _codes(table: pa.Table, name: str, path: Path) -> tuple[Any, tuple[str, ...]]:
    """A column as indices of its values, and those as text in the order of their appearance."""
    column = table[name].combine_chunks()
    if not len(column) or column.null_count:
        raise BadInput(f"{path}: {name} is empty, or is in some rows")
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if len(values) > 1000:
        raise BadInput(f"{path}: {name} has {len(values):,} values; damaged")
    return encoded.indices.to_numpy(), tuple(map(str, values))


def _numbers(table: pa.Table, name: str, path: Path) -> Any:
    values = table[name].to_numpy()
    if values.dtype.kind not in "iuf":
        raise BadInput(f"{path}: {name} holds {table[name].type}, not numbers")
    return values.astype(np.float64)
