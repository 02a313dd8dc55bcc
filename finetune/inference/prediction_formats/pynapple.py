"""pynapple intervals: a folder with the bouts of each behaviour as an IntervalSet (npz)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.inference.toolboxes import intervals_of
from pretrain.data.recording_file import file_name

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class Pynapple(AbstractPredictionFormat):
    """What ``IntervalSet.save`` writes; ``load_file`` opens it."""

    ending = ".pynapple"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """One file a behaviour, since intervals of one set cannot overlap."""
        problem = ethogram.problem
        path.mkdir()
        spans = intervals_of(ethogram.labels, classes=problem.classes, fps=ethogram.fps)
        for name, (start, end) in spans.items():
            if name != problem.rest:
                file = path / f"{file_name(name)}.npz"
                np.savez(file, start=start, end=end, type=["IntervalSet"], behavior=name)
