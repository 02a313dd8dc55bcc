"""The steps between the network's probabilities and the labels of a video.

    probabilities ── calibration ──▶ calibrated ── thresholds ──▶ thresholded ── smoother ──▶ labels

Calibrated probabilities are what a reader is shown; thresholds and smoother serve only the
decision. Average precision is that of the raw scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from finetune.labels.frame_labels import Ints, Reals, decide
from finetune.postprocess.as_json import from_json
from finetune.postprocess.calibrations import AbstractCalibration, calibrations
from finetune.postprocess.smoothers import AbstractSmoother, smoothers
from finetune.postprocess.thresholds import Thresholds
from pretrain.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Postprocessing:
    """The steps of one problem; those that are None are left out."""

    calibration: AbstractCalibration | None = None
    thresholds: Thresholds | None = None
    smoother: AbstractSmoother | None = None
    overlapping: bool = False

    def calibrated(self, probabilities_TC: Reals) -> Reals:
        """Probabilities of one video that can be taken at their word."""
        if self.calibration is None:
            return probabilities_TC
        return self.calibration.apply(probabilities_TC)

    def thresholded(self, probabilities_TC: Reals) -> Reals:
        """Probabilities whose plain decision is the tuned one, before any smoothing."""
        calibrated = self.calibrated(probabilities_TC)
        return calibrated if self.thresholds is None else self.thresholds.apply(calibrated)

    def smoothed(self, thresholded_TC: Reals) -> Ints:
        """The last step, for probabilities that :meth:`thresholded` gave."""
        if self.smoother is None:
            return decide(probabilities_TC=thresholded_TC, overlapping=self.overlapping)
        return self.smoother.apply(thresholded_TC)

    def decide(self, probabilities_TC: Reals) -> Ints:
        """(T,) classes of one whole video, or (T, C) of 0 and 1."""
        return self.smoothed(self.thresholded(probabilities_TC))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values. A calibration of any kind is under ``temperature``, the name of the
        first there was, so that old and new files are read alike."""
        steps = {
            "temperature": self.calibration,
            "thresholds": self.thresholds,
            "smoother": self.smoother,
        }
        return {name: None if step is None else step.to_dict() for name, step in steps.items()} | {
            "overlapping": self.overlapping
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            BadInput: If it is no such description.
        """
        try:
            calibration, thresholds, smoother = (
                values[name] for name in ("temperature", "thresholds", "smoother")
            )
            overlapping = bool(values["overlapping"])
        except (KeyError, TypeError) as error:
            raise BadInput(f"no description of a postprocessing: {error!r}") from error
        return cls(
            calibration=_step(calibration, "step", calibrations()),
            thresholds=_step(thresholds, "step", [Thresholds]),
            smoother=_step(smoother, "smoother", smoothers()),
            overlapping=overlapping,
        )


def _step(values: Mapping[str, Any] | None, key: str, kinds: Sequence[type[T]]) -> T | None:
    return None if values is None else from_json(values, key, kinds)
