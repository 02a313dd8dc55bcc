"""External features, per frame, on their way into a store: in the same chunks as the poses.

``features/NAME/part-00000.parquet`` has the row groups and rows of ``poses/part-00000.parquet``; a
row holds its frames' values, NaN where they are unknown. A part none of whose videos has the
feature has no such file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pretrain.data.schema import Float, Video
from pretrain.data.store import Store
from pretrain.data.store_address import delete_files, read_meta, replace_file, write_file
from pretrain.errors import BadInput, refuse

MAX_DIM = 65_536  # a row group of so many must fit a column of bytes
CHUNK_COLUMNS = [("video", pa.string()), ("first_frame", pa.int32()), ("frames", pa.int32())]
_COLUMNS = pa.schema([*CHUNK_COLUMNS, ("values", pa.binary())])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_RESERVED = ("video", "first_frame", "frames", "position", "confidence")


def open_part(columns: pa.Schema) -> tuple[pa.BufferOutputStream, pq.ParquetWriter]:
    """Where a part is written, and what writes it."""
    sink = pa.BufferOutputStream()
    options = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    return sink, pq.ParquetWriter(sink, columns, compression="none", **options)


def write_rows(
    writer: pq.ParquetWriter, values: Iterable[Sequence[Any]], schema: pa.Schema
) -> None:
    """Writes columns as one row group."""
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    writer.write_table(pa.table(arrays, schema=schema), row_group_size=len(arrays[0]))


class Row(NamedTuple):
    """A chunk: which frames of which video."""

    video: str
    first_frame: int
    frames: int


class FeatureParts:
    """Writes features in step with the parts of the poses.

    Args:
        existing: What store.json says of features, when videos are added to a store.
        parts: Parts that are there already.
    """

    def __init__(self, existing: Mapping[str, Mapping[str, Any]], parts: int) -> None:
        self._dims = {name: int(feature["dim"]) for name, feature in existing.items()}
        self._dim_set_by = dict.fromkeys(existing, "the store")
        self._learned_from = {
            name: feature["learned_from"]
            for name, feature in existing.items()
            if "learned_from" in feature
        }
        self._records: dict[str, list[dict[str, Any] | None]] = {
            name: list(feature["parts"]) for name, feature in existing.items()
        }
        self._parts = parts
        self._waiting: list[tuple[Row, Mapping[str, Float]]] = []
        self._begin_part()

    @property
    def size_bytes(self) -> int:
        """Of the part being written."""
        return sum(sink.tell() for sink, _ in self._open.values())

    def refuse_misfits(self, video: Video) -> None:
        """Refuses features that cannot be written.

        Raises:
            BadInput: Naming the video and what is wrong: a name that is no safe file name, another
                width than before, infinite values.
        """
        errors = []
        for name, values in video.features.items():
            if not _NAME.fullmatch(name) or name in _RESERVED:
                errors.append(
                    f"features are named {name!r}; a name has letters, digits, - _ . and does not "
                    f"begin with - or .; it is not one of {', '.join(_RESERVED)}"
                )
                continue
            dim = values.shape[1]
            if not 0 < dim <= MAX_DIM:
                errors.append(
                    f"features {name!r} have {dim:,} numbers a frame; allowed: 1 to {MAX_DIM:,}"
                )
            elif dim != self._dims.get(name, dim):
                errors.append(
                    f"features {name!r} have {dim} numbers a frame, those of "
                    f"{self._dim_set_by[name]} {self._dims[name]}"
                )
            elif (infinite := np.abs(values) > np.finfo(np.float32).max).any():
                errors.append(
                    f"features {name!r}, frame {int(np.argwhere(infinite)[0, 0])}: a number is "
                    "infinite or too large for float32"
                )
        refuse(errors, about=f"features of video {video.name!r}")

    def add_chunk(self, row: Row, video: Video) -> None:
        """Takes a chunk's features; call it in the order of the rows of the poses."""
        frames = slice(row.first_frame, row.first_frame + row.frames)
        self._waiting.append(
            (row, {name: values[frames] for name, values in video.features.items()})
        )
        for name, values in video.features.items():
            self._dims.setdefault(name, values.shape[1])
            self._dim_set_by.setdefault(name, f"video {video.name!r}")

    def end_group(self) -> None:
        """Ends a row group where the poses end theirs."""
        for name in dict.fromkeys(name for _, features in self._waiting for name in features):
            if name not in self._open:
                self._open[name] = open_part(_COLUMNS)
                for rows in self._groups:  # what came before in this part had none
                    self._write(name, rows, [None] * len(rows))
        rows = [row for row, _ in self._waiting]
        for name in self._open:
            self._write(name, rows, [features.get(name) for _, features in self._waiting])
        self._groups.append(rows)
        self._waiting = []

    def end_part(self, write_file: Callable[[str, bytes], dict[str, Any]]) -> None:
        """Writes the files of a part; call it once for each part of the poses."""
        for name in self._dims:
            records = self._records.setdefault(name, [None] * self._parts)
            if name not in self._open:
                records.append(None)
                continue
            sink, writer = self._open[name]
            writer.close()
            records.append(
                write_file(f"features/{name}/part-{self._parts:05d}.parquet", sink.getvalue())
            )
        self._parts += 1
        self._begin_part()

    def record(self) -> dict[str, Any]:
        """What store.json says of them."""
        return {
            name: {"dim": self._dims[name], "parts": parts}
            | ({"learned_from": self._learned_from[name]} if name in self._learned_from else {})
            for name, parts in self._records.items()
        }

    def _begin_part(self) -> None:
        self._open: dict[str, tuple[pa.BufferOutputStream, pq.ParquetWriter]] = {}
        self._groups: list[list[Row]] = []

    def _write(self, name: str, rows: Sequence[Row], values: Sequence[Float | None]) -> None:
        dim = self._dims[name]
        packed = [
            np.ascontiguousarray(
                np.full((row.frames, dim), np.nan) if array is None else array, "<f4"
            ).tobytes()
            for row, array in zip(rows, values, strict=True)
        ]
        write_rows(self._open[name][1], [*zip(*rows, strict=True), packed], _COLUMNS)


