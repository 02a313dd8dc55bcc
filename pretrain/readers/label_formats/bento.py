"""Bento's ``.annot``: channels (``Ch1----------``) of behaviours (``>attack``) with their bouts.

Frames count from 1, both ends inclusive; where any number has decimals, times are seconds (frame =
seconds times the file's frame rate). A channel is a task of its name; a frame between the
annotation's start and stop in no bout is "other". What a line cannot hold of a behaviour's name
(line breaks and the like, five hyphens at its end) is written as %XX by ``ethoray predict``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import MAX_FRAME, frame_number, read_lines, seconds
from pretrain.readers.score_sheets import Bout, ScoreSheet

_CHANNEL = re.compile(r"^(.*?)-{5,}\s*$")
_RANGE = re.compile(r"^Annotation (start|stop) (frame|time)\s*:\s*(\S+)\s*$", re.IGNORECASE)
_RATE = re.compile(r"^Annotation framerate\s*:\s*(\S+)\s*$", re.IGNORECASE)
_UNFIT = re.compile(r"[\x00-\x1f\x7f]|^ | $|-(?=-{4,}$)|%(?=(?:[01][0-9A-F]|7F|2[05D]))")
_ESCAPE = re.compile(r"%([01][0-9A-F]|7F|2[05D])")


def escaped(name: str) -> str:
    """A behaviour's name as a line can hold it."""
    return _UNFIT.sub(lambda match: f"%{ord(match[0]):02X}", name)


class Bento(AbstractLabelFormat):
    """A channel is a task."""

    description = "Bento .annot"
    suffixes = unmistakable = (".annot",)
    name_endings = ("bento",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its first line."""
        return "".join(file.lines[:1]).startswith("Bento annotation file")

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each channel."""
        lines = read_lines(path)
        header = _header(lines, path)
        channels = _channels(lines[header.lines :], path, first_line=header.lines + 1)
        times = [time for rows in channels.values() for row in rows for time in row.times]
        in_seconds = any("." in time or "e" in time.lower() for time in times)
        sheets = []
        for name, rows in channels.items():
            bouts = tuple(
                _bout(row, header, in_seconds=in_seconds, path=path) for row in rows if row.times
            )
            used = {bout.behaviour for bout in bouts}
            stop = max([header.stop, *(bout.stop for bout in bouts)])
            sheets.append(
                ScoreSheet(
                    path=path,
                    recording=(),
                    stream=name,
                    stream_is_task=True,
                    behaviours=tuple(
                        dict.fromkeys(r.behaviour for r in rows if r.behaviour in used)
                    ),
                    bouts=bouts,
                    observed=(header.start - 1, stop),
                    fps=header.fps,
                )
            )
        return [sheet for sheet in sheets if sheet.behaviours]


@dataclass(frozen=True)
class _Header:
    start: int
    """First annotated frame, counted from 1."""
    stop: int
    """Last annotated frame."""
    fps: float
    lines: int
    """Lines before the first channel."""


@dataclass(frozen=True)
class _Row:
    line: int
    behaviour: str
    times: tuple[str, ...]
    """Start and stop; none in the row that names the behaviour."""


def _header(lines: Sequence[str], path: Path) -> _Header:
    frames: dict[str, int] = {}
    timed: dict[str, tuple[float, str]] = {}
    fps, count = 0.0, len(lines)
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if match := _RANGE.match(line):
            if match[2].lower() == "frame" and "." not in match[3]:
                frames[match[1].lower()] = frame_number(match[3], where, lowest=0)
            else:
                timed[match[1].lower()] = (seconds(match[3], where), match[2].lower())
        elif match := _RATE.match(line):
            fps = seconds(match[1], where)
            if not fps:
                raise BadInput(f"{where}: the frame rate is 0")
        elif _CHANNEL.match(line.strip()):
            count = number - 1
            break
    if not fps:
        raise BadInput(f"{path}: no line 'Annotation framerate: …'")
    for end, (value, unit) in timed.items():
        frames[end] = round(value) if unit == "frame" else round(value * fps)
    if "stop" not in frames:
        raise BadInput(f"{path}: no line 'Annotation stop frame: …' or 'Annotation stop time: …'")
    start, stop = max(1, frames.get("start", 1)), frames["stop"]
    if not start <= stop <= MAX_FRAME or count == len(lines):
        raise BadInput(
            f"{path}: annotated from frame {start} to {stop}, {len(lines) - count} lines after the "
            "header; damaged"
        )
    return _Header(start, stop, fps, count)


def _channels(lines: Sequence[str], path: Path, *, first_line: int) -> dict[str, list[_Row]]:
    channels: dict[str, list[_Row]] = {}
    channel, behaviour, errors = "", "", []
    for number, line in enumerate(lines, start=first_line):
        words = line.split()
        if not words:
            continue
        if head := _CHANNEL.match(line.strip()):
            channel, behaviour = head[1].strip(), ""
            if channel in channels or not channel:
                errors.append(
                    f"line {number}: channel {channel!r} has no name or comes a second time"
                )
            channels[channel] = []
        elif line.startswith(">") and channel:
            behaviour = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), line[1:].strip())
            channels[channel].append(_Row(number, behaviour, ()))
            if not behaviour:
                errors.append(f"line {number}: a behaviour without a name")
        elif [word.lower() for word in words] == ["start", "stop", "duration"]:
            continue
        elif behaviour and len(words) == 3:
            channels[channel].append(_Row(number, behaviour, (words[0], words[1])))
        else:
            errors.append(f"line {number}: {line.strip()[:60]!r}; wanted start, stop, duration")
        if len(errors) >= 20:
            break
    refuse(errors, about=str(path))
    return channels


def _bout(row: _Row, header: _Header, *, in_seconds: bool, path: Path) -> Bout:
    where = f"{path}, line {row.line}"
    if in_seconds:
        first, last = (max(1, round(seconds(time, where) * header.fps)) for time in row.times)
    else:
        first, last = (frame_number(time, where, lowest=1) for time in row.times)
    if last < first:
        raise BadInput(f"{where}: stops at {row.times[1]}, before it starts at {row.times[0]}")
    if first < header.start:
        raise BadInput(
            f"{where}: starts at frame {first}, before the annotation starts at {header.start}"
        )
    if last > MAX_FRAME:
        raise BadInput(f"{where}: {row.times[1]} is not a frame")
    return Bout(first - 1, last, row.behaviour)
