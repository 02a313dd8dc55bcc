"""Where a classifier errs: near transitions or elsewhere, and in which bouts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune.fit.fit import Probabilities
from finetune.labels.frame_labels import UNLABELLED, Ints
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from finetune.report.extended_scores import plain_decisions


def boundary_errors(problem: Problem, p: Probabilities, *, near: int) -> dict[str, float]:
    """Where the errors lie.

    Args:
        problem: With test labels.
        p: Probabilities of its test videos.
        near: Frames to either side of a transition that count as near it.

    Returns:
        ``errors`` (labelled frames decided wrongly, each behaviour by itself where they overlap),
        ``share`` of them near a transition, ``frames_share`` of all labelled frames near one,
        ``near_rate`` and ``far_rate`` of errors there and elsewhere. NaN where nothing is.
    """
    counts = np.zeros((2, 2))  # far, near x right, wrong
    decisions = plain_decisions(problem, p)
    for name, labels in problem.test.items():
        columns = labels.reshape(len(labels), -1).T, decisions[name].reshape(len(labels), -1).T
        for truth, decided in zip(*columns, strict=True):
            known = truth != UNLABELLED
            changed = known[1:] & known[:-1] & (truth[1:] != truth[:-1])
            close = np.zeros(len(truth) + 1, np.int64)
            for t in np.flatnonzero(changed) + 1:
                close[max(0, t - near) : t + near] = 1
            cell = 2 * close[:-1][known] + (truth != decided)[known]
            counts += np.bincount(cell, minlength=4).reshape(2, 2)
    (far_right, far_wrong), (near_right, near_wrong) = counts

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else float("nan")

    return {
        "errors": float(far_wrong + near_wrong),
        "share": share(near_wrong, far_wrong + near_wrong),
        "frames_share": share(near_right + near_wrong, counts.sum()),
        "near_rate": share(near_wrong, near_right + near_wrong),
        "far_rate": share(far_wrong, far_right + far_wrong),
    }


@dataclass(frozen=True, kw_only=True)
class Bout:
    """A predicted bout, and what its frames were labelled."""

    video: str
    start: int
    stop: int
    behaviour: str
    sure: float
    """Mean probability of the behaviour."""
    right: float
    """Share of its frames that were labelled so."""


def predicted_bouts(problem: Problem, p: Probabilities, *, least: int) -> list[Bout]:
    """Bouts of the network's decisions, of at least so many frames, all labelled, but the rest."""
    found = []
    for name, decided in plain_decisions(problem, p).items():
        for start, stop, c in bouts(decided).tolist():
            labels = problem.test[name][start:stop]
            column: Ints = labels[:, c] if problem.overlapping else labels
            behaviour = problem.classes[c]
            if stop - start >= least and behaviour != problem.rest and (column >= 0).all():
                right = float((column == (1 if problem.overlapping else c)).mean())
                sure = float(p[name][start:stop, c].mean())
                if problem.overlapping and not decided[start, c]:
                    continue
                found.append(
                    Bout(
                        video=name,
                        start=start,
                        stop=stop,
                        behaviour=behaviour,
                        sure=sure,
                        right=right,
                    )
                )
    return found
