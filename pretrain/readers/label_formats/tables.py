"""Two kinds of table that people make themselves or export: intervals and one-hot.

**Intervals**, a row a bout: recording (``video``, ``file``, ``recording``, ``sequence``, ``group``;
without it the file's name tells), start, stop, behaviour, and if they are there annotator and
subject (``actor``). Column names say the unit: ``start_s``, ``Start (s)``, ``start_time`` are
seconds; ``start``, ``start_frame``, ``onset`` are frames from 0, both ends inclusive, unless a
column ``duration`` or ``frames`` shows that stop is the frame after the last. ``none`` and
``other`` are "other". A frame in no bout is "other" up to the end of the track; where a recording's
rows say "other" themselves, a frame in no bout is unlabelled.

**One-hot**, a row a frame and a column of 0 and 1 a behaviour, as SimBA writes: with or without a
first column that counts the frames. Where poses or features stand in the same table, the behaviours
are the columns of 0 and 1 at its right end. A row of empty cells is an unlabelled frame.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.label_formats.sheets import OTHER, Bout, Sheet
from pretrain.readers.label_formats.text import (
    cells_of,
    delimiter_of,
    frame_number,
    read_lines,
    seconds,
)
from pretrain.readers.recording_names import file_stem

NAME = "interval CSV, one-hot CSV"
_COLUMNS = {
    "recording": (
        "video",
        "file",
        "filename",
        "recording",
        "sequence",
        "session",
        "group",
        "videoname",
        "videofile",
    ),
    "behaviour": (
        "behaviour",
        "behavior",
        "label",
        "class",
        "category",
        "event",
        "action",
        "annotation",
    ),
    "annotator": ("annotator", "observer", "coder", "scorer", "rater"),
    "subject": ("actor", "subject", "animal", "individual"),
    "duration": ("duration", "frames", "length", "durationframes"),
}
_START, _STOP = r"(?:start|begin|onset|first|from)", r"(?:stop|end|offset|last|to)"
_UNIT = r"(?:_|\s|\()*(?P<unit>frames?|s|sec|secs|seconds?|times?)?\)?"
_INDEX = ("", "frame", "frames", "index", "unnamed: 0", "framenumber", "frameindex")
_SAMPLE = 500  # rows that tell behaviours from features
_Table = Sequence[tuple[int, list[str]]]


def recognises(lines: Sequence[str]) -> bool:
    """Whether a text that begins with these lines (heading first) is one of the two."""
    return _interval_columns(_names(lines[0])) is not None or _looks_one_hot(lines)


def _names(heading: str) -> list[str]:
    return [cell.strip().strip('"').strip() for cell in heading.split(delimiter_of(heading))]


def _looks_one_hot(lines: Sequence[str]) -> bool:
    if len(lines) < 2 or not lines[1].strip():
        return False
    names = _names(lines[0])
    if not names[-1] or any(re.fullmatch(r"[-+\d.eE]+", name) for name in names):
        return False  # no heading
    rows = [line.split(delimiter_of(lines[0])) for line in lines[1:50] if line.strip()]
    values = [_binary(cells[-1].strip().strip('"')) for cells in rows if len(cells) == len(names)]
    return (
        len(values) > len(rows) / 2 and sum(value in (0, 1) for value in values) > len(values) / 2
    )


def read(path: Path) -> list[Sheet]:
    """A sheet for each recording (and subject, and annotator) that the table names.

    Raises:
        BadInput: With line and column.
    """
    lines = read_lines(path)
    rows = cells_of(lines, delimiter_of(lines[0]), path)
    _, heading = next(rows)
    refuse(
        [
            f"line 1: column {name!r} comes twice"
            for name in dict.fromkeys(heading)
            if heading.count(name) > 1
        ][:20],
        about=str(path),
    )
    columns = _interval_columns(heading)
    if columns is None:
        return [_one_hot(heading, rows, path)]
    body = [(line, cells) for line, cells in rows if any(cells)]
    told = [
        f"line {line}: {len(cells)} cells under {len(heading)} headings"
        for line, cells in body
        if len(cells) != len(heading)
    ]
    refuse(told[:20], about=str(path))
    return _intervals(heading, body, columns, path)


def _interval_columns(names: Sequence[str]) -> dict[str, int] | None:
    """Places of the columns by meaning, ``seconds`` 1 or 0; None where start, stop or behaviour is
    missing."""
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        for meaning, words in _COLUMNS.items():
            if plain in words:
                found.setdefault(meaning, place)
        for meaning, word in (("start", _START), ("stop", _STOP)):
            for pattern in (rf"{word}{_UNIT}", rf"(?:(?P<unit>frame|time)_)?{word}"):
                if match := re.fullmatch(pattern, name.lower().strip()):
                    found.setdefault(meaning, place)
                    unit = match.groupdict().get("unit") or ""
                    found[f"{meaning} in seconds"] = int(
                        bool(unit) and not unit.startswith("frame")
                    )
    if (
        not {"start", "stop", "behaviour"} <= set(found)
        or found["start in seconds"] != found["stop in seconds"]
    ):
        return None
    return found | {"seconds": found["start in seconds"]}


def _intervals(
    heading: Sequence[str], rows: _Table, columns: dict[str, int], path: Path
) -> list[Sheet]:
    timed = bool(columns["seconds"])
    bouts: dict[tuple[str, str, str], list[Bout]] = defaultdict(list)
    inclusive = _stop_is_inclusive(rows, columns, path)
    problems = []
    for line, cells in rows:
        where = f"{path}, line {line}"
        given = {meaning: cells[columns[meaning]] for meaning in ("start", "stop", "behaviour")}
        behaviour = OTHER if given["behaviour"].lower() in ("none", OTHER) else given["behaviour"]
        if timed:
            start, stop = (
                seconds(given["start"], f"{where}, start"),
                seconds(given["stop"], f"{where}, stop"),
            )
        else:
            start = frame_number(given["start"], f"{where}, start", lowest=0)
            stop = frame_number(given["stop"], f"{where}, stop", lowest=0) + int(inclusive)
        if stop < start or (not timed and stop == start):
            problems.append(
                f"line {line}: stops at {given['stop']}, before it starts at {given['start']}"
            )
        if not behaviour:
            problems.append(f"line {line}: no behaviour")
        recording, subject, annotator = (
            cells[columns[key]] if key in columns else ""
            for key in ("recording", "subject", "annotator")
        )
        if "recording" in columns and not recording:
            problems.append(f"line {line}: no {heading[columns['recording']]}")
        bouts[recording, subject, annotator].append(Bout(start, stop, behaviour, where))
    refuse(problems[:20], about=str(path))
    if not bouts:
        raise BadInput(f"{path}, line 2: a heading and no bouts")
    return [
        Sheet(
            path=path,
            recording=(file_stem(recording),) if recording else (),
            stream=subject,
            annotator=annotator,
            bouts=tuple(held),
            in_seconds=timed,
            behaviours=tuple(dict.fromkeys(b.behaviour for b in held)),
            rest_is_other=all(b.behaviour != OTHER for b in held),
        )
        for (recording, subject, annotator), held in bouts.items()
    ]


def _stop_is_inclusive(rows: _Table, columns: dict[str, int], path: Path) -> bool:
    """Told by a column of durations where there is one; else yes."""
    if columns["seconds"] or "duration" not in columns:
        return True
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
                "neither stop - start + 1 nor stop - start "
                "throughout the file"
            )
    return extra != {0}


def _binary(cell: str) -> int | None:
    """0, 1 or UNLABELLED (empty); None for anything else."""
    return {
        "0": 0,
        "1": 1,
        "0.0": 0,
        "1.0": 1,
        "false": 0,
        "true": 1,
        "": UNLABELLED,
        "nan": UNLABELLED,
    }.get(cell.strip().lower())


def _one_hot(heading: list[str], rows: Iterator[tuple[int, list[str]]], path: Path) -> Sheet:
    sample = list(itertools.islice(rows, _SAMPLE))
    if not sample:
        raise BadInput(f"{path}, line 2: a heading and no frames")
    indexed = re.sub(r"[^a-z0-9: ]", "", heading[0].lower()) in _INDEX
    first = _first_behaviour(heading, sample, indexed=indexed)
    names = tuple(heading[first:])
    if not names or not all(names):
        raise BadInput(
            f"{path}, line 1: no behaviour columns of 0 and 1 with a name at its right end "
            f"({', '.join(heading[-5:])})"
        )
    marks: list[list[int]] = []
    counted_from = 0
    for row, (line, cells) in enumerate(itertools.chain(sample, rows)):
        where = f"{path}, line {line}"
        if line != row + 2:
            raise BadInput(f"{where}: the line before it is blank; every line must be a frame")
        if len(cells) != len(heading):
            raise BadInput(f"{where}: {len(cells)} cells under {len(heading)} headings")
        if indexed:
            found = frame_number(cells[0], f"{where}, column 1", lowest=0)
            counted_from = min(found, 1) if row == 0 else counted_from
            if found != counted_from + row:
                raise BadInput(
                    f"{where}, column 1: frame {found}, wanted {counted_from + row}; frames are "
                    "counted from 0 or 1 without a gap"
                )
        values = [_binary(cell) for cell in cells[first:]]
        if None in values:
            place = first + values.index(None)
            raise BadInput(
                f"{where}, column {place + 1} ({heading[place]}): {cells[place][:40]!r} is neither "
                "0 nor 1"
            )
        if UNLABELLED in values and any(value != UNLABELLED for value in values):
            raise BadInput(
                f"{where}: some cells are empty; a frame is labelled whole or not at all"
            )
        marks.append([value for value in values if value is not None])
    behaviours = tuple(OTHER if name.lower() == "none" else name for name in names)
    return Sheet(path=path, recording=(), behaviours=behaviours, marks=np.array(marks, np.int8))


def _first_behaviour(heading: Sequence[str], sample: _Table, *, indexed: bool) -> int:
    """Place of the first behaviour: to its left stands a column mostly of other things than 0 and 1
    (poses, features), or nothing."""
    first = len(heading)
    while first > int(indexed):
        odd = sum(
            _binary(cells[first - 1]) is None for _, cells in sample if len(cells) == len(heading)
        )
        if odd > len(sample) / 2:
            break
        first -= 1
    return first
