"""Labels of recordings that were just added to a store, in the form of those that it already
holds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import refuse
from pretrain.readers.annotations import UNLABELLED, Labels, read_label_file, write_labels
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.split import assign_missing_splits, resample_labels

log = logging.getLogger(__name__)


def add_labels(
    writer: StoreWriter,
    folder: str,
    frames: Mapping[str, int],
    *,
    fps: float,
    there: Store | None,
    test_share: float,
    seed: int,
) -> None:
    """Reads label files and writes the labels of the videos that were added, at the store's rate.

    Args:
        writer: Holds the videos.
        folder: Label files; those of videos that the store held before are passed over.
        frames: Length of the track of each added video as its file has it.
        fps: Rate of those tracks.
        there: The store as it was before, if there was one.
        test_share: Of the recordings whose files state no split.
        seed: Another deal of those.

    Raises:
        BadInput: If the files are damaged, or do not fit the videos or the labels in the store.
    """
    known = {video["name"]: video["frames"] for video in writer.videos} | dict(frames)
    labels, mismatches = read_label_files(folder, known, fps)
    for mismatch in mismatches:
        if mismatch.video in frames:
            log.warning("%s", mismatch)
    new = [
        resample_labels(held, old_fps=fps, fps=writer.schema.fps)
        for held in labels
        if held.video in frames
    ]
    if len(new) < len(labels):
        log.info(
            "labels of %d videos that the store held before passed over",
            len({held.video for held in labels} - set(frames)),
        )
    if there is not None:
        new = conformed(new, there)
    write_labels(writer, assign_missing_splits(new, test_share=test_share, seed=seed))


def conformed(labels: Iterable[Labels], store: Store) -> list[Labels]:
    """Gives labels the classes, and their order, of the same task in a store, so that both are one
    problem.

    Raises:
        BadInput: If a task of the store lacks a class that was scored; with both lists.
    """
    forms: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
    for record in store.labels:
        known = forms.setdefault(record["task"], [])
        for labelled in read_label_file(store, record["file"]):
            form = (labelled.classes, labelled.overlapping)
            if form not in known:
                known.append(form)
    made, problems = [], []
    for held in labels:
        fits = [
            taken
            for classes, overlapping in forms.get(held.task, [])
            if (taken := _taken(held, classes, overlapping)) is not None
        ]
        if held.task in forms and not fits:
            there = " / ".join(
                ", ".join(classes) + (" (overlapping)" if over else "")
                for classes, over in forms[held.task]
            )
            here = ", ".join(held.classes) + (" (overlapping)" if held.overlapping else "")
            problems.append(
                f"{held.task}, video {held.video}: the classes are {here}; in the store they are "
                f"{there}"
            )
        made.append(fits[0] if fits else held)
    about = (
        f"labels do not fit those of the store {store.uri}: prepare all recordings into a new store"
    )
    refuse(list(dict.fromkeys(problems))[:20], about=about)
    return made


def _taken(labels: Labels, classes: tuple[str, ...], overlapping: bool) -> Labels | None:
    """The labels under these classes; None where they cannot be expressed so."""
    if (labels.classes, labels.overlapping) == (classes, overlapping):
        return labels
    if overlapping:
        # "other" is what nothing was marked of.
        lost = set(labels.classes) - set(classes) - ({"other"} if not labels.overlapping else set())
        if lost:
            return None
        wide = np.zeros((len(labels.frames), len(classes)), np.int8)
        for place, name in enumerate(labels.classes):
            if name in classes:
                column = (
                    labels.frames[:, place] if labels.overlapping else _marks(labels.frames, place)
                )
                wide[:, classes.index(name)] = column
        unseen = (
            (labels.frames == UNLABELLED).all(1)
            if labels.overlapping
            else labels.frames == UNLABELLED
        )
        wide[unseen] = UNLABELLED
        return replace(labels, classes=classes, frames=wide)
    if labels.overlapping or not set(labels.classes) <= set(classes):
        return None
    places = np.array(
        [*(classes.index(name) for name in labels.classes), UNLABELLED], np.int8
    )  # UNLABELLED, -1, takes the last
    return replace(labels, classes=classes, frames=places[labels.frames])


def _marks(frames: npt.NDArray[np.int8], place: int) -> npt.NDArray[np.int8]:
    return np.asarray(frames == place, np.int8)
