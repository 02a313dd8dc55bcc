"""Probabilities that mean what they say, and decisions that suit F1; every number here is learned on validation frames.

Each step is a frozen dataclass, ``Step.fit(probabilities_TC=…, labels=…)``, whose ``apply`` takes probabilities to
probabilities, so that steps chain: temperature, then thresholds, then ``finetune.after.smooth``. ``Thresholds.apply`` moves the
probabilities so that the plain decision (argmax; 0.5 where behaviours overlap) is the tuned one. Average precision stays
that of the raw scores. A class without a positive (or a negative) validation frame keeps its neutral setting.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit

from finetune.after.thresholds import Thresholds
from finetune.scores.frames import UNLABELLED, Ints, Reals, examine, log_odds, log_probability, plain
from pretrain.errors import BadInput, refuse

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """One number that divides all logits (Guo et al. 2017, On Calibration of Modern Neural Networks)."""

    temperature: float = 1.0
    overlapping: bool = False

    @classmethod
    def fit(cls, *, probabilities_TC: Reals, labels: Ints) -> Self:
        """Minimises the negative log-likelihood of labelled validation frames; the result lies in 0.05…20.

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
                return float(-right.mean()), np.array([beta * ((np.exp(z) * raw).sum(axis=1) - own).mean()])

        found = minimize(loss, np.zeros(1), jac=True, method="L-BFGS-B", bounds=[(-np.log(20), np.log(20))])
        return cls(temperature=float(np.exp(-found.x[0])), overlapping=labels.ndim == 2)

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) probabilities with softened or sharpened logits; the order of classes within a frame stays."""
        if self.overlapping:
            return np.asarray(expit(log_odds(probabilities_TC) / self.temperature))
        return np.asarray(np.exp(log_softmax(log_probability(probabilities_TC) / self.temperature, axis=1)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"step": type(self).__name__, **plain(asdict(self))}


@dataclass(frozen=True, kw_only=True)
class Platt:
    """A slope and an intercept on the logit of each binary decision (Platt 1999), moved to another prior where one is known.

    Two exclusive classes have one logit, that of the second; overlapping behaviours have one each.
    """

    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    shifts: tuple[float, ...]
    """Added logit: that of the known prior minus that of validation; 0 where none was given."""
    overlapping: bool = False

    @classmethod
    def fit(cls, *, probabilities_TC: Reals, labels: Ints, prior: Sequence[float] | None = None) -> Self:
        """Fits slopes (positive, so that the order of frames stays) and intercepts on labelled validation frames.

        Targets are Platt's (n + 1) / (n + 2), which keep few labels from giving certainty.

        Args:
            probabilities_TC: (T, 2) of two exclusive classes, or (T, C) of overlapping behaviours.
            labels: (T,) or (T, C).
            prior: Share of positive frames where the result will be used, one for each logit, if it is known and differs from
                that of the validation frames (balanced draws). Never take it from test labels.

        Raises:
            BadInput: If there are more than two exclusive classes, a prior is not within 0…1, or see :class:`Temperature`.
        """
        _examine(probabilities_TC=probabilities_TC, labels=labels)
        overlapping = labels.ndim == 2
        truth, raw = (labels, log_odds(probabilities_TC)) if overlapping else (labels[:, None], _binary_logit(probabilities_TC))
        n = raw.shape[1]
        if prior is not None and (len(prior) != n or not all(0 < p < 1 for p in prior)):
            raise BadInput(f"the prior is {list(prior)}; wanted {n} share(s) between 0 and 1, one for each binary decision")
        slopes, intercepts, shifts = [], [], []
        for c in range(n):
            known = truth[:, c] != UNLABELLED
            slope, intercept = _platt(raw[known, c], truth[known, c] == 1)
            share = float((truth[known, c] == 1).mean()) if known.any() else 0.0
            slopes.append(slope)
            intercepts.append(intercept)
            shifts.append(float(logit(prior[c]) - logit(share)) if prior is not None and 0 < share < 1 else 0.0)
        return cls(slopes=tuple(slopes), intercepts=tuple(intercepts), shifts=tuple(shifts), overlapping=overlapping)

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) calibrated probabilities."""
        raw = log_odds(probabilities_TC) if self.overlapping else _binary_logit(probabilities_TC)
        moved = expit(raw * self.slopes + self.intercepts + self.shifts)
        return np.asarray(moved) if self.overlapping else np.concatenate([1 - moved, moved], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"step": type(self).__name__, **plain(asdict(self))}


Step = Temperature | Platt | Thresholds
_STEPS: dict[str, type[Step]] = {step.__name__: step for step in (Temperature, Platt, Thresholds)}


