"""The pose store: chunks of whole frames in Parquet, and a store.json that says what they are.

    STORE/store.json                schema, videos, parts with their checksums; written last, so
                                    its presence means "whole"
    STORE/poses/part-00000.parquet  a row is a chunk of at most 1,024 frames of one video
    STORE/features/NAME/part-…      external features, per frame, in the same chunks
    STORE/labels/TASK.parquet       written by pretrain/readers/annotations.py, read by
                                    finetune/labels/problems.py, never here

A store is a local folder or an address that pyarrow's file systems understand
(``s3://bucket/store``). Positions keep the full float32 of their source; confidence is kept in
steps of 1/255. Columns are raw bytes without compression: of the layouts tried, Ray and pyarrow
read this one fastest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from pretrain.data.schema import Float, Schema, Video
from pretrain.data.store_address import filesystem, read_meta
from pretrain.errors import BadInput, refuse
from pretrain.redact import redact

CONFIDENCE_STEPS = 255


@dataclass(frozen=True)
class Chunks:
    """Where every chunk of a store lies: arrays of one length, in store order. A group is a Parquet
    row group."""

    part: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32]
    """Row group within its part."""
    group_id: npt.NDArray[np.int64]
    """Row group within the store; chunks of a group are neighbours."""
    video: npt.NDArray[np.int32]
    first_frame: npt.NDArray[np.int32]
    frames: npt.NDArray[np.int32]
    left_out: npt.NDArray[np.bool_] | None = None
    """Chunks that nothing is learned from; None: there are none."""

    def __len__(self) -> int:
        return len(self.frames)


class Store:
    """A store opened for reading.

    Args:
        uri: Folder or address.
        leave_out: Videos that nothing is learned from: no window and no sample holds a frame of
            them.

    Attributes:
        address: The same, to open it again.
        uri: As people may see it, without secrets.

    Raises:
        BadInput: If there is no store, or it is half-written, of another version, or damaged.
    """

    def __init__(self, uri: str | Path, *, leave_out: Iterable[str] = ()) -> None:
        self.address, self.uri = str(uri), redact(str(uri))
        self.fs, self.path = filesystem(uri)
        self._meta = read_meta(self.fs, self.path, self.uri)
        self.schema = Schema.from_dict(self._meta["schema"])
        self.videos: list[dict[str, Any]] = self._meta["videos"]
        self.parts: list[dict[str, Any]] = self._meta["parts"]
        self.labels: list[dict[str, Any]] = self._meta.get("labels", [])
        self.features: dict[str, dict[str, Any]] = self._meta.get("features", {})
        self._footers: dict[str, pq.FileMetaData] = {}
        self._refuse_missing_parts()
        self.leave_out = frozenset(leave_out)
        unknown = sorted(self.leave_out - {video["name"] for video in self.videos})
        refuse(
            [f"no video {name!r}" for name in unknown], about=f"--leave-out: the store {self.uri}"
        )
        if len(self.leave_out) == len(self.videos):
            raise BadInput(f"--leave-out: no video of the store {self.uri} would remain")

    @property
    def learned_videos(self) -> list[str]:
        """Videos that something is learned from."""
        return [v["name"] for v in self.videos if v["name"] not in self.leave_out]

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(video["frames"] for video in self.videos)

    def frame_bytes(self, features: Sequence[str] = ()) -> int:
        """Bytes of a frame in the memory of a worker: positions, confidence, external features."""
        animals, keypoints, coordinates = self.schema.shape
        extra = sum(int(self.feature(name)["dim"]) for name in features)
        return animals * keypoints * (4 * coordinates + 1) + 4 * extra

    @property
    def origin(self) -> str:
        """Where the recordings came from, in words."""
        return str(self._meta.get("origin", ""))

    @cached_property
    def fingerprint(self) -> str:
        """Names exactly these poses: a checksum over the schema and every part's checksum (labels
        apart)."""
        content = {"schema": self._meta["schema"], "parts": [part["sha256"] for part in self.parts]}
        content["features"] = {
            name: [part and part["sha256"] for part in feature["parts"]]
            for name, feature in self.features.items()
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def chunks(self) -> Chunks:
        """Where every chunk lies; derived from store.json, no part is opened."""
        size = self._meta["chunk_frames"]
        length = np.array([video["frames"] for video in self.videos], np.int64)
        chunks = -(-length // size)  # of each video
        video = np.repeat(np.arange(len(length), dtype=np.int32), chunks)
        index = np.arange(chunks.sum()) - np.repeat(np.cumsum(chunks) - chunks, chunks)
        first = (index * size).astype(np.int32)
        frames = np.minimum(length[video] - first, size).astype(np.int32)
        groups = [
            (part, group, rows)
            for part, record in enumerate(self.parts)
            for group, rows in enumerate(record["groups"])
        ]
        part, group, rows = np.array(groups, np.int32).reshape(-1, 3).T
        if rows.sum() != len(video):
            raise BadInput(
                f"{self.uri}: store.json is damaged: its parts hold {rows.sum()} chunks, its "
                f"videos need {len(video)}"
            )
        group_id = np.repeat(np.arange(len(rows)), rows)
        return Chunks(
            part=np.repeat(part, rows),
            group=np.repeat(group, rows),
            group_id=group_id,
            video=video,
            first_frame=first,
            frames=frames,
            left_out=np.array([v["name"] in self.leave_out for v in self.videos])[video]
            if self.leave_out
            else None,
        )

    def read_groups(
        self, part: int, groups: Iterable[int] | None = None, *, features: Sequence[str] = ()
    ) -> pa.Table:
        """Reads row groups of a part, checking every page.

        Args:
            part: Index in ``parts``.
            groups: Row groups of it; None: all of them.
            features: External features to read with the poses; each becomes a column of its name,
                null where no video of the part has it.

        Raises:
            BadInput: Naming the file, if it cannot be read or its checksum is wrong; if the store
                has no such features.
        """
        groups = None if groups is None else list(groups)
        table = self._read(self.parts[part], groups)
        for name in features:
            record = self.feature(name)["parts"][part]
            nulls = pa.nulls(len(table), pa.binary())
            values = nulls if record is None else self._read(record, groups)["values"]
            table = table.append_column(name, values)
        return table

    def read_group(self, group_id: int, features: Sequence[str] = ()) -> list[npt.NDArray[Any]]:
        """Frames of one row group of the store, as :meth:`decode_all` gives them."""
        first = int(np.searchsorted(self.chunks.group_id, group_id))
        table = self.read_groups(
            int(self.chunks.part[first]), [int(self.chunks.group[first])], features=features
        )
        return self.decode_all(table, features)

    def _read(self, record: Mapping[str, Any], groups: list[int] | None) -> pa.Table:
        name = record["file"]
        try:
            with self.fs.open_input_file(f"{self.path}/{name}") as file:
                # Where a part's row groups lie is read once: it takes longer than a row group does.
                reader = pq.ParquetFile(
                    file,
                    metadata=self._footers.get(name),
                    page_checksum_verification=True,
                    memory_map=True,
                    pre_buffer=False,
                )
                self._footers[name] = reader.metadata
                if groups is None:
                    return reader.read(use_threads=False)
                return reader.read_row_groups(groups, use_threads=False)
        except (OSError, pa.ArrowException, IndexError) as error:
            raise BadInput(
                f"{self.uri}: {name} is damaged: {error}. Prepare the store again or restore that "
                "file"
            ) from error

    def feature(self, name: str) -> Mapping[str, Any]:
        """What the store holds of an external feature: ``dim`` (D) and ``parts``.

        Raises:
            BadInput: If it has none of that name; lists those it has.
        """
        try:
            return self.features[name]
        except KeyError:
            known = [f"{known} ({feature['dim']})" for known, feature in self.features.items()]
            raise BadInput(
                f"the store {self.uri} has no features {name!r}; it has: "
                f"{', '.join(known) or 'none'}"
            ) from None

    def decode(self, table: pa.Table) -> tuple[Float, npt.NDArray[np.uint8]]:
        """Rows, as :meth:`read_groups` gives them, to frames.

        Returns:
            Positions (frames, M, K, X), NaN = missing, and confidence (frames, M, K) in steps of
            1/255, rows joined in order. Both are read-only views where one buffer holds all rows.
        """
        animals, keypoints, coordinates = self.schema.shape
        position = _column_bytes(table["position"]).view("<f4")
        position = position.reshape(-1, animals, keypoints, coordinates)
        confidence = _column_bytes(table["confidence"]).reshape(-1, animals, keypoints)
        if not len(position) == len(confidence) == sum(table["frames"].to_pylist()):
            raise BadInput(
                f"{self.uri}: a chunk's bytes do not match its frames; prepare the store again"
            )
        return position, confidence

    def decode_features(self, table: pa.Table, names: Sequence[str]) -> Float:
        """External features of rows read with them, side by side in the order of ``names``:
        (frames, sum of D); NaN = unknown."""
        frames = table["frames"].to_pylist()
        if not names:
            return np.empty((sum(frames), 0), np.float32)
        columns = []
        for name in names:
            dim, about = int(self.feature(name)["dim"]), f"{self.uri}: features {name}"
            columns.append(_float_column(table[name], frames, dim=dim, about=about))
        return np.concatenate(columns, 1)

    def decode_all(self, table: pa.Table, features: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Positions, confidence and, where some were read with them, external features."""
        return [*self.decode(table), *([self.decode_features(table, features)] if features else [])]

    def read_video(self, name: str, *, features: Sequence[str] | None = None) -> Video:
        """One whole video, with the external features named; None: with all that it has.

        Raises:
            BadInput: If the store has no such video or features, or a part is damaged.
        """
        index = self.video_index(name)
        names = list(self.features) if features is None else list(features)
        rows = np.flatnonzero(self.chunks.video == index)
        tables = []
        for part in np.unique(self.chunks.part[rows]):
            groups = np.unique(self.chunks.group[rows[self.chunks.part[rows] == part]])
            table = self.read_groups(int(part), [int(g) for g in groups], features=names)
            tables.append(table.filter(pc.equal(table["video"], name)))
        table = pa.concat_tables(tables)
        position, confidence = self.decode(table)
        values = {key: self.decode_features(table, [key]) for key in names}
        return Video(
            name=name,
            position_TMKX=position,
            confidence_TMK=confidence.astype(np.float32) / np.float32(CONFIDENCE_STEPS),
            source=self.videos[index]["source"],
            source_sha256=self.videos[index]["source_sha256"],
            features={
                k: v for k, v in values.items() if features is not None or not np.isnan(v).all()
            },
        )

    def video_index(self, name: str) -> int:
        """Index of a video in ``videos``.

        Raises:
            BadInput: If there is none of that name.
        """
        try:
            return self._index_by_name[name]
        except KeyError:
            raise BadInput(
                f"{self.uri} has no video {name!r}; it has {len(self.videos)}: "
                f"{', '.join(list(self._index_by_name)[:5])}…"
            ) from None

    @cached_property
    def _index_by_name(self) -> dict[str, int]:
        return {video["name"]: index for index, video in enumerate(self.videos)}

    def verify(self) -> list[str]:
        """Reads every byte and compares checksums; returns a sentence for each damaged file."""
        errors = []
        for record in [*self.parts, *self.labels, *self._feature_parts]:
            name, expected = record["file"], record["sha256"]
            try:
                with self.fs.open_input_stream(f"{self.path}/{name}") as stream:
                    actual = hashlib.sha256(stream.read()).hexdigest()
            except OSError as error:
                errors.append(f"{name} cannot be read: {error}")
                continue
            if actual != expected:
                errors.append(
                    f"{name} is damaged: its checksum is {actual[:12]}…, store.json says "
                    f"{expected[:12]}…"
                )
        return errors

    @property
    def _feature_parts(self) -> list[dict[str, Any]]:
        return [part for feature in self.features.values() for part in feature["parts"] if part]

    def _refuse_missing_parts(self) -> None:
        parts = [*self.parts, *self._feature_parts]
        files = self.fs.get_file_info([f"{self.path}/{part['file']}" for part in parts])
        errors = []
        for part, info in zip(parts, files, strict=True):
            if info.type != fs.FileType.File:
                errors.append(f"{part['file']} is missing")
            elif info.size != part["bytes"]:
                errors.append(
                    f"{part['file']} has {info.size:,} bytes; store.json says {part['bytes']:,}"
                )
        refuse(errors, about=f"the store {self.uri} is damaged")


def _column_bytes(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """The bytes of a binary column, rows joined; a view, not a copy, where it is one buffer."""
    pieces = []
    for array in column.chunks:
        if len(array):
            offsets = np.frombuffer(array.buffers()[1], np.int32)
            begin, end = offsets[array.offset], offsets[array.offset + len(array)]
            pieces.append(np.frombuffer(array.buffers()[2], np.uint8)[begin:end])
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)


def _float_column(column: pa.ChunkedArray, frames: Sequence[int], *, dim: int, about: str) -> Float:
    """(sum of frames, dim) out of a binary column; NaN where it is null."""
    values = np.full((sum(frames), dim), np.nan, np.float32)
    end = 0
    for cell, count in zip(column, frames, strict=True):
        begin, end = end, end + count
        if cell.is_valid:
            raw = np.frombuffer(cell.as_buffer(), "<f4")
            if len(raw) != count * dim:
                raise BadInput(
                    f"{about}: a chunk has {len(raw)} numbers for {count} frames of {dim}; prepare "
                    "the store again"
                )
            values[begin:end] = raw.reshape(count, dim)
    return values
