"""Classification problems from a store's labels: what a task consists of, on which videos, and
which labels may be used."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import UNLABELLED, looked_at, rest_class
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import read_label_file

log = logging.getLogger(__name__)

Labelled = Mapping[str, npt.NDArray[np.int8]]
"""Video to labels: (T,) indices of ``classes``, or (T, C) of 0 and 1; UNLABELLED where nobody
looked."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One classifier to fit: a task has one, or one an annotator (Task 2), or one a behaviour (Task
    3)."""

    name: str
    task: str
    classes: tuple[str, ...]
    annotator: str
    overlapping: bool
    train: Labelled
    test: Labelled
    refines: tuple[str, str] | None = None
    """Name of another problem, and the class of it that this one tells the kinds of; see
    :mod:`finetune.labels.refine`."""

    @property
    def rest(self) -> str | None:
        """The class that the means leave out."""
        return rest_class(classes=self.classes)

    def only(self, videos: list[str]) -> Problem:
        """The same problem with these training videos."""
        return replace(self, train={name: self.train[name] for name in videos})


def tasks(store: Store) -> list[str]:
    """Label sets of a store."""
    return sorted({file["task"] for file in store.labels})


def problems(store: Store, task: str) -> list[Problem]:
    """The problems of a task.

    Raises:
        BadInput: If the store has no such labels (lists those it has), or they are damaged.
    """
    files = [file["file"] for file in store.labels if file["task"] == task]
    if not files:
        known = ", ".join(tasks(store)) or "none at all"
        raise BadInput(
            f"the store {store.uri} has no labels for the task {task!r}; it has: {known}"
        )
    groups: dict[tuple[str, tuple[str, ...], bool], dict[str, dict[str, npt.NDArray[np.int8]]]] = {}
    for file in files:
        for labels in read_label_file(store, file):
            key = (labels.annotator, labels.classes, labels.overlapping)
            sides = groups.setdefault(key, {"train": {}, "test": {}})
            sides[labels.split][labels.video] = labels.frames
    several_annotators = len({annotator for annotator, _, _ in groups}) > 1
    several_classes = len({classes for _, classes, _ in groups}) > 1
    loaded = []
    for (annotator, classes, overlapping), sides in sorted(groups.items()):
        words = [f"annotator {annotator}"] * several_annotators
        words += [_behaviour(classes)] * several_classes
        loaded.append(
            Problem(
                name=", ".join(words) or task,
                task=task,
                classes=classes,
                annotator=annotator,
                overlapping=overlapping,
                train=sides["train"],
                test=sides["test"],
            )
        )
    return loaded


def problem_like(store: Store, problem: Problem) -> Problem:
    """A model's problem with the labels of a store.

    Raises:
        BadInput: If the store has no such labels.
    """
    for one in problems(store, problem.task):
        if (one.classes, one.annotator) == (problem.classes, problem.annotator):
            return one
    raise BadInput(
        f"{store.uri} has no labels under {problem.task!r} with the model's classes "
        f"{', '.join(problem.classes)}" + (f" by {problem.annotator}" if problem.annotator else "")
    )


def labels_like(store: Store, problem: Problem) -> Labelled:
    """All labels, of training and test, that a store has of a model's problem."""
    if problem.task not in tasks(store):
        return {}
    same = problem_like(store, problem)
    return {**same.train, **same.test}


def _behaviour(classes: tuple[str, ...]) -> str:
    rest = rest_class(classes=classes)
    return " / ".join(name for name in classes if name != rest)


def with_some_test(
    problems: list[Problem], *, share: float = 0.3, gap_s: float = 5.0, fps: float
) -> tuple[list[Problem], list[str]]:
    """Problems with something to score on, and sentences on how that was come by.

    A problem with one labelled video and no test video is trained on the first part of that video
    and scored on the rest, with a gap between. Frames of one video are not independent: such a
    score says little about other animals.

    Args:
        problems: As :func:`problems` gives them.
        share: Share of the video that is scored.
        gap_s: Seconds between the parts that are used for neither.
        fps: Frames per second.
    """
    testable, notes = [], []
    for problem in problems:
        if problem.test or len(problem.train) != 1:
            testable.append(problem)
            continue
        ((name, labels),) = problem.train.items()
        cut = round(len(labels) * (1 - share))
        before, after = labels.copy(), labels.copy()
        before[max(0, cut - round(gap_s * fps)) :], after[:cut] = UNLABELLED, UNLABELLED
        testable.append(replace(problem, train={name: before}, test={name: after}))
        notes.append(
            f"{problem.name}: one labelled video. It is trained on the first {1 - share:.0%} of "
            f"{name!r} and scored on the last "
            f"{share:.0%}; frames of one video are not independent, so the score says little about "
            "other animals"
        )
    return testable, notes