def append_features(
    store: Store,
    name: str,
    values: Iterator[tuple[str, Float]],
    *,
    learned_from: Sequence[str] | None = None,
) -> None:
    """Adds features of some videos to a store that is there; the others have none. Until the last
    is written the store stays as it was.

    Args:
        store: Poses, labels and other features of it are not touched.
        name: Of the features; not one that the store has.
        values: Videos in the order of the store, and (T, D) of each; taken one after the other as
            parts are written.
        learned_from: Fingerprints of the videos that what computed them was learned from; None
            where nobody can tell.

    Raises:
        BadInput: If the name is taken or cannot be one, the values do not fit their video, or the
            store cannot be written.
    """
    refuse_existing(store, name)
    parts, written = FeatureParts({}, 0), list[str]()

    def write(relative: str, data: bytes) -> dict[str, Any]:
        return write_file(store.fs, store.path, relative, data, uri=store.uri, written=written)

    try:
        _write_parts(store, name, values, parts, write)
        record = parts.record()
        if name not in record:
            raise BadInput(f"no video of the store {store.uri} was given features {name!r}")
        if learned_from is not None:
            record[name]["learned_from"] = list(learned_from)
        meta = read_meta(store.fs, store.path, store.uri)
        meta["features"] = {**meta.get("features", {}), **record}
        replace_file(store.fs, f"{store.path}/store.json", json.dumps(meta, indent=1).encode())
    except BaseException:
        delete_files(store.fs, written)
        raise


def refuse_existing(store: Store, name: str) -> None:
    """Refuses a name of features that the store has; to be called before long work."""
    if name in store.features:
        raise BadInput(f"the store {store.uri} already has features {name!r}: choose another name")


def _write_parts(
    store: Store, name: str, values: Iterator[tuple[str, Float]], parts: FeatureParts, write: Any
) -> None:
    chunks = store.chunks
    ends_group = np.diff(chunks.group_id, append=-1) != 0
    ends_part = np.diff(chunks.part, append=-1) != 0
    pending = next(values, None)
    index, video = -1, None
    for chunk in range(len(chunks)):
        if chunks.video[chunk] != index:
            index = int(chunks.video[chunk])
            video = _blank(store, store.videos[index])
            if pending is not None and pending[0] == video.name:
                video, pending = replace(video, features={name: pending[1]}), next(values, None)
            parts.refuse_misfits(video)
        assert video is not None, "a chunk of no video"
        row = Row(video.name, int(chunks.first_frame[chunk]), int(chunks.frames[chunk]))
        parts.add_chunk(row, video)
        if ends_group[chunk]:
            parts.end_group()
        if ends_part[chunk]:
            parts.end_part(write)
    assert pending is None, f"{pending[0]} is not a video of the store, or not in its order"


def _blank(store: Store, video: Mapping[str, Any]) -> Video:
    """A video whose poses do not matter here, without the memory that they would take."""
    animals, keypoints, coordinates = store.schema.shape
    frames, zero = int(video["frames"]), np.float32(0)
    return Video(
        name=video["name"],
        position_TMKX=np.broadcast_to(zero, (frames, animals, keypoints, coordinates)),
        confidence_TMK=np.broadcast_to(zero, (frames, animals, keypoints)),
    )
