"""How far annotators of the same videos agree, and how far the model agrees with them: the ceiling
that scores should be read against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from finetune.labels.frame_labels import UNLABELLED, Ints
from finetune.labels.hold_out import Recordings
from finetune.labels.problems import Labelled, Problem
from finetune.metrics.frame_metrics import frame_f1
from finetune.report.predictions import Decisions


def agreement_between_annotators(
    problems: Sequence[Problem], recording: Recordings
) -> list[dict[str, Any]]:
    """For each pair of annotators who labelled the same recordings with the same classes: frames,
    macro F1 and Cohen's kappa.

    F1 is the same whichever of the two is taken for the truth. Frames that both looked at are
    pooled over recordings.

    Args:
        problems: Those of one task; training and test labels both count.
        recording: Names the recording that a video is of.
    """
    pairs = []
    for a, b in combinations(problems, 2):
        if a.annotator == b.annotator or (a.classes, a.overlapping) != (b.classes, b.overlapping):
            continue
        both = shared({**a.train, **a.test}, {**b.train, **b.test}, recording)
        if not both:
            continue
        one, other = (np.concatenate(side) for side in zip(*both, strict=True))
        if scores := agreement(a, one, other):
            pairs.append({"annotators": [a.annotator, b.annotator], "videos": len(both), **scores})
    return pairs


def agreement_with_annotators(
    problems: Sequence[Problem], decided: Sequence[Decisions]
) -> list[dict[str, Any]]:
    """The same numbers between each annotator and the model's decisions in their style, on test."""
    each = []
    for problem, decisions in zip(problems, decided, strict=True):
        names = sorted(problem.test)
        if not names:
            continue
        theirs, ours = (
            np.concatenate([labels[name] for name in names]) for labels in (problem.test, decisions)
        )
        if scores := agreement(problem, theirs, ours):
            each.append({"annotator": problem.annotator, "videos": len(names), **scores})
    return each


def agreement(problem: Problem, one: Ints, other: Ints) -> dict[str, Any]:
    """Frames, macro F1 and Cohen's kappa of two labellings (of overlapping behaviours its mean);
    empty where no frame is in both."""
    both = (one != UNLABELLED) & (other != UNLABELLED)
    if not both.any():
        return {}
    f1 = frame_f1(
        labels=np.where(both, one, UNLABELLED),
        predicted=np.where(both, other, 0),
        classes=problem.classes,
        rest=problem.rest or "",
    )
    columns = (
        [(one[both], other[both])]
        if one.ndim == 1
        else [(one[both[:, c], c], other[both[:, c], c]) for c in range(one.shape[1])]
    )
    kappas = [_kappa(a, b) for a, b in columns if len(a)]
    known = [kappa for kappa in kappas if not np.isnan(kappa)]
    rows = both if both.ndim == 1 else both.any(axis=1)
    return {
        "frames": int(rows.sum()),
        "macro_f1": None if np.isnan(f1) else f1,
        "kappa": float(np.mean(known)) if known else None,
    }


def _kappa(a: Ints, b: Ints) -> float:
    if len(np.union1d(a, b)) < 2:
        return float("nan")  # both say the same of every frame: kappa is 0 / 0
    return float(cohen_kappa_score(a, b))


def shared(one: Labelled, other: Labelled, recording: Recordings) -> list[tuple[Ints, Ints]]:
    """Both labels of each recording: under one name, or, of those left over, under two."""
    pairs = [(labels, other[name]) for name, labels in one.items() if name in other]
    unpaired = {recording(name): labels for name, labels in other.items() if name not in one}
    for name, labels in one.items():
        if name not in other and (key := recording(name)) in unpaired:
            pairs.append((labels, unpaired[key]))
    return [(a, b) for a, b in pairs if a.shape == b.shape]
