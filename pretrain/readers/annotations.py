"""Labels on their way into a store. Training code in ``pretrain/`` never imports this file."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, refuse

UNLABELLED = -1  # a frame that nobody looked at; it is not a class


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What one annotator said of one video under one task."""

    video: str
    task: str
    """A label set: classic_classification, new_behaviors, S1…"""
    classes: tuple[str, ...]
    frames: npt.NDArray[np.int8]
    """Exclusive classes: (T,), a place in ``classes`` or UNLABELLED. Overlapping behaviours: (T, C)
    of 0, 1 or UNLABELLED."""
    annotator: str = ""
    split: str = "train"
    """train or test; empty while nobody said it."""

    @property
    def overlapping(self) -> bool:
        """Whether several behaviours may be true of one frame."""
        return self.frames.ndim == 2


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
    problems, by_task = [], dict[str, list[Labels]]()
    for held in labels:
        where = f"labels of {held.video!r} under {held.task!r}"
        if held.video not in frames:
            problems.append(f"{where}: the store has no such video")
        elif len(held.frames) != frames[held.video]:
            problems.append(
                f"{where}: {len(held.frames)} labelled frames for {frames[held.video]} frames of "
                "track"
            )
        if held.split not in ("train", "test"):
            problems.append(f"{where}: split is {held.split!r}; allowed: train, test")
        upper = 1 if held.overlapping else len(held.classes) - 1
        if held.frames.size and not UNLABELLED <= held.frames.min() <= held.frames.max() <= upper:
            problems.append(f"{where}: a label lies outside {UNLABELLED}…{upper}")
        by_task.setdefault(held.task, []).append(held)
    refuse(problems, about=f"labels do not fit the store {writer.uri}")
    for task, rows in by_task.items():
        columns = [
            [row.video for row in rows],
            [row.task for row in rows],
            [row.annotator for row in rows],
            [row.split for row in rows],
            [list(row.classes) for row in rows],
            [row.overlapping for row in rows],
            [len(row.frames) for row in rows],
            [np.ascontiguousarray(row.frames, np.int8).tobytes() for row in rows],
        ]
        table = pa.table(
            [
                pa.array(values, column.type)
                for values, column in zip(columns, COLUMNS, strict=True)
            ],
            schema=COLUMNS,
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        name = f"labels/{quote(task, safe='')}-{len(writer.labels):03d}.parquet"
        writer.labels.append(writer.write_file(name, sink.getvalue()) | {"task": task})


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


def _decoded(
    *, frames: int, labels: bytes, classes: list[str], overlapping: bool, **row: str
) -> Labels:
    shape = (frames, len(classes)) if overlapping else (frames,)
    values = np.frombuffer(labels, np.int8).reshape(shape)
    return Labels(**row, classes=tuple(classes), frames=values)
