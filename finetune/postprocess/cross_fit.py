"""Cross-fitting: predictions for training videos by networks that were not fitted on them, the only
frames that the postprocessing may learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.fit.fit import fit
from finetune.fit.frames import Frames, recordings
from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.hold_out import Recordings, hold_out
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import without_scored_frames
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import LearnedPostprocessing, choose_steps
from finetune.settings import Tuning
from pretrain.encoders import Embedder

ATTEMPTS = 20
"""Random assignments to folds, of which the best is taken."""


def learn_postprocessing(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> list[LearnedPostprocessing]:
    """The postprocessing of each problem, learned only on training videos of the budget: their
    ``train`` labels are used, nothing else of them.

    Networks are fitted as in the run itself: from poses where there is an ``embedder`` to train
    along, for ``stop`` steps.
    """
    if all(len(problem.train) < 2 for problem in problems):  # a fit would serve nothing
        nobody = HeldOutPredictions(probabilities={}, labels={}, fold={})
        return [choose_steps(problem, nobody) for problem in problems]
    predictions = cross_fit(frames, problems, tuning, embedder, seed=seed, stop=stop)
    return [
        choose_steps(problem, held_out)
        for problem, held_out in zip(problems, predictions, strict=True)
    ]


def cross_fit(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> list[HeldOutPredictions]:
    """Fits once a fold on the videos of the other folds, and predicts those of this one.

    Arguments as of :func:`learn_postprocessing`.
    """
    assert tuning.postprocess_folds > 0, "no postprocessing was asked for"
    probabilities: list[dict[str, np.ndarray]] = [{} for _ in problems]
    labels: list[dict[str, np.ndarray]] = [{} for _ in problems]
    fold_of: list[dict[str, int]] = [{} for _ in problems]
    folds = split_folds(
        problems,
        folds=tuning.postprocess_folds,
        share=tuning.validation,
        seed=seed,
        recording=recordings(frames),
    )
    for fold, sides in enumerate(folds):
        outside = [labels for _, labels in sides]
        inside = without_scored_frames([problem for problem, _ in sides], outside)
        ((_, _, model),) = fit(frames, inside, tuning, embedder=embedder, seed=seed, stops=[stop])
        for p, predicted in enumerate(model.predict(frames, problems, outside)):
            probabilities[p] |= predicted
            labels[p] |= outside[p]
            fold_of[p] |= dict.fromkeys(predicted, fold)
    return [
        HeldOutPredictions(probabilities=p, labels=truth, fold=fold)
        for p, truth, fold in zip(probabilities, labels, fold_of, strict=True)
    ]


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
            ((part, held),) = hold_out([problem], share=share, seed=seed, recording=recording)
            for name, labels in part.train.items():
                known = np.flatnonzero(looked_at(labels))
                last = int(known[-1]) + 1 if len(known) else 0
                fitted_until[recording(name)] = max(last, fitted_until.get(recording(name), 0))
            sides.append((part, held))
        # nobody is scored on frames that another problem is fitted on
        sides = [(part, _from(held, fitted_until, recording)) for part, held in sides]
        split.append(sides)
    return split


def _from(held: Labelled, begins: Mapping[str, int], recording: Recordings) -> Labelled:
    """Held-out labels without the first frames of some recordings."""
    kept = {}
    for name, labels in held.items():
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
