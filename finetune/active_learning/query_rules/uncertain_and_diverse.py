"""Of the most uncertain, those unlike each other and what is labelled.

By itself the k-centre rule seeks out tracking errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.active_learning.query_rules import AbstractQueryRule
from finetune.active_learning.query_rules._farthest_first import farthest_first
from finetune.active_learning.query_rules.uncertain import Uncertain
from finetune.active_learning.segments import Segment

POOL = 8
"""Segments among which distance decides, for each that is chosen."""


class UncertainAndDiverse(AbstractQueryRule):
    """The k-centre rule within the most uncertain, weighted by uncertainty."""

    def choose(
        self, segments: Sequence[Segment], *, number: int, labelled_ND: npt.NDArray[np.float32]
    ) -> list[Segment]:
        """By distance times uncertainty, among the most uncertain."""
        pool = Uncertain().choose(segments, number=POOL * number, labelled_ND=labelled_ND)
        return farthest_first(
            pool,
            number=number,
            labelled_ND=labelled_ND,
            weights=np.array([segment.uncertainty for segment in pool]) + 1e-9,
            among=segments,
        )
