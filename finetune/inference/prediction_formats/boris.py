"""BORIS tabular events: a START and a STOP for each bout, in seconds."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.report.tables import csv_text
from pretrain.readers.score_sheets import LABEL_SET

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram

COLUMNS = (
    "Observation id",
    "Observation date",
    "Description",
    "Observation duration",
    "Observation type",
    "Source",
    "Time offset (s)",
    "Media duration (s)",
    "FPS (frame/s)",
    "Subject",
    "Behavior",
    "Behavioral category",
    "Behavior type",
    "Time",
    "Media file name",
    "Image index",
    "Image file path",
    "Comment",
)
Events = Sequence[tuple[int, int, str]]
"""First frame, frame after the last, behaviour; bouts of one behaviour must not overlap."""


class TabularEvents(AbstractPredictionFormat):
    """An observation of one video."""

    ending = ".csv"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """The bouts of all behaviours but the rest."""
        write_observations(
            path,
            {ethogram.video: (ethogram.events(), len(ethogram.labels), ethogram.fps)},
            task=ethogram.problem.task,
            comment=f"predicted, {ethogram.problem.name}",
        )


def write_observations(
    path: Path, videos: Mapping[str, tuple[Events, int, float]], *, task: str, comment: str
) -> None:
    """BORIS tabular events of several videos, an observation each: video to (events, frames,
    fps); the description names the label set, so that corrected labels go back into it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, COLUMNS, restval="")
        rows.writeheader()
        for video, (events, frames, fps) in videos.items():
            observation = {
                "Observation id": csv_text(video),
                "Description": f"{LABEL_SET}{task}" if task else "",
                "Observation duration": _seconds(frames, fps),
                "Observation type": "Media file",
                "Time offset (s)": "0",
                "Media duration (s)": _seconds(frames, fps),
                "FPS (frame/s)": f"{fps:g}",
                "Media file name": csv_text(video),
                "Comment": comment,
            }
            marks = [(start, 1, name, "START") for start, _, name in events]
            marks += [(stop, 0, name, "STOP") for _, stop, name in events]
            for frame, _, name, kind in sorted(marks):
                rows.writerow(
                    observation
                    | {
                        "Behavior": csv_text(name),
                        "Behavior type": kind,
                        "Time": _seconds(frame, fps),
                        "Image index": frame,
                    }
                )


def _seconds(frame: int, fps: float) -> str:
    return f"{frame / fps:.4f}"
