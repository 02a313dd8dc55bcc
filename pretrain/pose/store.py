"""The pose store: chunks of whole frames in Parquet, and a store.json that says what they are.

    STORE/store.json               schema, videos, parts with their checksums; written last, so its presence means "whole"
    STORE/poses/part-00000.parquet a row is a chunk of at most 1,024 frames of one video
    STORE/features/NAME/part-…     per-frame features from elsewhere, chunk for chunk beside the poses
    STORE/labels/TASK.parquet      written and read elsewhere (pose/annotations.py, finetune/labels.py), never here

A store is a local folder or an address that pyarrow's file systems understand (``s3://bucket/store``). Positions keep
the full float32 of their source; confidence is kept in steps of 1/255. Columns are raw bytes without compression: of the
layouts tried, Ray and pyarrow read this one fastest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pretrain.errors import BadInput, refuse
from pretrain.pose.schema import Float, Schema, Video

VERSION = 1
CONFIDENCE_STEPS = 255


def filesystem(uri: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system and the path on it that an address means; a bare path is local.

    Raises:
        BadInput: If the address cannot be understood.
    """
    text = str(uri)
    if "://" not in text:
        return fs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise BadInput(f"cannot open {text}: {error}. A store is a folder, file://…, s3://bucket/folder or gs://bucket/folder") from error
    return system, path.rstrip("/")


@dataclass(frozen=True)
class Chunks:
    """Where every chunk of a store lies: arrays of one length, in store order. A group is a Parquet row group."""

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
        self._refuse_missing_parts()

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(video["frames"] for video in self.videos)

    @property
    def origin(self) -> str:
        """Where the recordings came from, in words."""
        return str(self._meta.get("origin", ""))

    @cached_property
    def fingerprint(self) -> str:
        """Names exactly these poses: a checksum over the schema and every part's checksum (labels apart)."""
        named = {"schema": self._meta["schema"], "parts": [part["sha256"] for part in self.parts]}
        named["features"] = {name: [part["sha256"] for part in held["parts"]] for name, held in self.features.items()}
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
        part = [np.repeat(np.int32(p), rows) for p, held in enumerate(self.parts) for rows in held["groups"]]
        group = [np.repeat(np.int32(g), rows) for held in self.parts for g, rows in enumerate(held["groups"])]
        group_id = np.repeat(np.arange(len(group)), [len(g) for g in group])
        columns = {"part": part, "group": group, "video": video, "first_frame": first, "frames": frames}
        joined = {name: np.concatenate(pieces) if pieces else np.empty(0, np.int32) for name, pieces in columns.items()}
        found = Chunks(group_id=group_id, **joined)
        if len({len(column) for column in vars(found).values()}) != 1:
            raise BadInput(
                f"{self.uri}: store.json is damaged: its parts hold {len(found.part)} chunks, its videos need {len(found.frames)}"
            )
        return found

    def read_groups(self, part: int, groups: Iterable[int] | None = None) -> pa.Table:
        """Reads row groups of a part (all of them if not told which), checking every page.

        Raises:
            BadInput: Naming the part, if it cannot be read or its checksum is wrong.
        """
        held = self.parts[part]
        try:
            with self.fs.open_input_file(f"{self.path}/{held['file']}") as file:
                reader = pq.ParquetFile(file, page_checksum_verification=True)
                return reader.read(use_threads=False) if groups is None else reader.read_row_groups(list(groups), use_threads=False)
        except (OSError, pa.ArrowException, IndexError) as error:
            raise BadInput(f"{self.uri}: {held['file']} is damaged: {error}. Prepare the store again or restore that file") from error

    def decode(self, table: pa.Table) -> tuple[Float, npt.NDArray[np.uint8]]:
        """Rows to frames.

        Args:
            table: Rows as :meth:`read_groups` gives them.

        Returns:
            Positions (frames, M, K, X), NaN = missing, and confidence (frames, M, K) in steps of 1/255, rows joined in order.
            Both are read-only views where one buffer holds all rows.
        """
        animals, keypoints, coordinates = self.schema.shape
        position = binary_column(table["position"]).view("<f4").reshape(-1, animals, keypoints, coordinates)
        confidence = binary_column(table["confidence"]).reshape(-1, animals, keypoints)
        if not len(position) == len(confidence) == sum(table["frames"].to_pylist()):
            raise BadInput(f"{self.uri}: a chunk's bytes do not match its frames; prepare the store again")
        return position, confidence

    def read_video(self, name: str) -> Video:
        """One whole video.

        Raises:
            BadInput: If the store has no such video, or a part is damaged.
        """
        place = self.place(name)
        rows = np.flatnonzero(self.chunks.video == place)
        tables = []
        for part in np.unique(self.chunks.part[rows]):
            groups = np.unique(self.chunks.group[rows[self.chunks.part[rows] == part]])
            table = self.read_groups(int(part), [int(g) for g in groups])
            tables.append(table.filter(pa.compute.equal(table["video"], name)))
        position, confidence = self.decode(pa.concat_tables(tables))
        held = self.videos[place]
        return Video(name=name, position_TMKX=position, confidence_TMK=confidence.astype(np.float32) / np.float32(CONFIDENCE_STEPS),
                     source=held["source"], source_sha256=held["source_sha256"])  # fmt: skip

    def place(self, name: str) -> int:
        """Place of a video in ``videos``.

        Raises:
            BadInput: If there is none of that name.
        """
        try:
            return self._places[name]
        except KeyError:
            raise BadInput(f"{self.uri} has no video {name!r}; it has {len(self.videos)}: {', '.join(list(self._places)[:5])}…") from None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {video["name"]: place for place, video in enumerate(self.videos)}

    def verify(self) -> list[str]:
        """Reads every byte and compares checksums; returns a sentence for each damaged file."""
        problems = []
        held_files = [*self.parts, *self.labels, *(part for held in self.features.values() for part in held["parts"])]
        for held in held_files:
            try:
                with self.fs.open_input_stream(f"{self.path}/{held['file']}") as stream:
                    found = hashlib.sha256(stream.read()).hexdigest()
            except OSError as error:
                problems.append(f"{held['file']} cannot be read: {error}")
                continue
            if found != held["sha256"]:
                problems.append(f"{held['file']} is damaged: its checksum is {found[:12]}…, store.json says {held['sha256'][:12]}…")
        return problems

    def _refuse_missing_parts(self) -> None:
        files = self.fs.get_file_info([f"{self.path}/{held['file']}" for held in self.parts])
        problems = []
        for held, info in zip(self.parts, files, strict=True):
            if info.type != fs.FileType.File:
                problems.append(f"{held['file']} is missing")
            elif info.size != held["bytes"]:
                problems.append(f"{held['file']} has {info.size:,} bytes; store.json says {held['bytes']:,}")
        refuse(problems, about=f"the store {self.uri} is damaged")


