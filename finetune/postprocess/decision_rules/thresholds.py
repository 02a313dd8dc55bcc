"""Decisions that suit F1: weights or thresholds learned on held-out frames.

A fixed 0.5 costs rare behaviours most of their F1, above all after training with heavy class
weights. A class without a positive (or a negative) frame keeps its neutral setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from finetune.labels.frame_labels import (
    UNLABELLED,
    Ints,
    Reals,
    examine,
    log_odds,
    log_probability,
    rest_class,
)
from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.decision_rules import AbstractDecisionRule
from finetune.postprocess.decision_rules._coordinate_ascent import best_moves


@dataclass(frozen=True, kw_only=True)
class Thresholds(AbstractDecisionRule):
    """A weight for each exclusive class, or a threshold for each overlapping behaviour.

    Two exclusive classes with weights v, w decide for the second above the threshold v / (v + w).
    """

    values: tuple[float, ...]
    """Exclusive classes: weights that multiply probabilities before the argmax, 1 = as it is.
    Overlapping: thresholds."""
    overlapping: bool = False

    @classmethod
    def candidates(
        cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """The fitted one."""
        fitted = cls.fit(
            probabilities_TC=probabilities_TC, labels=labels, classes=classes, rest=rest
        )
        return {"thresholds": fitted}

    @classmethod
    def fit(
        cls,
        *,
        probabilities_TC: Reals,
        labels: Ints,
        classes: Sequence[str],
        rest: str | None = None,
    ) -> Self:
        """Coordinate ascent on macro F1 of the counted classes, each step an exact search over all
        breakpoints; probabilities may be raw or calibrated.

        Never worse on the frames it was fitted on than the plain decision.

        Raises:
            BadInput: If shapes disagree, no frame is labelled or a score is not finite.
        """
        left_out = rest_class(classes=classes, rest=rest)
        examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC)
        if labels.ndim == 2:
            values = tuple(
                _threshold(probabilities_TC[:, c], labels[:, c]) for c in range(len(classes))
            )
            tuned = cls(values=values, overlapping=True)
            neutral = cls(values=(0.5,) * len(classes), overlapping=True)
        else:
            known = labels != UNLABELLED
            counted = np.array([name != left_out for name in classes])
            raw_NC = log_probability(probabilities_TC[known])
            weights = _weights(raw_NC, labels[known], counted=counted)
            tuned, neutral = cls(values=tuple(weights.tolist())), cls(values=(1.0,) * len(classes))
        tuned_f1, neutral_f1 = (
            frame_f1(
                labels=labels, predicted=step.decide(probabilities_TC), classes=classes, rest=rest
            )
            for step in (tuned, neutral)
        )
        return tuned if tuned_f1 > neutral_f1 else neutral

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) probabilities whose plain decision is the tuned one."""
        p, values = np.asarray(probabilities_TC, np.float64), np.array(self.values)
        if self.overlapping:  # a change of odds that moves the threshold to one half
            odds = _log(values) - _log(1 - values)
            return np.where(values == 0.5, p, expit(log_odds(probabilities_TC) - odds))
        if (values == values[0]).all():
            return p
        return np.asarray(softmax(log_probability(p) + _log(values), axis=1))


def _threshold(p: Reals, labels: Ints) -> float:
    """As two exclusive classes, of which only the second is scored."""
    known = labels != UNLABELLED
    odds = log_odds(p[known])
    raw_NC = np.stack([np.zeros_like(odds), odds], axis=1)
    low, high = _weights(raw_NC, labels[known], counted=np.array([False, True]))
    return float(low / (low + high))


def _weights(raw_NC: Reals, truth: Ints, *, counted: npt.NDArray[np.bool_]) -> Reals:
    moves = best_moves(raw_NC, truth, counted=counted)
    return np.asarray(np.exp(moves - moves.max()))


def _log(values: Reals) -> Reals:
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float64).tiny)))
