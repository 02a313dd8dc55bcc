"""Writes pose stores: whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs

from pretrain.data.external_features import CHUNK_COLUMNS, FeatureParts, Row, open_part, write_rows
from pretrain.data.schema import Float, Schema, Video
from pretrain.data.store import CONFIDENCE_STEPS
from pretrain.data.store_address import (
    VERSION,
    delete_files,
    filesystem,
    read_meta,
    replace_file,
    write_file,
)
from pretrain.errors import BadInput, refuse
from pretrain.redact import redact

CHUNK_FRAMES = 1024
PART_BYTES = 64 * 2**20
MAX_GROUP_CHUNKS = 4

_COLUMNS = pa.schema([*CHUNK_COLUMNS, ("position", pa.binary()), ("confidence", pa.binary())])


class StoreWriter:
    """Writes a store whole or not at all; use it in a ``with`` block.

    A new store appears when the block ends well. With ``append`` the videos are added to a store
    that is there: its parts are not touched, and until the block ends well it stays as it was.

    Args:
        uri: Folder or address.
        schema: What a frame holds.
        origin: Where the recordings came from, in words.
        append: Add to an existing store instead of making one.

    Raises:
        BadInput: If something is there already (or, with ``append``, does not fit).
    """

    def __init__(
        self, uri: str | Path, schema: Schema, *, origin: str, append: bool = False
    ) -> None:
        self.uri, self.schema, self.origin = redact(str(uri)), schema, origin
        self.fs, self.path = filesystem(uri)
        self._written: list[str] = []
        self._made_folder = False
        try:
            self._existing = self._open_existing() if append else self._refuse_existing()
        except OSError as error:
            raise BadInput(f"cannot write to {self.uri}: {error}") from error
        self.videos: list[dict[str, Any]] = list(self._existing.get("videos", []))
        self.parts: list[dict[str, Any]] = list(self._existing.get("parts", []))
        self.labels: list[dict[str, Any]] = list(self._existing.get("labels", []))
        self._chunk_frames = self._existing.get("chunk_frames", CHUNK_FRAMES)
        self._names = {video["name"] for video in self.videos}
        self._chunks_so_far = sum(sum(part["groups"]) for part in self.parts)
        self._rows: list[tuple[str, int, int, bytes, bytes]] = []
        self._features = FeatureParts(self._existing.get("features", {}), len(self.parts))
        self._begin_part()

    def _refuse_existing(self) -> dict[str, Any]:
        info = self.fs.get_file_info(self.path)
        if info.type == fs.FileType.File:
            raise BadInput(f"{self.uri} is a file; a store is a folder")
        inside = self.fs.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        if inside:
            is_store = any(info.base_name == "store.json" for info in inside)
            what = "a store" if is_store else "other files"
            raise BadInput(
                f"{self.uri} already holds {what}: choose another --out, or remove it first"
            )
        self._made_folder = info.type == fs.FileType.NotFound
        return {}

    def _open_existing(self) -> dict[str, Any]:
        meta = read_meta(self.fs, self.path, self.uri)
        existing = Schema.from_dict(meta["schema"])
        refuse(
            self.schema.differences(existing), about=f"these videos do not fit the store {self.uri}"
        )
        if existing.fps != self.schema.fps:
            raise BadInput(
                f"these videos have {self.schema.fps} frames/s, the store {self.uri} has "
                f"{existing.fps}: pass --fps"
            )
        self.schema = existing
        return meta

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self._finish()
        except BaseException:
            self.discard()
            raise

    def add(self, video: Video) -> None:
        """Adds one video.

        Raises:
            BadInput: If the name is taken or the tracks do not fit the schema.
        """
        if video.name in self._names:
            raise BadInput(
                f"two videos are named {video.name!r} ({video.source}): names must be unique in a "
                "store"
            )
        if video.position_TMKX.shape[1:] != self.schema.shape:
            raise BadInput(
                f"video {video.name!r} has (animals, keypoints, coordinates) "
                f"{video.position_TMKX.shape[1:]}, the store {self.schema.shape}"
            )
        self._features.refuse_misfits(video)
        self._names.add(video.name)
        missing = np.isnan(video.position_TMKX).any(-1) | ~(video.confidence_TMK > 0)
        confidence = confidence_steps(video.confidence_TMK, missing)
        position = np.array(video.position_TMKX, dtype="<f4")
        # here and once: a missing point is never a coordinate, whoever reads
        position[missing] = np.nan
        for first in range(0, len(position), self._chunk_frames):
            rows = slice(first, first + self._chunk_frames)
            frames = len(position[rows])
            self._features.add_chunk(Row(video.name, first, frames), video)
            self._rows.append(
                (video.name, first, frames, position[rows].tobytes(), confidence[rows].tobytes())
            )
            # Groups grow with the store: a small one divides evenly among workers, a large one is
            # read in larger pieces.
            if len(self._rows) >= min(MAX_GROUP_CHUNKS, 1 + self._chunks_so_far // 256):
                self._end_group()
        self.videos.append(
            {
                "name": video.name,
                "frames": len(position),
                "missing_share": round(float(missing.mean()), 6),
                "source": video.source,
                "source_sha256": video.source_sha256,
            }
        )

    def write_file(self, relative: str, data: bytes) -> dict[str, Any]:
        """Writes one more file into the store (labels, features); returns its record for
        store.json."""
        return write_file(self.fs, self.path, relative, data, uri=self.uri, written=self._written)

    def discard(self) -> None:
        """Removes what this writer wrote; what was there before stays."""
        delete_files(self.fs, self._written)
        if not self._existing and self._written:
            self.fs.delete_dir_contents(self.path, missing_dir_ok=True)
        if self._made_folder and self.fs.get_file_info(self.path).type == fs.FileType.Directory:
            self.fs.delete_dir(self.path)

    def _begin_part(self) -> None:
        self._sink, self._writer = open_part(_COLUMNS)
        self._groups: list[int] = []

    def _end_group(self) -> None:
        if not self._rows:
            return
        write_rows(self._writer, zip(*self._rows, strict=True), _COLUMNS)
        self._groups.append(len(self._rows))
        self._chunks_so_far += len(self._rows)
        self._rows = []
        self._features.end_group()
        if self._sink.tell() + self._features.size_bytes >= PART_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        self._writer.close()
        data = self._sink.getvalue()
        if self._groups:
            record = self.write_file(f"poses/part-{len(self.parts):05d}.parquet", data)
            self.parts.append(record | {"groups": self._groups})
            self._features.end_part(self.write_file)
        self._begin_part()

    def _finish(self) -> None:
        self._end_group()
        self._end_part()
        if not self.videos:
            raise BadInput(f"nothing to write to {self.uri}: no videos")
        before = [self._existing.get("origin", "")] if self._existing else []
        meta: Mapping[str, Any] = self._existing | {
            "version": VERSION,
            "origin": "; ".join(dict.fromkeys([*before, self.origin])),
            "schema": self.schema.to_dict(),
            "frames": sum(video["frames"] for video in self.videos),
            "chunk_frames": self._chunk_frames,
            "confidence_step": 1 / CONFIDENCE_STEPS,
            "videos": self.videos,
            "parts": self.parts,
            "labels": self.labels,
            "features": self._features.record(),
        }
        replace_file(self.fs, f"{self.path}/store.json", json.dumps(meta, indent=1).encode())


def confidence_steps(
    confidence_TMK: Float, missing_TMK: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Confidence in steps of 1/255; 0 is missing, and a point that was seen keeps at least one
    step, however low its confidence."""
    steps = np.clip(np.rint(np.clip(confidence_TMK, 0, 1) * CONFIDENCE_STEPS), 1, CONFIDENCE_STEPS)
    return np.where(missing_TMK, 0, steps).astype(np.uint8)
