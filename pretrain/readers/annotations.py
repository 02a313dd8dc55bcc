"""Labels on their way into a store. Training code in ``pretrain/`` never imports this file."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pretrain.data.recording_file import file_name
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, refuse

UNLABELLED = -1  # a frame that nobody looked at; it is not a class


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What one annotator scored in one video under one task."""

    video: str
    task: str
    """A label set: classic_classification, new_behaviors, S1…"""
    classes: tuple[str, ...]
    frames: npt.NDArray[np.int8]
    """Exclusive classes: (T,), an index into ``classes`` or UNLABELLED. Overlapping behaviours:
    (T, C) of 0, 1 or UNLABELLED."""
    annotator: str = ""
    split: str = "train"
    """train or test; empty while it is not decided."""

    @property
    def overlapping(self) -> bool:
        """Whether several behaviours may be true of one frame."""
        return self.frames.ndim == 2

    @property
    def marks(self) -> npt.NDArray[np.int8]:
        """(T, C) of 0, 1 or UNLABELLED, whether classes overlap or not."""
        if self.overlapping:
            return self.frames
        marks = np.asarray(self.frames[:, None] == np.arange(len(self.classes)), np.int8)
        marks[self.frames == UNLABELLED] = UNLABELLED
        return marks


COLUMNS = pa.schema(
    [
        ("video", pa.string()),
        ("task", pa.string()),
        ("annotator", pa.string()),
        ("split", pa.string()),
        ("classes", pa.list_(pa.string())),
        ("overlapping", pa.bool_()),
        ("frames", pa.int32()),
        ("labels", pa.binary()),
    ]
)


def write_labels(writer: StoreWriter, labels: Iterable[Labels]) -> None:
    """Writes label sets into the store that ``writer`` is writing, one file a task.

    Call it after the videos were added: each label must name one of them and have its length.

    Raises:
        BadInput: If a label names no video of the store, or does not have its length, or names no
            split.
    """
    frames = {video["name"]: video["frames"] for video in writer.videos}
    errors, by_task = [], defaultdict[str, list[Labels]](list)
    for each in labels:
        where = f"labels of {each.video!r} under {each.task!r}"
        if each.video not in frames:
            errors.append(f"{where}: the store has no such video")
        elif len(each.frames) != frames[each.video]:
            errors.append(
                f"{where}: {len(each.frames)} labelled frames for {frames[each.video]} frames of "
                "track"
            )
        if each.split not in ("train", "test"):
            errors.append(f"{where}: split is {each.split!r}; allowed: train, test")
        upper = 1 if each.overlapping else len(each.classes) - 1
        if each.frames.size and not UNLABELLED <= each.frames.min() <= each.frames.max() <= upper:
            errors.append(f"{where}: a label lies outside {UNLABELLED}…{upper}")
        by_task[each.task].append(each)
    refuse(errors, about=f"labels do not fit the store {writer.uri}")
    for task, rows in by_task.items():
        table = pa.Table.from_pylist(
            [
                {
                    "video": row.video,
                    "task": row.task,
                    "annotator": row.annotator,
                    "split": row.split,
                    "classes": row.classes,
                    "overlapping": row.overlapping,
                    "frames": len(row.frames),
                    "labels": np.ascontiguousarray(row.frames, np.int8).tobytes(),
                }
                for row in rows
            ],
            schema=COLUMNS,
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        numbers = (int(label_file["file"].rpartition("-")[2][:3]) for label_file in writer.labels)
        number = max(numbers, default=-1) + 1  # no file that is there is written over
        name = f"labels/{file_name(task)}-{number:03d}.parquet"
        about = {"task": task, "test": sorted({r.video for r in rows if r.split == "test"})}
        writer.labels.append(writer.write_file(name, sink.getvalue()) | about)


def replace_labels(store: Store, labels: Sequence[Labels]) -> None:
    """Writes label sets in place of those that a store has under the same tasks, whole or not at
    all; its poses are not touched.

    Raises:
        BadInput: See :func:`write_labels`; nothing is then changed.
    """
    tasks = {each.task for each in labels}
    with StoreWriter(store.address, store.schema, origin=store.origin, append=True) as writer:
        old = [record for record in writer.labels if record["task"] in tasks]
        write_labels(writer, labels)
        writer.labels = [record for record in writer.labels if record not in old]
    for record in old:
        store.fs.delete_file(f"{store.path}/{record['file']}")


def read_label_file(store: Store, file: str) -> list[Labels]:
    """The labels in a label file of a store, a record for each video and annotator.

    Raises:
        BadInput: If the file is missing or damaged.
    """
    try:
        with store.fs.open_input_stream(f"{store.path}/{file}") as stream:
            # One thread: pyarrow's pool for reading tables now and then aborts the process when it
            # ends at once.
            table = pq.ParquetFile(io.BytesIO(stream.read())).read(use_threads=False)
        return [_decoded(**row) for row in table.to_pylist()]
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"{store.uri}: {file} is damaged: {error}. Prepare the store again or restore that file"
        ) from error


def read_labels(store: Store) -> Iterator[Labels]:
    """All labels of a store, one of its files in memory at a time.

    Raises:
        BadInput: If a file is missing or damaged.
    """
    for record in store.labels:
        yield from read_label_file(store, record["file"])


def labels_by_video(store: Store) -> dict[str, list[Labels]]:
    """The same by the name of the video."""
    labels: dict[str, list[Labels]] = {}
    for each in read_labels(store):
        labels.setdefault(each.video, []).append(each)
    return labels


def _decoded(
    *, frames: int, labels: bytes, classes: list[str], overlapping: bool, **row: str
) -> Labels:
    shape = (frames, len(classes)) if overlapping else (frames,)
    values = np.frombuffer(labels, np.int8).reshape(shape)
    return Labels(**row, classes=tuple(classes), frames=values)
