"""The class whose probability exceeds its own threshold by most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from finetune.labels.frame_labels import UNLABELLED, Ints, Reals, examine, rest_class
from finetune.postprocess.decision_rules import AbstractDecisionRule
from finetune.postprocess.decision_rules._coordinate_ascent import best_moves


@dataclass(frozen=True, kw_only=True)
class Excess(AbstractDecisionRule):
    """argmax (p - threshold), for exclusive classes; overlapping behaviours have
    :class:`~finetune.postprocess.decision_rules.thresholds.Thresholds`."""

    thresholds: tuple[float, ...]
    """(C,), the least of them 0: only their differences count."""
    overlapping: bool = False

    @classmethod
    def candidates(
        cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Thresholds by coordinate ascent on macro F1."""
        examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC)
        if labels.ndim == 2:
            return {}
        left_out, known = rest_class(classes=classes, rest=rest), labels != UNLABELLED
        moves_C = best_moves(
            np.asarray(probabilities_TC[known], np.float64),
            labels[known],
            counted=np.array([name != left_out for name in classes]),
        )
        return {"p - threshold": cls(thresholds=tuple((moves_C.max() - moves_C).tolist()))}

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C), positive and summing to one."""
        thresholds = np.array(self.thresholds)
        raised_TC = np.asarray(probabilities_TC, np.float64) + (thresholds.max() - thresholds)
        return np.asarray(raised_TC / raised_TC.sum(axis=1, keepdims=True))
