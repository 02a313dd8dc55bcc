"""CalMS21 in, whole: recordings of a resident and an intruder mouse, with the labels of Tasks 1 to
3.

    sources = find_sources("calms21")               # archives, unpacked JSON or npy
    for video, labels in read(sources): ...         # one recording at a time, never a whole file

A position array of the release is (T, mouse, coordinate, part); here it becomes (T, M, K, X). Names
of videos are the release's sequence ids. The release writes a finite position for every point; one
with a score of 0 is a missing point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.schema import Float, Video
from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import Labels
from pretrain.readers.calms21.expected_counts import (
    BEHAVIORS,
    CLASSES,
    CLASSIC,
    NEW_BEHAVIORS,
    STYLES,
)
from pretrain.readers.calms21.features import FEATURE_DIMENSIONS, FEATURES, FeaturesInStep
from pretrain.readers.calms21.json_stream import Rows
from pretrain.readers.calms21.npy import read_npy
from pretrain.readers.calms21.sequences import Sequence, read_sequences
from pretrain.readers.calms21.sources import Source, opened, sha256

_POSE_DIMENSIONS = 2 * 2 * 7
_ROWS = {
    "keypoints": Rows((2, 2, 7), np.float32, "2 mice x 2 coordinates x 7 parts"),
    "scores": Rows((2, 7), np.float32, "2 mice x 7 parts"),
    "annotations": Rows((), np.float64, "one number"),
}
_LARGEST = {
    "keypoints": (100_000.0, "px"),  # far outside of any image: the file does not hold pixels
    "scores": (2.0, "(a score lies between 0 and 1)"),  # heat maps overshoot 1 a little
}

OnProgress = Callable[[int], None]


def read(
    sources: Iterable[Source],
    *,
    on_progress: OnProgress | None = None,
    notes: list[str] | None = None,
) -> Iterator[tuple[Video, list[Labels]]]:
    """Yields every recording with its labels (none for the unlabelled ones).

    Tasks 1 and 2 have the classes attack, investigation, mount, other and the annotator's number;
    Task 3 has (other, behaviour) for each of seven behaviours and no annotator. Two recordings of
    one name in different groups or files stay apart: the later one is named "name (group, file)".
    ``on_progress`` is told the bytes read since the last call, together :func:`total_bytes`;
    ``notes`` receives a sentence for everything a person should know although it is no error.

    Raises:
        BadInput: Naming file, sequence and frame or byte.
    """
    notes = [] if notes is None else notes
    names: set[str] = set()
    checksums: dict[Any, str] = {}
    for source in sources:
        if source.path not in checksums:
            checksums[source.path] = _checksum(source)
        with FeaturesInStep(source.features, on_progress) as features:
            for sequence in _sequences(source, on_progress):
                name = sequence.name
                if name in names:
                    name = f"{name} ({sequence.group}, {source.part})"
                    if name in names:
                        raise BadInput(f"{source.where}: two recordings are named {name!r}")
                    notes.append(
                        f"{source.where}: a recording named {sequence.name!r} came before; this "
                        f"one is named {name!r}"
                    )
                names.add(name)
                yield _recording(source, sequence, name, features, checksums[source.path])
            notes += features.notes(source)


def _checksum(source: Source) -> str:
    try:
        return sha256(source.path)
    except OSError as error:
        raise BadInput(f"{source.path} cannot be read: {error}") from error


def _sequences(source: Source, on_progress: OnProgress | None) -> Iterator[Sequence]:
    if source.kind == "npy":
        yield from read_npy(source.path, on_progress=on_progress)
        return
    with opened(source) as stream:
        yield from read_sequences(stream, _ROWS, where=source.where, on_progress=on_progress)


def _recording(
    source: Source, sequence: Sequence, name: str, in_step: FeaturesInStep, checksum: str
) -> tuple[Video, list[Labels]]:
    where = f"{source.where}: sequence {sequence.name!r} in group {sequence.group!r}"
    arrays, features = dict(sequence.arrays), dict[str, Float]()
    if source.kind == "npy" and "keypoints" not in arrays:
        features = _split_features(arrays)
    refuse(_array_errors(arrays, labelled=source.task > 0), about=where)
    task_programming = in_step.take(sequence, len(arrays["keypoints"]))
    if task_programming is not None:
        features[FEATURES] = task_programming
    position = np.ascontiguousarray(arrays["keypoints"].transpose(0, 1, 3, 2), np.float32)
    confidence = np.clip(np.asarray(arrays["scores"], np.float32), 0, 1)
    position[confidence == 0] = np.nan
    labels = [_labels(source, sequence, name, where)] if source.task else []
    return Video(
        name=name,
        position_TMKX=position,
        confidence_TMK=confidence,
        source=source.where,
        source_sha256=checksum,
        features=features,
    ), labels


def _split_features(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Float]:
    """Splits what the release's converter to npy joins: 28 numbers of pose, 32 features."""
    joined = arrays.pop("features", None)
    if (
        joined is None
        or joined.ndim != 2
        or joined.shape[1] != _POSE_DIMENSIONS + FEATURE_DIMENSIONS
    ):
        return {}
    arrays["keypoints"] = joined[:, :_POSE_DIMENSIONS].reshape(-1, 2, 2, 7)
    return {FEATURES: np.ascontiguousarray(joined[:, _POSE_DIMENSIONS:], np.float32)}


