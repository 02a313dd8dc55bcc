"""Classes that only mark what nobody scored: recognising them, and making their frames unlabelled.

A session is often scored from one moment to another, and the tool fills what lies before and after
with its rest class. Those frames show anything; to learn from them, or to score against them, as if
they showed nothing costs every model.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pretrain.data.store import Store
from pretrain.errors import refuse
from pretrain.readers.annotations import UNLABELLED, Labels, read_labels, replace_labels

log = logging.getLogger(__name__)

LEAST_CHANGES = 3
"""Changes from class to class inside the stretches, the mean over videos, below which a class that
never lies between them proves nothing."""
MOST_VIDEOS = 0.8
"""Share of the videos that is taken as the rule, whatever a few others show."""


@dataclass
class UnscoredMargins:
    """Looks at exclusive labels, video by video, for a class that lies only before and after one
    stretch."""

    videos: Counter[str] = field(default_factory=Counter)
    """With frames of the class, by class."""
    at_ends: Counter[str] = field(default_factory=Counter)
    """Those of them in which it lies at the ends alone."""
    frames: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    stretches: dict[str, list[int]] = field(default_factory=dict)

    def add(self, labels: Labels) -> None:
        """Looks at one video."""
        if labels.overlapping:
            return
        shown = labels.frames
        for c, name in enumerate(labels.classes):
            own, first, end = _stretch(labels, c)
            if not own.any() or first == end:
                continue
            self.videos[name] += 1
            self.frames[name] += int(own.sum())
            self.at_ends[name] += not own[first:end].any()
            known = shown[first:end][shown[first:end] != UNLABELLED]
            self.changes[name] += int((np.diff(known) != 0).sum())
            self.stretches.setdefault(name, []).append(end - first)

    def summary(self) -> dict[str, dict[str, int | None]]:
        """For each class that in most videos lies at the ends alone ``videos`` that show it,
        ``at_ends`` (those of them), ``frames``, and, where most stretches are of one length,
        ``stretch_frames`` and the number of ``stretch_videos``."""
        found: dict[str, dict[str, int | None]] = {}
        for name, videos in self.videos.items():
            few_inside = self.at_ends[name] >= MOST_VIDEOS * videos
            if not few_inside or self.changes[name] < LEAST_CHANGES * videos:
                continue
            length, number = Counter(self.stretches[name]).most_common(1)[0]
            fixed = number > 1 and number >= MOST_VIDEOS * videos
            found[name] = {
                "videos": videos,
                "at_ends": self.at_ends[name],
                "frames": self.frames[name],
                "stretch_frames": length if fixed else None,
                "stretch_videos": number if fixed else None,
            }
        return found


def _stretch(labels: Labels, c: int) -> tuple[npt.NDArray[np.bool_], int, int]:
    """Frames of class c, and the first and the one after the last that show another."""
    marks = labels.marks == 1
    others = np.flatnonzero(np.delete(marks, c, axis=1).any(axis=1))
    first, end = (int(others[0]), int(others[-1]) + 1) if len(others) else (0, 0)
    return np.asarray(marks[:, c]), first, end


def parse_classes(words: Sequence[str], labels: Iterable[Labels]) -> list[tuple[str, str]]:
    """``CLASS`` or ``TASK:CLASS``, as label set and class.

    Raises:
        BadInput: If there is no such class, or several label sets have it; lists what there is.
    """
    classes: dict[str, list[str]] = {}
    for each in labels:
        known = classes.setdefault(each.task, [])
        known += [name for name in each.classes if name not in known]
    pairs, errors = [], []
    for word in words:
        task, _, name = word.rpartition(":")
        having = [(one, word) for one in sorted(classes) if word in classes[one]]
        if name in classes.get(task, ()):
            having.append((task, name))
        if len(having) == 1:
            pairs += having
        elif having:
            which = ", ".join(f"{one}:{other}" for one, other in having)
            errors.append(f"{word!r} is a class of several label sets; say which: {which}")
        else:
            listed = "; ".join(f"{one}: {', '.join(names)}" for one, names in classes.items())
            errors.append(f"there is no class {word!r}; there are {listed or 'no labels'}")
    refuse(errors, about="--unscored takes CLASS or LABELSET:CLASS")
    return pairs


def without_unscored(
    labels: Sequence[Labels], pairs: Iterable[tuple[str, str]], *, margins_only: bool = False
) -> tuple[list[Labels], list[str]]:
    """Makes the frames of some classes (label set and class) unlabelled; a class of which nothing
    remains is a class no more. With ``margins_only`` only the frames before the first and after the
    last frame of another class.

    Returns:
        The labels in their order, and a sentence for each class.

    Raises:
        BadInput: If a label set has no other class.
    """
    changed, notes, errors = list(labels), [], []
    for task, name in pairs:
        mine = [n for n, each in enumerate(changed) if each.task == task and name in each.classes]
        if any(changed[n].classes == (name,) for n in mine):
            errors.append(f"{name!r} is the only class of {task}: nothing would be labelled")
            continue
        removed = remaining = videos = 0
        for n in mine:
            each = changed[n]
            own, first, end = _stretch(each, each.classes.index(name))
            total = int(own.sum())
            if margins_only:
                own[first:end] = False
            removed, videos = removed + int(own.sum()), videos + bool(own.any())
            remaining += total - int(own.sum())
            frames = each.frames.copy()
            frames[own] = UNLABELLED
            changed[n] = replace(each, frames=frames)
        note = f"{task}: {removed:,} frames of {name!r} in {videos} videos are now unlabelled"
        if remaining:
            note += f"; {remaining:,} between other classes stay"
        else:
            for n in mine:
                changed[n] = without_class(changed[n], name)
            note += ", and it is a class no more"
        notes.append(note)
    refuse(errors, about="--unscored")
    return changed, notes


def without_class(labels: Labels, name: str) -> Labels:
    """The labels without a class that no frame shows."""
    c = labels.classes.index(name)
    classes = tuple(other for other in labels.classes if other != name)
    if labels.overlapping:
        return replace(labels, classes=classes, frames=np.delete(labels.frames, c, axis=1))
    frames = np.where(labels.frames > c, labels.frames - 1, labels.frames).astype(np.int8)
    return replace(labels, classes=classes, frames=frames)


def make_unscored(uri: str, words: Sequence[str], *, margins_only: bool = False) -> list[str]:
    """The same in a store that is there: its labels are replaced, its poses are not touched; where
    :func:`parse_classes` or :func:`without_unscored` refuse, nothing is.

    Returns:
        A sentence for each class.
    """
    store = Store(uri)
    labels = list(read_labels(store))
    pairs = parse_classes(words, labels)
    tasks = {task for task, _ in pairs}
    changed, notes = without_unscored(
        [each for each in labels if each.task in tasks], pairs, margins_only=margins_only
    )
    replace_labels(store, changed)
    return notes
