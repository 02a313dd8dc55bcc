"""Labels in a plain npz, written with ``numpy.savez``.

labels       (T,) whole numbers, places in ``classes``; or (T, C) of 0 and 1 for behaviours that may
overlap; -1 = unlabelled classes      their names, in order
task         a name (default: the one behaviour's, or ``behaviors``)
annotator    a name
video        the recording's name (default: the file's)
split        train or test (default: dealt). With it and a task, classes are taken as they are, in
their order: so a store's labels
             that were exported come back
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.label_formats.sheets import Sheet
from pretrain.readers.safe_npz import names_in, read_arrays

NAME = "npz with labels and classes"
KEYS = ("labels", "classes", "task", "annotator", "video", "split")


def recognises(names: tuple[str, ...]) -> bool:
    """Whether a zip with these arrays is such a file."""
    return "labels" in names


def read(path: Path) -> list[Sheet]:
    """The one sheet of the file.

    Raises:
        BadInput: If an array is absent, of a wrong kind, or does not fit the others.
    """
    arrays = read_arrays(path)
    refuse(
        [
            f"{key!r} is not known; allowed: {', '.join(KEYS)}"
            for key in sorted(set(arrays) - set(KEYS))
        ],
        about=str(path),
    )
    classes = names_in(arrays, "classes", path)
    labels = arrays["labels"]
    if (
        labels.dtype.kind not in "iub"
        or labels.ndim not in (1, 2)
        or not len(labels)
        or labels.shape[1:] not in ((), (len(classes),))
    ):
        raise BadInput(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; wanted whole numbers, "
            f"(frames,) or (frames, {len(classes)})"
        )
    labels = labels.astype(np.int64)
    top = len(classes) - 1 if labels.ndim == 1 else 1
    wrong = np.argwhere((labels < UNLABELLED) | (labels > top))
    if len(wrong):
        raise BadInput(
            f"{path}: labels, frame {int(wrong[0, 0])}: {labels[tuple(wrong[0])]} lies outside "
            f"{UNLABELLED}…{top}"
        )
    if labels.ndim == 1:
        marks = (labels[:, None] == np.arange(len(classes))).astype(np.int8)
        marks[labels == UNLABELLED] = UNLABELLED
    else:
        marks = labels.astype(np.int8)
    task, annotator, video, split = (
        names_in(arrays, key, path)[0] if key in arrays else ""
        for key in ("task", "annotator", "video", "split")
    )
    if split not in ("", "train", "test"):
        raise BadInput(f"{path}: split is {split!r}; allowed: train, test")
    exact = bool(split and task)
    if labels.ndim == 2 and not exact:
        marks[(marks == UNLABELLED).any(1)] = UNLABELLED
    return [
        Sheet(
            path=path,
            recording=(video,) if video else (),
            behaviours=classes,
            stream=task,
            names_task=bool(task),
            annotator=annotator,
            split=split,
            exact=exact,
            overlapping=labels.ndim == 2,
            marks=marks,
        )
    ]
