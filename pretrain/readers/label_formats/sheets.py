"""Score sheets: what one file says of one recording, and how the sheets of a set become labels.

Every reader ends here, so that one rule holds for all formats. A frame that nobody looked at is
UNLABELLED. A frame that was looked at and in which nothing was marked is "other", in formats that
mark only what they name. Behaviours that overlap anywhere in the set make all of the task's labels
(T, C) of 0 and 1, without a class for "other"; else labels are (T,), one class a frame.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import UNLABELLED, Labels

OTHER = "other"
SEVERAL = "behaviors"
"""The task's name where a format names none and several behaviours were scored. One behaviour alone
gives the task its own name."""
_log = logging.getLogger(__name__)
Marks = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Bout:
    """A behaviour from ``start`` until before ``stop``: frames counted from 0, or seconds."""

    start: float
    stop: float
    behaviour: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What one file says of one recording in one stream (channel, subject)."""

    path: Path
    recording: tuple[str, ...]
    """What the file calls its recording, the surest first; empty where only the file's name
    tells."""
    behaviours: tuple[str, ...]
    """Scored in it, in the order of the file."""
    stream: str = ""
    names_task: bool = False
    """Whether the stream is a task of its own (S1, Ch1) or tells subjects apart (adult)."""
    annotator: str = ""
    split: str = ""
    """train or test, where the file says it."""
    exact: bool = False
    """Whether classes, their order and whether they may overlap are those of the file, whatever
    other files say."""
    overlapping: bool = False
    """Of exact marks."""
    bouts: tuple[Bout, ...] = ()
    in_seconds: bool = False
    seen: tuple[float, float] | None = None
    """From, until (in the unit of the bouts): the part that was looked at; None: all of the
    recording."""
    rest_is_other: bool = True
    """Whether a frame that was looked at and has no bout is "other" (else it is unlabelled)."""
    marks: Marks | None = None
    """In place of bouts: (frames, behaviours) of 0, 1 or UNLABELLED."""
    fps: float | None = None
    """The rate that the file states."""


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """Labels and track of a recording do not fit in length; what overlaps was kept."""

    video: str
    task: str
    path: Path
    first: int
    """First labelled frame."""
    stop: int
    """Frame after the last labelled one, as the file has it."""
    frames: int
    """Of the track."""

    def __str__(self) -> str:
        told = []
        if self.first > 0:
            told.append(f"begin {self.first:,} frames after it; those are unlabelled")
        if self.stop > self.frames:
            told.append(f"end {self.stop - self.frames:,} frames after it; those are dropped")
        if self.stop < self.frames:
            told.append(f"end {self.frames - self.stop:,} frames before it; those are unlabelled")
        return (
            f"video {self.video} ({self.frames:,} frames): labels under {self.task} "
            f"({self.path.name}) {'; they '.join(told)}"
        )


def frame_at(time_s: float, fps: float) -> int:
    """The first frame that a bout from this time on holds: a frame belongs to it if the frame's
    middle does."""
    return max(0, math.ceil(time_s * fps - 0.5 - 1e-6))


def marks_of(sheet: Sheet, *, frames: int, fps: float) -> tuple[Marks, int, int]:
    """A sheet as marks on the frames of its track.

    A bout takes at least one frame, however short it is (a point event, too).

    Returns:
        Marks (frames, behaviours) of 0, 1 or UNLABELLED; first labelled frame and the one after the
        last, as the file has them.
    """
    if sheet.marks is not None:
        marks = np.full((frames, len(sheet.behaviours)), UNLABELLED, np.int8)
        marks[: len(sheet.marks)] = sheet.marks[:frames]
        return marks, 0, len(sheet.marks)
    unit = (lambda at: frame_at(at, fps)) if sheet.in_seconds else round
    spans = []
    for bout in sheet.bouts:
        start = unit(bout.start)
        if sheet.in_seconds and bout.stop <= bout.start:
            start = math.floor(bout.start * fps + 1e-6)
        spans.append((start, max(start + 1, unit(bout.stop))))
    first, stop = (unit(sheet.seen[0]), unit(sheet.seen[1])) if sheet.seen else (0, frames)
    if sheet.seen is None and spans:
        stop = max(stop, max(end for _, end in spans))
        if not sheet.rest_is_other:
            first, stop = min(start for start, _ in spans), max(end for _, end in spans)
    marks = np.full((frames, len(sheet.behaviours)), UNLABELLED, np.int8)
    if sheet.rest_is_other:
        marks[first:stop] = 0
    place = {name: c for c, name in enumerate(sheet.behaviours)}
    for bout, (start, end) in zip(sheet.bouts, spans, strict=True):
        rows = marks[start:end]
        rows[rows == UNLABELLED] = 0  # somebody marked these frames, so somebody looked at them
        rows[:, place[bout.behaviour]] = 1
    return marks, first, stop


@dataclass(frozen=True)
class Placed:
    """A sheet whose recording is known."""

    sheet: Sheet
    video: str


