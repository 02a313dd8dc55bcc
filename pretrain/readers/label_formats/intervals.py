"""Tables of bouts that people make themselves or export: a row a bout.

Columns are known by their names: recording (``video``, ``file``, ``recording``, ``sequence``,
``group``; where several are there, the first of which a recording is known; without one the file's
name tells), start, stop, behaviour, and if they are there annotator and subject (``actor``). They
say the unit, too: ``start_s``, ``Start (s)``, ``start_time`` are seconds, and so is ``start`` where
most times have decimals; else ``start``, ``start_frame``, ``onset`` are frames from 0, both ends
inclusive, unless a column ``duration`` or ``frames`` shows that stop is the frame after the last.
With agent and target (MABe) each directed pair is a label set, and stop is exclusive.
``none`` and ``other`` are "other". A frame in no bout is "other" up to the end of the track; where
a recording's rows say "other" themselves, a frame in no bout is unlabelled. In the list of
``ethoray suggest`` a row with a behaviour is a clip that was looked at, and shows it throughout.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import frame_number, headed_table, heading_of, seconds
from pretrain.readers.recording_names import file_stem
from pretrain.readers.score_sheets import CLIP, OTHER, Bout, ScoreSheet

_RECORDING = (
    *("dlcfile", "csvname", "video", "videoid", "file", "filename", "recording", "sequence"),
    *("session", "group", "videoname", "videofile"),
)
"""The surest first."""
_COLUMNS = {
    "behaviour": (
        "behaviour",
        "behavior",
        "label",
        "class",
        "category",
        "event",
        "action",
        "annotation",
        "type",
    ),
    "annotator": ("annotator", "observer", "coder", "scorer", "rater", "experimenter"),
    "subject": ("actor", "subject", "animal", "individual", "agentid", "agent"),
    "target": ("targetid", "target"),
    "duration": ("duration", "frames", "length", "durationframes"),
}
_START, _STOP = r"(?:start|begin|onset|first|from)", r"(?:stop|end|offset|last|to)"
_DECIMAL = re.compile(r"\d*\.\d*[1-9]\d*")
_Rows = Sequence[tuple[int, list[str]]]
"""Line and cells of each."""
_SUGGESTED = {"rank", "guess", "uncertainty"}
"""Columns of the list of ``ethoray suggest``."""
_UNIT = r"(?:_|\s|\()*(?P<unit>frames?|s|sec|secs|seconds?|times?)?\)?"


class Intervals(AbstractLabelFormat):
    """Columns are found by their names, in any order."""

    description = "interval CSV, xlsx or parquet"
    suffixes = (".csv", ".tsv", ".xlsx", ".parquet")
    priority = -1  # BORIS' aggregated events are such a table

    def recognise(self, file: UnknownFile) -> bool:
        """By its heading."""
        return bool(file.lines) and _columns(heading_of(file.lines[0])) is not None

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each recording, subject and annotator that the table names."""
        heading, cells_by_line = headed_table(path)
        columns = _columns(heading)
        if columns is None:
            raise BadInput(f"{path}, line 1: no columns for start, stop and behaviour")
        rows = [(line, cells) for line, cells in cells_by_line if any(cells)]
        refuse(
            [
                f"line {line}: {len(cells)} cells under {len(heading)} headings"
                for line, cells in rows
                if len(cells) != len(heading)
            ],
            about=str(path),
        )
        times = [cells[columns[end]] for _, cells in rows for end in ("start", "stop")]
        if columns["no unit"] and 2 * sum(bool(_DECIMAL.fullmatch(t)) for t in times) > len(times):
            columns["seconds"] = 1
        return _sheets(heading, rows, columns, path)


