"""Temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from torch import Tensor

from finetune.labels.frame_labels import UNLABELLED, Ints, Reals, examine, log_odds, log_probability
from finetune.postprocess.calibrations import AbstractCalibration


@dataclass(frozen=True, kw_only=True)
class Temperature(AbstractCalibration):
    """One number that divides all logits."""

    temperature: float = 1.0
    overlapping: bool = False

    @classmethod
    def fit(cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str]) -> Self:
        """Minimises the negative log-likelihood of the labelled frames; the result lies in
        0.05…20."""
        examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC)
        known = labels != UNLABELLED
        if labels.ndim == 2:
            sign, raw = np.where(labels[known] == 1, 1.0, -1.0), log_odds(probabilities_TC[known])

            def loss(b: Reals) -> tuple[float, Reals]:
                beta = np.exp(b[0])
                slope = -(sign * raw * expit(-beta * sign * raw)).mean()
                return float(np.logaddexp(0, -beta * sign * raw).mean()), np.array([beta * slope])
        else:
            raw, truth = log_probability(probabilities_TC[known]), labels[known].astype(np.int64)
            own = np.take_along_axis(raw, truth[:, None], axis=1)[:, 0]

            def loss(b: Reals) -> tuple[float, Reals]:
                beta = np.exp(b[0])
                z = log_softmax(beta * raw, axis=1)
                right = np.take_along_axis(z, truth[:, None], axis=1)
                slope = ((np.exp(z) * raw).sum(axis=1) - own).mean()
                return float(-right.mean()), np.array([beta * slope])

        result = minimize(
            loss, np.zeros(1), jac=True, method="L-BFGS-B", bounds=[(-np.log(20), np.log(20))]
        )
        return cls(temperature=float(np.exp(-result.x[0])), overlapping=labels.ndim == 2)

    def rescale(self, probabilities_TC: Tensor) -> Tensor:
        """(T, C) probabilities with softer or sharper logits; classes keep their order within a
        frame."""
        least, p_TC = torch.finfo(torch.float32).tiny, probabilities_TC.double()
        log_TC = p_TC.clamp(min=least).log() / self.temperature
        if not self.overlapping:
            return log_TC.softmax(-1)
        nearest = torch.finfo(probabilities_TC.dtype).eps / 2
        return (log_TC - (1 - p_TC).clamp(min=nearest).log() / self.temperature).sigmoid()
