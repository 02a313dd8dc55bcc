"""Labelled videos: their events, time budgets and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import Ints, Reals, looked_at
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from finetune.report.figures import colours_of, png
from pretrain.readers.score_sheets import CLIP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pretrain.readers.tracks import Tracks


@dataclass(frozen=True, kw_only=True)
class Ethogram:
    """The labels of one video in one problem, at the video's own rate."""

    video: str
    problem: Problem
    labels: Ints
    """(T,) classes, or (T, C) of 0 and 1; UNLABELLED where no pose supports a label."""
    probabilities_TC: Reals
    """NaN there."""
    fps: float
    tracks: Callable[[], Tracks] | None = None
    """Reads the poses that it was made of, for formats that have room for them."""

    @property
    def shown_TC(self) -> Ints:
        """0 and 1; 0 in frames without a label."""
        if self.problem.overlapping:
            return np.asarray(np.maximum(self.labels, 0), np.int8)
        return np.asarray(self.labels[:, None] == np.arange(len(self.problem.classes)), np.int8)

    @property
    def labelled_T(self) -> npt.NDArray[np.bool_]:
        """Where there is a label."""
        return looked_at(self.labels)

    def part(self, start: int, stop: int) -> Ethogram:
        """Some of its frames."""
        return replace(
            self,
            labels=self.labels[start:stop],
            probabilities_TC=self.probabilities_TC[start:stop],
        )

    def events(self) -> list[tuple[int, int, str]]:
        """(first frame, frame after the last, behaviour) of each bout but those of the rest class,
        in time."""
        named = [
            (int(start), int(stop), self.problem.classes[c])
            for start, stop, c in bouts(self.labels)
        ]
        return [event for event in named if event[2] != self.problem.rest]

    def marks(self) -> list[tuple[int, int, str]]:
        """The events, for formats that mark what they name; where there are none, or some frames
        have no label, those that have one are marked as clips that were looked at."""
        events, labelled_T = self.events(), self.labelled_T
        if events and labelled_T.all():
            return events
        runs = bouts(labelled_T.astype(np.int8))
        return [(int(a), int(b), CLIP) for a, b, labelled in runs if labelled] + events


def summary(ethogram: Ethogram) -> list[dict[str, Any]]:
    """Time, bouts and their lengths for each class of one video; lengths are None without a bout.

    Shares and rates are of the labelled time.
    """
    runs, rows = bouts(ethogram.labels), []
    total = len(ethogram.labels) / ethogram.fps
    labelled = int(ethogram.labelled_T.sum()) / ethogram.fps
    seconds = max(labelled, 1 / ethogram.fps)
    for c, name in enumerate(ethogram.problem.classes):
        lengths = (runs[:, 1] - runs[:, 0])[runs[:, 2] == c] / ethogram.fps
        rows.append(
            {
                "video": ethogram.video,
                "problem": ethogram.problem.name,
                "behaviour": name,
                "video_s": round(total, 3),
                "unlabelled_s": round(total - labelled, 3),
                "seconds": round(float(lengths.sum()), 3),
                "share": round(float(lengths.sum() / seconds), 5),
                "bouts": len(lengths),
                "bouts_per_min": round(len(lengths) / seconds * 60, 3),
                "mean_bout_s": round(float(lengths.mean()), 3) if len(lengths) else None,
                "median_bout_s": round(float(np.median(lengths)), 3) if len(lengths) else None,
            }
        )
    return rows


BOUT_COLUMNS = ("video", "problem", "behaviour", "start_s", "stop_s")


def event_rows(ethogram: Ethogram) -> list[dict[str, Any]]:
    """A row, :data:`BOUT_COLUMNS`, for each bout of one video but those of the rest class."""
    fps = ethogram.fps
    where = (ethogram.video, ethogram.problem.name)
    rows = [(*where, b, round(i / fps, 4), round(j / fps, 4)) for i, j, b in ethogram.events()]
    return [dict(zip(BOUT_COLUMNS, row, strict=True)) for row in rows]


def summary_table(rows: list[dict[str, Any]]) -> str:
    """All videos together, a line for each behaviour."""
    lines = [f"{'':24} {'minutes':>9} {'share':>7} {'bouts':>7} {'mean bout':>10}"]
    for problem, name in dict.fromkeys((row["problem"], row["behaviour"]) for row in rows):
        videos = [row for row in rows if (row["problem"], row["behaviour"]) == (problem, name)]
        seconds, count = (sum(row[key] for row in videos) for key in ("seconds", "bouts"))
        total = sum(row["video_s"] - row["unlabelled_s"] for row in videos)
        several = len({row["problem"] for row in rows}) > 1
        title = f"{problem}: {name}" if several and name != problem else name
        share = seconds / total if total else 0.0
        mean = f"{seconds / count:>8.2f} s" if count else f"{'-':>10}"
        lines.append(f"{title:24} {seconds / 60:>9.1f} {share:>7.3f} {count:>7,} {mean}")
    first = rows[:1] and (rows[0]["problem"], rows[0]["behaviour"])
    once = [row for row in rows if (row["problem"], row["behaviour"]) == first]
    if unlabelled := sum(row["unlabelled_s"] for row in once):
        share = unlabelled / sum(row["video_s"] for row in once)
        lines.append(f"{'no pose, no label':24} {unlabelled / 60:>9.1f} {share:>7.3f} of all")
    return "\n".join(lines)


def draw(path: Path, ethogram: Ethogram) -> None:
    """Writes the picture of one video."""
    path.write_bytes(png(picture(ethogram)))


def picture(ethogram: Ethogram) -> Figure:
    """Bouts of each behaviour over the whole video, and the probabilities under them."""
    from matplotlib.figure import Figure

    classes = [
        (c, name)
        for c, name in enumerate(ethogram.problem.classes)
        if name != ethogram.problem.rest
    ]
    figure = Figure(figsize=(11, 1.2 + 0.5 * len(classes)), layout="constrained")
    axes = figure.subplots(len(classes), 1, sharex=True, squeeze=False)[:, 0]
    runs, colours = bouts(ethogram.labels), colours_of(ethogram.problem)
    seconds = np.arange(len(ethogram.labels)) / ethogram.fps
    step = max(1, len(seconds) // 5000)  # a screen shows nothing finer
    for row, (c, name) in zip(axes, classes, strict=True):
        bars = [
            (start / ethogram.fps, (stop - start) / ethogram.fps)
            for start, stop, _ in runs[runs[:, 2] == c]
        ]
        row.broken_barh(bars, (0, 1), color=colours[name])
        row.plot(
            seconds[::step], ethogram.probabilities_TC[::step, c], color="black", linewidth=0.4
        )
        row.set_ylim(0, 1)
        row.set_yticks([])
        row.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    axes[0].set_title(
        f"{ethogram.video}: predicted bouts (bars) and probability (line)",
        fontsize=9,
        parse_math=False,
    )
    axes[-1].set_xlim(0, len(ethogram.labels) / ethogram.fps)
    axes[-1].set_xlabel("seconds")
    return figure
