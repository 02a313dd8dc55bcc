"""Labels of one annotator turned into another's style.

What the other would have marked in a frame is learned from recordings that both labelled: by
logistic regression on the first one's marks around the frame, in windows of growing length before,
around and after it, so that habits of beginning early, of joining bouts or of calling one behaviour
another are learned. Where the recordings say nothing of a behaviour, a second of it that both call
the same stands for what would be expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from finetune.labels.frame_labels import UNLABELLED, Ints

_WINDOWS_S = (0.1, 0.3, 1.0, 3.0)
Pairs = Sequence[tuple[Ints, Ints]]
"""Labels of the one and of the other annotator, of each recording: (T,) or (T, C)."""


class Translator:
    """From the marks of one annotator to those of another.

    Args:
        classes: How many there are.
        fps: Frames per second.
    """

    def __init__(self, classes: int, fps: float) -> None:
        self._classes, self._expected_frames = classes, fps
        self._windows = sorted({round(fps * s) for s in _WINDOWS_S} - {0})
        self._models: list[LogisticRegression] = []
        """One, or one a behaviour where they overlap."""

    def fit(self, pairs: Pairs) -> None:
        """Learns from recordings that both labelled."""
        source, target = (np.concatenate(side) for side in zip(*pairs, strict=True))
        both = (source != UNLABELLED) & (target != UNLABELLED)
        # The middle of a long bout of each class, and of none.
        middle = np.eye(self._classes + (target.ndim == 2), self._classes, dtype=np.float32)
        width = 1 + 3 * len(self._windows)
        inputs = [np.tile(middle, width), *(self._context(source) for source, _ in pairs)]
        weight = np.ones(len(middle) + len(target))
        weight[: len(middle)] = self._expected_frames
        expected = middle.astype(np.int8) if target.ndim == 2 else np.arange(self._classes)
        target = np.concatenate([expected, target])
        both = np.concatenate([np.ones_like(expected, bool), both])
        self._fit(np.concatenate(inputs), target, both, weight)

    def _fit(
        self,
        inputs: npt.NDArray[np.float32],
        target: npt.NDArray[Any],
        both: npt.NDArray[np.bool_],
        weight: npt.NDArray[np.float64],
    ) -> None:
        columns = [(target, both)]
        if target.ndim == 2:
            columns = [(target[:, c], both[:, c]) for c in range(self._classes)]
        self._models = [
            LogisticRegression(C=10, max_iter=500).fit(
                inputs[rows], values[rows], sample_weight=weight[rows]
            )
            for values, rows in columns
        ]

    def __call__(self, source: Ints) -> Ints:
        """Labels in the other's style; unlabelled where the first's are."""
        inputs = self._context(source)
        marks = [model.predict(inputs) for model in self._models]
        translated = marks[0] if source.ndim == 1 else np.stack(marks, 1)
        return np.where(source == UNLABELLED, UNLABELLED, translated).astype(np.int8)

    def _context(self, labels: Ints) -> npt.NDArray[np.float32]:
        """(T, features): the share of frames with each class in every window."""
        marks = (
            labels[:, None] == np.arange(self._classes) if labels.ndim == 1 else labels == 1
        ).astype(np.float64)
        total = np.concatenate([np.zeros((1, self._classes)), marks.cumsum(0)])
        here = np.arange(len(marks))
        columns = [marks]
        for width in self._windows:
            for begin, end in ((-width, 0), (1, 1 + width), (-width, 1 + width)):
                first, last = (np.clip(here + at, 0, len(marks)) for at in (begin, end))
                columns.append((total[last] - total[first]) / (end - begin))
        return np.concatenate(columns, 1).astype(np.float32)


def out_of_fold(pairs: Pairs, *, classes: int, fps: float, folds: int = 5) -> list[Ints]:
    """Each recording's translation by a translator that did not see it."""
    translated = []
    for number, (source, _) in enumerate(pairs):
        fold = number % min(folds, len(pairs))
        translator = Translator(classes, fps)
        translator.fit([p for n, p in enumerate(pairs) if n % min(folds, len(pairs)) != fold])
        translated.append(translator(source))
    return translated
