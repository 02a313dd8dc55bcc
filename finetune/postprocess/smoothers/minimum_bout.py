"""Bouts that are too short are dissolved."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from finetune.labels.frame_labels import ByVideo, Ints, Reals, decide, examine_video, examine_videos
from finetune.metrics.bouts import bouts
from finetune.postprocess.smoothers import AbstractSmoother, are_overlapping, bout_lengths

QUANTILES = (0.02, 0.05, 0.1)


@dataclass(frozen=True, kw_only=True)
class MinimumBout(AbstractSmoother):
    """Dissolves bouts too short for their class, the shortest first, into a neighbour.

    It is the neighbour whose class the network finds likelier there. Of overlapping behaviours
    short bouts are removed; gaps stay.
    """

    frames: tuple[int, ...]
    """For each class the shortest bout that stays; 1 keeps all."""
    overlapping: bool = False

    @classmethod
    def candidates(
        cls, *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Several quantiles of the bout lengths."""
        return {
            f"minimum bout, quantile {quantile:g}": cls.fit(
                probabilities=probabilities, labels=labels, classes=classes, quantile=quantile
            )
            for quantile in QUANTILES
        }

    @classmethod
    def fit(
        cls,
        *,
        probabilities: ByVideo,
        labels: ByVideo,
        classes: Sequence[str],
        quantile: float = 0.05,
    ) -> Self:
        """Takes this quantile of the bout lengths of each class in the labels, rounded down.

        For a class without a bout it is 1.
        """
        examine_videos(labels=labels, classes=classes, probabilities=probabilities)
        return cls(
            frames=tuple(
                int(np.quantile(lengths, quantile)) if len(lengths) else 1
                for lengths in bout_lengths(labels, classes).values()
            ),
            overlapping=are_overlapping(labels),
        )

    def apply(self, probabilities_TC: Reals) -> Ints:
        """Decides frame by frame, then dissolves."""
        examine_video(probabilities_TC=probabilities_TC, n_classes=len(self.frames))
        labels = decide(probabilities_TC=probabilities_TC, overlapping=self.overlapping)
        p = np.asarray(probabilities_TC, np.float64)
        if not self.overlapping:
            return _dissolve(labels, p, self.frames)
        columns = [
            _dissolve(labels[:, c], np.stack([1 - p[:, c], p[:, c]], axis=1), (1, shortest))
            for c, shortest in enumerate(self.frames)
        ]
        return np.stack(columns, axis=1)


def _dissolve(labels: Ints, p_TC: Reals, shortest: Sequence[int]) -> Ints:
    """Labels (T,) whose bouts have at least ``shortest`` frames of their class."""
    runs = bouts(labels)
    start, stop, kind = (column.tolist() for column in runs.T) if len(runs) else ([], [], [])
    before, after = list(range(-1, len(runs) - 1)), [*range(1, len(runs)), -1]
    support = np.concatenate([np.zeros((1, p_TC.shape[1])), np.cumsum(p_TC, axis=0)])
    too_short = [
        (stop[i] - start[i], i) for i in range(len(runs)) if stop[i] - start[i] < shortest[kind[i]]
    ]
    heapq.heapify(too_short)
    swallowed = [False] * len(runs)
    while too_short:
        i = heapq.heappop(too_short)[1]
        neighbours = [j for j in (before[i], after[i]) if j >= 0]
        if swallowed[i] or not neighbours:
            continue
        gain = support[stop[i]] - support[start[i]]
        kind[i] = kind[max(neighbours, key=lambda j: gain[kind[j]])]
        for j in neighbours:  # the run swallows every neighbour of its new class
            if kind[j] == kind[i]:
                swallowed[j] = True
                start[i], stop[i] = min(start[i], start[j]), max(stop[i], stop[j])
                before[i], after[i] = (
                    (before[j], after[i]) if j == before[i] else (before[i], after[j])
                )
        if before[i] >= 0:
            after[before[i]] = i
        if after[i] >= 0:
            before[after[i]] = i
        if stop[i] - start[i] < shortest[kind[i]]:
            heapq.heappush(too_short, (stop[i] - start[i], i))
    result = labels.copy()
    for i in range(len(runs)):
        if not swallowed[i]:
            result[start[i] : stop[i]] = kind[i]
    return result
