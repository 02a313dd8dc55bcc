"""Bouts: runs of frames of one class within one video, and the scores that count them instead of
frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import (
    UNLABELLED,
    ByVideo,
    Ints,
    examine,
    looked_at,
    plain,
    rest_class,
)
from pretrain.errors import refuse

Spans = npt.NDArray[np.int64]

OVERLAPS = (0.1, 0.25, 0.5)  # the thresholds of Lea et al. 2017


@dataclass(frozen=True, kw_only=True)
class ClassBouts:
    """Bout scores of one class. Errors are predicted minus true, in frames: positive means too
    late."""

    f1: Mapping[str, float]
    """For each overlap threshold; NaN without a true bout. Likewise ``precision`` and
    ``recall``."""
    precision: Mapping[str, float]
    """Share of the predicted bouts that match a true one; NaN without a predicted bout."""
    recall: Mapping[str, float]
    """Share of the true bouts that match a predicted one."""
    true_bouts: int
    predicted_bouts: int
    matched_bouts: int
    """At the lowest threshold; onset and offset errors are theirs."""
    onset_median_frames: float
    onset_mean_abs_frames: float
    offset_median_frames: float
    offset_mean_abs_frames: float
    true_bouts_per_minute: float
    predicted_bouts_per_minute: float


@dataclass(frozen=True, kw_only=True)
class BoutScores:
    """Bout scores of one problem."""

    macro_f1: Mapping[str, float]
    """For each overlap threshold, over the counted classes that have a true bout."""
    per_class: Mapping[str, ClassBouts]
    counted: tuple[str, ...]
    minutes: float
    """Labelled time."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return dict(plain(asdict(self)))


def bouts(labels: Ints) -> Spans:
    """Cuts the frames of one video into bouts.

    Args:
        labels: (T,) classes, or (T, C) of 0 and 1 for overlapping behaviours. UNLABELLED frames end
            a bout and make none.

    Returns:
        (N, 3), rows of start, stop (first frame after the bout), class; ordered by start.
    """
    if labels.ndim == 2:
        columns = [
            bouts(np.where(labels[:, c] == 1, c, UNLABELLED)) for c in range(labels.shape[1])
        ]
        joined: Spans = np.concatenate([np.zeros((0, 3), np.int64), *columns])
        return np.take(joined, np.argsort(joined[:, 0], kind="stable"), axis=0)
    if not len(labels):
        return np.zeros((0, 3), np.int64)
    labels = labels.astype(np.int64)
    change = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    start, stop = np.concatenate([[0], change]), np.concatenate([change, [len(labels)]])
    runs: Spans = np.stack([start, stop, labels[start]], axis=1)
    return np.compress(runs[:, 2] != UNLABELLED, runs, axis=0)


def match(*, true: Spans, predicted: Spans) -> tuple[Spans, npt.NDArray[np.float64]]:
    """Pairs bouts of one class one to one, greedily from the greatest overlap (intersection over
    union) down.

    A predicted bout that covers two true ones matches one of them; a second prediction of the same
    bout is a false one, as in the segmental F1 of Lea et al. 2017 (Temporal Convolutional Networks
    for Action Segmentation and Detection). Pairs at a threshold are those of the whole list that
    reach it. Equal overlaps: the earlier bouts first.

    Args:
        true: (N, 2) start and stop, ordered and disjoint.
        predicted: (P, 2), likewise.

    Returns:
        (pairs, 2) indices of ``true`` and ``predicted``; (pairs,) overlap, falling.
    """
    first = np.searchsorted(true[:, 1], predicted[:, 0], side="right")
    reach = np.maximum(np.searchsorted(true[:, 0], predicted[:, 1], side="left") - first, 0)
    p = np.repeat(np.arange(len(predicted)), reach)
    t = np.arange(len(p)) - np.repeat(np.cumsum(reach) - reach, reach) + np.repeat(first, reach)
    shared = np.minimum(true[t, 1], predicted[p, 1]) - np.maximum(true[t, 0], predicted[p, 0])
    union = np.maximum(true[t, 1], predicted[p, 1]) - np.minimum(true[t, 0], predicted[p, 0])
    overlap = shared / union
    matched_t, matched_p, pairs = set[int](), set[int](), []
    for k in np.lexsort((t, p, -overlap)).tolist():
        if t[k] not in matched_t and p[k] not in matched_p:
            matched_t.add(int(t[k]))
            matched_p.add(int(p[k]))
            pairs.append(k)
    return np.stack([t[pairs], p[pairs]], axis=1).astype(np.int64), overlap[pairs]