def refuse_unfit(
    problems: list[Problem],
    *,
    videos: int | None = None,
    folds: int | None = None,
    unknown_annotators: bool = False,
) -> list[str]:
    """Refuses problems that nothing can be learned from; returns sentences on what is lacking in
    the others.

    Args:
        problems: With their training and test videos.
        videos: Label budget, if there is one.
        folds: Of a cross-validation, which needs no test videos.
        unknown_annotators: Whether the head can speak for an annotator of whom no training video is
            there.

    Raises:
        BadInput: If a problem has no training or no test video, or its training frames show one
            class only, or the budget is below 1, or folds are fewer than 2.
    """
    errors, notes = [], []
    if videos is not None and videos < 1:
        errors.append(f"--videos {videos}: the label budget must be at least one video")
    if folds is not None and folds < 2:
        errors.append(f"--folds {folds}: a cross-validation has at least 2 folds")
    for problem in problems:
        where = f"task {problem.task!r}" + (
            f", {problem.name}" if problem.name != problem.task else ""
        )
        if not problem.train and any(
            other.train for other in problems if other.classes == problem.classes
        ):
            if unknown_annotators:
                notes.append(
                    f"{where}: no training video; scored as the mean of the annotators there are"
                )
            else:
                errors.append(
                    f"{where}: no training video by this annotator (--set head.annotator=embedding "
                    "scores such a one "
                    "as the mean of the others)"
                )
        elif not problem.train:
            errors.append(f"{where}: no training video")
        elif videos is not None and videos > len(problem.train):
            notes.append(
                f"{where}: --videos {videos}, but there are {len(problem.train)} labelled training "
                "videos: all are used"
            )
        for side, labels in (("training", problem.train), ("test", problem.test)):
            seen = classes_seen(problem, labels)
            if not labels:
                if side == "test" and folds is None:
                    errors.append(
                        f"{where}: no test video (score by cross-validation with --folds 3, or on "
                        "another store with --test-data)"
                    )
            elif not seen:
                errors.append(f"{where}: the {side} videos have not one labelled frame")
            elif side == "training" and len(seen) == 1 and not problem.overlapping:
                errors.append(
                    f"{where}: every labelled training frame is {next(iter(seen))!r}; a classifier "
                    "needs two classes"
                )
            elif absent := [name for name in problem.classes if name not in seen]:
                notes.append(f"{where}: no {side} frame of {', '.join(absent)}")
    refuse(errors, about="these labels cannot be used")
    return notes


def classes_seen(problem: Problem, labels: Labelled) -> set[str]:
    """The classes that labels show anywhere."""
    if problem.overlapping:
        return {
            name
            for c, name in enumerate(problem.classes)
            if any((frames[:, c] == 1).any() for frames in labels.values())
        }
    return {
        problem.classes[c]
        for frames in labels.values()
        for c in np.unique(frames)
        if c != UNLABELLED
    }


def draw_budget(
    problems: list[Problem], *, videos: int | None, seed: int, permute: bool = False
) -> list[Problem]:
    """A label budget: for each problem so many of its training videos, drawn with the seed.

    Budgets are nested: the videos of a small one are among those of a larger one under the same
    seed. Where a problem has fewer videos, all are taken.

    Args:
        problems: With all their videos.
        videos: How many, None for all.
        seed: Of the draw.
        permute: Whether the labels lose their meaning, see :func:`permuted`.

    Raises:
        BadInput: If a budget is below 1.
    """
    if videos is not None and videos < 1:
        raise BadInput(f"--videos {videos}: the label budget must be at least one video")
    drawn = []
    for problem in problems:
        names = sorted(problem.train)
        order = np.random.default_rng([seed, 1]).permutation(len(names))
        budget = (
            problem if videos is None else problem.only([names[index] for index in order[:videos]])
        )
        drawn.append(permuted(budget, seed=seed) if permute else budget)
    return drawn


