"""Labels into a store: of recordings that were just added to it, or that it has already, in the
form of the label sets that are there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, refuse
from pretrain.quality.scored import only_scored
from pretrain.quality.unscored import parse_classes, without_unscored
from pretrain.readers.annotations import (
    UNLABELLED,
    Labels,
    read_labels,
    replace_labels,
    write_labels,
)
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.score_sheets import OTHER, SEVERAL, rest_of
from pretrain.readers.split import (
    assign_listed_splits,
    assign_missing_splits,
    resample_labels,
)

log = logging.getLogger(__name__)

TEST_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How label files are read."""

    test_share: float | None = None
    """Of the recordings whose files state no split; None: ``TEST_SHARE``."""
    seed: int = 0
    """Another choice of those."""
    test_videos: Sequence[str] | None = None
    """The recordings for test, in place of a share."""
    unscored: Sequence[str] = ()
    """Classes whose frames become unlabelled: ``CLASS`` or ``TASK:CLASS``."""
    unscored_margins: Sequence[str] = ()
    """Classes of which only those frames do that lie before the first and after the last frame of
    another class."""
    scored: Sequence[str] = ()
    """Behaviours that only some recordings were scored for, as of :func:`only_scored`."""
    annotator: str | None = None
    """As of :func:`read_label_files`."""
    first_frame: int | None = None
    """As of :func:`read_label_files`."""
    task: str | None = None
    """The label set, whatever the files say."""
    rest: str | None = None
    """The class of frames in which nothing was marked."""


def add_labels(
    writer: StoreWriter,
    folder: str,
    frames: Mapping[str, int],
    options: LabelOptions,
    *,
    fps: float,
    existing: Store | None,
) -> None:
    """Reads label files and writes the labels of the videos that were added, at the store's rate.

    Args:
        writer: Holds the videos.
        folder: Label files; those of videos that the store had before are passed over.
        frames: Length of the track of each added video as its file has it.
        options: How they are read.
        fps: Rate of those tracks.
        existing: The store as it was before, if there was one.

    Raises:
        BadInput: If the files are damaged, or do not fit the videos or the labels in the store.
    """
    known = {video["name"]: video["frames"] for video in writer.videos} | dict(frames)
    labels = _read(folder, known, options, fps=fps, expected=frames)
    new = [
        resample_labels(each, old_fps=fps, fps=writer.schema.fps)
        for each in labels
        if each.video in frames
    ]
    if len(new) < len(labels):
        log.info(
            "labels of %d videos that the store had before passed over (to add them, leave out "
            "--poses)",
            len({each.video for each in labels} - set(frames)),
        )
    new = _as_asked(new, options, existing)
    write_labels(writer, _with_split(new, options, elsewhere=set(known) - set(frames)))


def label_again(store: Store, folder: str, options: LabelOptions) -> None:
    """Adds labels of videos that a store has; where a frame is labelled already under the same
    label set and annotator, the new label counts.

    A video that is labelled stays on its side of the split. The others train, where the label set
    is there already and no share for test is asked for.

    Raises:
        BadInput: If the files are damaged, or do not fit the videos or the labels in the store;
            nothing is then changed.
    """
    known = {video["name"]: video["frames"] for video in store.videos}
    new = _read(folder, known, options, fps=store.schema.fps, expected=())
    old = list(read_labels(store))
    new = _as_asked(new, options, store)
    if not new:
        raise BadInput(f"--labels {folder}: nothing is labelled in it")
    tasks = {each.task for each in old}
    side = {each.video: each.split for each in old}
    side |= {each.video: each.split for each in old if each.task in {one.task for one in new}}
    if options.test_share is None and options.test_videos is None:
        side |= {e.video: "train" for e in new if e.task in tasks and e.video not in side}
    sided = [replace(e, split=side[e.video]) for e in new if e.video in side]
    others = [each for each in new if each.video not in side]
    new = sided + _with_split(others, options, elsewhere=known)
    merged = {_key(each): each for each in old if each.task in {one.task for one in new}}
    for each in new:
        before = merged.get(_key(each))
        if before is not None:
            frames = np.where(each.frames == UNLABELLED, before.frames, each.frames)
            each = replace(each, frames=frames.astype(np.int8))
        merged[_key(each)] = each
    replace_labels(store, list(merged.values()))
    for task in dict.fromkeys(each.task for each in new):
        mine = [each for each in new if each.task == task]
        count = sum(int((each.marks != UNLABELLED).any(1).sum()) for each in mine)
        log.info("%s: %d frames of %d videos labelled", task, count, len(mine))


def _key(labels: Labels) -> tuple[object, ...]:
    return labels.video, labels.task, labels.annotator, labels.classes, labels.overlapping


def _read(
    folder: str,
    known: Mapping[str, int],
    options: LabelOptions,
    *,
    fps: float,
    expected: Iterable[str],
) -> list[Labels]:
    expected = set(expected)
    labels, mismatches = read_label_files(
        folder,
        known,
        fps,
        annotator=options.annotator,
        first_frame=options.first_frame,
        task=options.task,
        expected=expected,
    )
    for mismatch in mismatches:
        if not expected or mismatch.video in expected:
            log.warning("%s", mismatch)
    return labels


