"""Events and bouts of BORIS, whatever the file they come in, to score sheets.

A frame belongs to a bout if its middle does. A point event is a bout of one frame. What lies in no
bout is "other" for the whole length of the observed medium, where the file states it; frames after
that are unlabelled. Where it states none, the whole track counts as observed. Of an observation
that was limited to a time interval, that interval counts.

One behaviour in the whole set gives a task of its name (``interact``: other, interact); several
give one task, ``behaviors``, and overlapping ones stay so. Subjects, if several were scored, give a
task each. Modifiers and comments are ignored, but where ``ethoray`` wrote the file: its description
(or comment) names the label set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.label_formats._text import MAX_FRAME, seconds
from pretrain.readers.recording_names import file_stem
from pretrain.readers.score_sheets import LABEL_SET, Bout, ScoreSheet

_LENGTH = ("total length", "media duration (s)")
_INTERVAL = ("observation interval start", "observation interval stop")
_NOBODY = "No focal subject"
"""In exports, where a project names no subject."""
_RATE = ("fps", "fps (frame/s)")
_MEDIA = ("media file path", "media file name")
# the second is what earlier versions wrote of a label set of one problem
_TASK = re.compile(rf"(?:{LABEL_SET}|^predicted, (?!annotator ))(.+)")
Rows = Sequence[tuple[str, Mapping[str, str]]]
"""Where in the file a row stands (``line 3``), and its cells by heading, in lower case."""


def sheets_of(rows: Rows, block: Mapping[str, str], path: Path) -> list[ScoreSheet]:
    """A sheet for each observation and subject.

    Args:
        rows: Of a table of events (``time``, and ``status`` or ``behavior type``) or of aggregated
            events (``start (s)``, ``stop (s)``).
        block: What the file says of all its rows.
        path: Of the file.

    Raises:
        BadInput: If an event is damaged or has no counterpart.
    """
    observations: dict[str, _Observation] = defaultdict(_Observation)
    if not rows:
        name = block.get("observation id", "")
        observations[name].names.append(name)
    aggregated = any("start (s)" in row for _, row in rows)
    (_add_bouts if aggregated else _add_events)(rows, block, observations, path)
    return [
        sheet
        for observation in observations.values()
        for sheet in _sheets(observation, path, only=len(observations) == 1)
    ]


@dataclass
class _Observation:
    bouts: dict[str, list[Bout]] = field(default_factory=lambda: defaultdict(list))
    """By subject."""
    behaviours: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    length_s: float | None = None
    fps: float | None = None
    interval: tuple[float, float] = (0.0, 0.0)
    """The part of the media that was observed (s); stop 0: to the end."""
    task: str = ""
    """The label set that it says it is of."""
    media: dict[str, float] = field(default_factory=dict)
    """Where several media follow each other in one player: name of each to its length (s)."""


def _take_common(
    observation: _Observation, row: Mapping[str, str], block: Mapping[str, str], where: str
) -> tuple[str, str, float]:
    """Takes down what every row repeats; returns subject, behaviour and time offset."""
    behaviour = row["behavior"]
    if not behaviour:
        raise BadInput(f"{where}: no behavior")
    if behaviour not in observation.behaviours:
        observation.behaviours.append(behaviour)
    length = next((row[name] for name in _LENGTH if row.get(name)), "")
    if length and length.upper() != "NA":
        # Several players show one observation at a time, and the first one counts; media of one
        # player follow each other.
        lengths = [
            seconds(one, f"{where}, observed length") for one in length.split("|")[0].split(";")
        ]
        observation.length_s = sum(lengths)
        player = row.get("source", "").split("|")[0].partition(":")[2].split(";")
        if len(lengths) > 1 and len(player) == len(lengths):
            observation.media = dict(zip(map(file_stem, player), lengths, strict=True))
    limits = [row.get(name, "") for name in _INTERVAL]
    if any(cell not in ("", "NA") for cell in limits):
        start, stop = (seconds(cell or "0", f"{where}, observation interval") for cell in limits)
        observation.interval = start, stop
        if 0 < stop <= start:
            raise BadInput(f"{where}: the observation ends at {stop:g} s, it starts at {start:g} s")
    for cell in (row.get("comment", ""), row.get("description", "")):  # the second is the surer
        if stated := _TASK.search(cell):
            observation.task = stated[1].strip()
    rate = next((row[name] for name in _RATE if row.get(name)), "")
    if rate.replace(".", "", 1).isdecimal():
        observation.fps = float(rate)
    media = [row.get(key, "") for key in _MEDIA] if not observation.media else []
    ids = [row.get("observation id", ""), block.get("observation id", "")]
    # ours is the whole name of a recording, with folders
    for recording in (*ids, *(file_stem(name.split(";")[0]) for name in (*media, *ids))):
        if recording and recording not in observation.names:
            observation.names.append(recording)
    offset = row.get("time offset (s)") or block.get("time offset (s)") or "0"
    subject = row.get("subject", "")
    return "" if subject == _NOBODY else subject, behaviour, _offset(offset, where)


def _offset(cell: str, where: str) -> float:
    sign, cell = (-1, cell[1:]) if cell.startswith("-") else (1, cell)
    return sign * seconds(cell, f"{where}, time offset")


def _observation_of(row: Mapping[str, str], block: Mapping[str, str]) -> str:
    return row.get("observation id") or block.get("observation id") or ""


def _add_events(
    rows: Rows, block: Mapping[str, str], observations: dict[str, _Observation], path: Path
) -> None:
    """Pairs each START with its STOP."""
    open_since: dict[tuple[str, str, str], tuple[str, float]] = {}
    errors = []
    for location, row in rows:
        where = f"{path}, {location}"
        name = _observation_of(row, block)
        observation = observations[name]
        subject, behaviour, offset = _take_common(observation, row, block, where)
        time = max(0.0, seconds(row["time"], where) - offset)
        status = (row.get("status") or row.get("behavior type") or "").upper()
        key = (name, subject, behaviour)
        if status == "POINT":
            observation.bouts[subject].append(Bout(time, time, behaviour))
        elif status == "START":
            if key in open_since:
                errors.append(
                    f"{location}: {behaviour} starts again at {time:g} s; it has not stopped "
                    f"since {open_since[key][0]}"
                )
            open_since[key] = (location, time)
        elif status == "STOP":
            begun = open_since.pop(key, None)
            if begun is None or begun[1] > time:
                errors.append(
                    f"{location}: {behaviour} stops at {time:g} s without having started before"
                )
            else:
                observation.bouts[subject].append(Bout(begun[1], time, behaviour))
        else:
            errors.append(f"{location}: status {status[:20]!r}; wanted START, STOP or POINT")
    errors += [
        f"{location}: {key[2]} starts at {time:g} s and never stops"
        for key, (location, time) in open_since.items()
    ]
    refuse(errors, about=str(path))


def _add_bouts(
    rows: Rows, block: Mapping[str, str], observations: dict[str, _Observation], path: Path
) -> None:
    """Takes aggregated events, a row a bout."""
    for location, row in rows:
        where = f"{path}, {location}"
        observation = observations[_observation_of(row, block)]
        subject, behaviour, offset = _take_common(observation, row, block, where)
        kind = row.get("behavior type", "STATE").upper() or "STATE"
        if kind not in ("STATE", "POINT"):
            raise BadInput(f"{where}: behavior type {kind[:20]!r}; wanted STATE or POINT")
        start = max(0.0, seconds(row["start (s)"], where) - offset)
        stop = start if kind == "POINT" else max(0.0, seconds(row["stop (s)"], where) - offset)
        if stop < start:
            raise BadInput(
                f"{where}: {behaviour} stops at {stop:g} s, before it starts at {start:g} s"
            )
        observation.bouts[subject].append(Bout(start, stop, behaviour))


def _sheets(observation: _Observation, path: Path, *, only: bool) -> list[ScoreSheet]:
    """A sheet for each subject; ``only`` where the file has one observation."""
    own = file_stem(path)
    names = [name for name in observation.names if name]
    # A file of one observation is named by its user; the media path may be another computer's or a
    # re-encoded copy's.
    recording = tuple(dict.fromkeys([own, *names] if only else names or [own]))
    start, stop = observation.interval
    # where nothing says how long the recording is, to its end
    stop = stop or observation.length_s or (MAX_FRAME / 10 if start else 0.0)
    whole = [
        ScoreSheet(
            path=path,
            recording=recording,
            stream=observation.task or subject,
            stream_is_task=bool(observation.task),
            bouts=tuple(bouts),
            in_seconds=True,
            behaviours=tuple(
                b for b in observation.behaviours if b in {bout.behaviour for bout in bouts}
            ),
            observed=(start, stop) if stop else None,
            fps=observation.fps,
        )
        for subject, bouts in (observation.bouts or {"": []}).items()
    ]
    if not observation.media:
        return whole
    parts, begin = [], 0.0
    for name, length in observation.media.items():
        for sheet in whole:
            bouts = tuple(
                replace(b, start=max(0.0, b.start - begin), stop=min(length, b.stop - begin))
                for b in sheet.bouts
                if b.start < begin + length and b.stop >= begin
            )
            parts.append(
                replace(
                    sheet,
                    recording=(name,),
                    bouts=bouts,
                    observed=(max(0.0, start - begin), max(0.0, min(length, stop - begin))),
                    alternative=True,
                )
            )
        begin += length
    return [*(replace(sheet, alternative=True) for sheet in whole), *parts]
