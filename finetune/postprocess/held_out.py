"""Predictions for training videos by networks that were not fitted on them: what postprocessing is
learned and judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from finetune.labels.frame_labels import ByVideo, Ints, Reals

FOLDS = 3
"""Of the steps, where one fold of networks predicted several videos."""


@dataclass(frozen=True, kw_only=True)
class HeldOutPredictions:
    """Predictions for training videos by networks that were not fitted on them."""

    probabilities: ByVideo
    """Video to (T, C)."""
    labels: ByVideo
    """UNLABELLED in frames that a network was fitted on."""
    fold: Mapping[str, int]
    """Video to the fold it was held out with."""
    fps: float
    """Frames a second."""

    def only(self, videos: list[str]) -> HeldOutPredictions:
        """The same of some videos."""
        return HeldOutPredictions(
            probabilities={name: self.probabilities[name] for name in videos},
            labels={name: self.labels[name] for name in videos},
            fold={name: self.fold[name] for name in videos},
            fps=self.fps,
        )

    def folds(self) -> Iterator[tuple[HeldOutPredictions, HeldOutPredictions]]:
        """All folds but one, and that one; of two or more videos."""
        fold_of = dict(self.fold)
        if len({fold_of[name] for name in self.labels}) == 1:
            fold_of = {name: n % FOLDS for n, name in enumerate(sorted(self.labels))}
        for fold in sorted({fold_of[name] for name in self.labels}):
            inside = [name for name in self.labels if fold_of[name] == fold]
            others = [name for name in self.labels if fold_of[name] != fold]
            assert others, "one video"
            yield self.only(others), self.only(inside)

    def pooled(self) -> tuple[Reals, Ints]:
        """Probabilities and labels of all frames."""
        p, labels = (
            np.concatenate([values[name] for name in self.labels])
            for values in (self.probabilities, self.labels)
        )
        return p, labels
