"""npz and npy files, from which everything comes back with ``ethoray prepare tracks``: positions to
the last bit of float32, confidence in the store's steps, skeleton, every label frame with its
annotator and split, features."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.data.recording_file import recording_file
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels, labels_by_video
from pretrain.readers.export_formats import AbstractExport


class Npz(AbstractExport):
    """Folders ``tracks/``, ``labels/`` and ``features/NAME/``."""

    description = "numpy arrays, a file a recording"

    def write(
        self, store: Store, folder: Path, *, zipped: bool, on_progress: Callable[[int], None]
    ) -> list[str]:
        """Any store can be written so."""
        assert not zipped
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder} already holds something: choose another --out")
        is_new = not folder.exists()
        labels = labels_by_video(store)
        try:
            for record in store.videos:
                video = store.read_video(record["name"])
                _write_video(store, video, labels.get(video.name, []), folder)
                on_progress(len(video.position_TMKX))
        except BaseException as error:
            for part in ("tracks", "labels", "features"):
                shutil.rmtree(folder / part, ignore_errors=True)
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise BadInput(f"cannot write to {folder}: {error}") from error
            raise
        words = ["tracks", "--poses", str(folder / "tracks"), "--fps", f"{store.schema.fps:g}"]
        if store.labels:
            words += ["--labels", str(folder / "labels")]
        for name in store.features:
            words += ["--features", f"{name}={folder / 'features' / name}"]
        return words


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
    for number, each in enumerate(labels):
        _save(
            _file(folder / "labels", f"{video.name}-{number:02d}", ".npz"),
            video=video.name,
            task=each.task,
            classes=each.classes,
            split=each.split,
            labels=each.frames,
            **({"annotator": each.annotator} if each.annotator else {}),
        )
    for name, values in video.features.items():
        with _file(folder / "features" / name, video.name, ".npy").open("xb") as file:
            np.save(file, values)


def _save(path: Path, **arrays: Any) -> None:
    # "x": two names may be one on a file system that does not tell a from A.
    with path.open("xb") as file:
        np.savez(file, **arrays)


def _file(folder: Path, name: str, ending: str) -> Path:
    path = recording_file(folder, name, ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
