"""Features that are added to a store that is there, chunk for chunk beside its poses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pyarrow import fs

from pretrain.data.external_features import FeatureParts, Row
from pretrain.data.schema import Float, Video
from pretrain.data.store import Store
from pretrain.data.store_address import read_meta
from pretrain.data.store_writer import replace_file, write_file
from pretrain.errors import BadInput


def append_features(store: Store, name: str, values: Iterator[tuple[str, Float]]) -> None:
    """Adds features of some videos; the others have none. Until the last is written the store stays
    as it was.

    Args:
        store: Poses, labels and other features of it are not touched.
        name: Of the features; not one that the store has.
        values: Videos in the order of the store, and (T, D) of each; taken one after the other as
            parts are written.

    Raises:
        BadInput: If the name is taken or cannot be one, the values do not fit their video, or the
            store cannot be written.
    """
    refuse_taken(store, name)
    parts, written = FeatureParts({}, 0), list[str]()

    def write(relative: str, data: bytes) -> dict[str, Any]:
        return write_file(store.fs, store.path, relative, data, uri=store.uri, written=written)

    try:
        _write_parts(store, name, values, parts, write)
        record = parts.record()
        if name not in record:
            raise BadInput(f"no video of the store {store.uri} was given features {name!r}")
        meta = read_meta(store.fs, store.path, store.uri)
        meta["features"] = {**meta.get("features", {}), **record}
        replace_file(store.fs, f"{store.path}/store.json", json.dumps(meta, indent=1).encode())
    except BaseException:
        for path in written:
            if store.fs.get_file_info(path).type == fs.FileType.File:
                store.fs.delete_file(path)
        raise


def refuse_taken(store: Store, name: str) -> None:
    """Refuses a name of features that the store has; worth asking before long work.

    Raises:
        BadInput: In that case.
    """
    if name in store.features:
        raise BadInput(f"the store {store.uri} already has features {name!r}: choose another name")


def _write_parts(
    store: Store, name: str, values: Iterator[tuple[str, Float]], parts: FeatureParts, write: Any
) -> None:
    chunks = store.chunks
    ends_group = np.diff(chunks.group_id, append=-1) != 0
    ends_part = np.diff(chunks.part, append=-1) != 0
    waiting = next(values, None)
    video = -1
    shown: Video | None = None
    for place in range(len(chunks)):
        if chunks.video[place] != video:
            video = int(chunks.video[place])
            held: Mapping[str, Float] = {}
            called = store.videos[video]["name"]
            if waiting is not None and waiting[0] == called:
                held, waiting = {name: waiting[1]}, next(values, None)
            shown = replace(
                _blank(store, called, int(store.videos[video]["frames"])), features=held
            )
            parts.refuse_misfits(shown)
        assert shown is not None, "a chunk of no video"
        parts.add_chunk(
            Row(shown.name, int(chunks.first_frame[place]), int(chunks.frames[place])), shown
        )
        if ends_group[place]:
            parts.end_group()
        if ends_part[place]:
            parts.end_part(write)
    assert waiting is None, f"{waiting[0]} is not a video of the store, or not in its order"


def _blank(store: Store, name: str, frames: int) -> Video:
    """A video whose poses do not matter here, without the memory that they would take."""
    animals, keypoints, coordinates = store.schema.shape
    position = np.broadcast_to(np.float32(0), (frames, animals, keypoints, coordinates))
    return Video(
        name=name,
        position_TMKX=position,
        confidence_TMK=np.broadcast_to(np.float32(1), (frames, animals, keypoints)),
    )
