"""Auto-context (Tu and Bai 2010): trees that read the network's probabilities in windows around a
frame, learned on recordings that the network was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np

from finetune.heads import frame_weights
from finetune.labels.frame_labels import Ints, Reals, log_loss, log_odds, log_probability, looked_at
from finetune.postprocess.as_json import AbstractStep
from finetune.postprocess.held_out import HeldOutPredictions

HZ = 5.0
WINDOWS_S = (0.6, 4.0, 20.0, 80.0)
SIDES_S = (2.0, 20.0)
FITTED_FRAMES = 20_000
"""Neighbouring frames repeat each other: more of them cost time and change little."""
LEAST_VIDEOS = 10
"""Networks that learned from two videos predict a third too badly to learn from."""
MOST_LOSS = 0.05
"""Share by which the log loss may rise where few labels leave it to chance."""
_LEAST = 1e-5
_ROUNDS = 150
_TREES = {
    "num_leaves": 4,
    "learning_rate": 0.05,
    "feature_fraction": 0.2,
    "bagging_fraction": 0.5,
    "bagging_freq": 1,
    "min_data_in_leaf": 50,
    "extra_trees": True,
    "deterministic": True,
    "force_col_wise": True,
    "seed": 0,
    "verbose": -1,
}


@dataclass(frozen=True, kw_only=True)
class AutoContext(AbstractStep):
    """The geometric mean of the probabilities that came in and of what trees read around them."""

    kind: ClassVar[str] = "auto-context"
    every: int
    """Frames from one that the trees read to the next; what lies between is interpolated."""
    windows: tuple[int, ...]
    """Frames (as read) to either side, over which means are taken."""
    sides: tuple[int, ...]
    """Frames (as read) before, and after, over which means are taken."""
    trees: tuple[str, ...]
    """LightGBM's own text: one of exclusive classes, one a behaviour where they overlap; empty of a
    behaviour that was the same throughout."""
    classes: tuple[int, ...]
    """Those that the trees tell apart; all where behaviours overlap."""
    overlapping: bool = False

    @classmethod
    def fit(cls, held_out: HeldOutPredictions) -> Self:
        """Grows the trees on the labelled frames."""
        every = max(1, round(held_out.fps / HZ))
        hz = held_out.fps / every
        step = cls(
            every=every,
            windows=tuple(max(1, round(seconds * hz)) for seconds in WINDOWS_S),
            sides=tuple(max(1, round(seconds * hz)) for seconds in SIDES_S),
            trees=(),
            classes=(),
        )
        read, truth = [], []
        for name, labels in held_out.labels.items():
            known = looked_at(labels[::every])
            read.append(step._read(held_out.probabilities[name])[known])
            truth.append(labels[::every][known])
        x_ND, labels = np.concatenate(read), np.concatenate(truth)
        thinned = slice(None, None, max(1, -(-len(x_ND) // FITTED_FRAMES)))
        x_ND, labels = x_ND[thinned], labels[thinned]
        overlapping = labels.ndim == 2
        if overlapping:
            classes = list(range(labels.shape[1]))
            trees = [_grow(x_ND[y >= 0], y[y >= 0], 2) for y in labels.T]
        else:
            present, number_N = np.unique(labels, return_inverse=True)
            classes, trees = present.tolist(), [_grow(x_ND, number_N, len(present))]
        return replace(step, trees=tuple(trees), classes=tuple(classes), overlapping=overlapping)

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) probabilities of one whole video; what the trees never saw stays as it is."""
        frames = len(probabilities_TC)
        if not frames or not any(self.trees):
            return probabilities_TC
        read_N = np.arange(0, frames, self.every)
        x_ND = self._read(probabilities_TC)
        given_TC = np.clip(probabilities_TC.astype(np.float64), _LEAST, 1 - _LEAST)
        around_TC = given_TC.copy()
        each = [_predict(trees, x_ND) if trees else None for trees in self.trees]
        if not self.overlapping:
            q = each[0]
            assert q is not None
            each = [1 - q, q] if q.ndim == 1 else [*q.T]
        for c, q_N in zip(self.classes, each, strict=True):
            if q_N is not None:
                around_TC[:, c] = np.interp(np.arange(frames), read_N, q_N)
        around_TC = np.clip(around_TC, _LEAST, 1 - _LEAST)
        p_TC = np.sqrt(given_TC * around_TC)
        against = np.sqrt((1 - given_TC) * (1 - around_TC)) + p_TC
        total = against if self.overlapping else p_TC.sum(1, keepdims=True)
        return np.asarray(p_TC / total, probabilities_TC.dtype)

    def _read(self, probabilities_TC: Reals) -> Reals:
        """(T / every, D) what the trees read of one video."""
        p_NC = probabilities_TC[:: self.every].astype(np.float64)
        log_NC = (log_odds if self.overlapping else log_probability)(np.clip(p_NC, 1e-3, 1 - 1e-3))
        of_p, of_log = _Means(p_NC), _Means(log_NC)
        columns = [p_NC, log_NC]
        for w in self.windows:
            columns += [of_p.over(-w, w), of_log.over(-w, w)]
        for w in self.sides:
            columns += [of_p.over(-w, -1), of_p.over(1, w)]
        columns.append(np.broadcast_to(p_NC.mean(0), p_NC.shape))
        return np.concatenate(columns, 1).astype(np.float32)


