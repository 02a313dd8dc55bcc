"""Behaviours that were scored in some recordings only.

What nobody scored in a recording is unlabelled there, for that behaviour alone: it counts in no
fit, score or calibration. Such labels are of overlapping behaviours, (T, C) of 0, 1 and UNLABELLED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from pretrain.errors import refuse
from pretrain.quality.unscored import without_class
from pretrain.readers.annotations import UNLABELLED, Labels
from pretrain.readers.score_sheets import OTHER


def only_scored(
    labels: Sequence[Labels], words: Sequence[str], *, keep_classes: bool
) -> list[Labels]:
    """Makes behaviours unlabelled in the recordings that were not scored for them.

    Args:
        labels: All of a store, or all that are added to it. Label sets that have none of the
            behaviours stay as they are.
        words: ``BEHAVIOUR,…`` for all recordings, or ``RECORDINGS=BEHAVIOUR,…`` for those whose
            name, or ``ANNOTATOR/NAME``, fits the pattern; of several that fit the last counts.
        keep_classes: Also behaviours that no recording was scored for.

    Returns:
        The labels in their order.

    Raises:
        BadInput: If a behaviour or recording is not there, or each frame of a label set has one
            class of several.
    """
    parted = [word.rpartition("=") for word in words]
    rules = [(pattern or "*", names.split(",")) for pattern, _, names in parted]
    named = {name for _, names in rules for name in names}
    known = dict.fromkeys(c for each in labels for c in each.classes if c != OTHER)
    errors = [
        f"there is no behaviour {name!r}; there are {', '.join(known) or 'none'}"
        for name in sorted(named - set(known))
    ]
    errors += [
        f"no labelled recording fits {pattern!r}"
        for pattern, _ in rules
        if not any(_fits(each, pattern) for each in labels)
    ]
    tasks = {each.task for each in labels if named & set(each.classes)}
    errors += [
        f"each frame under {each.task!r} shows one of {', '.join(each.classes)}: of such labels it "
        "cannot be said that one behaviour was not scored"
        for each in labels
        if each.task in tasks and not each.overlapping and OTHER not in each.classes
    ]
    refuse(errors, about="--scored takes BEHAVIOUR,… or RECORDINGS=BEHAVIOUR,…")
    changed = []
    for each in labels:
        if each.task in tasks:
            each = _as_overlapping(each)
            scored = [names for pattern, names in rules if _fits(each, pattern)]
            if scored:
                frames = each.frames.copy()
                frames[:, [name not in scored[-1] for name in each.classes]] = UNLABELLED
                each = replace(each, frames=frames)
        changed.append(each)
    if keep_classes:
        return changed
    seen = {
        (each.task, name)
        for each in changed
        for name, marks in zip(each.classes, each.marks.T, strict=True)
        if each.task not in tasks or (marks != UNLABELLED).any()
    }
    for n, each in enumerate(changed):
        for name in each.classes:
            if (each.task, name) not in seen:
                changed[n] = without_class(changed[n], name)
    return changed


def _fits(labels: Labels, pattern: str) -> bool:
    names = labels.video, f"{labels.annotator}/{labels.video}"
    return any(fnmatchcase(name, pattern) for name in names)


def _as_overlapping(labels: Labels) -> Labels:
    """Exclusive classes as behaviours of which each was marked or not; "other" is that none was."""
    if labels.overlapping:
        return labels
    frames = np.ascontiguousarray(labels.marks)
    return without_class(replace(labels, frames=frames), OTHER)