def from_dict(values: Mapping[str, Any]) -> Step:
    """The step that ``to_dict`` described.

    Raises:
        BadInput: If it is no description of a step.
    """
    held = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key != "step"}
    try:
        kind: type[Any] = _STEPS[values["step"]]
        step: Step = kind(**held)
    except (KeyError, TypeError) as error:
        raise BadInput(f"no calibration step: {dict(values)}; allowed steps: {', '.join(_STEPS)}") from error
    return step


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often predictions made with a certain confidence are right."""

    edges: tuple[float, ...]
    """Of the bins, each closed on the right."""
    confidence: tuple[float, ...]
    """Mean within each bin; NaN in an empty one. Likewise ``accuracy``."""
    accuracy: tuple[float, ...]
    frames: tuple[int, ...]
    error: float
    """Expected calibration error: mean of |accuracy - confidence|, weighted by frames."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return dict(plain(asdict(self)))


def reliability(*, probabilities_TC: Reals, labels: Ints, class_index: int | None = None, bins: int = 15) -> Reliability:
    """The reliability table and the expected calibration error (Guo et al. 2017), over labelled frames.

    Args:
        probabilities_TC: Probabilities of exclusive classes or overlapping behaviours.
        labels: (T,) or (T, C).
        class_index: The probability of this class against its occurrence. None: of exclusive classes the chosen class of each frame and
            whether it is right; of overlapping behaviours every behaviour of every frame.
        bins: Equal parts of 0…1.

    Raises:
        BadInput: See :class:`Temperature`.
    """
    _examine(probabilities_TC=probabilities_TC, labels=labels)
    refuse([f"bins is {bins}; it must be at least 1"] if bins < 1 else [], about="the reliability table")
    p = np.asarray(probabilities_TC, np.float64)
    if labels.ndim == 2:
        columns = slice(None) if class_index is None else slice(class_index, class_index + 1)
        known = labels[:, columns] != UNLABELLED
        confidence, right = p[:, columns][known], labels[:, columns][known] == 1
    else:
        p, truth = p[labels != UNLABELLED], labels[labels != UNLABELLED]
        confidence = p.max(axis=1) if class_index is None else p[:, class_index]
        right = truth == (p.argmax(axis=1) if class_index is None else class_index)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    frames = np.bincount(place, minlength=bins)
    held = np.where(frames > 0, frames, np.nan)
    mean, accuracy = (np.bincount(place, weights=values, minlength=bins) / held for values in (confidence, right))
    return Reliability(
        edges=tuple(np.linspace(0, 1, bins + 1).tolist()),
        confidence=tuple(mean.tolist()),
        accuracy=tuple(accuracy.tolist()),
        frames=tuple(frames.tolist()),
        error=float(np.nansum(np.abs(accuracy - mean) * frames) / max(frames.sum(), 1)),
    )


def negative_log_likelihood(*, probabilities_TC: Reals, labels: Ints) -> float:
    """Mean over labelled frames (of overlapping behaviours: over all labelled decisions), in nats."""
    _examine(probabilities_TC=probabilities_TC, labels=labels)
    known = labels != UNLABELLED
    if labels.ndim == 2:
        p = probabilities_TC[known]
        return float(-log_probability(np.where(labels[known] == 1, p, 1 - np.asarray(p, np.float64))).mean())
    return float(-log_probability(np.take_along_axis(probabilities_TC[known], labels[known][:, None].astype(np.int64), axis=1)).mean())


def _examine(*, probabilities_TC: Reals, labels: Ints) -> None:
    width = probabilities_TC.shape[1] if probabilities_TC.ndim == 2 else 0
    examine(labels=labels, classes=[f"class {c}" for c in range(width)], probabilities_TC=probabilities_TC)


def _binary_logit(probabilities_TC: Reals) -> Reals:
    if probabilities_TC.shape[1] != 2:
        raise BadInput(
            f"Platt scaling is for two exclusive classes or for overlapping behaviours, not for {probabilities_TC.shape[1]} classes"
        )
    raw = log_probability(probabilities_TC)
    return raw[:, 1:] - raw[:, :1]


def _platt(raw: Reals, positive: Reals) -> tuple[float, float]:
    n, n_positive = len(positive), int(positive.sum())
    if not 0 < n_positive < n:
        log.warning("%d of %d validation frames are positive: Platt scaling leaves this decision as it is", n_positive, n)
        return 1.0, 0.0
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n - n_positive + 2))
    scale = float(raw.std()) or 1.0  # slope and intercept of like size make the search quick
    centred = (raw - raw.mean()) / scale

    def loss(settings: Reals) -> tuple[float, Reals]:
        z = settings[0] * centred + settings[1]
        error = expit(z) - target
        return float((np.logaddexp(0, z) - target * z).mean()), np.array([(error * centred).mean(), error.mean()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), (None, None)])
    slope = found.x[0] / scale
    return float(slope), float(found.x[1] - slope * raw.mean())
