"""BORIS tabular events, which SimBA reads, too: a START and a STOP for each bout, in seconds."""

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
    "FPS",
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
        write_events(
            path,
            {ethogram.video: (ethogram.marks(), len(ethogram.labels), ethogram.fps)},
            task=ethogram.problem.task,
            comment=f"predicted, {ethogram.problem.name}",
        )


def write_events(
    path: Path, videos: Mapping[str, tuple[Events, int, float]], *, task: str, comment: str
) -> None:
    """Tabular events of several videos, an observation each: video to (events, frames, fps).

    The description names the label set, so that corrected labels go back into it. Image indices
    are the first and the last frame of a bout, both inclusive, as SimBA takes them.
    """
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
                "FPS": f"{fps:g}",
                "Media file name": csv_text(medium(video)),
                "Comment": comment,
            }
            marks = [(start, 1, name, "START") for start, _, name in events]
            marks += [(stop, 0, name, "STOP") for _, stop, name in events]
            for frame, is_start, name, kind in sorted(marks):
                rows.writerow(
                    observation
                    | {
                        "Behavior": csv_text(name),
                        "Behavior type": kind,
                        "Time": _seconds(frame, fps),
                        "Image index": frame if is_start else frame - 1,
                    }
                )


def medium(video: str) -> str:
    """What a video's file is called, as far as a recording's name tells; SimBA wants an ending."""
    return f"{video}.mp4"


def _seconds(frame: int, fps: float) -> str:
    return f"{frame / fps:.4f}"
