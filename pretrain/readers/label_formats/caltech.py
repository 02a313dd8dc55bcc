"""Two text formats of Caltech's annotation tools.

The Caltech Behavior Annotator writes streams (``S1:``, ``S2:``) of intervals that follow each
other, frames counted from 1, both ends inclusive; a stream is a task of its name, its classes are
the behaviours that occur in it, and a frame in no interval is unlabelled.

Bento (``.annot``) writes channels (``Ch1----------``) of behaviours (``>attack``) with their bouts:
frames from 1, both ends inclusive, or seconds where any number has decimals (frame = seconds times
the file's frame rate). A channel is a task of its name; a frame between the annotation's start and
stop in no bout is "other".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.label_formats.sheets import Bout, Sheet
from pretrain.readers.label_formats.text import MAX_FRAME, frame_number, read_lines, seconds

NAME = "Caltech Behavior Annotator text, Bento .annot"
_CALTECH, _BENTO = "Caltech Behavior Annotator", "Bento annotation file"
_STREAM = re.compile(r"^([\w .-]+):\s+start\s+end\s+type\s*$", re.IGNORECASE)
_CHANNEL = re.compile(r"^(.*?)-{5,}\s*$")


def recognises(first_line: str) -> bool:
    """Whether a text with this first line is one of the two."""
    return first_line.startswith((_CALTECH, _BENTO))


def read(path: Path) -> list[Sheet]:
    """A sheet for each stream or channel.

    Raises:
        BadInput: If a line does not belong there; with its number.
    """
    lines = read_lines(path)
    return _caltech(lines, path) if lines[0].startswith(_CALTECH) else _bento(lines, path)


def _caltech(lines: Sequence[str], path: Path) -> list[Sheet]:
    configured: list[str] = []
    streams: dict[str, list[Bout]] = {}
    stream, in_configuration, problems = "", False, []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}, line {number}"
        words = line.split()
        if not words or set(line.strip()) == {"-"}:
            in_configuration = in_configuration and not configured
        elif head := _STREAM.match(line):
            stream, in_configuration = head[1].strip(), False
            if stream in streams:
                problems.append(f"line {number}: stream {stream} a second time")
            streams.setdefault(stream, [])
        elif line.strip().lower() == "configuration file:":
            in_configuration = True
        elif in_configuration and len(words) <= 2:
            configured.append(words[0])
        elif stream and len(words) == 3:
            first, last = (
                frame_number(words[0], where, lowest=1),
                frame_number(words[1], where, lowest=1),
            )
            before = streams[stream][-1].stop if streams[stream] else 0
            if last < first:
                problems.append(f"line {number}: ends at frame {last}, before it starts at {first}")
            if first <= before:
                problems.append(
                    f"line {number}: starts at frame {first}, but the interval before ends at "
                    f"{before:.0f}"
                )
            if words[2] not in configured:
                problems.append(
                    f"line {number}: {words[2]!r} is not among the configured behaviours: "
                    f"{', '.join(configured)}"
                )
            streams[stream].append(Bout(first - 1, last, words[2], where))
        else:
            problems.append(f"line {number}: {line.strip()[:60]!r}; wanted start, end, type")
        if len(problems) >= 20:
            break
    if not streams:
        problems.append("no stream (such as 'S1: start end type') in it")
    refuse(problems, about=str(path))
    # A person who opened a stream and wrote nothing into it scored nothing: that is no label.
    return [
        Sheet(
            path=path,
            recording=(),
            stream=name,
            names_task=True,
            bouts=tuple(bouts),
            rest_is_other=False,
            behaviours=tuple(
                b for b in dict.fromkeys(configured) if b in {bout.behaviour for bout in bouts}
            ),
        )
        for name, bouts in streams.items()
        if bouts
    ]


def _bento(lines: Sequence[str], path: Path) -> list[Sheet]:
    header, body = _bento_header(lines, path)
    channels: dict[str, list[tuple[int, str, str, str]]] = {}
    listed: dict[str, list[str]] = {}
    channel, behaviour, problems = "", "", []
    for number, line in enumerate(lines[body:], start=body + 1):
        words = line.split()
        if not words:
            continue
        if head := _CHANNEL.match(line.strip()):
            channel, behaviour = head[1].strip(), ""
            if channel in channels or not channel:
                problems.append(
                    f"line {number}: channel {channel!r} has no name or comes a second time"
                )
            channels[channel], listed[channel] = [], []
        elif line.startswith(">") and channel:
            behaviour = line[1:].strip()
            listed[channel].append(behaviour)
            if not behaviour:
                problems.append(f"line {number}: a behaviour without a name")
        elif [w.lower() for w in words] == ["start", "stop", "duration"]:
            continue
        elif behaviour and len(words) == 3:
            channels[channel].append((number, words[0], words[1], behaviour))
        else:
            problems.append(f"line {number}: {line.strip()[:60]!r}; wanted start, stop, duration")
        if len(problems) >= 20:
            break
    refuse(problems, about=str(path))
    timed = any(
        "." in cell or "e" in cell.lower()
        for rows in channels.values()
        for row in rows
        for cell in row[1:3]
    )
    sheets = []
    for name, rows in channels.items():
        bouts = tuple(
            _bento_bout(
                row,
                timed=timed,
                fps=header["fps"],
                seen=(header["start"], header["stop"]),
                path=path,
            )
            for row in rows
        )
        used = {bout.behaviour for bout in bouts}
        stop = max([header["stop"], *(bout.stop for bout in bouts)])
        behaviours = tuple(name for name in dict.fromkeys(listed[name]) if name in used)
        sheets.append(
            Sheet(
                path=path,
                recording=(),
                stream=name,
                names_task=True,
                behaviours=behaviours,
                bouts=bouts,
                seen=(header["start"] - 1, stop),
                fps=header["fps"],
            )
        )
    return [sheet for sheet in sheets if sheet.behaviours]


def _bento_header(lines: Sequence[str], path: Path) -> tuple[dict[str, float], int]:
    """Annotated range (frames from 1, inclusive), rate, and the place of the first line of the
    body."""
    found: dict[str, float] = {}
    timed: dict[str, tuple[float, str]] = {}
    body = len(lines)
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if match := re.match(
            r"^Annotation (start|stop) (frame|time)\s*:\s*(\S+)\s*$", line, re.IGNORECASE
        ):
            if match[2].lower() == "frame" and "." not in match[3]:
                found[match[1].lower()] = frame_number(match[3], where, lowest=0)
            else:
                timed[match[1].lower()] = (seconds(match[3], where), match[2].lower())
        elif match := re.match(r"^Annotation framerate\s*:\s*(\S+)\s*$", line, re.IGNORECASE):
            found["fps"] = seconds(match[1], where)
            if not found["fps"]:
                raise BadInput(f"{where}: the frame rate is 0")
        elif _CHANNEL.match(line.strip()):
            body = number - 1
            break
    if "fps" not in found:
        raise BadInput(f"{path}: no line 'Annotation framerate: …'")
    for end, (value, unit) in timed.items():
        found[end] = round(value) if unit == "frame" else round(value * found["fps"])
    if "stop" not in found:
        raise BadInput(f"{path}: no line 'Annotation stop frame: …' or 'Annotation stop time: …'")
    found["start"] = max(1, found.get("start", 1))
    if not found["start"] <= found["stop"] <= MAX_FRAME or body == len(lines):
        raise BadInput(
            f"{path}: annotated from frame {found['start']:.0f} to {found['stop']:.0f}, "
            f"{len(lines) - body} lines after the header; damaged"
        )
    return found, body


def _bento_bout(
    row: tuple[int, str, str, str],
    *,
    timed: bool,
    fps: float,
    seen: tuple[float, float],
    path: Path,
) -> Bout:
    number, start, stop, behaviour = row
    where = f"{path}, line {number}"
    if timed:
        first, last = (max(1, round(seconds(cell, where) * fps)) for cell in (start, stop))
    else:
        first, last = (frame_number(cell, where, lowest=1) for cell in (start, stop))
    if last < first:
        raise BadInput(f"{where}: stops at {stop}, before it starts at {start}")
    if first < seen[0]:
        raise BadInput(
            f"{where}: starts at frame {first}, before the annotation starts at {seen[0]:.0f}"
        )
    if last > MAX_FRAME:
        raise BadInput(f"{where}: {stop} is not a frame")
    return Bout(first - 1, last, behaviour, where)
