"""Labels in a plain npz, written with ``numpy.savez``.

labels      (T,) whole numbers, indices into ``classes``; or (T, C) of 0 and 1 for behaviours that
            may overlap; -1 = unlabelled
classes     their names, in order
task        a name (default: the one behaviour's, or ``behaviors``)
annotator   a name
video       the recording's name (default: the file's)
split       train or test (default: chosen by ``ethoray prepare``). With it and a task, classes
            are taken as they are, in their order: so exported labels of a store come back
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.safe_files.npz import names_in, read_arrays, refuse_unknown
from pretrain.readers.score_sheets import ScoreSheet

_KEYS = ("labels", "classes", "task", "annotator", "video", "split")


class NpzLabels(AbstractLabelFormat):
    """The form in which ``ethoray prepare export`` writes labels."""

    description = "npz with labels and classes"
    suffixes = (".npz",)

    def recognise(self, file: UnknownFile) -> bool:
        """By the array ``labels``."""
        return "labels" in file.npz

    def read(self, path: Path) -> list[ScoreSheet]:
        """One sheet; arrays that are not known are refused."""
        arrays = read_arrays(path)
        refuse_unknown(arrays, _KEYS, path)
        classes = names_in(arrays, "classes", path)
        labels = arrays["labels"]
        if (
            labels.dtype.kind not in "iub"
            or labels.ndim not in (1, 2)
            or not len(labels)
            or labels.shape[1:] not in ((), (len(classes),))
        ):
            raise BadInput(
                f"{path}: labels are {labels.dtype} of shape {labels.shape}; wanted whole "
                f"numbers, (frames,) or (frames, {len(classes)})"
            )
        labels = labels.astype(np.int64)
        top = len(classes) - 1 if labels.ndim == 1 else 1
        wrong = np.argwhere((labels < UNLABELLED) | (labels > top))
        if len(wrong):
            raise BadInput(
                f"{path}: labels, frame {int(wrong[0, 0])}: {labels[tuple(wrong[0])]} lies "
                f"outside {UNLABELLED}…{top}"
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
            ScoreSheet(
                path=path,
                recording=(video,) if video else (),
                behaviours=classes,
                stream=task,
                stream_is_task=bool(task),
                annotator=annotator,
                split=split,
                exact=exact,
                overlapping=labels.ndim == 2,
                marks=marks,
            )
        ]