def labels_of(
    placed: Sequence[Placed], *, frames: Mapping[str, int], fps: Mapping[str, float]
) -> tuple[list[Labels], list[Mismatch]]:
    """Sheets of a set to labels.

    Args:
        placed: All sheets.
        frames: Of each video's track.
        fps: Of each video's track.

    Raises:
        BadInput: If two sheets say the same of one video.
    """
    labels, mismatches, problems = [], [], []
    for task, sheets in _tasks(placed).items():
        by_key: dict[tuple[str, ...], Path] = {}
        ready = []
        for held in sheets:
            key = (
                held.video,
                held.sheet.annotator,
                *(held.sheet.behaviours if held.sheet.exact else ()),
            )
            if key in by_key:
                problems.append(
                    f"video {held.video!r} has labels under {task!r} twice: {by_key[key]} and "
                    f"{held.sheet.path}"
                )
                continue
            by_key[key] = held.sheet.path
            _warn_of_another_rate(held, fps[held.video])
            marks, first, stop = marks_of(
                held.sheet, frames=frames[held.video], fps=fps[held.video]
            )
            if first > 0 or stop != frames[held.video]:
                mismatches.append(
                    Mismatch(
                        video=held.video,
                        task=task,
                        path=held.sheet.path,
                        first=first,
                        stop=stop,
                        frames=frames[held.video],
                    )
                )
            ready.append((held, marks))
        labels += [_as_it_is(task, one, marks) for one, marks in ready if one.sheet.exact]
        labels += _joined(task, [(one, marks) for one, marks in ready if not one.sheet.exact])
    refuse(problems[:20], about="more than one label file for a recording")
    return labels, mismatches


def _warn_of_another_rate(held: Placed, fps: float) -> None:
    if held.sheet.fps and abs(held.sheet.fps - fps) > 0.01 * fps:
        _log.warning(
            "%s was scored at %g frames/s; the track of %s is taken to have %g",
            held.sheet.path,
            held.sheet.fps,
            held.video,
            fps,
        )


def _tasks(placed: Sequence[Placed]) -> dict[str, list[Placed]]:
    """Sheets by the name of their task."""
    named: dict[str, list[Placed]] = defaultdict(list)
    subjects: dict[str, list[Placed]] = defaultdict(list)
    for held in placed:
        (named if held.sheet.names_task else subjects)[held.sheet.stream].append(held)
    # A subject of whom nothing was ever scored tells nothing, unless it is the only one.
    acting = {
        name: sheets
        for name, sheets in subjects.items()
        if any(set(s.sheet.behaviours) - {OTHER} for s in sheets)
    } or subjects
    idle = [
        held
        for name, sheets in subjects.items()
        if name not in acting and not name
        for held in sheets
    ]
    for subject, sheets in acting.items():
        behaviours = list(
            dict.fromkeys(b for s in sheets for b in s.sheet.behaviours if b != OTHER)
        )
        if not behaviours:
            _log.warning(
                "nothing but %r was scored in %s: no labels are made of it",
                OTHER,
                ", ".join(str(s.sheet.path) for s in sheets[:3]),
            )
            continue
        task = behaviours[0] if len(behaviours) == 1 else SEVERAL
        name = task if len(acting) == 1 else f"{task}_{subject}" if subject else task
        named[name] += sheets + (idle if len(acting) == 1 else [])
    return dict(named)


def _as_it_is(task: str, held: Placed, marks: Marks) -> Labels:
    """Marks under the classes of their own file."""
    sheet = held.sheet
    unseen = (marks == UNLABELLED).all(1)
    frames = (
        marks
        if sheet.overlapping
        else np.where(unseen, UNLABELLED, marks.argmax(1)).astype(np.int8)
    )
    return Labels(
        video=held.video,
        task=task,
        classes=sheet.behaviours,
        annotator=sheet.annotator,
        split=sheet.split,
        frames=frames,
    )


def _joined(task: str, ready: Sequence[tuple[Placed, Marks]]) -> list[Labels]:
    """Marks of all videos under one list of classes."""
    if not ready:
        return []
    behaviours = tuple(
        dict.fromkeys(b for held, _ in ready for b in held.sheet.behaviours if b != OTHER)
    )
    spread = []
    for held, marks in ready:
        wide = np.zeros((len(marks), len(behaviours)), np.int8)
        for column, name in enumerate(held.sheet.behaviours):
            if name != OTHER:
                wide[:, behaviours.index(name)] = marks[:, column]
        seen = (
            (marks != UNLABELLED).any(1)
            if marks.shape[1]
            else np.full(len(marks), held.sheet.rest_is_other)
        )
        wide[~seen] = UNLABELLED
        spread.append((held, wide, seen))
    overlapping = any(((wide == 1).sum(1) > 1).any() for _, wide, _ in spread)
    rest = (
        any((seen & ~(wide == 1).any(1)).any() for _, wide, seen in spread) or len(behaviours) < 2
    )
    classes = behaviours if overlapping else (OTHER, *behaviours) if rest else behaviours
    if len(classes) > 127:
        raise BadInput(f"{task}: {len(classes)} classes; at most 127 fit")
    return [
        Labels(
            video=held.video,
            task=task,
            classes=classes,
            annotator=held.sheet.annotator,
            split=held.sheet.split,
            frames=wide if overlapping else _exclusive(wide, seen, classes),
        )
        for held, wide, seen in spread
    ]


def _exclusive(wide: Marks, seen: npt.NDArray[np.bool_], classes: tuple[str, ...]) -> Marks:
    offset = len(classes) - wide.shape[1]
    frames = np.where((wide == 1).any(1), wide.argmax(1) + offset if wide.shape[1] else 0, 0)
    return np.where(seen, frames, UNLABELLED).astype(np.int8)
