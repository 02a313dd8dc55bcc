"""Calibrations: probabilities that can be taken at their word. One file each, found by being here;
what is used is the one with the least log loss on held-out videos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from finetune.labels.frame_labels import Ints, Reals
from finetune.postprocess.as_json import to_json
from pretrain.components import find, names


class AbstractCalibration(ABC):
    """Raw probabilities to calibrated ones, frame by frame.

    Subclasses are frozen dataclasses whose fields, numbers, texts and tuples of them, are what was
    learned. A saved model names them by their class.
    """

    overlapping: bool

    @classmethod
    @abstractmethod
    def fit(cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str]) -> Self:
        """Learns from labelled frames that the network was not fitted on.

        Args:
            probabilities_TC: Of exclusive classes or overlapping behaviours.
            labels: (T,) classes, or (T, C) of 0 and 1; UNLABELLED in both.
            classes: Names, in the order of axis C.

        Raises:
            BadInput: If shapes disagree, no frame is labelled or a score is not finite.
        """

    @abstractmethod
    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) calibrated probabilities."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return to_json(self, "step")


def calibrations() -> list[type[AbstractCalibration]]:
    """Those there are."""
    return [find(__name__, name, AbstractCalibration) for name in names(__name__)]
