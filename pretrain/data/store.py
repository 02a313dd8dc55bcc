"""The pose store: chunks of whole frames in Parquet, and a store.json that says what they are.

    STORE/store.json               schema, videos, parts with their checksums; written last, so its
    presence means "whole" STORE/poses/part-00000.parquet a row is a chunk of at most 1,024 frames
    of one video STORE/features/NAME/part-…     per-frame features from elsewhere, chunk for chunk
    beside the poses STORE/labels/TASK.parquet      written and read elsewhere (pose/annotations.py,
    finetune/labels/problems.py), never here

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

from pretrain.data.columns import binary_column, float_column
from pretrain.data.schema import Float, Schema, Video
from pretrain.data.store_address import filesystem, read_meta
from pretrain.errors import BadInput, refuse

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

    def __len__(self) -> int:
        return len(self.frames)


class Store:
    """A store opened for reading.

    Args:
        uri: Folder or address.

    Raises:
        BadInput: If there is no store, or it is half-written, of another version, or damaged.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        self.fs, self.path = filesystem(uri)
        self._meta = read_meta(self.fs, self.path, self.uri)
        self.schema = Schema.from_dict(self._meta["schema"])
        self.videos: list[dict[str, Any]] = self._meta["videos"]
        self.parts: list[dict[str, Any]] = self._meta["parts"]
        self.labels: list[dict[str, Any]] = self._meta.get("labels", [])
        self.features: dict[str, dict[str, Any]] = self._meta.get("features", {})
        self._footers: dict[str, pq.FileMetaData] = {}
        self._refuse_missing_parts()

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(video["frames"] for video in self.videos)

    def frame_bytes(self, features: Sequence[str] = ()) -> int:
        """Bytes of a frame in the memory of a worker: positions and confidence, and features from
        elsewhere."""
        animals, keypoints, coordinates = self.schema.shape
        beside = sum(int(self.feature(name)["dim"]) for name in features)
        return animals * keypoints * (4 * coordinates + 1) + 4 * beside

    @property
    def origin(self) -> str:
        """Where the recordings came from, in words."""
        return str(self._meta.get("origin", ""))

    @cached_property
    def fingerprint(self) -> str:
        """Names exactly these poses: a checksum over the schema and every part's checksum (labels
        apart)."""
        named = {"schema": self._meta["schema"], "parts": [part["sha256"] for part in self.parts]}
        named["features"] = {
            name: [part and part["sha256"] for part in held["parts"]]
            for name, held in self.features.items()
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def chunks(self) -> Chunks:
        """Where every chunk lies; derived from store.json, no part is opened."""
        video, first, frames = [], [], []
        size = self._meta["chunk_frames"]
        for place, held in enumerate(self.videos):
            starts = np.arange(0, held["frames"], size, dtype=np.int32)
            video.append(np.full(len(starts), place, np.int32))
            first.append(starts)
            frames.append(np.minimum(held["frames"] - starts, size).astype(np.int32))
        part = [
            np.repeat(np.int32(p), rows)
            for p, held in enumerate(self.parts)
            for rows in held["groups"]
        ]
        group = [
            np.repeat(np.int32(g), rows)
            for held in self.parts
            for g, rows in enumerate(held["groups"])
        ]
        group_id = np.repeat(np.arange(len(group)), [len(g) for g in group])
        columns = {
            "part": part,
            "group": group,
            "video": video,
            "first_frame": first,
            "frames": frames,
        }
        joined = {
            name: np.concatenate(pieces) if pieces else np.empty(0, np.int32)
            for name, pieces in columns.items()
        }
        found = Chunks(group_id=group_id, **joined)
        if len({len(column) for column in vars(found).values()}) != 1:
            raise BadInput(
                f"{self.uri}: store.json is damaged: its parts hold {len(found.part)} chunks, its "
                f"videos need {len(found.frames)}"
            )
        return found

    def read_groups(
        self, part: int, groups: Iterable[int] | None = None, *, features: Sequence[str] = ()
    ) -> pa.Table:
        """Reads row groups of a part (all of them if not told which), checking every page.

        Args:
            part: Place in ``parts``.
            groups: Row groups of it.
            features: Features from elsewhere to read beside the poses; each becomes a column of its
                name, null where no video of the part has it.

        Raises:
            BadInput: Naming the file, if it cannot be read or its checksum is wrong; if the store
                has no such features.
        """
        wanted = None if groups is None else list(groups)
        table = self._read(self.parts[part], wanted)
        for name in features:
            held = self.feature(name)["parts"][part]
            values = (
                pa.nulls(len(table), pa.binary())
                if held is None
                else self._read(held, wanted)["values"]
            )
            table = table.append_column(name, values)
        return table

    def read_group(self, group_id: int, features: Sequence[str] = ()) -> list[npt.NDArray[Any]]:
        """Frames of one row group of the store, as :meth:`decode_all` gives them.

        Raises:
            BadInput: As :meth:`read_groups`.
        """
        first = int(np.searchsorted(self.chunks.group_id, group_id))
        table = self.read_groups(
            int(self.chunks.part[first]), [int(self.chunks.group[first])], features=features
        )
        return self.decode_all(table, features)

    def _read(self, held: Mapping[str, Any], groups: list[int] | None) -> pa.Table:
        try:
            with self.fs.open_input_file(f"{self.path}/{held['file']}") as file:
                # Where a part's row groups lie is read once: it takes longer than a row group does.
                reader = pq.ParquetFile(
                    file,
                    metadata=self._footers.get(held["file"]),
                    page_checksum_verification=True,
                    memory_map=True,
                    pre_buffer=False,
                )
                self._footers[held["file"]] = reader.metadata
                return (
                    reader.read(use_threads=False)
                    if groups is None
                    else reader.read_row_groups(groups, use_threads=False)
                )
        except (OSError, pa.ArrowException, IndexError) as error:
            raise BadInput(
                f"{self.uri}: {held['file']} is damaged: {error}. Prepare the store again or "
                "restore that file"
            ) from error

    def feature(self, name: str) -> Mapping[str, Any]:
        """What the store holds of features from elsewhere: ``dim`` (D) and ``parts``.

        Raises:
            BadInput: If it has none of that name; lists those it has.
        """
        try:
            return self.features[name]
        except KeyError:
            have = (
                ", ".join(f"{known} ({held['dim']})" for known, held in self.features.items())
                or "none"
            )
            raise BadInput(
                f"the store {self.uri} has no features {name!r}; it has: {have}"
            ) from None

    def decode(self, table: pa.Table) -> tuple[Float, npt.NDArray[np.uint8]]:
        """Rows to frames.

        Args:
            table: Rows as :meth:`read_groups` gives them.

        Returns:
            Positions (frames, M, K, X), NaN = missing, and confidence (frames, M, K) in steps of
            1/255, rows joined in order. Both are read-only views where one buffer holds all rows.
        """
        animals, keypoints, coordinates = self.schema.shape
        position = (
            binary_column(table["position"])
            .view("<f4")
            .reshape(-1, animals, keypoints, coordinates)
        )
        confidence = binary_column(table["confidence"]).reshape(-1, animals, keypoints)
        if not len(position) == len(confidence) == sum(table["frames"].to_pylist()):
            raise BadInput(
                f"{self.uri}: a chunk's bytes do not match its frames; prepare the store again"
            )
        return position, confidence

    def decode_features(self, table: pa.Table, names: Sequence[str]) -> Float:
        """Features of rows read with them, side by side in the order of ``names``: (frames, sum of
        D); NaN = unknown."""
        frames = table["frames"].to_pylist()
        columns = [
            float_column(
                table[name],
                frames,
                dim=self.feature(name)["dim"],
                about=f"{self.uri}: features {name}",
            )
            for name in names
        ]
        return np.concatenate(columns, 1) if columns else np.empty((sum(frames), 0), np.float32)

    def decode_all(self, table: pa.Table, features: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Positions, confidence and, where some were read with them, features from elsewhere."""
        return [*self.decode(table), *([self.decode_features(table, features)] if features else [])]

    def read_video(self, name: str, *, features: Sequence[str] | None = None) -> Video:
        """One whole video.

        Args:
            name: Which.
            features: Features from elsewhere to read with it; None: all there are, but those that
                it has none of.

        Raises:
            BadInput: If the store has no such video or features, or a part is damaged.
        """
        place = self.place(name)
        wanted = list(self.features) if features is None else list(features)
        rows = np.flatnonzero(self.chunks.video == place)
        tables = []
        for part in np.unique(self.chunks.part[rows]):
            groups = np.unique(self.chunks.group[rows[self.chunks.part[rows] == part]])
            table = self.read_groups(int(part), [int(g) for g in groups], features=wanted)
            tables.append(table.filter(pc.equal(table["video"], name)))
        table = pa.concat_tables(tables)
        position, confidence = self.decode(table)
        values = {key: self.decode_features(table, [key]) for key in wanted}
        held = self.videos[place]
        return Video(
            name=name,
            position_TMKX=position,
            confidence_TMK=confidence.astype(np.float32) / np.float32(CONFIDENCE_STEPS),
            source=held["source"],
            source_sha256=held["source_sha256"],
            features={
                k: v for k, v in values.items() if features is not None or not np.isnan(v).all()
            },
        )

    def place(self, name: str) -> int:
        """Place of a video in ``videos``.

        Raises:
            BadInput: If there is none of that name.
        """
        try:
            return self._places[name]
        except KeyError:
            raise BadInput(
                f"{self.uri} has no video {name!r}; it has {len(self.videos)}: "
                f"{', '.join(list(self._places)[:5])}…"
            ) from None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {video["name"]: place for place, video in enumerate(self.videos)}

    def verify(self) -> list[str]:
        """Reads every byte and compares checksums; returns a sentence for each damaged file."""
        problems = []
        for held in [*self.parts, *self.labels, *self._feature_parts]:
            try:
                with self.fs.open_input_stream(f"{self.path}/{held['file']}") as stream:
                    found = hashlib.sha256(stream.read()).hexdigest()
            except OSError as error:
                problems.append(f"{held['file']} cannot be read: {error}")
                continue
            if found != held["sha256"]:
                problems.append(
                    f"{held['file']} is damaged: its checksum is {found[:12]}…, store.json says "
                    f"{held['sha256'][:12]}…"
                )
        return problems

    @property
    def _feature_parts(self) -> list[dict[str, Any]]:
        return [
            part for held in self.features.values() for part in held["parts"] if part is not None
        ]

    def _refuse_missing_parts(self) -> None:
        parts = [*self.parts, *self._feature_parts]
        files = self.fs.get_file_info([f"{self.path}/{held['file']}" for held in parts])
        problems = []
        for held, info in zip(parts, files, strict=True):
            if info.type != fs.FileType.File:
                problems.append(f"{held['file']} is missing")
            elif info.size != held["bytes"]:
                problems.append(
                    f"{held['file']} has {info.size:,} bytes; store.json says {held['bytes']:,}"
                )
        refuse(problems, about=f"the store {self.uri} is damaged")
