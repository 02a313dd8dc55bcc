"""Score sheets: what one file says of one recording, and how all sheets together become labels.

Every format of labels ends here, so that one rule holds for all. A frame that nobody looked at is
UNLABELLED. A frame that was looked at and in which nothing was marked is "other", in formats that
mark only what they name. Behaviours that overlap anywhere in the set make all of the task's labels
(T, C) of 0 and 1, without a class for "other"; else labels are (T,), one class a frame. Where a
sheet has a rest class of its own (``base``), that is what others of its set have in place of
"other". A sheet in which clips are marked (``CLIP``) was looked at within them alone.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import UNLABELLED, Labels

OTHER = "other"
SEVERAL = "behaviors"
"""The task's name where a format names none and several behaviours were scored. One behaviour alone
gives the task its own name."""
REST_NAMES = ("none", "background", "base", OTHER)
"""The first that a label set has is its rest class: next to ``none``, ``other`` is a behaviour."""
CLIP = "labelled clip"
"""In place of a behaviour: somebody looked at these frames, and outside such clips at none."""
LABEL_SET = "label set: "
"""Before the name of the label set, in the comments that our own files have."""
_log = logging.getLogger(__name__)
Marks = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Bout:
    """A behaviour from ``start`` until before ``stop``: frames counted from 0, or seconds."""

    start: float
    stop: float
    behaviour: str


@dataclass(frozen=True, kw_only=True)
class ScoreSheet:
    """What one file says of one recording in one stream (channel, subject)."""

    path: Path
    recording: tuple[str, ...]
    """What the file calls its recording, the surest name first; empty where only the file's name
    says it."""
    behaviours: tuple[str, ...]
    """Scored in it, in the order of the file."""
    stream: str = ""
    stream_is_task: bool = False
    """Whether the stream is a task of its own (S1, Ch1) or a subject (adult)."""
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
    clips: tuple[tuple[float, float], ...] = ()
    """From, until: the only parts that were looked at, if there are such."""
    observed: tuple[float, float] | None = None
    """From, until (in the unit of the bouts): the part that was looked at; None: all of the
    recording."""
    rest_is_other: bool = True
    """Whether an observed frame without a bout is "other" (else it is unlabelled)."""
    marks: Marks | None = None
    """In place of bouts: (frames, behaviours) of 0, 1 or UNLABELLED."""
    fps: float | None = None
    """The rate that the file states."""
    alternative: bool = False
    """Whether the file says the same in several sheets (of several media, and of all together), of
    which those count that have a recording."""
    may_count_from_1: bool = False
    """Whether the format leaves open from where its frames are counted."""


@dataclass(frozen=True, kw_only=True)
class LengthMismatch:
    """Labels and track of a recording differ in length; what overlaps is used."""

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
        parts = []
        if self.first > 0:
            parts.append(f"begin {self.first:,} frames after it; those are unlabelled")
        if self.stop > self.frames:
            parts.append(f"end {self.stop - self.frames:,} frames after it; those are dropped")
        if self.stop < self.frames:
            parts.append(f"end {self.frames - self.stop:,} frames before it; those are unlabelled")
        return (
            f"video {self.video} ({self.frames:,} frames): labels under {self.task} "
            f"({self.path.name}) {'; they '.join(parts)}"
        )


def rest_of(classes: Sequence[str]) -> str | None:
    """The rest class of a label set, whatever the case of its name; None where there is none."""
    lowered = {name.lower(): name for name in classes}
    return next((lowered[name] for name in REST_NAMES if name in lowered), None)


def frame_at(time_s: float, fps: float) -> int:
    """The first frame of a bout that begins at this time: the first whose middle lies in it."""
    return max(0, math.ceil(time_s * fps - 0.5 - 1e-6))


def marks_of(sheet: ScoreSheet, *, frames: int, fps: float) -> tuple[Marks, int, int]:
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

    def as_frame(time: float) -> int:
        return frame_at(time, fps) if sheet.in_seconds else round(time)

    spans = []
    for bout in sheet.bouts:
        start = as_frame(bout.start)
        if sheet.in_seconds and bout.stop <= bout.start:
            start = math.floor(bout.start * fps + 1e-6)
        spans.append((start, max(start + 1, as_frame(bout.stop))))
    first, stop = 0, frames
    if sheet.observed:
        first, stop = as_frame(sheet.observed[0]), as_frame(sheet.observed[1])
    elif spans:
        stop = max(stop, max(end for _, end in spans))
        if not sheet.rest_is_other:
            first, stop = min(start for start, _ in spans), max(end for _, end in spans)
    marks = np.full((frames, len(sheet.behaviours)), UNLABELLED, np.int8)
    if sheet.clips:
        first, stop = 0, frames
        for begin, end in sheet.clips:
            marks[as_frame(begin) : max(as_frame(begin) + 1, as_frame(end))] = 0
    elif sheet.rest_is_other:
        marks[first:stop] = 0
    for bout, (start, end) in zip(sheet.bouts, spans, strict=True):
        rows = marks[start:end]
        rows[rows == UNLABELLED] = 0  # somebody marked these frames, so somebody looked at them
        rows[:, sheet.behaviours.index(bout.behaviour)] = 1
    return marks, first, stop


@dataclass(frozen=True)
class AssignedSheet:
    """A sheet whose recording is known."""

    sheet: ScoreSheet
    video: str


def labels_of(
    assigned: Sequence[AssignedSheet], *, frames: Mapping[str, int], fps: Mapping[str, float]
) -> tuple[list[Labels], list[LengthMismatch]]:
    """All sheets of a set to labels.

    Args:
        assigned: All sheets.
        frames: Of each video's track.
        fps: Of each video's track.

    Raises:
        BadInput: If two sheets are of one video under one task and contradict each other.
    """
    labels, mismatches, errors = [], [], []
    for task, sheets in _by_task(_with_clips(assigned)).items():
        marks_at: dict[tuple[str, ...], tuple[ScoreSheet, Marks]] = {}
        marked = []
        for each in sheets:
            sheet, video = each.sheet, each.video
            key = (video, sheet.annotator, *(sheet.behaviours if sheet.exact else ()))
            marks, first, stop = marks_of(sheet, frames=frames[video], fps=fps[video])
            other, theirs = marks_at.setdefault(key, (sheet, marks))
            if other is not sheet:
                if _by_behaviour(sheet, marks) == _by_behaviour(other, theirs):
                    _log.warning(
                        "%s and %s say the same of %s: read once", other.path, sheet.path, video
                    )
                else:
                    errors.append(
                        f"video {video!r} has labels under {task!r} twice, and they differ: "
                        f"{other.path} and {sheet.path}"
                    )
                continue
            _warn_of_another_rate(each, fps[video])
            if first > 0 or stop != frames[video]:
                mismatches.append(
                    LengthMismatch(
                        video=video,
                        task=task,
                        path=sheet.path,
                        first=first,
                        stop=stop,
                        frames=frames[video],
                    )
                )
            marked.append((each, marks))
        labels += [_exact(task, each, marks) for each, marks in marked if each.sheet.exact]
        labels += _joined(task, [(each, marks) for each, marks in marked if not each.sheet.exact])
    refuse(errors[:20], about="more than one label file for a recording")
    return labels, mismatches


def _by_behaviour(sheet: ScoreSheet, marks: Marks) -> dict[str, bytes]:
    """Marks of the behaviours that were seen."""
    columns = zip(sheet.behaviours, marks.T, strict=True)
    return {name: column.tobytes() for name, column in columns if (column == 1).any()}


def _with_clips(assigned: Sequence[AssignedSheet]) -> list[AssignedSheet]:
    """Clips as what was looked at, of all subjects in a file, and as behaviours no more."""
    clips: dict[tuple[Path, str], list[tuple[float, float]]] = defaultdict(list)
    for each in assigned:
        spans = [(b.start, b.stop) for b in each.sheet.bouts if b.behaviour == CLIP]
        clips[each.sheet.path, each.video] += spans
    result = []
    for each in assigned:
        sheet, others = each.sheet, [o for o in assigned if o.sheet.path == each.sheet.path]
        if spans := clips[sheet.path, each.video]:
            sheet = replace(
                sheet,
                clips=tuple(spans),
                rest_is_other=True,
                bouts=tuple(b for b in sheet.bouts if b.behaviour != CLIP),
                # one at least, so that marks say where the clips are
                behaviours=tuple(b for b in sheet.behaviours if b != CLIP) or (OTHER,),
            )
            if sheet.behaviours == (OTHER,) and any(
                o.video == each.video for o in others if o != each
            ):
                continue  # the clips of somebody else's behaviours
        result.append(AssignedSheet(sheet, each.video))
    return result


def _warn_of_another_rate(assigned: AssignedSheet, fps: float) -> None:
    stated = assigned.sheet.fps
    if stated and abs(stated - fps) > 0.01 * fps:
        _log.warning(
            "%s was scored at %g frames/s; the track of %s is taken to have %g",
            assigned.sheet.path,
            stated,
            assigned.video,
            fps,
        )


def _by_task(assigned: Sequence[AssignedSheet]) -> dict[str, list[AssignedSheet]]:
    """Sheets by the name of their task."""
    tasks: dict[str, list[AssignedSheet]] = defaultdict(list)
    subjects: dict[str, list[AssignedSheet]] = defaultdict(list)
    for each in assigned:
        (tasks if each.sheet.stream_is_task else subjects)[each.sheet.stream].append(each)
    # A subject of whom nothing was ever scored tells nothing, unless it is the only one.
    acting = {
        name: sheets
        for name, sheets in subjects.items()
        if any(set(s.sheet.behaviours) - {OTHER} for s in sheets)
    } or subjects
    idle = [
        each
        for name, sheets in subjects.items()
        if name not in acting and not name
        for each in sheets
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
        tasks[name] += sheets + (idle if len(acting) == 1 else [])
    return dict(tasks)


def _exact(task: str, assigned: AssignedSheet, marks: Marks) -> Labels:
    """Marks under the classes of their own file."""
    sheet = assigned.sheet
    unlabelled = (marks == UNLABELLED).all(1)
    frames = (
        marks
        if sheet.overlapping
        else np.where(unlabelled, UNLABELLED, marks.argmax(1)).astype(np.int8)
    )
    return Labels(
        video=assigned.video,
        task=task,
        classes=sheet.behaviours,
        annotator=sheet.annotator,
        split=sheet.split,
        frames=frames,
    )


def _joined(task: str, marked: Sequence[tuple[AssignedSheet, Marks]]) -> list[Labels]:
    """Marks of all videos under one list of classes."""
    if not marked:
        return []
    behaviours = tuple(
        dict.fromkeys(b for each, _ in marked for b in each.sheet.behaviours if b != OTHER)
    )
    named_rest = rest_of(behaviours)
    widened = []
    for each, marks in marked:
        wide = np.zeros((len(marks), len(behaviours)), np.int8)
        for column, name in enumerate(each.sheet.behaviours):
            if name != OTHER:
                wide[:, behaviours.index(name)] = marks[:, column]
        labelled = (
            (marks != UNLABELLED).any(1)
            if marks.shape[1]
            else np.full(len(marks), each.sheet.rest_is_other)
        )
        if named_rest and named_rest not in each.sheet.behaviours:
            wide[~(wide == 1).any(1), behaviours.index(named_rest)] = 1
        wide[~labelled] = UNLABELLED
        widened.append((each, wide, labelled))
    overlapping = any(((wide == 1).sum(1) > 1).any() for _, wide, _ in widened)
    rest = (
        any((labelled & ~(wide == 1).any(1)).any() for _, wide, labelled in widened)
        or len(behaviours) < 2
    )
    classes = behaviours if overlapping else (OTHER, *behaviours) if rest else behaviours
    if len(classes) > 127:
        raise BadInput(f"{task}: {len(classes)} classes; at most 127 fit")
    return [
        Labels(
            video=each.video,
            task=task,
            classes=classes,
            annotator=each.sheet.annotator,
            split=each.sheet.split,
            frames=wide if overlapping else _exclusive(wide, labelled, classes),
        )
        for each, wide, labelled in widened
    ]


def _exclusive(wide: Marks, labelled: npt.NDArray[np.bool_], classes: tuple[str, ...]) -> Marks:
    offset = len(classes) - wide.shape[1]
    frames = np.where((wide == 1).any(1), wide.argmax(1) + offset if wide.shape[1] else 0, 0)
    return np.where(labelled, frames, UNLABELLED).astype(np.int8)
