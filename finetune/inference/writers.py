"""Predictions in the formats of annotation tools, one small function each; the readers of
``prepare.py --labels`` read them back.

The rest class (``other``, ``base``) has no events in the formats that mark only what they name:
what lies in no bout is it.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from finetune.labels.frame_labels import Ints, Reals
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from pretrain.errors import BadInput

BORIS = (
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


@dataclass(frozen=True, kw_only=True)
class Ethogram:
    """The labels of one video in one problem, at the video's own rate."""

    video: str
    problem: Problem
    labels: Ints
    """(T,) classes, or (T, C) of 0 and 1."""
    probabilities_TC: Reals
    fps: float

    @property
    def shown(self) -> Ints:
        """(T, C) of 0 and 1."""
        if self.problem.overlapping:
            return np.asarray(self.labels, np.int8)
        return np.asarray(self.labels[:, None] == np.arange(len(self.problem.classes)), np.int8)

    def events(self) -> list[tuple[int, int, str]]:
        """(first frame, frame after the last, behaviour) of each bout but those of the rest class,
        in time."""
        found = [
            (int(start), int(stop), self.problem.classes[c])
            for start, stop, c in bouts(self.labels)
        ]
        return [event for event in found if event[2] != self.problem.rest]


def write_frames(path: Path, held: Ethogram) -> None:
    """A row a frame: frame, time_s, label, ``p_<class>`` for each class, and for each class a
    column of 0 and 1."""
    classes = held.problem.classes
    frames = len(held.labels)
    p = np.char.mod("%.6f", held.probabilities_TC)
    shown = held.shown
    kinds, which = np.unique(shown, axis=0, return_inverse=True)
    texts = [
        "+".join(name for name, one in zip(classes, kind, strict=True) if one) or "none"
        for kind in kinds
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["frame", "time_s", "label", *(f"p_{name}" for name in classes), *classes])
        for t, k in zip(range(frames), which.reshape(-1), strict=True):
            rows.writerow([t, f"{t / held.fps:.4f}", texts[k], *p[t], *shown[t]])


def write_boris(path: Path, held: Ethogram) -> None:
    """BORIS tabular events: a START and a STOP for each bout, in seconds."""
    write_boris_events(
        path,
        held.video,
        held.events(),
        frames=len(held.labels),
        fps=held.fps,
        comment=f"predicted, {held.problem.name}",
    )


def write_boris_events(
    path: Path,
    video: str,
    events: list[tuple[int, int, str]],
    *,
    frames: int,
    fps: float,
    comment: str,
) -> None:
    """BORIS tabular events of one video; bouts of one behaviour must not overlap."""
    write_boris_observations(path, {video: (events, frames, fps)}, comment=comment)


def write_boris_observations(
    path: Path, videos: Mapping[str, tuple[list[tuple[int, int, str]], int, float]], *, comment: str
) -> None:
    """BORIS tabular events of several videos, an observation each: video to (events, frames,
    fps)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, BORIS, restval="")
        rows.writeheader()
        for video, (events, frames, fps) in videos.items():
            always = {
                "Observation id": video,
                "Observation duration": _s(frames, fps),
                "Observation type": "Media file",
                "Time offset (s)": "0",
                "Media duration (s)": _s(frames, fps),
                "FPS (frame/s)": f"{fps:g}",
                "Media file name": video,
                "Comment": comment,
            }
            marks = [(start, 1, name, "START") for start, _, name in events] + [
                (stop, 0, name, "STOP") for _, stop, name in events
            ]
            for frame, _, name, kind in sorted(marks):
                rows.writerow(
                    always
                    | {
                        "Behavior": name,
                        "Behavior type": kind,
                        "Time": _s(frame, fps),
                        "Image index": frame,
                    }
                )


def write_annot(path: Path, held: Ethogram) -> None:
    """Caltech/Bento annotation: frames from 1, both ends inclusive; the channel bears the task's
    name."""
    names = [name for name in held.problem.classes if name != held.problem.rest]
    channel = held.problem.task.rstrip("-") or "Ch1"
    lines = [
        "Bento annotation file",
        "Movie file(s):",
        "",
        "Stimulus name:",
        "Annotation start frame: 1",
        f"Annotation stop frame: {len(held.labels)}",
        f"Annotation framerate: {held.fps:.6f}",
        "",
        "List of channels:",
        channel,
        "",
        "List of annotations:",
        *names,
        "",
        f"{channel}----------",
    ]
    events = held.events()
    for name in names:
        lines += [f">{name}", "Start\tStop\tDuration"]
        lines += [
            f"{start + 1}\t{stop}\t{stop - start}"
            for start, stop, called in events
            if called == name
        ]
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_nwb(path: Path, held: Ethogram) -> None:
    """NWB: the bouts as a table of time intervals, the probabilities as a time series, both under
    the behavior module."""
    pynwb = _pynwb()
    file = pynwb.NWBFile(
        session_description=(
            f"behaviours predicted from tracks of {held.video}; the time of the recording is "
            "not known"
        ),
        identifier=held.video,
        session_start_time=datetime(1970, 1, 1, tzinfo=UTC),
    )
    module = file.create_processing_module(name="behavior", description="predicted behaviours")
    table = pynwb.epoch.TimeIntervals(name="ethogram", description=f"bouts of {held.problem.name}")
    table.add_column(name="behavior", description="what is shown")
    table.add_column(name="mean_probability", description="mean over the frames of the bout")
    for start, stop, name in held.events():
        mean = float(held.probabilities_TC[start:stop, held.problem.classes.index(name)].mean())
        table.add_row(
            start_time=start / held.fps,
            stop_time=stop / held.fps,
            behavior=name,
            mean_probability=mean,
        )
    module.add(table)
    module.add(
        pynwb.TimeSeries(
            name="probabilities",
            data=held.probabilities_TC.astype(np.float32),
            unit="probability",
            rate=float(held.fps),
            starting_time=0.0,
            description="columns: " + ", ".join(held.problem.classes),
        )
    )
    with pynwb.NWBHDF5IO(str(path), "w") as sink:
        sink.write(file)


def _pynwb() -> Any:
    try:
        importlib.import_module("pynwb.epoch")
        return importlib.import_module("pynwb")
    except ImportError as error:
        raise BadInput("--format nwb needs pynwb: pip install 'ethoray[trackers]'") from error


def refuse_missing(formats: list[str]) -> None:
    """Refuses a format whose library is not there, before anything is computed."""
    if "nwb" in formats:
        _pynwb()


FORMATS: Mapping[str, tuple[str, Callable[[Path, Ethogram], None]]] = {
    "csv": (".csv", write_frames),
    "boris": (".csv", write_boris),
    "annot": (".annot", write_annot),
    "nwb": (".nwb", write_nwb),
}


def _s(frame: int, fps: float) -> str:
    return f"{frame / fps:.4f}"
