"""Probabilities that mean what they say, and decisions that suit F1; every number here is learned
on validation frames.

Each step is a frozen dataclass, ``Step.fit(probabilities_TC=…, labels=…)``, whose ``apply`` takes
probabilities to probabilities, so that steps chain: temperature, then thresholds, then
``finetune.postprocess.smooth``. ``Thresholds.apply`` moves the probabilities so that the plain
decision (argmax; 0.5 where behaviours overlap) is the tuned one. Average precision stays that of
the raw scores. A class without a positive (or a negative) validation frame keeps its neutral
setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from finetune.labels.frame_labels import (
    UNLABELLED,
    Ints,
    Reals,
    examine,
    log_odds,
    log_probability,
    plain,
)
from finetune.postprocess.thresholds import Thresholds
from pretrain.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """One number that divides all logits (Guo et al. 2017, On Calibration of Modern Neural
    Networks)."""

    temperature: float = 1.0
    overlapping: bool = False

    @classmethod
    def fit(cls, *, probabilities_TC: Reals, labels: Ints) -> Self:
        """Minimises the negative log-likelihood of labelled validation frames; the result lies in
        0.05…20.

        Raises:
            BadInput: If shapes disagree, no frame is labelled or a score is not finite.
        """
        _examine(probabilities_TC=probabilities_TC, labels=labels)
        if labels.ndim == 2:
            known = labels != UNLABELLED
            sign, raw = np.where(labels[known] == 1, 1.0, -1.0), log_odds(probabilities_TC[known])

            def loss(b: Reals) -> tuple[float, Reals]:
                beta = np.exp(b[0])
                slope = -(sign * raw * expit(-beta * sign * raw)).mean()
                return float(np.logaddexp(0, -beta * sign * raw).mean()), np.array([beta * slope])
        else:
            known = labels != UNLABELLED
            raw, truth = log_probability(probabilities_TC[known]), labels[known].astype(np.int64)
            own = np.take_along_axis(raw, truth[:, None], axis=1)[:, 0]

            def loss(b: Reals) -> tuple[float, Reals]:
                beta = np.exp(b[0])
                z = log_softmax(beta * raw, axis=1)
                right = np.take_along_axis(z, truth[:, None], axis=1)
                return float(-right.mean()), np.array(
                    [beta * ((np.exp(z) * raw).sum(axis=1) - own).mean()]
                )

        found = minimize(
            loss, np.zeros(1), jac=True, method="L-BFGS-B", bounds=[(-np.log(20), np.log(20))]
        )
        return cls(temperature=float(np.exp(-found.x[0])), overlapping=labels.ndim == 2)

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) probabilities with softened or sharpened logits; the order of classes within a
        frame stays."""
        if self.overlapping:
            return np.asarray(expit(log_odds(probabilities_TC) / self.temperature))
        return np.asarray(
            np.exp(log_softmax(log_probability(probabilities_TC) / self.temperature, axis=1))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"step": type(self).__name__, **plain(asdict(self))}


Step = Temperature | Thresholds
_STEPS: dict[str, type[Step]] = {step.__name__: step for step in (Temperature, Thresholds)}


def from_dict(values: Mapping[str, Any]) -> Step:
    """The step that ``to_dict`` described.

    Raises:
        BadInput: If it is no description of a step.
    """
    held = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key != "step"
    }
    try:
        kind: type[Any] = _STEPS[values["step"]]
        step: Step = kind(**held)
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"no calibration step: {dict(values)}; allowed steps: {', '.join(_STEPS)}"
        ) from error
    return step


def expected_calibration_error(*, probabilities_TC: Reals, labels: Ints, bins: int = 15) -> float:
    """The expected calibration error over labelled frames: mean of |accuracy - confidence|, bin by
    bin (Guo et al. 2017).

    Of exclusive classes it asks whether the chosen class of each frame is right; of overlapping
    behaviours, every behaviour of every frame.

    Args:
        probabilities_TC: Probabilities of exclusive classes or overlapping behaviours.
        labels: (T,) or (T, C).
        bins: Equal parts of 0…1, each closed on the right.

    Raises:
        BadInput: See :class:`Temperature`.
    """
    _examine(probabilities_TC=probabilities_TC, labels=labels)
    p, known = np.asarray(probabilities_TC, np.float64), labels != UNLABELLED
    if labels.ndim == 2:
        confidence, right = p[known], labels[known] == 1
    else:
        confidence, right = p[known].max(axis=1), labels[known] == p[known].argmax(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    sure, correct = (
        np.bincount(place, weights=values, minlength=bins) for values in (confidence, right)
    )
    return float(np.abs(correct - sure).sum() / max(len(place), 1))


def _examine(*, probabilities_TC: Reals, labels: Ints) -> None:
    width = probabilities_TC.shape[1] if probabilities_TC.ndim == 2 else 0
    examine(
        labels=labels,
        classes=[f"class {c}" for c in range(width)],
        probabilities_TC=probabilities_TC,
    )
