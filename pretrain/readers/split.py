"""Which labelled recordings train and which test, and labels at another frame rate. Pure
functions."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels
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

    Each class that occurs in two recordings or more occurs on both sides where that is possible.
    With one labelled recording all is ``train``. The outcome depends on the labels, the share and
    the seed alone, not on the order of the labels.

    Args:
        labels: All tasks and annotators.
        test_share: Share of recordings for test, below 1; 0: all are ``train``, else at least one
            recording is on either side.
        seed: Another one gives another choice, as good.

    Returns:
        The labels in their order, each with its split.

    Raises:
        BadInput: If the share is below 0, or 1 or more.
    """
    if not 0 <= test_share < 1:
        raise BadInput(
            f"the share of test recordings is {test_share:g}; it must be at least 0 (all train) "
            "and below 1"
        )
    classes: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for each in labels:
        classes[each.video] |= {
            (each.task, name)
            for name, marks in zip(each.classes, each.marks.T, strict=True)
            if (marks == 1).any()
        }
    if len(classes) < 2 or test_share == 0:
        return [replace(each, split="train") for each in labels]
    count = min(max(1, round(test_share * len(classes))), len(classes) - 1)
    test = _test_videos(classes, count=count, seed=seed)
    return [replace(each, split="test" if each.video in test else "train") for each in labels]


def assign_listed_splits(
    labels: Sequence[Labels], listed: Sequence[str], *, elsewhere: Iterable[str] = ()
) -> list[Labels]:
    """Listed recordings are ``test`` and all others ``train``, whatever the label files state.

    Args:
        labels: All tasks and annotators.
        listed: Names of recordings.
        elsewhere: Further names that may be listed, which have no labels here.

    Raises:
        BadInput: If a listed recording has no labels; with those that have.
    """
    known = {each.video for each in labels}
    unknown = sorted(set(listed) - known - set(elsewhere))
    if unknown:
        raise BadInput(
            f"--test-videos lists {', '.join(unknown)}, of which there are no labels; labelled "
            f"recordings: {', '.join(sorted(known))}"
        )
    return [replace(each, split="test" if each.video in listed else "train") for each in labels]


def assign_missing_splits(
    labels: Sequence[Labels], *, test_share: float = 0.3, seed: int = 0
) -> list[Labels]:
    """Keeps the split that a label file states and chooses for the rest (:func:`assign_split`).

    A recording for which some labels state a side is on that side in all of its tasks, unless they
    state both.
    """
    stated: dict[str, set[str]] = defaultdict(set)
    for each in labels:
        if each.split:
            stated[each.video].add(each.split)
    known = [
        each
        if each.split or each.video not in stated
        else replace(each, split=min(stated[each.video]))
        for each in labels
    ]
    chosen = iter(
        assign_split([each for each in known if not each.split], test_share=test_share, seed=seed)
    )
    return [each if each.split else next(chosen) for each in known]


def _test_videos(classes: dict[str, set[tuple[str, str]]], *, count: int, seed: int) -> set[str]:
    """A random choice of ``count`` recordings for test, then exchanges of two for as long as they
    bring more classes to both sides."""
    videos = sorted(classes, key=lambda video: hashlib.sha256(f"{seed}/{video}".encode()).digest())
    names = sorted(set().union(*classes.values()))
    has = np.array([[name in classes[video] for name in names] for video in videos], np.int64)
    has = has.reshape(len(videos), len(names))
    has = has[:, has.sum(0) > 1]  # a class of one recording cannot be on both sides
    total = has.sum(0)

    def missing(in_test: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many classes are on one side only."""
        return np.asarray(((in_test == 0) | (in_test == total)).sum(-1))

    test = np.arange(len(videos)) < count
    while True:
        in_test = has[test].sum(0)
        leaving, entering = np.flatnonzero(test), np.flatnonzero(~test)
        after = np.array([missing(in_test - has[old] + has[entering]) for old in leaving])
        old, new = np.unravel_index(int(after.argmin()), after.shape)
        if after[old, new] >= missing(in_test):
            return {videos[index] for index in np.flatnonzero(test)}
        test[leaving[old]], test[entering[new]] = False, True
