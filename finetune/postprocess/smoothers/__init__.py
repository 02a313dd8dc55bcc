"""Smoothers: decisions that look at neighbouring frames. One file each, found by being here.

They serve decisions (F1, bouts); some also give smoothed scores. Average precision by the protocol
stays that of the network's raw scores.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from finetune.labels.frame_labels import ByVideo, Ints, Reals
from finetune.metrics.bouts import bouts
from finetune.postprocess.as_json import AbstractStep
from pretrain.components import find, names


class AbstractSmoother(AbstractStep):
    """Probabilities of a whole video to decisions; nothing crosses from one video to the next."""

    key: ClassVar[str] = "smoother"
    least_videos: ClassVar[int] = 2
    """Labelled videos that are enough to learn it and to judge it."""

    @classmethod
    @abstractmethod
    def candidates(
        cls, *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Smoothers to try, fitted on labelled videos that the network was not fitted on.

        Args:
            probabilities: (T, C) for each video.
            labels: (T,) classes, or (T, C) of 0 and 1, for each of them; UNLABELLED in both.
            classes: Names, in the order of axis C.
            rest: The class that scores leave out; see
                :func:`finetune.labels.frame_labels.rest_class`.

        Returns:
            A name that says what each is, to the smoother; empty where none makes sense.
        """

    @abstractmethod
    def apply(self, probabilities_TC: Reals) -> Ints:
        """(T,) classes of one whole video, or (T, C) of 0 and 1."""

    def scores(self, probabilities_TC: Reals) -> Reals | None:
        """(T, C) smoothed scores of one whole video, whose plain decision is that of :meth:`apply`;
        None where it only decides."""
        return None

    @property
    def numbers(self) -> int:
        """How many numbers were learned: of equally good smoothers the one with the fewest wins."""
        values = [np.asarray(value) for value in vars(self).values()]
        return sum(value.size for value in values if value.dtype.kind in "if")


def smoothers() -> list[type[AbstractSmoother]]:
    """Those there are."""
    return [find(__name__, name, AbstractSmoother) for name in names(__name__)]


def candidates(
    *,
    probabilities: ByVideo,
    labels: ByVideo,
    classes: Sequence[str],
    rest: str | None = None,
    videos: int | None = None,
) -> dict[str, AbstractSmoother]:
    """The candidates of all smoothers, those that learned the fewest numbers first; of those alone
    for which so many labelled ``videos`` are enough, where it is said."""
    offered: dict[str, AbstractSmoother] = {}
    for kind in smoothers():
        if videos is not None and videos < kind.least_videos:
            continue
        offered |= kind.candidates(
            probabilities=probabilities, labels=labels, classes=classes, rest=rest
        )
    return dict(sorted(offered.items(), key=lambda item: item[1].numbers))


def are_overlapping(labels: ByVideo) -> bool:
    """Whether labels are (T, C) of 0 and 1."""
    return any(values.ndim == 2 for values in labels.values())


def bout_lengths(labels: ByVideo, classes: Sequence[str]) -> dict[str, Ints]:
    """Frames of the bouts of each class."""
    rows = np.concatenate([bouts(values) for values in labels.values()])
    return {name: (rows[:, 1] - rows[:, 0])[rows[:, 2] == c] for c, name in enumerate(classes)}
