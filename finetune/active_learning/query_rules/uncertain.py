"""Smallest margin between the two likeliest behaviours.

Uncertainty sampling by the margin: Scheffer et al. 2001; Settles 2009, Active Learning Literature
Survey. Entropy would count how likely a third and fourth class are too, which a person's answer
does not decide, and grows with the number of classes; least confidence cannot tell a tie of two
from a tie of many. For one behaviour against the rest all three rank alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.active_learning.query_rules import AbstractQueryRule
from finetune.active_learning.segments import Segment


class Uncertain(AbstractQueryRule):
    """The least certain first."""

    def choose(
        self, segments: Sequence[Segment], *, number: int, labelled_ND: npt.NDArray[np.float32]
    ) -> list[Segment]:
        """By uncertainty only."""
        return sorted(segments, key=lambda segment: -segment.uncertainty)[:number]
