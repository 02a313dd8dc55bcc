"""The steps between the network's probabilities and the labels of a video.

    probabilities ── auto-context, calibration ──▶ calibrated
    calibrated ── decision rule ──▶ adjusted ── smoother ──▶ labels

Calibrated probabilities are what a reader is shown; decision rule and smoother serve the decision.
Average precision by the protocol is that of the network's own probabilities; after postprocessing
it is that of the smoother's scores, where it gives any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from finetune.labels.frame_labels import Ints, Reals, decide
from finetune.postprocess.as_json import from_json
from finetune.postprocess.auto_context import AutoContext
from finetune.postprocess.calibrations import AbstractCalibration, calibrations
from finetune.postprocess.decision_rules import AbstractDecisionRule, decision_rules
from finetune.postprocess.smoothers import AbstractSmoother, smoothers
from pretrain.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Postprocessing:
    """The steps of one problem; those that are None are left out."""

    context: AutoContext | None = None
    calibration: AbstractCalibration | None = None
    decision_rule: AbstractDecisionRule | None = None
    smoother: AbstractSmoother | None = None
    overlapping: bool = False

    def calibrated(self, probabilities_TC: Reals) -> Reals:
        """Probabilities of one whole video that can be taken at their word."""
        p_TC = probabilities_TC if self.context is None else self.context.apply(probabilities_TC)
        return p_TC if self.calibration is None else self.calibration.apply(p_TC)

    def adjusted(self, probabilities_TC: Reals) -> Reals:
        """Probabilities whose plain decision is the tuned one, before any smoothing."""
        calibrated = self.calibrated(probabilities_TC)
        return calibrated if self.decision_rule is None else self.decision_rule.apply(calibrated)

    def smoothed(self, adjusted_TC: Reals) -> Ints:
        """The last step, for probabilities that :meth:`adjusted` gave."""
        if self.smoother is None:
            return decide(probabilities_TC=adjusted_TC, overlapping=self.overlapping)
        return self.smoother.apply(adjusted_TC)

    def scores(self, probabilities_TC: Reals) -> Reals:
        """Scores of one whole video, for average precision: the smoother's, else calibrated
        probabilities."""
        smoothed = None
        if self.smoother is not None:
            smoothed = self.smoother.scores(self.adjusted(probabilities_TC))
        return self.calibrated(probabilities_TC) if smoothed is None else smoothed

    def decide(self, probabilities_TC: Reals) -> Ints:
        """(T,) classes of one whole video, or (T, C) of 0 and 1."""
        return self.smoothed(self.adjusted(probabilities_TC))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values. A calibration of any kind is under ``temperature`` and a decision rule
        under ``thresholds``, the names of the first there were, so that old and new files are read
        alike."""
        steps = {
            "context": self.context,
            "temperature": self.calibration,
            "thresholds": self.decision_rule,
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
            calibration, decision_rule, smoother = (
                values[name] for name in ("temperature", "thresholds", "smoother")
            )
            overlapping = bool(values["overlapping"])
        except (KeyError, TypeError) as error:
            raise BadInput(f"no description of a postprocessing: {error!r}") from error
        return cls(
            context=_step(values.get("context"), "step", [AutoContext]),
            calibration=_step(calibration, "step", calibrations()),
            decision_rule=_step(decision_rule, "step", decision_rules()),
            smoother=_step(smoother, "smoother", smoothers()),
            overlapping=overlapping,
        )


def _step(values: Mapping[str, Any] | None, key: str, kinds: Sequence[type[T]]) -> T | None:
    return None if values is None else from_json(values, key, kinds)