def permuted(problem: Problem, *, seed: int) -> Problem:
    """The control: the labels of each training video rolled in time by an offset of its own; test
    labels stay.

    Bouts keep their lengths, their number and their order, but no longer fit what the animals do.
    Only labelled frames are rolled, by a tenth to nine tenths of them.

    Args:
        problem: With true labels.
        seed: Of the offsets, together with the name of the video: all annotators of a video are
            rolled alike.
    """
    rolled = {}
    for name, labels in problem.train.items():
        known = labels != UNLABELLED if labels.ndim == 1 else (labels != UNLABELLED).any(1)
        labelled = np.flatnonzero(known)
        share = np.random.default_rng([seed, 4, zlib.crc32(name.encode())]).uniform(0.1, 0.9)
        rolled[name] = labels.copy()
        rolled[name][labelled] = np.roll(labels[labelled], round(share * len(labelled)), axis=0)
    return replace(problem, train=rolled)


ELSEWHERE = " (test store)"  # behind the names of videos of another store


def with_test_of(
    problems: list[Problem],
    others: list[Problem],
    store: Store,
    test_store: Store,
    *,
    unknown_annotators: bool = False,
) -> list[Problem]:
    """The same problems, trained on all labelled videos of their store and tested on all of
    another.

    Args:
        problems: Of ``store``.
        others: Of ``test_store``.
        store: Where the training videos are.
        test_store: Where the test videos are.
        unknown_annotators: Whether the head can speak for annotators who are in ``test_store``
            only: then they are scored too.

    Raises:
        BadInput: If the skeletons differ, or the other store has classes that this one has not.
            Their order may differ, and a class that is not in the other store never occurs there.
    """

    def fits(problem: Problem, other: Problem) -> bool:
        alike = set(other.classes) <= set(problem.classes)
        return alike and problem.overlapping == other.overlapping

    found = {
        problem.name: next(
            (o for o in others if o.annotator == problem.annotator and fits(problem, o)), None
        )
        for problem in problems
    }
    refuse(
        store.schema.differences(test_store.schema)
        + [
            f"{test_store.uri} has no labels for {p.name} with classes {', '.join(p.classes)}"
            for p in problems
            if found[p.name] is None
        ],
        about=f"--test-data {test_store.uri} (there) does not fit {store.uri} (here)",
    )

    def test_of(problem: Problem, other: Problem | None) -> Labelled:
        assert other is not None
        return {
            f"{name}{ELSEWHERE}": _in_classes_of(problem, labels, other.classes)
            for name, labels in {**other.train, **other.test}.items()
        }

    tested = [
        replace(
            problem,
            train={**problem.train, **problem.test},
            test=test_of(problem, found[problem.name]),
        )
        for problem in problems
    ]
    taken = [other.name for other in found.values() if other is not None]
    for other in others:
        if other.name in taken:
            continue
        like = next((problem for problem in problems if fits(problem, other)), None)
        if unknown_annotators and like is not None:
            name, test = f"annotator {other.annotator}", test_of(like, other)
            tested.append(replace(other, name=name, classes=like.classes, train={}, test=test))
        else:
            log.warning(
                "%s: %s has no counterpart among the training labels and is not scored",
                test_store.uri,
                other.name,
            )
    return tested


def _in_classes_of(
    problem: Problem, labels: npt.NDArray[np.int8], classes: Sequence[str]
) -> npt.NDArray[np.int8]:
    """Labels of other ``classes``, all of which a problem has, by the problem's."""
    index = np.array([problem.classes.index(name) for name in classes], np.int8)
    known = looked_at(labels)
    if not problem.overlapping:
        return np.where(known, index[labels.clip(0)], np.int8(UNLABELLED))
    shown = np.zeros((len(labels), len(problem.classes)), np.int8)
    shown[:, index] = labels
    shown[~known] = UNLABELLED
    return shown
