"""Probabilities divided by a power of the mean of their class: rare classes are chosen sooner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit, softmax

from finetune.labels.frame_labels import Ints, Reals, examine, log_odds, log_probability, looked_at
from finetune.postprocess.decision_rules import AbstractDecisionRule

POWERS = (0.5, 0.75, 1.0)
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
    power: float
    overlapping: bool = False

    @classmethod
    def candidates(
        cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Several powers."""
        examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC)
        mean_C = np.asarray(probabilities_TC, np.float64)[looked_at(labels)].mean(axis=0)
        prior = tuple(np.clip(mean_C, LEAST_PRIOR, 1 - LEAST_PRIOR).tolist())
        overlapping = labels.ndim == 2
        return {
            f"prior correction {power:g}": cls(prior=prior, power=power, overlapping=overlapping)
            for power in POWERS
        }

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) corrected probabilities."""
        prior = np.array(self.prior)
        if self.overlapping:
            return np.asarray(expit(log_odds(probabilities_TC) - self.power * log_odds(prior)))
        logits_TC = log_probability(probabilities_TC) - self.power * np.log(prior)
        return np.asarray(softmax(logits_TC, axis=1))
