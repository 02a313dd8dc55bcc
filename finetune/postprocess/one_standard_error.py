"""The one-standard-error rule: which of several ways to decide are as good as the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import UNLABELLED, ByVideo, Reals, looked_at, rest_class
from finetune.metrics.bouts import score_bouts

BLOCK = 512
"""Frames resampled together: longer than most bouts, for neighbouring frames repeat each other."""
SAMPLES = 200
BOUT_OVERLAP = 0.25
"""From which overlap (intersection over union) on a bout counts as recognised."""


def within_one_standard_error(
    *,
    labels: ByVideo,
    decisions: Mapping[str, ByVideo],
    classes: Sequence[str],
    rest: str | None = None,
    of: Literal["frames", "bouts"] = "frames",
) -> list[str]:
    """Names of the ways whose macro F1 is within one standard error of the best one's, in order.

    The rule of Breiman et al. 1984 (Classification and Regression Trees), of the paired difference
    under a block bootstrap (Künsch 1989). Where no way has a score, all are returned.

    Args:
        labels: (T,) or (T, C) for each video.
        decisions: For each way decisions of the same shapes.
        classes: Names, in the order of axis C.
        rest: See :func:`finetune.labels.frame_labels.rest_class`.
        of: What F1 counts.
    """
    left_out = rest_class(classes=classes, rest=rest)
    scored_C = np.array([name != left_out for name in classes])
    counts = {
        name: _counts(labels, chosen, len(classes))
        if of == "frames"
        else _bout_counts(labels, chosen, classes, rest)
        for name, chosen in decisions.items()
    }
    blocks = len(next(iter(counts.values())))
    times_DK = (
        np.random.default_rng(0)
        .multinomial(blocks, np.full(blocks, 1 / blocks), size=SAMPLES)
        .astype(np.float64)
    )
    f1 = {
        name: float(_macro_f1(np.ones((1, blocks)), counts_K3C, scored_C)[0])
        for name, counts_K3C in counts.items()
    }
    known = {name: value for name, value in f1.items() if not np.isnan(value)}
    if not known:
        return list(decisions)
    best = max(known, key=lambda name: known[name])
    resampled = {name: _macro_f1(times_DK, counts[name], scored_C) for name in known}
    return [
        name
        for name in known
        if known[best] - known[name] <= np.nanstd(resampled[best] - resampled[name])
    ]


def _counts(labels: ByVideo, decisions: ByVideo, n_classes: int) -> npt.NDArray[np.float64]:
    """(K, 3, C): right, true and chosen frames of each class in each block."""
    counts = []
    for name, truth in labels.items():
        if not len(truth):
            continue
        true, chosen = _shown(truth, truth, n_classes), _shown(decisions[name], truth, n_classes)
        stacked = np.stack([true & chosen, true, chosen], axis=1)
        counts.append(
            np.add.reduceat(stacked, np.arange(0, len(truth), BLOCK), axis=0, dtype=np.float64)
        )
    return np.concatenate(counts)


def _bout_counts(
    labels: ByVideo, decisions: ByVideo, classes: Sequence[str], rest: str | None
) -> npt.NDArray[np.float64]:
    """(V, 3, C): recognised, true and decided bouts of each class in each video with labels."""
    counts = []
    for name, truth in labels.items():
        if looked_at(truth).any():
            scores = score_bouts(
                labels={name: truth},
                predicted={name: decisions[name]},
                classes=classes,
                fps=1.0,  # scales only rates, which are not used here
                rest=rest,
                overlaps=(BOUT_OVERLAP,),
            )
            each = [scores.per_class[name] for name in classes]
            counts.append(
                [
                    [getattr(one, key) for one in each]
                    for key in ("matched_bouts", "true_bouts", "predicted_bouts")
                ]
            )
    return np.array(counts, np.float64)


def _shown(values: Reals, truth: Reals, n_classes: int) -> npt.NDArray[np.bool_]:
    """(T, C) of the labelled frames."""
    if truth.ndim == 2:
        return np.asarray((values == 1) & (truth != UNLABELLED))
    return np.asarray((values[:, None] == np.arange(n_classes)) & (truth != UNLABELLED)[:, None])


def _macro_f1(
    times_DK: Reals, counts_K3C: Reals, scored_C: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(D,): the score where each of K blocks counts so many times."""
    totals = (times_DK @ counts_K3C.reshape(len(counts_K3C), -1)).reshape(len(times_DK), 3, -1)
    right, true, chosen = totals[:, 0], totals[:, 1], totals[:, 2]
    occurs = (true > 0) & scored_C
    f1 = np.where(occurs, 2 * right / np.maximum(true + chosen, 1), 0.0).sum(axis=1)
    return np.where(occurs.any(axis=1), f1 / np.maximum(occurs.sum(axis=1), 1), np.nan)
