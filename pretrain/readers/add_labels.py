"""Labels of recordings that were just added to a store, in the form of those that it has
already."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import refuse
from pretrain.quality.scored import only_scored
from pretrain.quality.unscored import parse_classes, without_unscored
from pretrain.readers.annotations import UNLABELLED, Labels, read_labels, write_labels
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.split import assign_missing_splits, resample_labels

log = logging.getLogger(__name__)


def add_labels(
    writer: StoreWriter,
    folder: str,
    frames: Mapping[str, int],
    *,
    fps: float,
    existing: Store | None,
    test_share: float,
    seed: int,
    unscored: Sequence[str] = (),
    unscored_margins: Sequence[str] = (),
    scored: Sequence[str] = (),
    annotator: str | None = None,
    first_frame: int | None = None,
) -> None:
    """Reads label files and writes the labels of the videos that were added, at the store's rate.

    Args:
        writer: Holds the videos.
        folder: Label files; those of videos that the store had before are passed over.
        frames: Length of the track of each added video as its file has it.
        fps: Rate of those tracks.
        existing: The store as it was before, if there was one.
        test_share: Of the recordings whose files state no split.
        seed: Another choice of those.
        unscored: Classes whose frames become unlabelled: ``CLASS`` or ``TASK:CLASS``.
        unscored_margins: Classes of which only those frames do that lie before the first and after
            the last frame of another class.
        scored: Behaviours that only some recordings were scored for, as of :func:`only_scored`.
        annotator: As of :func:`read_label_files`.
        first_frame: As of :func:`read_label_files`.

    Raises:
        BadInput: If the files are damaged, or do not fit the videos or the labels in the store.
    """
    known = {video["name"]: video["frames"] for video in writer.videos} | dict(frames)
    labels, mismatches = read_label_files(
        folder, known, fps, annotator=annotator, first_frame=first_frame
    )
    for mismatch in mismatches:
        if mismatch.video in frames:
            log.warning("%s", mismatch)
    new = [
        resample_labels(each, old_fps=fps, fps=writer.schema.fps)
        for each in labels
        if each.video in frames
    ]
    if len(new) < len(labels):
        log.info(
            "labels of %d videos that the store had before passed over",
            len({each.video for each in labels} - set(frames)),
        )
    for words, margins_only in ((unscored, False), (unscored_margins, True)):
        if words:
            pairs = parse_classes(words, new)
            new, notes = without_unscored(new, pairs, margins_only=margins_only)
            for note in notes:
                log.info("%s", note)
    if existing is not None:
        new = conformed(new, existing)
    if scored:
        new = only_scored(new, scored, keep_classes=existing is not None)
        if existing is not None:
            new = conformed(new, existing)  # refuses where the store's classes are exclusive
    write_labels(writer, assign_missing_splits(new, test_share=test_share, seed=seed))


def conformed(labels: Iterable[Labels], store: Store) -> list[Labels]:
    """Gives labels the classes, and their order, of the same task in a store, so that both are one
    problem.

    Raises:
        BadInput: If a task of the store lacks a class that was scored; with both lists.
    """
    forms: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
    for each in read_labels(store):
        known = forms.setdefault(each.task, [])
        if (each.classes, each.overlapping) not in known:
            known.append((each.classes, each.overlapping))
    result, errors = [], []
    for each in labels:
        fitting = [
            expressed
            for classes, overlapping in forms.get(each.task, [])
            if (expressed := _expressed(each, classes, overlapping)) is not None
        ]
        if each.task in forms and not fitting:
            in_store = " / ".join(_listed(*form) for form in forms[each.task])
            errors.append(
                f"{each.task}, video {each.video}: the classes are "
                f"{_listed(each.classes, each.overlapping)}; in the store they are {in_store}"
            )
        result.append(fitting[0] if fitting else each)
    about = (
        f"labels do not fit those of the store {store.uri}: prepare all recordings into a new store"
    )
    refuse(errors, about=about)
    return result


def _listed(classes: tuple[str, ...], overlapping: bool) -> str:
    return ", ".join(classes) + (" (overlapping)" if overlapping else "")


def _expressed(labels: Labels, classes: tuple[str, ...], overlapping: bool) -> Labels | None:
    """The labels under these classes; None where they cannot be expressed so."""
    if (labels.classes, labels.overlapping) == (classes, overlapping):
        return labels
    if overlapping:
        # "other" is what nothing was marked of.
        lost = set(labels.classes) - set(classes) - ({"other"} if not labels.overlapping else set())
        if lost:
            return None
        marks, wide = labels.marks, np.zeros((len(labels.frames), len(classes)), np.int8)
        for column, name in enumerate(labels.classes):
            if name in classes:
                wide[:, classes.index(name)] = marks[:, column]
        wide[(marks == UNLABELLED).all(1)] = UNLABELLED
        return replace(labels, classes=classes, frames=wide)
    if labels.overlapping or not set(labels.classes) <= set(classes):
        return None
    # UNLABELLED, -1, takes the last.
    indices = np.array([*(classes.index(name) for name in labels.classes), UNLABELLED], np.int8)
    return replace(labels, classes=classes, frames=indices[labels.frames])
