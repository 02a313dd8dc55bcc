"""A moving mean or median of the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy.ndimage import convolve1d, median_filter

from finetune.labels.frame_labels import (
    ByVideo,
    Ints,
    Reals,
    decide,
    examine_video,
    examine_videos,
    rest_class,
)
from finetune.postprocess.smoothers import AbstractSmoother, are_overlapping, bout_lengths
from pretrain.components import OddCount, misfits
from pretrain.errors import refuse

Kind = Literal["mean", "median"]
KINDS: tuple[Kind, ...] = ("mean", "median")
SHARES = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Moving(AbstractSmoother):
    """Mean or median over a window centred on each frame.

    At the ends of a video the mean is over the frames that exist, and the median repeats the last
    one. Medians of exclusive classes are scaled to sum to one.
    """

    frames: int
    """Width of the window: odd."""
    kind: Kind = "mean"
    overlapping: bool = False

    def __post_init__(self) -> None:
        refuse(
            misfits("frames", self.frames, OddCount) + misfits("kind", self.kind, Kind),
            about="the moving window",
        )

    @classmethod
    def candidates(
        cls, *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Windows of several shares of the shortest bouts, where they are longer than a frame."""
        fitted = {
            f"{kind} over {share:g} of the shortest bouts": cls.fit(
                probabilities=probabilities,
                labels=labels,
                classes=classes,
                rest=rest,
                share=share,
                kind=kind,
            )
            for kind in KINDS
            for share in SHARES
        }
        return {name: window for name, window in fitted.items() if window.frames > 1}

    @classmethod
    def fit(
        cls,
        *,
        probabilities: ByVideo,
        labels: ByVideo,
        classes: Sequence[str],
        rest: str | None = None,
        share: float = 0.5,
        kind: Kind = "mean",
    ) -> Self:
        """A window of ``share`` of the median bout of the scored class with the shortest bouts.

        Without any bout the window is one frame.
        """
        examine_videos(labels=labels, classes=classes, probabilities=probabilities)
        left_out = rest_class(classes=classes, rest=rest)
        medians = [
            float(np.median(lengths))
            for name, lengths in bout_lengths(labels, classes).items()
            if name != left_out and len(lengths)
        ]
        return cls(
            frames=2 * int(share * min(medians, default=0.0) / 2) + 1,
            kind=kind,
            overlapping=are_overlapping(labels),
        )

    def scores(self, probabilities_TC: Reals) -> Reals:
        """Smoothed probabilities of one video."""
        examine_video(probabilities_TC=probabilities_TC)
        p = np.asarray(probabilities_TC, np.float64)
        if not len(p) or self.frames == 1:
            return p
        if self.kind == "mean":
            ones = np.ones(self.frames)
            existing = convolve1d(np.ones(len(p)), ones, mode="constant")
            mean = convolve1d(p, ones, axis=0, mode="constant") / existing[:, None]
            return np.asarray(np.clip(mean, 0, 1))  # the filter's rounding may lead outside
        median = np.stack(
            [median_filter(column, self.frames, mode="nearest") for column in p.T], axis=1
        )
        if self.overlapping:
            return median
        total = median.sum(axis=1, keepdims=True)
        return np.where(total > 0, median / np.where(total > 0, total, 1), p)

    def apply(self, probabilities_TC: Reals) -> Ints:
        """Decides from the smoothed probabilities."""
        return decide(probabilities_TC=self.scores(probabilities_TC), overlapping=self.overlapping)