def _array_errors(arrays: Mapping[str, npt.NDArray[Any]], *, labelled: bool) -> Iterator[str]:
    required = [key for key in _ROWS if labelled or key != "annotations"]
    yield from (f"it has no {key!r}" for key in required if key not in arrays)
    present = [key for key in required if key in arrays]
    for key in present:
        array = arrays[key]
        if array.dtype.kind not in "fiu" or array.shape[1:] != _ROWS[key].shape or not array.ndim:
            yield f"{key} has shape {array.shape}; a frame holds {_ROWS[key].axes}"
        elif key != "annotations":
            largest, unit = _LARGEST[key]
            good = (array >= -largest) & (array <= largest)  # false for NaN
            if not good.all():
                bad = np.argwhere(~good)[0]
                yield (
                    f"{key}, frame {bad[0]:,}: {array[tuple(bad)]} at "
                    f"{tuple(map(int, bad[1:]))}; allowed: up to {largest:,.0f} {unit}"
                )
    lengths = {key: len(arrays[key]) for key in present if arrays[key].ndim}
    if len(set(lengths.values())) > 1:
        yield "its arrays differ in frames: " + ", ".join(
            f"{key} {n:,}" for key, n in lengths.items()
        )
    elif 0 in lengths.values():
        yield "it has no frames"


def _labels(source: Source, sequence: Sequence, name: str, where: str) -> Labels:
    vocabulary = _vocabulary(sequence, where)
    classes: tuple[str, ...] = CLASSES
    annotator, task = "", (CLASSIC, STYLES, BEHAVIORS)[source.task - 1]
    if source.task == 3:
        behavior = sequence.group
        classes = ("other", behavior)
        if behavior not in NEW_BEHAVIORS:
            known = ", ".join(NEW_BEHAVIORS)
            raise BadInput(f"{where}: Task 3 has no behaviour {behavior!r}; it has {known}")
    else:
        annotator = sequence.group.removeprefix("annotator-id_")
        if not (
            sequence.group.startswith("annotator-id_")
            and annotator.isascii()
            and annotator.isdigit()
        ):
            raise BadInput(
                f"{where}: a group of Task {source.task} is named annotator-id_ and a number"
            )
    if set(vocabulary) != set(classes):
        raise BadInput(
            f"{where}: its vocabulary is {', '.join(sorted(vocabulary)[:8])}; this set has "
            f"{', '.join(sorted(classes))}"
        )
    annotations = sequence.arrays["annotations"]
    frames = np.full(len(annotations), -1, np.int8)
    for index, label in enumerate(classes):
        frames[annotations == vocabulary[label]] = index
    if (frames < 0).any():
        bad = int(np.argmax(frames < 0))
        raise BadInput(
            f"{where}: annotations, frame {bad:,}: {annotations[bad]:g} is not in its vocabulary "
            f"{vocabulary}"
        )
    return Labels(
        video=name,
        task=task,
        classes=classes,
        frames=frames,
        annotator=annotator,
        split=source.split,
    )


def _vocabulary(sequence: Sequence, where: str) -> dict[str, int]:
    metadata = sequence.values.get("metadata")
    vocabulary = metadata.get("vocab") if isinstance(metadata, dict) else None
    if (
        not isinstance(vocabulary, dict)
        or not 0 < len(vocabulary) <= 100
        or not all(isinstance(label, str) for label in vocabulary)
    ):
        raise BadInput(f"{where}: it has no metadata with a 'vocab' that names its classes")
    numbers = list(vocabulary.values())
    if not all(type(n) is int for n in numbers) or len(set(numbers)) != len(numbers):
        raise BadInput(f"{where}: its vocabulary must give each class a whole number of its own")
    return {label: int(n) for label, n in vocabulary.items()}
