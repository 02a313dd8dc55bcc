"""Query rules: which segments a person should label next. One file each, found by being here; its
name is its name in ``suggest.py --rule``, whose help shows the first line of its docstring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pretrain.components import find

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from finetune.active_learning.segments import Segment


class AbstractQueryRule(ABC):
    """Chooses among segments of unlabelled video."""

    @abstractmethod
    def choose(
        self, segments: Sequence[Segment], *, number: int, labelled_ND: npt.NDArray[np.float32]
    ) -> list[Segment]:
        """The segments to label, the most useful first.

        Args:
            segments: All there are; may be empty.
            number: How many to choose; all of them where there are fewer.
            labelled_ND: Mean embeddings of what is labelled already; N may be 0.
        """


def query_rule(name: str) -> AbstractQueryRule:
    """The rule of a file.

    Raises:
        BadInput: If there is none; lists those there are.
    """
    out: AbstractQueryRule = find(__name__, name, AbstractQueryRule)()
    return out
