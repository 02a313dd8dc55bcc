"""Which labelled recordings train and which test, and labels at another frame rate. Pure
functions."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED, Labels
from pretrain.readers.tracks import resampled_times


def resample_labels(labels: Labels, *, old_fps: float, fps: float) -> Labels:
    """Labels at another frame rate: each new frame takes the nearest old one, as ``resample`` of
    the tracks places them.

    Raises:
        BadInput: If a rate is not a positive number.
    """
    for rate in (old_fps, fps):
        if not (math.isfinite(rate) and rate > 0):
            raise BadInput(
                f"labels of {labels.video}: {rate} is not a frame rate; it must be a positive "
                "number of frames per second"
            )
    if old_fps == fps or not len(labels.frames):
        return labels
    times = resampled_times(len(labels.frames), old_fps=old_fps, fps=fps)
    return replace(labels, frames=labels.frames[np.floor(times + 0.5 - 1e-9).astype(np.int64)])


def assign_split(
    labels: Sequence[Labels], *, test_share: float = 0.3, seed: int = 0
) -> list[Labels]:
    """Splits by recording, never by frame: a recording is on one side, in all of its tasks.

    Recordings go to the side that lacks their classes most: rare classes are dealt first, so that
    each class that occurs in two recordings or more occurs on both sides where that is possible.
    With one labelled recording all is ``train``. The outcome depends on the labels, the share and
    the seed alone, not on the order of the labels.

    Args:
        labels: All tasks and annotators.
        test_share: Wished share of recordings for test, above 0 and below 1; at least one recording
            is on either side.
        seed: Another deal of equal worth.

    Returns:
        The labels in their order, each with its split.

    Raises:
        BadInput: If the share is not between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise BadInput(f"the share of test recordings is {test_share}; it must lie between 0 and 1")
    holds: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for held in labels:
        holds[held.video] |= {(held.task, name) for name in _occurring(held)}
    if len(holds) < 2:
        return [replace(held, split="train") for held in labels]
    test = _test_videos(
        holds, count=min(max(1, round(test_share * len(holds))), len(holds) - 1), seed=seed
    )
    return [replace(held, split="test" if held.video in test else "train") for held in labels]


def assign_missing_splits(
    labels: Sequence[Labels], *, test_share: float = 0.3, seed: int = 0
) -> list[Labels]:
    """Keeps the split that a label file stated and deals the rest (:func:`assign_split`).

    A recording for which some labels state a side is on that side in all of its tasks, unless they
    state both.
    """
    stated: dict[str, set[str]] = defaultdict(set)
    for held in labels:
        if held.split:
            stated[held.video].add(held.split)
    known = [
        held
        if held.split or held.video not in stated
        else replace(held, split=min(stated[held.video]))
        for held in labels
    ]
    dealt = iter(
        assign_split([held for held in known if not held.split], test_share=test_share, seed=seed)
    )
    return [held if held.split else next(dealt) for held in known]


def _occurring(labels: Labels) -> set[str]:
    if labels.overlapping:
        return {
            name
            for place, name in enumerate(labels.classes)
            if (labels.frames[:, place] == 1).any()
        }
    return {labels.classes[place] for place in np.unique(labels.frames) if place != UNLABELLED}


def _test_videos(holds: dict[str, set[tuple[str, str]]], *, count: int, seed: int) -> set[str]:
    """A deal of ``count`` recordings for test, then exchanges of two for as long as they bring more
    classes to both sides."""
    dealt = sorted(holds, key=lambda video: hashlib.sha256(f"{seed}/{video}".encode()).digest())
    names = sorted(set().union(*holds.values()))
    has = np.array(
        [[name in holds[video] for name in names] for video in dealt], dtype=np.int64
    ).reshape(len(dealt), len(names))
    has = has[:, has.sum(0) > 1]  # a class of one recording cannot be on both sides
    total = has.sum(0)

    def lacking(in_test: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.asarray(((in_test == 0) | (in_test == total)).sum(-1))

    test = np.arange(len(dealt)) < count
    while True:
        held = has[test].sum(0)
        outs, intos = np.flatnonzero(test), np.flatnonzero(~test)
        after = np.array([lacking(held - has[out] + has[intos]) for out in outs])
        out, into = np.unravel_index(int(after.argmin()), after.shape)
        if after[out, into] >= lacking(held):
            return {dealt[place] for place in np.flatnonzero(test)}
        test[outs[out]], test[intos[into]] = False, True
