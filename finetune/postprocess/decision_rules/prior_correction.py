"""Probabilities divided by a power of the mean of their class: rare classes are chosen sooner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit, softmax

from finetune.labels.frame_labels import (
    UNLABELLED,
    ByVideo,
    Ints,
    Reals,
    examine,
    log_odds,
    log_probability,
    looked_at,
)
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from finetune.postprocess.decision_rules import AbstractDecisionRule

POWERS = (0.5, 0.75, 1.0)
FEW_BOUTS = 30
LEAST_POWER = 0.1
"""Less of :meth:`PriorCorrection.by_bouts`, with 120 bouts and more of every class, is nothing."""
BY_BOUTS = "prior correction where bouts are few"
LEAST_PRIOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class PriorCorrection(AbstractDecisionRule):
    """p / prior^power before the argmax; of overlapping behaviours their odds likewise.

    With a power of 1 the decision is as if all classes were equally frequent (Menon et al. 2021,
    Long-tail learning via logit adjustment).
    """

    prior: tuple[float, ...]
    """(C,): the network's mean probabilities on labelled frames. Training with class weights moves
    them away from the shares of the classes, and it is the network's that divide."""
    power: float | tuple[float, ...]
    """For all classes, or for each."""
    overlapping: bool = False

    @classmethod
    def by_bouts(cls, *, prior: Sequence[float], labels: ByVideo) -> Self:
        """Half the correction for classes of which few bouts are labelled, less and less with more:
        the power is 0.5 x 30 / (30 + bouts), and 0 for a class that was never seen.

        For heads that are too timid with a behaviour that they saw a handful of times.

        Args:
            prior: (C,) mean probabilities on labelled frames, or the shares of the labels.
            labels: Of whole videos, so that bouts can be counted.
        """
        rows = np.concatenate([bouts(values) for values in labels.values()])
        number_C = np.bincount(rows[:, 2], minlength=len(prior))
        power_C = np.where(number_C > 0, 0.5 * FEW_BOUTS / (FEW_BOUTS + number_C), 0.0)
        clipped = np.clip(prior, LEAST_PRIOR, 1 - LEAST_PRIOR)
        return cls(
            prior=tuple(clipped.tolist()),
            power=tuple(power_C.tolist()),
            overlapping=any(values.ndim == 2 for values in labels.values()),
        )

    @classmethod
    def candidates(
        cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Several powers."""
        examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC)
        prior = mean_probabilities(probabilities_TC=probabilities_TC, labels=labels)
        overlapping = labels.ndim == 2
        return {
            f"prior correction {power:g}": cls(prior=prior, power=power, overlapping=overlapping)
            for power in POWERS
        }

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) corrected probabilities."""
        prior, power = np.array(self.prior), np.array(self.power)
        if self.overlapping:
            return np.asarray(expit(log_odds(probabilities_TC) - power * log_odds(prior)))
        logits_TC = log_probability(probabilities_TC) - power * np.log(prior)
        return np.asarray(softmax(logits_TC, axis=1))


def mean_probabilities(*, probabilities_TC: Reals, labels: Ints) -> tuple[float, ...]:
    """(C,) means over the frames in which each class was looked at; 0.5, which shifts nothing,
    where it never was."""
    known_TC = labels.reshape(len(labels), -1) != UNLABELLED
    sum_C = np.where(known_TC, np.asarray(probabilities_TC, np.float64), 0.0).sum(axis=0)
    number_C = known_TC.sum(axis=0)
    mean_C = np.where(number_C > 0, sum_C / np.maximum(number_C, 1), 0.5)
    return tuple(np.clip(mean_C, LEAST_PRIOR, 1 - LEAST_PRIOR).tolist())


def rule_of_labels(problem: Problem) -> PriorCorrection | None:
    """The rule of :meth:`PriorCorrection.by_bouts` with the shares of the labels for the network's
    mean probabilities; None where there are no labels."""
    labels = {name: y for name, y in problem.train.items() if looked_at(y).any()}
    if not labels:
        return None
    every = np.concatenate(list(labels.values()))
    if not problem.overlapping:
        every = np.where(
            (every == UNLABELLED)[:, None],
            UNLABELLED,
            every[:, None] == np.arange(len(problem.classes)),
        )
    known = every != UNLABELLED
    share_C = (every == 1).sum(0) / np.maximum(known.sum(0), 1)
    return PriorCorrection.by_bouts(prior=share_C.tolist(), labels=labels)
