"""Per-frame features from elsewhere on their way into a store: chunk for chunk beside the poses.

``features/NAME/part-00000.parquet`` has the row groups and rows of ``poses/part-00000.parquet``; a
row holds its frames' values, NaN where nobody knows them. A part none of whose videos has the
feature has no such file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pretrain.data.schema import Float, Video
from pretrain.errors import refuse

MOST_DIMENSIONS = 65_536  # a row group of so many must fit a column of bytes
_COLUMNS = pa.schema(
    [
        ("video", pa.string()),
        ("first_frame", pa.int32()),
        ("frames", pa.int32()),
        ("values", pa.binary()),
    ]
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TAKEN = ("video", "first_frame", "frames", "position", "confidence")


class Row(NamedTuple):
    """A chunk: which frames of which video."""

    video: str
    first_frame: int
    frames: int


class FeatureParts:
    """Writes features in step with the parts of the poses.

    Args:
        before: What store.json says of features, when videos are added to a store.
        parts: Parts that are there already.
    """

    def __init__(self, before: Mapping[str, Mapping[str, Any]], parts: int) -> None:
        self._dims: dict[str, int] = {name: int(held["dim"]) for name, held in before.items()}
        self._whose: dict[str, str] = dict.fromkeys(before, "the store")
        self._records: dict[str, list[dict[str, Any] | None]] = {
            name: list(held["parts"]) for name, held in before.items()
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
        problems = []
        for name, values in video.features.items():
            if not _NAME.fullmatch(name) or name in _TAKEN:
                problems.append(
                    f"features are named {name!r}; a name has letters, digits, - _ . and does not "
                    "begin with - or .; "
                    f"it is not one of {', '.join(_TAKEN)}"
                )
                continue
            dim = values.shape[1]
            if not 0 < dim <= MOST_DIMENSIONS:
                problems.append(
                    f"features {name!r} have {dim:,} numbers a frame; allowed: 1 to "
                    f"{MOST_DIMENSIONS:,}"
                )
            elif dim != self._dims.get(name, dim):
                problems.append(
                    f"features {name!r} have {dim} numbers a frame, those of {self._whose[name]} "
                    f"{self._dims[name]}"
                )
            elif (wild := np.abs(values) > np.finfo(np.float32).max).any():
                problems.append(
                    f"features {name!r}, frame {int(np.argwhere(wild)[0, 0])}: a number is "
                    "infinite or too large for float32"
                )
        refuse(problems, about=f"features of video {video.name!r}")

    def add_chunk(self, row: Row, video: Video) -> None:
        """Takes a chunk's features; call it in the order of the rows of the poses."""
        frames = slice(row.first_frame, row.first_frame + row.frames)
        self._waiting.append(
            (row, {name: values[frames] for name, values in video.features.items()})
        )
        for name, values in video.features.items():
            self._dims.setdefault(name, values.shape[1])
            self._whose.setdefault(name, f"video {video.name!r}")

    def end_group(self) -> None:
        """Ends a row group where the poses end theirs."""
        for name in dict.fromkeys(name for _, held in self._waiting for name in held):
            if name not in self._open:
                sink = pa.BufferOutputStream()
                writer = pq.ParquetWriter(
                    sink,
                    _COLUMNS,
                    compression="none",
                    use_dictionary=False,
                    write_statistics=False,
                    write_page_checksum=True,
                )
                self._open[name] = sink, writer
                for rows in self._groups:  # what came before in this part had none
                    self._write(name, rows, [None] * len(rows))
        rows = [row for row, _ in self._waiting]
        for name in self._open:
            self._write(name, rows, [held.get(name) for _, held in self._waiting])
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
            name: {"dim": self._dims[name], "parts": parts} for name, parts in self._records.items()
        }

    def _begin_part(self) -> None:
        self._open: dict[str, tuple[pa.BufferOutputStream, pq.ParquetWriter]] = {}
        self._groups: list[list[Row]] = []

    def _write(self, name: str, rows: Sequence[Row], values: Sequence[Float | None]) -> None:
        dim = self._dims[name]
        packed = [
            np.ascontiguousarray(
                np.full((row.frames, dim), np.nan) if held is None else held, "<f4"
            ).tobytes()
            for row, held in zip(rows, values, strict=True)
        ]
        columns = [*zip(*rows, strict=True), packed]
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, _COLUMNS, strict=True)
        ]
        self._open[name][1].write_table(pa.table(arrays, schema=_COLUMNS), row_group_size=len(rows))