def _as_asked(labels: list[Labels], options: LabelOptions, existing: Store | None) -> list[Labels]:
    """The labels after the options, and in the form of the store's."""
    if options.rest:
        labels = [_with_rest(each, options.rest) for each in labels]
    for words, margins_only in ((options.unscored, False), (options.unscored_margins, True)):
        if words:
            pairs = parse_classes(words, labels)
            labels, notes = without_unscored(labels, pairs, margins_only=margins_only)
            for note in notes:
                log.info("%s", note)
    if existing is not None:
        labels = conformed(labels, existing)
    if options.scored:
        labels = only_scored(labels, options.scored, keep_classes=existing is not None)
        if existing is not None:
            labels = conformed(labels, existing)  # refuses where the store's classes are exclusive
    return labels


def _with_split(
    labels: Sequence[Labels], options: LabelOptions, *, elsewhere: Iterable[str]
) -> list[Labels]:
    if options.test_videos is not None:
        return assign_listed_splits(labels, options.test_videos, elsewhere=elsewhere)
    share = TEST_SHARE if options.test_share is None else options.test_share
    return assign_missing_splits(labels, test_share=share, seed=options.seed)


def conformed(labels: Iterable[Labels], store: Store) -> list[Labels]:
    """Gives labels the classes, and their order, of the same task in a store, so that both are one
    problem.

    Labels without an annotator are of the one who labelled all of the store's task, if there is
    one. Labels whose files name no task are of the one task in the store that has just their
    classes, if there is one. "other" is the rest class of the store's task, whatever its name. A
    label set that is new to the store is announced.

    Raises:
        BadInput: If a task of the store lacks a class that was scored; with both lists.
    """
    forms: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
    annotators: dict[str, set[str]] = {}
    for each in read_labels(store):
        annotators.setdefault(each.task, set()).add(each.annotator)
        known = forms.setdefault(each.task, [])
        if (each.classes, each.overlapping) not in known:
            known.append((each.classes, each.overlapping))
    result, errors, notes = [], [], []
    for each in labels:
        each = replace(each, task=_task_in_store(each, forms))
        who = annotators.get(each.task, {""})
        if not each.annotator and len(who) > 1 and "" not in who:
            notes.append(
                f"{each.task}: labels without an annotator, beside those of "
                f"{', '.join(sorted(who))}: pass --annotator NAME to say whose they are"
            )
        if not each.annotator and len(who) == 1:
            each = replace(each, annotator=next(iter(who)))
            if each.annotator:
                notes.append(
                    f"{each.task}: labels without an annotator are taken for those of "
                    f"{each.annotator!r}, who labelled the others; else pass --annotator NAME"
                )
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
        if each.task not in forms and forms:
            notes.append(
                f"a new label set is made, {each.task!r} ({_listed(each.classes, each.overlapping)}"
                f"), beside {', '.join(sorted(forms))}: labels that belong to one of those are "
                "added to it with --task NAME, and --rest CLASS where nothing was marked"
            )
        elif (
            fitting
            and not fitting[0].overlapping
            and OTHER in set(each.classes) - set(fitting[0].classes)
        ):
            rest = rest_of(fitting[0].classes)
            notes.append(f"{each.task}: frames in which nothing was marked are {rest!r}")
        result.append(fitting[0] if fitting else each)
    about = (
        f"labels do not fit those of the store {store.uri}: prepare all recordings into a new "
        "store, or, if 'other' is one of those classes, pass --rest CLASS"
    )
    refuse(errors, about=about)
    for note in dict.fromkeys(notes):
        log.warning("%s", note)
    return result


def _task_in_store(
    labels: Labels, forms: Mapping[str, Sequence[tuple[tuple[str, ...], bool]]]
) -> str:
    """The label set of the store that has just these classes, where the files named none."""
    if labels.task in forms or labels.task not in (SEVERAL, *labels.classes):
        return labels.task
    own = {*labels.classes} - {OTHER}  # overlapping labels have no class for the rest
    same = [
        task
        for task, of_task in forms.items()
        if any({*classes} - {OTHER} == own for classes, _ in of_task)
    ]
    return same[0] if len(same) == 1 else labels.task


def _listed(classes: tuple[str, ...], overlapping: bool) -> str:
    return ", ".join(classes) + (" (overlapping)" if overlapping else "")


def _with_rest(labels: Labels, rest: str) -> Labels:
    """Exclusive labels with another class in place of "other"."""
    if labels.overlapping or OTHER not in labels.classes:
        return labels
    classes = tuple(dict.fromkeys(rest if name == OTHER else name for name in labels.classes))
    renamed = [classes.index(rest if name == OTHER else name) for name in labels.classes]
    # UNLABELLED, -1, takes the last.
    indices = np.array([*renamed, UNLABELLED], np.int8)
    return replace(labels, classes=classes, frames=indices[labels.frames])


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
    rest = rest_of(classes)
    if OTHER not in classes and rest is not None:
        labels = _with_rest(labels, rest)
    if labels.overlapping or not set(labels.classes) <= set(classes):
        return None
    indices = np.array([*(classes.index(name) for name in labels.classes), UNLABELLED], np.int8)
    return replace(labels, classes=classes, frames=indices[labels.frames])
