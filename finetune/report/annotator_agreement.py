"""How far annotators of the same videos agree, and how far we agree with them: the ceiling that
scores should be read against."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED, Ints
from finetune.labels.problems import Labelled, Problem
from finetune.metrics.frame_metrics import frame_f1
from finetune.report.predictions import Decisions


def same_recordings(material: Frames) -> Callable[[str], str | None]:
    """Tells recordings by their frames, for CalMS21 names a video anew for each annotator; None for
    one that is not in ``material``."""
    names: dict[str, str] = {}

    def recording(video: str) -> str | None:
        if video not in material.spans:
            return None
        if video not in names:
            first, end = material.spans[video]
            said = hashlib.sha256(str(end - first).encode())
            for array in material.arrays.values():
                said.update(np.nan_to_num(array[first:end]).tobytes())
            names[video] = said.hexdigest()
        return names[video]

    return recording


def between_annotators(
    problems: Sequence[Problem], recording: Callable[[str], str | None]
) -> list[dict[str, Any]]:
    """For each pair of annotators who labelled the same recordings with the same classes: frames,
    macro F1 and Cohen's kappa.

    F1 is the same whichever of the two is taken for the truth. Frames that both looked at are
    pooled over recordings.

    Args:
        problems: Those of one task; training and test labels both count.
        recording: Names the recording that a video is of; None leaves it out.
    """
    pairs = []
    for a, b in combinations(problems, 2):
        if a.annotator == b.annotator or (a.classes, a.overlapping) != (b.classes, b.overlapping):
            continue
        shared = _shared({**a.train, **a.test}, {**b.train, **b.test}, recording)
        if not shared:
            continue
        numbers = agreement(a, *(np.concatenate(side) for side in zip(*shared, strict=True)))
        if numbers:
            pairs.append(
                {"annotators": [a.annotator, b.annotator], "videos": len(shared), **numbers}
            )
    return pairs


def with_annotators(
    problems: Sequence[Problem], decided: Sequence[Decisions]
) -> list[dict[str, Any]]:
    """The same numbers between each annotator and our decisions in their style, on test."""
    found = []
    for problem, chosen in zip(problems, decided, strict=True):
        names = sorted(problem.test)
        if not names:
            continue
        ours = np.concatenate([chosen[name] for name in names])
        numbers = agreement(problem, np.concatenate([problem.test[name] for name in names]), ours)
        if numbers:
            found.append({"annotator": problem.annotator, "videos": len(names), **numbers})
    return found


def agreement(problem: Problem, one: Ints, other: Ints) -> dict[str, Any]:
    """Frames, macro F1 and Cohen's kappa of two labellings (of overlapping behaviours: its mean);
    empty where no frame is in both."""
    both = (one != UNLABELLED) & (other != UNLABELLED)
    if not both.any():
        return {}
    truth = np.where(both, one, UNLABELLED)
    f1 = frame_f1(
        labels=truth,
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
        return float("nan")  # chance alone agrees everywhere: kappa is 0 / 0
    return float(cohen_kappa_score(a, b))


def _shared(
    mine: Labelled, theirs: Labelled, recording: Callable[[str], str | None]
) -> list[tuple[Ints, Ints]]:
    """Labels of the same recording by both: under one name, or, of those left over, under two."""
    found = [(labels, theirs[name]) for name, labels in mine.items() if name in theirs]
    others = {recording(name): labels for name, labels in theirs.items() if name not in mine}
    for name, labels in mine.items():
        if name not in theirs and (called := recording(name)) is not None and called in others:
            found.append((labels, others[called]))
    return [(one, other) for one, other in found if one.shape == other.shape]