def binary_column(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """The bytes of a binary column, rows joined; a view, not a copy, where the column is one buffer."""
    pieces = []
    for array in column.chunks:
        if not len(array):
            continue
        offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
        pieces.append(np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else np.empty(0, np.uint8)


def read_meta(system: fs.FileSystem, path: str, uri: str) -> dict[str, Any]:
    """What store.json says.

    Raises:
        BadInput: If there is no whole store of this version.
    """
    try:
        info = system.get_file_info(f"{path}/store.json")
        if info.type != fs.FileType.File:
            there = system.get_file_info(path).type
            if there == fs.FileType.Directory and system.get_file_info(f"{path}/poses").type == fs.FileType.Directory:
                raise BadInput(f"the store {uri} is half-written (it has poses but no store.json): remove it and prepare it again")
            if there == fs.FileType.NotFound:
                raise BadInput(f"there is no store at {uri}. Make one: python pretrain/prepare.py arena --out {uri}")
            raise BadInput(f"{uri} is not a pose store (no store.json in it)")
        with system.open_input_stream(f"{path}/store.json") as stream:
            meta = json.loads(stream.read())
    except OSError as error:
        raise BadInput(f"cannot read the store {uri}: {error}") from error
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"the store {uri} is damaged: store.json is not JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        found = meta.get("version") if isinstance(meta, dict) else None
        raise BadInput(f"the store {uri} has version {found}; this release reads version {VERSION}: prepare it again")
    missing = [key for key in ("schema", "chunk_frames", "videos", "parts") if key not in meta]
    refuse([f"store.json has no {key!r}" for key in missing], about=f"the store {uri} is damaged")
    return meta


def read_videos(store: Store) -> Iterator[Video]:
    """Every video of a store, one after the other."""
    for held in store.videos:
        yield store.read_video(held["name"])
