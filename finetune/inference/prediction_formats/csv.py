"""Frames: time, label, probability of each class, and a column of 0 and 1 for each."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.report.tables import csv_text

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram

_BLOCK = 20_000
"""Frames turned into text at once."""


class FrameTable(AbstractPredictionFormat):
    """The columns are frame, time_s, label, p_CLASS for each class, and each class."""

    ending = ".csv"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """A row for each frame; several labels are joined by ``+``, without one it is ``none``;
        in frames that no pose supports the cells are empty."""
        classes = [csv_text(name) for name in ethogram.problem.classes]
        empty = [""] * (1 + 2 * len(classes))
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(
                [
                    "frame",
                    "time_s",
                    "label",
                    *(f"p_{name}" for name in ethogram.problem.classes),
                    *classes,
                ]
            )
            for first in range(0, len(ethogram.labels), _BLOCK):
                part = ethogram.part(first, first + _BLOCK)
                p = np.char.mod("%.6f", part.probabilities_TC)
                shown_TC, labelled_T = part.shown_TC, part.labelled_T
                combinations, which = np.unique(shown_TC, axis=0, return_inverse=True)
                texts = [
                    "+".join(name for name, shown in zip(classes, row, strict=True) if shown)
                    or "none"
                    for row in combinations
                ]
                for t, k in enumerate(which.reshape(-1)):
                    cells = [texts[k], *p[t], *shown_TC[t]] if labelled_T[t] else empty
                    rows.writerow([first + t, f"{(first + t) / ethogram.fps:.4f}", *cells])
