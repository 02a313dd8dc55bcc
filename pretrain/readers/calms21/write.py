"""Writes recordings as the official CalMS21 files, so that everything can be tried end to end
without the archives."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import orjson

from pretrain.data.schema import CALMS21, Float, Video
from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import Labels
from pretrain.readers.calms21.expected_counts import BEHAVIORS, CLASSIC, STYLES, label_set
from pretrain.readers.calms21.features import FEATURE_DIMENSIONS, FEATURES
from pretrain.readers.calms21.sources import ORIGIN_FILE

UNLABELED_PARTS = 4
_FOLDERS = (
    "unlabeled_videos",
    "task1_classic_classification",
    "task2_annotation_styles",
    "task3_new_behaviors",
)
TASKS = (CLASSIC, STYLES, BEHAVIORS)
_BLOCK_FRAMES = 8192


def write_official(
    folder: str | Path,
    recordings: Iterable[tuple[Video, Sequence[Labels]]],
    *,
    origin: str = "",
    zipped: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Writes recordings of two mice of seven keypoints, taken one at a time, as the folders and
    files that the official archives unpack to (``zipped``: as archives), whole or not at all.

    A recording goes into the file of each of its label sets; one without labels into the shortest
    so far of four parts. A missing point is written as the release writes it: at its last position
    (at the image's centre before it was first seen), with a score of 0. Numbers are written so that
    float32 comes back exactly. ``origin`` goes into a note beside the files, which is read with
    them; ``on_progress`` is told the frames written since the last call.

    Returns:
        The files.

    Raises:
        BadInput: If something is there already, or a recording cannot be expressed in this format.
    """
    top = Path(folder).expanduser()
    taken = [name for name in _FOLDERS if (top / name).exists() or (top / f"{name}.zip").exists()]
    refuse(
        [f"{top / name} is there already" for name in taken],
        about="choose another folder, or remove these first",
    )
    scratch = top / ".being-written"
    is_new = not top.exists()
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _write_files(scratch, recordings, on_progress)
        if zipped:
            _pack(scratch)
        moved = sorted(scratch.iterdir())
        for path in moved:
            path.rename(top / path.name)
        scratch.rmdir()
        if origin:
            (top / ORIGIN_FILE).write_text(origin + "\n", encoding="utf-8")
    except BaseException as error:
        shutil.rmtree(top if is_new else scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise BadInput(f"cannot write to {top}: {error}") from error
        raise
    written = [top / path.name for path in moved]
    return written if zipped else [file for path in written for file in sorted(path.iterdir())]


@dataclass
class _File:
    """One JSON file; its first group is written into it, the others beside it until the end."""

    path: Path
    frames: int = 0
    groups: dict[str, BinaryIO] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)

    def add(self, group: str, name: str, items: Iterable[bytes]) -> None:
        if group not in self.groups:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            path = self.path if not self.groups else self.path.with_suffix(f".{len(self.groups)}")
            self.groups[group] = path.open("w+b")
            self.groups[group].write(
                (b"{" if path == self.path else b"") + orjson.dumps(group) + b": {"
            )
            self.empty.add(group)
        stream = self.groups[group]
        stream.write((b"" if group in self.empty else b", ") + orjson.dumps(name) + b": {")
        self.empty.discard(group)
        stream.writelines(items)
        stream.write(b"}")

    def finish(self) -> None:
        first, *others = self.groups.values()
        first.write(b"}")
        for stream in others:
            stream.write(b"}")
            stream.seek(0)
            first.write(b", ")
            shutil.copyfileobj(stream, first, 2**20)
            Path(stream.name).unlink()
        first.write(b"}")
        self.close()

    def close(self) -> None:
        for stream in self.groups.values():
            stream.close()


