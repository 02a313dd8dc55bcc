"""A store back into files that others read, so that nobody's data is locked in.

As npz, everything comes back with ``prepare.py tracks``: positions to the last bit of float32,
confidence in the store's steps, skeleton, every label frame with its annotator and split, features.
As the official CalMS21 JSON, what that format can say.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pretrain.data.schema import CALMS21, Video
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import Labels, read_label_file
from pretrain.readers.calms21.write import TASKS, write_official

log = logging.getLogger(__name__)

Progress = Callable[[int], None]
OFFICIAL_FEATURES = "task_programming"


def read_labels(store: Store) -> dict[str, list[Labels]]:
    """All labels of a store, by video.

    Raises:
        BadInput: If a label file is damaged.
    """
    by_video: dict[str, list[Labels]] = {}
    for file in store.labels:
        for labels in read_label_file(store, file["file"]):
            by_video.setdefault(labels.video, []).append(labels)
    return by_video


def export_npz(store: Store, folder: Path, *, progress: Progress) -> None:
    """Writes ``tracks/``, ``labels/`` and ``features/NAME/`` of npz and npy files, whole or not at
    all.

    Args:
        store: What to export.
        folder: Must be new or empty.
        progress: Called with the frames written since the last call.

    Raises:
        BadInput: If something is there already, or two videos would be one file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} already holds something: choose another --out")
    made = not folder.exists()
    labels = read_labels(store)
    try:
        for held in store.videos:
            video = store.read_video(held["name"])
            _write_video(store, video, labels.get(video.name, []), folder)
            progress(len(video.position_TMKX))
    except BaseException as error:
        for part in ("tracks", "labels", "features"):
            shutil.rmtree(folder / part, ignore_errors=True)
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise BadInput(f"cannot write to {folder}: {error}") from error
        raise


def _write_video(store: Store, video: Video, labels: Sequence[Labels], folder: Path) -> None:
    schema = store.schema
    _save(
        _file(folder / "tracks", video.name, ".npz"),
        name=video.name,
        position=video.position_TMKX,
        confidence=video.confidence_TMK,
        axes=list("TMKX"),
        animals=schema.animals,
        keypoints=schema.keypoints,
        fps=schema.fps,
        image_px=schema.image_px,
        edges=np.array(schema.edges, str).reshape(-1, 2),
        mirror_pairs=np.array(schema.mirror_pairs, str).reshape(-1, 2),
        **({"axis": schema.axis} if all(schema.axis) else {}),
    )
    for number, held in enumerate(labels):
        _save(
            _file(folder / "labels", f"{video.name}-{number:02d}", ".npz"),
            video=video.name,
            task=held.task,
            classes=held.classes,
            split=held.split,
            labels=held.frames,
            **({"annotator": held.annotator} if held.annotator else {}),
        )
    for name, values in video.features.items():
        with _file(folder / "features" / name, video.name, ".npy").open("xb") as file:
            np.save(file, values)


def _save(path: Path, **arrays: Any) -> None:
    with path.open(
        "xb"
    ) as file:  # two names may be one on a file system that does not tell a from A
        np.savez(file, **arrays)


def _file(folder: Path, name: str, ending: str) -> Path:
    """A file for a name; folders for its slashes, and nothing of it leads elsewhere."""
    parts = [quote(part, safe=" ()+,=@").replace(".", "%2E") for part in name.split("/")]
    path = folder.joinpath(*(part or "%" for part in parts)).with_name(
        f"{parts[-1] or '%'}{ending}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def export_official(store: Store, folder: Path, *, zipped: bool, progress: Progress) -> None:
    """Writes the JSON files of CalMS21's release, whole or not at all.

    A recording with several label sets is in the file of each, and comes back once for each.

    Raises:
        BadInput: If the skeleton is not CalMS21's, or labels cannot be expressed in that format.
    """
    about = f"the store {store.uri} cannot be written as CalMS21 (--as npz writes any store)"
    refuse([s for s in store.schema.differences(CALMS21) if not _reordered(store)], about=about)
    labels = read_labels(store)
    odd = dict.fromkeys(
        h.task for known in labels.values() for h in known if h.overlapping or (h.frames < 0).any()
    )
    problems = [
        f"labels under {task!r} overlap or leave frames unlabelled; that format gives each frame "
        "one class"
        for task in odd
    ]
    strange = [held["task"] for held in store.labels if held["task"] not in TASKS]
    problems += [
        f"it has labels under {task!r}; that format has {', '.join(TASKS)}"
        for task in dict.fromkeys(strange)
    ]
    refuse(problems, about=about)
    if (store.schema.fps, store.schema.image_px) != (CALMS21.fps, CALMS21.image_px):
        size = "x".join(f"{extent:g}" for extent in store.schema.image_px)
        log.warning(
            "CalMS21's files do not say rate and image: read back, 30 frames/s and 1024x570 px are "
            "taken for %g and %s",
            store.schema.fps,
            size,
        )
    left_out = sorted(set(store.features) - {OFFICIAL_FEATURES})
    if left_out:
        log.warning(
            "features %s are left out: that format has none but %s",
            ", ".join(left_out),
            OFFICIAL_FEATURES,
        )
    write_official(folder, _recordings(store, labels), zipped=zipped, progress=progress)


def _reordered(store: Store) -> bool:
    mine = store.schema
    return (set(mine.animals), set(mine.keypoints), mine.coordinates) == (
        set(CALMS21.animals),
        set(CALMS21.keypoints),
        CALMS21.coordinates,
    )


def _recordings(
    store: Store, labels: dict[str, list[Labels]]
) -> Iterator[tuple[Video, list[Labels]]]:
    m = [store.schema.animals.index(name) for name in CALMS21.animals]
    k = [store.schema.keypoints.index(name) for name in CALMS21.keypoints]
    for held in store.videos:
        video = store.read_video(held["name"])
        features = {
            name: values for name, values in video.features.items() if name == OFFICIAL_FEATURES
        }
        ordered = replace(
            video,
            position_TMKX=video.position_TMKX[:, m][:, :, k],
            confidence_TMK=video.confidence_TMK[:, m][:, :, k],
            features=features,
        )
        yield ordered, labels.get(video.name, [])
