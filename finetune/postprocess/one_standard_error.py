"""Which of several ways to decide is better by more than chance: macro F1 over resampled blocks of
frames, the same blocks for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import UNLABELLED, ByVideo, Reals, rest_class

BLOCK = 512
"""Frames drawn together: longer than most bouts, for neighbouring frames tell the same story."""
DRAWS = 200


def not_worse(
    *,
    labels: ByVideo,
    decided: Mapping[str, ByVideo],
    classes: Sequence[str],
    rest: str | None = None,
) -> list[str]:
    """Names of the ways whose macro F1 is within one standard error of the best one's, in their
    order.

    The one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees), of the
    paired difference under a block bootstrap (Künsch 1989). Where no way has a score, all are
    returned.

    Args:
        labels: (T,) or (T, C) for each video.
        decided: For each way decisions of the same shapes.
        classes: Names, in the order of axis C.
        rest: See :func:`finetune.labels.frame_labels.rest_class`.
    """
    left_out = rest_class(classes=classes, rest=rest)
    counted = np.array([name != left_out for name in classes])
    counts = {name: _counts(labels, chosen, len(classes)) for name, chosen in decided.items()}
    blocks = len(next(iter(counts.values())))
    times = (
        np.random.default_rng(0)
        .multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS)
        .astype(np.float64)
    )
    whole = {
        name: float(_macro_f1(np.ones((1, blocks)), held, counted)[0])
        for name, held in counts.items()
    }
    known = {name: value for name, value in whole.items() if not np.isnan(value)}
    if not known:
        return list(decided)
    best = max(known, key=lambda name: known[name])
    drawn = {name: _macro_f1(times, counts[name], counted) for name in known}
    return [
        name for name in known if known[best] - known[name] <= np.nanstd(drawn[best] - drawn[name])
    ]


def _counts(labels: ByVideo, decided: ByVideo, n_classes: int) -> npt.NDArray[np.float64]:
    """(K, 3, C): right, true and chosen frames of each class in each block."""
    found = []
    for name, truth in labels.items():
        if not len(truth):
            continue
        true, chosen = _shown(truth, truth, n_classes), _shown(decided[name], truth, n_classes)
        stacked = np.stack([true & chosen, true, chosen], axis=1)
        found.append(
            np.add.reduceat(stacked, np.arange(0, len(truth), BLOCK), axis=0, dtype=np.float64)
        )
    return np.concatenate(found)


def _shown(values: Reals, truth: Reals, n_classes: int) -> npt.NDArray[np.bool_]:
    if truth.ndim == 2:
        return np.asarray((values == 1) & (truth != UNLABELLED))
    return np.asarray((values[:, None] == np.arange(n_classes)) & (truth != UNLABELLED)[:, None])


def _macro_f1(
    times_DK: Reals, counts_K3C: Reals, counted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    totals = (times_DK @ counts_K3C.reshape(len(counts_K3C), -1)).reshape(len(times_DK), 3, -1)
    hit, true, chosen = totals[:, 0], totals[:, 1], totals[:, 2]
    there = (true > 0) & counted
    f1 = np.where(there, 2 * hit / np.maximum(true + chosen, 1), 0.0).sum(axis=1)
    return np.where(there.any(axis=1), f1 / np.maximum(there.sum(axis=1), 1), np.nan)