class _Means:
    """Means over windows of a recording, which end where it ends."""

    def __init__(self, values_NC: Reals) -> None:
        nothing = np.zeros((1, values_NC.shape[1]))
        self._sum = np.concatenate([nothing, np.cumsum(values_NC, 0)])

    def over(self, first: int, last: int) -> Reals:
        """(N, C): from ``first`` to ``last``, counted from each frame; 0 where nothing lies
        there."""
        frames = len(self._sum) - 1
        begin = np.clip(np.arange(frames) + first, 0, frames)
        end = np.clip(np.arange(frames) + last + 1, 0, frames)
        return np.asarray((self._sum[end] - self._sum[begin]) / np.maximum(end - begin, 1)[:, None])


def _grow(x_ND: Reals, label_N: Ints, classes: int) -> str:
    """One model as text; none of labels that are all the same."""
    counts = np.bincount(label_N, minlength=classes)
    if (counts > 0).sum() < 2:
        return ""
    several: dict[str, Any] = {"objective": "multiclass", "num_class": classes}
    kind = several if classes > 2 else {"objective": "binary"}
    data = lightgbm.Dataset(x_ND, label_N, weight=frame_weights(label_N, 0.5))
    booster = lightgbm.train({**_TREES, **kind}, data, _ROUNDS)
    return str(booster.model_to_string())


def _predict(trees: str, x_ND: Reals) -> Reals:
    """(N, K) probabilities of more than two classes, (N,) of the second of two."""
    return np.asarray(lightgbm.Booster(model_str=trees).predict(x_ND))


def with_context(held_out: HeldOutPredictions) -> HeldOutPredictions:
    """The same predictions, each fold's by the trees of the other folds."""
    probabilities: dict[str, Reals] = {}
    for others, inside in held_out.folds():
        step = AutoContext.fit(others)
        probabilities |= {name: step.apply(p) for name, p in inside.probabilities.items()}
    return replace(held_out, probabilities={name: probabilities[name] for name in held_out.labels})


def context_harms(held_out: HeldOutPredictions, around: HeldOutPredictions) -> bool:
    """Whether the log loss on folds that the trees were not fitted on rises by ``MOST_LOSS``.

    Args:
        held_out: Predictions for recordings that the network was not fitted on.
        around: The same :func:`with_context`.
    """
    return log_loss(*around.pooled()) > (1 + MOST_LOSS) * log_loss(*held_out.pooled())
