"""The Caltech Behavior Annotator's text: streams (``S1:``, ``S2:``) of intervals that follow each
other, frames counted from 1, both ends inclusive.

A stream is a task of its name, its classes are the behaviours that occur in it, and a frame in no
interval is unlabelled.
"""

from __future__ import annotations

import re
from pathlib import Path

from pretrain.errors import refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import frame_number, read_lines
from pretrain.readers.score_sheets import Bout, ScoreSheet

_STREAM = re.compile(r"^([\w .-]+):\s+start\s+end\s+type\s*$", re.IGNORECASE)


class Caltech(AbstractLabelFormat):
    """A stream is a task."""

    description = "Caltech Behavior Annotator text"
    suffixes = (".txt",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its first line."""
        return "".join(file.lines[:1]).startswith("Caltech Behavior Annotator")

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each stream."""
        configured, streams = _streams(path)
        # A person who opened a stream and wrote nothing into it scored nothing: that is no label.
        return [
            ScoreSheet(
                path=path,
                recording=(),
                stream=name,
                stream_is_task=True,
                bouts=tuple(bouts),
                rest_is_other=False,
                behaviours=tuple(
                    b for b in dict.fromkeys(configured) if b in {bout.behaviour for bout in bouts}
                ),
            )
            for name, bouts in streams.items()
            if bouts
        ]


def _streams(path: Path) -> tuple[list[str], dict[str, list[Bout]]]:
    """The behaviours that the file lists, and the bouts of each stream."""
    configured: list[str] = []
    streams: dict[str, list[Bout]] = {}
    stream, in_configuration, errors = "", False, []
    for number, line in enumerate(read_lines(path)[1:], start=2):
        where = f"{path}, line {number}"
        words = line.split()
        if not words or set(line.strip()) == {"-"}:
            in_configuration = in_configuration and not configured
        elif head := _STREAM.match(line):
            stream, in_configuration = head[1].strip(), False
            if stream in streams:
                errors.append(f"line {number}: stream {stream} a second time")
            streams.setdefault(stream, [])
        elif line.strip().lower() == "configuration file:":
            in_configuration = True
        elif in_configuration and len(words) <= 2:
            configured.append(words[0])
        elif stream and len(words) == 3:
            first, last = (frame_number(word, where, lowest=1) for word in words[:2])
            before = streams[stream][-1].stop if streams[stream] else 0
            if last < first:
                errors.append(f"line {number}: ends at frame {last}, before it starts at {first}")
            if first <= before:
                errors.append(
                    f"line {number}: starts at frame {first}, but the interval before ends at "
                    f"{before:.0f}"
                )
            if words[2] not in configured:
                errors.append(
                    f"line {number}: {words[2]!r} is not among the configured behaviours: "
                    f"{', '.join(configured)}"
                )
            streams[stream].append(Bout(first - 1, last, words[2]))
        else:
            errors.append(f"line {number}: {line.strip()[:60]!r}; wanted start, end, type")
        if len(errors) >= 20:
            break
    if not streams:
        errors.append("no stream (such as 'S1: start end type') in it")
    refuse(errors, about=str(path))
    return configured, streams