class _Files:
    """The files being written, by path; use it in a ``with`` block."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._files: dict[Path, _File] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def file(self, task: int, part: str, *, features: bool = False) -> _File:
        """The file of a task (0: none); part is train, test or unlabeled_videos_part1 to part4."""
        kind = "taskprog_features" if features else "calms21"
        path = self._top / _FOLDERS[task] / f"{kind}_{part}.json"
        return self._files.setdefault(path, _File(path))

    def shortest_part(self) -> str:
        """Name of the unlabelled part with the fewest frames."""
        names = [f"unlabeled_videos_part{number}" for number in range(1, UNLABELED_PARTS + 1)]
        return min(names, key=lambda name: self.file(0, name).frames)

    def finish(self) -> None:
        written = [file for file in self._files.values() if file.groups]
        if not written:
            raise BadInput("nothing to write: there are no recordings")
        for file in written:
            file.finish()


def _write_files(
    top: Path,
    recordings: Iterable[tuple[Video, Sequence[Labels]]],
    on_progress: Callable[[int], None] | None,
) -> None:
    with _Files(top) as files:
        for video, labels in recordings:
            refuse(
                _errors(video, labels),
                about=f"recording {video.name!r} cannot be written as CalMS21",
            )
            if not labels:
                _write_recording(files, 0, files.shortest_part(), "unlabeled_videos", video, None)
            for each in labels:
                task = TASKS.index(each.task) + 1
                _, name, split = label_set(each)
                group = name if task == 3 else f"annotator-id_{name}"
                _write_recording(files, task, f"task{task}_{split}", group, video, each)
            if on_progress:
                on_progress(len(video.position_TMKX))
        files.finish()


def _errors(video: Video, labels: Sequence[Labels]) -> list[str]:
    errors = []
    if video.position_TMKX.shape[1:] != CALMS21.shape:
        errors.append(
            f"it has (animals, keypoints, coordinates) {video.position_TMKX.shape[1:]}, CalMS21 "
            f"{CALMS21.shape}"
        )
    for each in labels:
        where = f"its labels under {each.task!r}"
        if each.task not in TASKS:
            errors.append(f"{where}: allowed: {', '.join(TASKS)}")
        elif each.task == BEHAVIORS and not (len(each.classes) == 2 and "other" in each.classes):
            errors.append(
                f"{where} have the classes {each.classes}; allowed: other and one behaviour"
            )
        elif each.task != BEHAVIORS and not each.annotator.isdigit():
            errors.append(f"{where} are by annotator {each.annotator!r}; allowed: a number")
        if (
            each.overlapping
            or (each.frames < 0).any()
            or len(each.frames) != len(video.position_TMKX)
        ):
            errors.append(
                f"{where} must give every frame one class; {np.shape(each.frames)} for "
                f"{len(video.position_TMKX):,} frames"
            )
    features = video.features.get(FEATURES)
    if features is not None and (
        features.shape[1] != FEATURE_DIMENSIONS or not np.isfinite(features).all()
    ):
        errors.append(
            f"its features {FEATURES} must give every frame {FEATURE_DIMENSIONS} numbers, none of "
            "them unknown"
        )
    return errors


def _write_recording(
    files: _Files, task: int, part: str, group: str, video: Video, labels: Labels | None
) -> None:
    file = files.file(task, part)
    file.frames += len(video.position_TMKX)
    position, score = _filled(video)
    items = [b'"keypoints": ', *_numbers(position.transpose(0, 1, 3, 2))]
    items += [b', "scores": ', *_numbers(score)]
    if labels:
        annotator = int(labels.annotator) if labels.annotator.isdigit() else 0
        vocabulary = {name: index for index, name in enumerate(labels.classes)}
        metadata = {"annotator-id": annotator, "vocab": vocabulary}
        items += [b', "annotations": ', *_numbers(labels.frames)]
        items += [b', "metadata": ', json.dumps(metadata).encode()]
    file.add(group, video.name, items)
    if FEATURES in video.features:
        file = files.file(task, part, features=True)
        file.add(group, video.name, [b'"features": ', *_numbers(video.features[FEATURES])])


def _filled(video: Video) -> tuple[Float, Float]:
    """Positions without gaps, and scores that are 0 where there was one."""
    missing = np.isnan(video.position_TMKX).any(-1) | ~(video.confidence_TMK > 0)
    score = np.where(missing, np.float32(0), video.confidence_TMK)
    if not missing.any():
        return video.position_TMKX, score
    seen = np.maximum.accumulate(
        np.where(missing, -1, np.arange(len(missing))[:, None, None]), axis=0
    )
    position = np.take_along_axis(video.position_TMKX, np.maximum(seen, 0)[..., None], axis=0)
    position[seen < 0] = np.array(CALMS21.image_px, np.float32) / 2
    return position, score


def _numbers(array: npt.NDArray[Any]) -> list[bytes]:
    """An array as JSON text, in pieces; floats with the digits of float64, as the release has
    them."""
    pieces = []
    for first in range(0, len(array), _BLOCK_FRAMES):
        block = np.ascontiguousarray(
            array[first : first + _BLOCK_FRAMES],
            np.float64 if array.dtype.kind == "f" else np.int64,
        )
        text = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)
        pieces.append((b"[" if not first else b",") + text[1:-1])
    return [*pieces, b"]"]


def _pack(top: Path) -> None:
    for folder in sorted(top.iterdir()):
        with zipfile.ZipFile(
            top / f"{folder.name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
        shutil.rmtree(folder)
