"""Calibrations: probabilities that can be taken at their word. One file each, found by being here;
what is used is the one with the least log loss on held-out videos."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from finetune.labels.frame_labels import Ints, Reals
from finetune.postprocess.as_json import AbstractStep
from pretrain.components import find, names


class AbstractCalibration(AbstractStep):
    """Raw probabilities to calibrated ones, frame by frame."""

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
    def rescale(self, probabilities_TC: Tensor) -> Tensor:
        """(T, C) calibrated probabilities in double precision, by operations that ``torch.export``
        can follow."""

    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) calibrated probabilities."""
        return np.asarray(self.rescale(torch.tensor(np.asarray(probabilities_TC))))


def calibrations() -> list[type[AbstractCalibration]]:
    """Those there are."""
    return [find(__name__, name, AbstractCalibration) for name in names(__name__)]
