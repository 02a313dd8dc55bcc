"""Farthest in the encoder's embedding from what is labelled or listed already.

The greedy k-centre rule of Sener & Savarese (2018, Active Learning for Convolutional Neural
Networks: A Core-Set Approach).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.active_learning.query_rules import AbstractQueryRule
from finetune.active_learning.query_rules._farthest_first import farthest_first
from finetune.active_learning.segments import Segment


class Diverse(AbstractQueryRule):
    """The farthest first."""

    def choose(
        self, segments: Sequence[Segment], *, number: int, labelled_ND: npt.NDArray[np.float32]
    ) -> list[Segment]:
        """By distance only."""
        return farthest_first(
            segments,
            number=number,
            labelled_ND=labelled_ND,
            weights=np.ones(len(segments)),
            among=segments,
        )
