"""Frame scores by the CalMS21 protocol: F1 and average precision per class, and their unweighted
means.

All labelled frames of a test set are pooled; nothing is averaged per video. The rest class
(``other``) stays a class that the argmax may choose, but does not enter the means. Average
precision is always of the raw scores, never of smoothed or thresholded ones. A class without one
positive test frame has no F1 and no average precision: it is NaN in ``per_class``, left out of the
means and named in ``notes`` (scikit-learn would count it as 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from finetune.labels.frame_labels import (
    UNLABELLED,
    ByVideo,
    Ints,
    Reals,
    decide,
    examine,
    looked_at,
    plain,
    rest_class,
)


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class against all others."""

    f1: float
    ap: float
    """Average precision; that of a random scorer is ``prevalence``."""
    precision: float
    """NaN where the class was never predicted (its F1 is then 0)."""
    recall: float
    prevalence: float
    """Share of the labelled frames that belong to the class: the chance level of ``ap``."""
    frames: int
    """Labelled frames that belong to the class."""
    predicted_frames: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one problem, or the mean of several (then ``problems`` holds each)."""

    classes: tuple[str, ...]
    counted: tuple[str, ...]
    """Classes that enter the means."""
    macro_f1: float
    map: float
    """Mean average precision."""
    chance_map: float
    """MAP of a random scorer."""
    per_class: Mapping[str, ClassScores]
    frames: int
    """Labelled frames."""
    confusion: npt.NDArray[np.int64] | None = field(default=None, compare=False)
    """Frames, (C, C), rows = truth. Overlapping behaviours: (C, 2, 2). None for a mean over unlike
    problems."""
    notes: tuple[str, ...] = ()
    problems: Mapping[str, Scores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return dict(plain(asdict(self)))


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """Mean and population standard deviation (ddof 0) over seeds of the final scores of each."""

    macro_f1: float
    macro_f1_std: float
    map: float
    map_std: float
    chance_map: float
    counted: tuple[str, ...]
    """Classes that enter the means."""
    per_class: Mapping[str, Mapping[str, float]]
    """For each class the fields of :class:`ClassScores`, each also with ``_std``."""
    per_seed: tuple[Mapping[str, float], ...]
    """seed, macro_f1, map."""
    notes: tuple[str, ...] = ()
    problems: Mapping[str, SeedScores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return dict(plain(asdict(self)))


def score(
    *,
    probabilities_TC: Reals,
    labels: Ints,
    classes: Sequence[str],
    rest: str | None = None,
    predicted: Ints | None = None,
) -> Scores:
    """Scores the pooled frames of one problem.

    Args:
        probabilities_TC: Raw scores of the network; average precision is theirs.
        labels: (T,) classes, or (T, C) of 0 and 1 for overlapping behaviours; UNLABELLED frames are
            left out.
        classes: Names, in the order of axis C. A binary problem is ("other", behaviour).
        rest: See :func:`rest_class`.
        predicted: Decisions to take F1, precision, recall and confusion from, shaped as ``labels``;
            left out: :func:`decide`.

    Raises:
        BadInput: See :func:`examine` and :func:`rest_class`.
    """
    left_out = rest_class(classes=classes, rest=rest)
    examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC, predicted=predicted)
    overlapping = labels.ndim == 2
    if predicted is None:
        predicted = decide(probabilities_TC=probabilities_TC, overlapping=overlapping)
    confusion = _confusion(labels=labels, predicted=predicted, n_classes=len(classes))
    hit, truth, chosen, labelled = _counts(confusion)
    f1 = _f1(hit, truth, chosen)
    per_class, notes = {}, []
    for c, name in enumerate(classes):
        known = labels[:, c] != UNLABELLED if overlapping else labels != UNLABELLED
        positive = labels[known, c] == 1 if overlapping else labels[known] == c
        column = np.asarray(probabilities_TC[known, c], np.float64)
        per_class[name] = ClassScores(
            f1=float(f1[c]),
            ap=float(average_precision_score(positive, column)) if truth[c] else math.nan,
            precision=_share(hit[c], chosen[c]),
            recall=_share(hit[c], truth[c]),
            prevalence=_share(truth[c], labelled[c]),
            frames=int(truth[c]),
            predicted_frames=int(chosen[c]),
        )
        if name != left_out and not truth[c]:
            notes.append(
                f"no labelled frame of {name!r}: its F1 and average precision are undefined and "
                "left out of the means"
            )
        elif name != left_out and truth[c] == labelled[c]:
            notes.append(
                f"every labelled frame is {name!r}: its average precision is 1 whatever the scores"
            )
    counted = tuple(name for name in classes if name != left_out)
    return Scores(
        classes=tuple(classes),
        counted=counted,
        macro_f1=_mean(per_class[name].f1 for name in counted),
        map=_mean(per_class[name].ap for name in counted),
        chance_map=_mean(per_class[name].prevalence for name in counted if per_class[name].frames),
        per_class=per_class,
        frames=int(looked_at(labels).sum()),
        confusion=confusion,
        notes=tuple(notes),
    )


def frame_f1(
    *,
    labels: Ints | ByVideo,
    predicted: Ints | ByVideo,
    classes: Sequence[str],
    rest: str | None = None,
) -> float:
    """Macro F1 of decisions; both arguments as arrays or by video (then pooled). NaN where no
    counted class occurs."""
    left_out = rest_class(classes=classes, rest=rest)
    if isinstance(labels, Mapping):
        assert isinstance(predicted, Mapping), "both by video, or neither"
        assert labels, "no video"
        labels, predicted = (
            np.concatenate([part[name] for name in labels]) for part in (labels, predicted)
        )
    assert not isinstance(predicted, Mapping), "both by video, or neither"
    examine(labels=labels, classes=classes, predicted=predicted)
    hit, truth, chosen, _ = _counts(
        _confusion(labels=labels, predicted=predicted, n_classes=len(classes))
    )
    return _mean(
        value
        for value, name in zip(_f1(hit, truth, chosen), classes, strict=True)
        if name != left_out
    )


def mean_over_problems(problems: Mapping[str, Scores]) -> Scores:
    """Unweighted mean over problems: Task 2's annotators, Task 3's behaviours.

    A problem without a score (no counted class occurs in it) is left out and named in ``notes``.
    Scores per class are means over the problems that have them, frames and confusion are sums.
    """
    assert problems, "no problem to average"
    parts = list(problems.values())
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    per_class = {}
    for name in classes:
        known = [
            part.per_class[name]
            for part in parts
            if name in part.per_class and part.per_class[name].frames
        ]
        frames, chosen = (
            sum(getattr(part.per_class[name], kind) for part in parts if name in part.per_class)
            for kind in ("frames", "predicted_frames")
        )
        means = {
            kind: _mean(getattr(scores, kind) for scores in known)
            for kind in ("f1", "ap", "precision", "recall")
        }
        prevalence = _mean(scores.prevalence for scores in known) if known else 0.0
        per_class[name] = ClassScores(
            **means, prevalence=prevalence, frames=frames, predicted_frames=chosen
        )
    matrices = [part.confusion for part in parts if part.confusion is not None]
    forms = {(part.classes, getattr(part.confusion, "shape", None)) for part in parts}
    alike = len(matrices) == len(parts) and len(forms) == 1
    notes = [f"{name}: {note}" for name, part in problems.items() for note in part.notes]
    empty = [name for name, part in problems.items() if math.isnan(part.macro_f1)]
    notes += [f"{name}: no class to score, left out of the mean over problems" for name in empty]
    return Scores(
        classes=classes,
        counted=tuple(dict.fromkeys(name for part in parts for name in part.counted)),
        macro_f1=_mean(part.macro_f1 for part in parts),
        map=_mean(part.map for part in parts),
        chance_map=_mean(part.chance_map for part in parts),
        per_class=per_class,
        frames=sum(part.frames for part in parts),
        confusion=np.sum(matrices, axis=0) if alike else None,
        notes=tuple(notes),
        problems=dict(problems),
    )


def over_seeds(by_seed: Mapping[int, Scores]) -> SeedScores:
    """Mean and population standard deviation over seeds; the averages within a seed are taken
    before."""
    assert by_seed, "no seed to average"
    seeds = list(by_seed.values())
    kinds = [entry.name for entry in fields(ClassScores)]
    per_class: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for scores in seeds for name in scores.classes):
        each = [scores.per_class[name] for scores in seeds if name in scores.per_class]
        per_class[name] = {}
        for kind in kinds:
            mean, std = _mean_std(getattr(scores, kind) for scores in each)
            per_class[name] |= {kind: mean, f"{kind}_std": std}
    macro_f1, macro_f1_std = _mean_std(scores.macro_f1 for scores in seeds)
    mean_ap, mean_ap_std = _mean_std(scores.map for scores in seeds)
    notes = list(dict.fromkeys(note for scores in seeds for note in scores.notes))
    if len(seeds) == 1:
        notes.append("one seed: the standard deviation is 0 by definition and says nothing")
    shared = [
        name for name in seeds[0].problems if all(name in scores.problems for scores in seeds)
    ]
    return SeedScores(
        macro_f1=macro_f1,
        macro_f1_std=macro_f1_std,
        map=mean_ap,
        map_std=mean_ap_std,
        chance_map=_mean(scores.chance_map for scores in seeds),
        counted=tuple(dict.fromkeys(name for scores in seeds for name in scores.counted)),
        per_class=per_class,
        per_seed=tuple(
            {"seed": seed, "macro_f1": scores.macro_f1, "map": scores.map}
            for seed, scores in by_seed.items()
        ),
        notes=tuple(notes),
        problems={
            name: over_seeds({seed: scores.problems[name] for seed, scores in by_seed.items()})
            for name in shared
        },
    )


def _confusion(*, labels: Ints, predicted: Ints, n_classes: int) -> npt.NDArray[np.int64]:
    if labels.ndim == 1:
        known = labels != UNLABELLED
        cells = labels[known].astype(np.int64) * n_classes + predicted[known]
        counts = np.bincount(cells, minlength=n_classes**2).astype(np.int64)
        return counts.reshape(n_classes, n_classes)
    columns = ((labels[:, c], predicted[:, c]) for c in range(n_classes))
    return np.stack(
        [_confusion(labels=truth, predicted=chosen, n_classes=2) for truth, chosen in columns]
    )


def _counts(confusion: npt.NDArray[np.int64]) -> tuple[Ints, Ints, Ints, Ints]:
    """For each class: right, true, predicted and labelled frames."""
    if confusion.ndim == 3:
        truth, chosen = confusion[:, 1].sum(axis=1), confusion[:, :, 1].sum(axis=1)
        return confusion[:, 1, 1], truth, chosen, confusion.sum(axis=(1, 2))
    labelled = np.full(len(confusion), confusion.sum())
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0), labelled


def _f1(hit: Ints, truth: Ints, chosen: Ints) -> Reals:
    return np.where(truth > 0, 2 * hit / np.maximum(truth + chosen, 1), np.nan)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    return _mean_std(values)[0]


def _mean_std(values: Iterable[float]) -> tuple[float, float]:
    known = np.array([value for value in values if not math.isnan(value)], np.float64)
    return (float(known.mean()), float(known.std())) if known.size else (math.nan, math.nan)
