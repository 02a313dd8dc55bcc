"""Frames: time, label, probability of each class, and a column of 0 and 1 for each."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.inference.prediction_formats import AbstractPredictionFormat

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class FrameTable(AbstractPredictionFormat):
    """The columns are frame, time_s, label, p_CLASS for each class, and each class."""

    ending = ".csv"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """A row for each frame; several labels are joined by ``+``, without one it is ``none``;
        in frames that no pose supports the cells are empty."""
        classes = ethogram.problem.classes
        p = np.char.mod("%.6f", ethogram.probabilities_TC)
        shown_TC = ethogram.shown_TC
        combinations, which = np.unique(shown_TC, axis=0, return_inverse=True)
        texts = [
            "+".join(name for name, is_shown in zip(classes, row, strict=True) if is_shown)
            or "none"
            for row in combinations
        ]
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(
                ["frame", "time_s", "label", *(f"p_{name}" for name in classes), *classes]
            )
            empty, labelled_T = [""] * (1 + 2 * len(classes)), ethogram.labelled_T
            for t, k in enumerate(which.reshape(-1)):
                cells = [texts[k], *p[t], *shown_TC[t]] if labelled_T[t] else empty
                rows.writerow([t, f"{t / ethogram.fps:.4f}", *cells])
