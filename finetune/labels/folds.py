"""Folds of the labelled recordings: a recording is held out with one of them, of all problems at
once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.hold_out import Recordings, hold_out
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import is_parent, without_scored_frames
from pretrain.errors import BadInput

ATTEMPTS = 20
"""Random assignments to folds, of which the best is taken."""


def all_in_training(problems: Sequence[Problem]) -> list[Problem]:
    """The same problems with every labelled video in ``train``, whichever side it was on."""
    return [replace(p, train={**p.train, **p.test}, test={}) for p in problems]


def cross_validated_in_words(folds: int, *, pretrained: bool) -> str:
    """What a reader of such scores should know.

    Args:
        folds: How many.
        pretrained: Whether the encoder was; one that was not is standardised here.
    """
    standardised = (
        ""
        if pretrained
        else "; the encoder's inputs are standardised on the poses (not the labels) of all "
        "recordings, those of the fold included"
    )
    return (
        f"scores are of a cross-validation in {folds} folds: every recording is predicted by fits "
        "whose labels, settings and postprocessing came from the other folds; the saved model "
        f"learned from all labels, and these scores are not of itself{standardised}"
    )


def cross_validation(
    problems: Sequence[Problem],
    *,
    folds: int,
    share: float,
    seed: int,
    recording: Recordings = lambda video: video,
) -> list[list[Problem]]:
    """For each fold the problems with its recordings as ``test`` and the others as ``train``; every
    recording is in one fold. Which those are does not depend on the encoder.

    Args:
        problems: With all their videos in ``train``.
        folds: How many.
        share: Of a problem's only recording that is scored, its last part.
        seed: Of the folds.
        recording: As :func:`finetune.fit.frames.recordings` gives it.

    Raises:
        BadInput: If there are fewer recordings than folds.
    """
    first: dict[str, str] = {}  # contents, which name recordings else, differ between encoders
    for video in sorted({video for problem in problems for video in problem.train}):
        first.setdefault(recording(video), video)
    most = max(len({recording(video) for video in problem.train}) for problem in problems)
    if not 2 <= folds <= most:
        raise BadInput(
            f"--folds {folds}: there are {most} labelled recordings; give at least 2 folds, and at "
            "most as many as recordings"
        )
    split = []
    for sides in split_folds(
        problems,
        folds=folds,
        share=share,
        seed=seed,
        recording=lambda video: first[recording(video)],
    ):
        held_out = [{} if is_parent(problems, part) else labels for part, labels in sides]
        parts = without_scored_frames([part for part, _ in sides], held_out)
        split.append([replace(p, test=labels) for p, labels in zip(parts, held_out, strict=True)])
    return split


def split_folds(
    problems: Sequence[Problem],
    *,
    folds: int,
    share: float,
    seed: int,
    recording: Recordings = lambda video: video,
) -> list[list[tuple[Problem, Labelled]]]:
    """For each fold and problem: the problem to fit on, and the labels of the videos held out.

    A recording is held out of all problems at once, for two problems may share it. A problem whose
    recordings all fall to one fold (it has one, say) keeps some of its labels for fitting, as
    :func:`finetune.labels.hold_out.hold_out` divides them.
    """
    divided = hold_out(problems, share=share, seed=seed, recording=recording)
    if folds == 1:
        return [divided]
    most = max(len(problem.train) for problem in problems)
    fold_of = _best_assignment(problems, folds=min(folds, most), seed=seed, recording=recording)
    split = []
    for fold in sorted(set(fold_of.values())):
        sides: list[tuple[Problem, Labelled]] = []
        fitted_until: dict[str, int] = {}
        for problem in problems:
            inside = [name for name in problem.train if fold_of[recording(name)] != fold]
            outside = {name: labels for name, labels in problem.train.items() if name not in inside}
            if inside:
                sides.append((problem.only(inside), outside))
                continue
            ((part, held_out),) = hold_out([problem], share=share, seed=seed, recording=recording)
            for name, labels in part.train.items():
                known = np.flatnonzero(looked_at(labels))
                last = int(known[-1]) + 1 if len(known) else 0
                fitted_until[recording(name)] = max(last, fitted_until.get(recording(name), 0))
            sides.append((part, held_out))
        # nobody is scored on frames that another problem is fitted on
        sides = [(part, _from(held_out, fitted_until, recording)) for part, held_out in sides]
        split.append(sides)
    return split


def _from(held_out: Labelled, begins: Mapping[str, int], recording: Recordings) -> Labelled:
    """Held-out labels without the first frames of some recordings."""
    kept = {}
    for name, labels in held_out.items():
        if begin := begins.get(recording(name), 0):
            labels = labels.copy()
            labels[:begin] = UNLABELLED
        if looked_at(labels).any():
            kept[name] = labels
    return kept


def _best_assignment(
    problems: Sequence[Problem], *, folds: int, seed: int, recording: Recordings
) -> Mapping[str, int]:
    """Recording to fold: of some random assignments the one in which the fewest classes are missing
    where a network is fitted."""
    shown: list[dict[str, set[int]]] = [{} for _ in problems]
    for classes_of, problem in zip(shown, problems, strict=True):
        for name, labels in problem.train.items():
            classes_of.setdefault(recording(name), set()).update(_classes(labels))
    names = sorted(set().union(*shown))

    def missing(fold_of: Mapping[str, int]) -> int:
        return sum(
            len(
                set().union(*classes_of.values())
                - set().union(*(c for name, c in classes_of.items() if fold_of[name] != fold))
            )
            for classes_of in shown
            for fold in range(folds)
        )

    orders = (
        np.random.default_rng([seed, 4, attempt]).permutation(len(names))
        for attempt in range(ATTEMPTS)
    )
    return min(
        (_assign([names[n] for n in order], shown, folds=folds) for order in orders), key=missing
    )


def _assign(
    names: Sequence[str], shown: Sequence[Mapping[str, set[int]]], *, folds: int
) -> dict[str, int]:
    """Each problem's videos as evenly as can be, the problems with the fewest first: they have the
    least choice."""
    fold_of: dict[str, int] = {}
    total = [0] * folds
    for classes_of in sorted(shown, key=len):
        mine = [name for name in names if name in classes_of]
        count = [sum(fold_of.get(name) == fold for name in mine) for fold in range(folds)]
        for name in mine:
            if name not in fold_of:
                fold = min(range(folds), key=lambda fold: (count[fold], total[fold], fold))
                fold_of[name] = fold
                count[fold] += 1
                total[fold] += 1
    return fold_of


def _classes(labels: np.ndarray) -> set[int]:
    if labels.ndim == 2:
        return set(np.flatnonzero((labels == 1).any(axis=0)).tolist())
    return set(np.unique(labels[labels != UNLABELLED]).tolist())