def score_bouts(
    *,
    labels: ByVideo,
    predicted: ByVideo,
    classes: Sequence[str],
    fps: float,
    rest: str | None = None,
    overlaps: Sequence[float] = OVERLAPS,
) -> BoutScores:
    """Scores the bouts of a test set; a bout never crosses from one video to the next. Labels of
    each video are (T,) classes, or (T, C) of 0 and 1 for overlapping behaviours, and decisions
    alike; ``rest`` is as of :func:`finetune.labels.frame_labels.rest_class`, ``overlaps`` are
    thresholds on intersection over union.

    Predictions on UNLABELLED frames are taken out before they are cut into bouts: nobody can say
    whether they are right.

    Raises:
        BadInput: If videos or shapes disagree, no frame is labelled, or a setting is out of range.
    """
    left_out = rest_class(classes=classes, rest=rest)
    errors = (
        [] if math.isfinite(fps) and fps > 0 else [f"fps is {fps}; it must be a positive number"]
    )
    if not overlaps or not all(0 < k <= 1 for k in overlaps):
        errors.append(
            f"the overlap thresholds are {list(overlaps)}; each must lie above 0 and not above 1"
        )
    if labels.keys() != predicted.keys() or not labels:
        errors.append(f"labelled videos are {sorted(labels)}, predicted ones {sorted(predicted)}")
    else:
        errors += [
            f"{name}: predictions have shape {predicted[name].shape}, labels {labels[name].shape}"
            for name in labels
            if predicted[name].shape != labels[name].shape
        ]
        if len({frames.shape[1:] for frames in labels.values()}) > 1:
            errors.append("labels are (T,) in all videos or (T, C) in all; these are mixed")
    refuse(errors, about="cannot score these bouts")
    pooled = np.concatenate(list(labels.values()))
    examine(
        labels=pooled,
        classes=classes,
        predicted=np.concatenate([predicted[name] for name in labels]),
    )
    known = pooled != UNLABELLED
    true_by_class, chosen_by_class = (
        _by_class(labels, len(classes)),
        _by_class(_where_labelled(predicted, labels), len(classes)),
    )
    per_class, notes = {}, []
    for c, name in enumerate(classes):
        minutes = float((known[:, c] if known.ndim == 2 else known).sum()) / fps / 60
        per_class[name] = _class_bouts(
            true=true_by_class[c], chosen=chosen_by_class[c], minutes=minutes, overlaps=overlaps
        )
        if name != left_out and not len(true_by_class[c]):
            notes.append(f"no true bout of {name!r}: its F1 is undefined and left out of the mean")
    counted = tuple(name for name in classes if name != left_out)
    scored = [per_class[name] for name in counted if per_class[name].true_bouts]
    return BoutScores(
        macro_f1={
            f"{k:g}": float(np.mean([one.f1[f"{k:g}"] for one in scored])) if scored else math.nan
            for k in overlaps
        },
        per_class=per_class,
        counted=counted,
        minutes=float(looked_at(pooled).sum()) / fps / 60,
        notes=tuple(notes),
    )


def _where_labelled(predicted: ByVideo, labels: ByVideo) -> dict[str, Ints]:
    return {
        name: np.where(frames == UNLABELLED, UNLABELLED, predicted[name].astype(np.int64))
        for name, frames in labels.items()
    }


def _by_class(by_video: ByVideo, n_classes: int) -> list[Spans]:
    """For each class the (N, 2) bouts of all videos on one time axis; cut before they are joined,
    so none crosses."""
    each, offset = [np.zeros((0, 3), np.int64)], 0
    for frames in by_video.values():
        each.append(bouts(frames) + np.array([offset, offset, 0]))
        offset += len(frames)
    joined = np.concatenate(each)
    return [joined[joined[:, 2] == c, :2] for c in range(n_classes)]


def _class_bouts(
    *, true: Spans, chosen: Spans, minutes: float, overlaps: Sequence[float]
) -> ClassBouts:
    pairs, overlap = match(true=true, predicted=chosen)
    hits = {f"{k:g}": int((overlap >= k).sum()) for k in overlaps}
    matched = pairs[overlap >= min(overlaps)]
    error = chosen[matched[:, 1]] - true[matched[:, 0]]
    median = np.median(error, axis=0) if len(error) else np.full(2, np.nan)
    mean_abs = np.abs(error).mean(axis=0) if len(error) else np.full(2, np.nan)
    both = len(true) + len(chosen)
    return ClassBouts(
        f1={k: 2 * hit / both if len(true) else math.nan for k, hit in hits.items()},
        precision={k: hit / len(chosen) if len(chosen) else math.nan for k, hit in hits.items()},
        recall={k: hit / len(true) if len(true) else math.nan for k, hit in hits.items()},
        true_bouts=len(true),
        predicted_bouts=len(chosen),
        matched_bouts=len(matched),
        onset_median_frames=float(median[0]),
        onset_mean_abs_frames=float(mean_abs[0]),
        offset_median_frames=float(median[1]),
        offset_mean_abs_frames=float(mean_abs[1]),
        true_bouts_per_minute=len(true) / minutes if minutes else math.nan,
        predicted_bouts_per_minute=len(chosen) / minutes if minutes else math.nan,
    )