def _columns(names: Sequence[str]) -> dict[str, int] | None:
    """Index of each column by meaning, and ``seconds`` and ``no unit`` 1 or 0; None where start,
    stop or behaviour is missing."""
    columns: dict[str, int] = {}
    for index, name in enumerate(names):
        for meaning, words in _COLUMNS.items():
            if _plain(name) in words:
                columns.setdefault(meaning, index)
        for meaning, word in (("start", _START), ("stop", _STOP)):
            for pattern in (rf"{word}{_UNIT}", rf"(?:(?P<unit>frame|time)_)?{word}"):
                if match := re.fullmatch(pattern, name.lower().strip()):
                    if meaning in columns:
                        continue  # of frames and seconds, what comes first
                    unit = match.groupdict().get("unit") or ""
                    columns[meaning] = index
                    columns[f"{meaning} in seconds"] = int(
                        bool(unit) and not unit.startswith("frame")
                    )
                    columns["no unit"] = int(not unit)
    required = {"start", "stop", "behaviour"}
    if required <= set(columns) and columns["start in seconds"] == columns["stop in seconds"]:
        return columns | {"seconds": columns["start in seconds"]}
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _recordings(heading: Sequence[str]) -> list[int]:
    """Columns that name the recording, the surest first; a bare ``id`` only with another."""
    there = [_plain(name) for name in heading]
    found = [there.index(word) for word in _RECORDING if word in there]
    return [*found, there.index("id")] if found and "id" in there else found


def _sheets(
    heading: Sequence[str], rows: _Rows, columns: dict[str, int], path: Path
) -> list[ScoreSheet]:
    in_seconds = bool(columns["seconds"])
    bouts: dict[tuple[tuple[str, ...], str, str], list[Bout]] = defaultdict(list)
    named = _recordings(heading)
    inclusive = _stop_is_inclusive(rows, columns, path)
    suggested = set(heading) >= _SUGGESTED
    if suggested:
        rows = [(line, cells) for line, cells in rows if cells[columns["behaviour"]]]
    errors = []
    for line, cells in rows:
        where = f"{path}, line {line}"
        row = {meaning: cells[columns[meaning]] for meaning in ("start", "stop", "behaviour")}
        behaviour = OTHER if row["behaviour"].lower() in ("none", OTHER) else row["behaviour"]
        if in_seconds:
            start, stop = (seconds(row[end], f"{where}, {end}") for end in ("start", "stop"))
        else:
            start = frame_number(row["start"], f"{where}, start", lowest=0)
            stop = frame_number(row["stop"], f"{where}, stop", lowest=0) + int(inclusive)
        if stop < start or (not in_seconds and stop == start):
            errors.append(
                f"line {line}: stops at {row['stop']}, before it starts at {row['start']}"
            )
        if not behaviour:
            errors.append(f"line {line}: no behaviour")
        recording = tuple(dict.fromkeys(file_stem(cells[c]) for c in named if cells[c]))
        subject, annotator = (
            cells[columns[key]] if key in columns else "" for key in ("subject", "annotator")
        )
        if "target" in columns:
            subject = f"{subject} to {cells[columns['target']]}"
        if named and not recording:
            errors.append(f"line {line}: no {heading[named[0]]}")
        clip = [Bout(start, stop, CLIP)] if suggested else []
        bouts[recording, subject, annotator] += [*clip, Bout(start, stop, behaviour)]
    refuse(errors, about=str(path))
    if not bouts:
        lacking = "no suggestion has a behaviour" if suggested else "a heading and no bouts"
        raise BadInput(f"{path}, line 2: {lacking}")
    return [
        ScoreSheet(
            path=path,
            recording=recording,
            stream=subject,
            annotator=annotator,
            bouts=tuple(group),
            in_seconds=in_seconds,
            may_count_from_1=inclusive and not in_seconds and not suggested,
            behaviours=tuple(dict.fromkeys(b.behaviour for b in group)),
            rest_is_other=all(b.behaviour != OTHER for b in group),
        )
        for (recording, subject, annotator), group in bouts.items()
    ]


def _stop_is_inclusive(rows: _Rows, columns: dict[str, int], path: Path) -> bool:
    """A column of durations shows it where there is one; else yes, but in MABe's tables."""
    if columns["seconds"] or "duration" not in columns:
        return "target" not in columns
    extra = set()
    for line, cells in rows:
        start, stop, duration = (
            frame_number(cells[columns[k]], f"{path}, line {line}, {k}", lowest=0)
            for k in ("start", "stop", "duration")
        )
        extra.add(duration - (stop - start))
        if not extra <= {0, 1} or len(extra) > 1:
            raise BadInput(
                f"{path}, line {line}: duration {duration} of start {start} and stop {stop} fits "
                "neither stop - start + 1 nor stop - start throughout the file"
            )
    return extra != {0}
