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
    """Names of the ways whose macro F1, of frames or of bouts, is within one standard error of the
    best one's, in order. Decisions of each way have the shapes of the labels: (T,) or (T, C) for
    each video.

    The rule of Breiman et al. 1984 (Classification and Regression Trees), of the paired difference
    under a block bootstrap (Künsch 1989). Where no way has a score, all are returned.
    """
    left_out = rest_class(classes=classes, rest=rest)
    scored_C = np.array([name != left_out for name in classes])
    counts = {
        name: {
            video: _frame_counts(truth, chosen[video], len(classes))
            if of == "frames"
            else _bout_counts(video, truth, chosen[video], classes, rest)
            for video, truth in labels.items()
            if looked_at(truth).any()
        }
        for name, chosen in decisions.items()
    }
    if not next(iter(counts.values())):
        return list(decisions)
    blocks_in = [len(each) for each in next(iter(counts.values())).values()]
    draw = np.random.default_rng(0)
    of_blocks, of_videos = (
        draw.multinomial(number, np.full(number, 1 / number), size=SAMPLES)
        for number in (sum(blocks_in), len(blocks_in))
    )
    draws_DK = [of_blocks, np.repeat(of_videos, blocks_in, axis=1)]
    pooled = {name: np.concatenate(list(each.values())) for name, each in counts.items()}
    f1 = {
        name: float(_macro_f1(np.ones((1, sum(blocks_in))), counts_K3C, scored_C)[0])
        for name, counts_K3C in pooled.items()
    }
    known = {name: value for name, value in f1.items() if not np.isnan(value)}
    if not known:
        return list(decisions)
    best = max(known, key=lambda name: known[name])
    resampled = {
        name: [_macro_f1(times_DK, pooled[name], scored_C) for times_DK in draws_DK]
        for name in known
    }

    def standard_error(name: str) -> float:
        pairs = zip(resampled[best], resampled[name], strict=True)
        return max(float(np.nanstd(ours - theirs)) for ours, theirs in pairs)

    return [name for name in known if known[best] - known[name] <= standard_error(name)]


def _frame_counts(truth: Reals, chosen: Reals, n_classes: int) -> npt.NDArray[np.float64]:
    """(K, 3, C): right, true and chosen frames of each class in each block of a video."""
    true, found = _shown(truth, truth, n_classes), _shown(chosen, truth, n_classes)
    stacked = np.stack([true & found, true, found], axis=1)
    return np.add.reduceat(stacked, np.arange(0, len(truth), BLOCK), axis=0, dtype=np.float64)


def _bout_counts(
    video: str, truth: Reals, chosen: Reals, classes: Sequence[str], rest: str | None
) -> npt.NDArray[np.float64]:
    """(1, 3, C): recognised, true and decided bouts of each class in a video."""
    scores = score_bouts(
        labels={video: truth},
        predicted={video: chosen},
        classes=classes,
        fps=1.0,  # scales only rates, which are not used here
        rest=rest,
        overlaps=(BOUT_OVERLAP,),
    )
    each = [scores.per_class[name] for name in classes]
    counts = [(one.matched_bouts, one.true_bouts, one.predicted_bouts) for one in each]
    return np.array([counts], np.float64).swapaxes(1, 2)


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
