"""The greedy k-centre rule: what is farthest from everything that was chosen before comes next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.active_learning.segments import Segment
from finetune.labels.frame_labels import Reals


def farthest_first(
    segments: Sequence[Segment],
    *,
    number: int,
    labelled_ND: npt.NDArray[np.float32],
    weights: Reals,
    among: Sequence[Segment],
) -> list[Segment]:
    """Segments by their distance, times their weight, from what is labelled (mean embeddings) or
    chosen already; the unit of distance is the standard deviation of the segments ``among``.

    Without anything labelled the one with the greatest weight comes first.
    """
    if not segments:
        return []
    spread_D = np.std([segment.z_D for segment in among], axis=0) + 1e-6
    z_ND = np.array([segment.z_D for segment in segments], np.float64)
    distance = np.full(len(segments), np.inf)
    for centre_D in labelled_ND:
        distance = np.minimum(distance, np.linalg.norm((z_ND - centre_D) / spread_D, axis=1))
    chosen: list[int] = []
    for _ in range(min(number, len(segments))):
        gain = weights if np.isinf(distance).all() else distance * weights
        best = int(np.where(np.isin(np.arange(len(segments)), chosen), -1.0, gain).argmax())
        chosen.append(best)
        distance = np.minimum(distance, np.linalg.norm((z_ND - z_ND[best]) / spread_D, axis=1))
    return [segments[index] for index in chosen]
