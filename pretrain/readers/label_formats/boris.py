"""BORIS exports, as CSV or TSV: tabular events and aggregated events.

Tabular events have a row for each START and STOP (older exports open with a block on the
observation); aggregated events have a row for each bout. Times are seconds of the recording, the
observation's time offset taken off; a frame belongs to a bout if its middle does. A point event is
a bout of one frame. What lies in no bout is "other" for the whole length of the observed medium,
where the file states it ("Total length", "Media duration (s)"); frames after that are unlabelled.
Where it states none, the whole track counts as observed.

One behaviour in the whole set gives a task of its name (``interact``: other, interact); several
give one task, ``behaviors``, and overlapping ones stay so. Subjects, if several were scored, give a
task each. Modifiers and comments are left aside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.label_formats.sheets import Bout, Sheet
from pretrain.readers.label_formats.text import cells_of, delimiter_of, read_lines, seconds
from pretrain.readers.recording_names import file_stem

NAME = "BORIS events (tabular or aggregated)"
_LENGTH = ("total length", "media duration (s)")
_RATE = ("fps", "fps (frame/s)")
_MEDIA = ("media file path", "media file name")
_HEADING_WITHIN = 200  # lines


def recognises(lines: Sequence[str]) -> bool:
    """Whether a text that begins with these lines is a BORIS export."""
    return lines[0].lstrip('"').startswith("Observation id") or _heading(lines) is not None


def _heading(lines: Sequence[str]) -> int | None:
    """Place of the line that heads the table of events."""
    for place, line in enumerate(lines[:_HEADING_WITHIN]):
        names = {cell.strip().strip('"').lower() for cell in line.split(delimiter_of(line))}
        events = "time" in names and bool(names & {"status", "behavior type"})
        if "behavior" in names and (events or {"start (s)", "stop (s)"} <= names):
            return place
    return None


@dataclass
class _Observation:
    bouts: dict[str, list[Bout]] = field(default_factory=lambda: defaultdict(list))
    """By subject."""
    behaviours: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    length_s: float | None = None
    fps: float | None = None


def read(path: Path) -> list[Sheet]:
    """A sheet for each observation and subject.

    Raises:
        BadInput: If the table is damaged or an event has no partner; with its line.
    """
    lines = read_lines(path)
    place = _heading(lines)
    if place is None:
        raise BadInput(
            f"{path}: no heading with Behavior, and either Time and Status or Start (s) and Stop "
            "(s); export events from BORIS as CSV"
        )
    delimiter = delimiter_of(lines[place])
    block = _block(lines[:place], path)
    rows = list(cells_of(lines[place:], delimiter, path, first_line=place + 1))
    heading = [cell.lower() for cell in rows[0][1]]
    if len({name for name in heading if name}) < len([name for name in heading if name]):
        raise BadInput(
            f"{path}, line {place + 1}: a column comes twice: "
            f"{', '.join(sorted(n for n in set(heading) if n and heading.count(n) > 1))}"
        )
    problems, events = [], []
    for line, cells in rows[1:]:
        if not any(cells):
            continue
        if len(cells) != len(heading):
            problems.append(f"line {line}: {len(cells)} cells under {len(heading)} headings")
        events.append((line, dict(zip(heading, cells, strict=False))))
    refuse(problems[:20], about=str(path))
    observations: dict[str, _Observation] = defaultdict(_Observation)
    if not events:
        observations[block.get("observation id", "")].names.append(block.get("observation id", ""))
    (_aggregated if "start (s)" in heading else _events)(events, block, observations, path)
    return [
        sheet
        for seen in observations.values()
        for sheet in _sheets(seen, path, alone=len(observations) == 1)
    ]


def _block(lines: Sequence[str], path: Path) -> dict[str, str]:
    """The lines above the heading: a name and a value each."""
    values = {}
    for line in lines:
        cells = next((c for _, c in cells_of([line], delimiter_of(line), path)), [])
        if len(cells) > 1 and cells[0]:
            values[cells[0].lower()] = cells[1]
    return values


def _note(
    seen: _Observation, row: Mapping[str, str], block: Mapping[str, str], where: str
) -> tuple[str, str, float]:
    """Takes down what every row repeats; returns subject, behaviour and time offset."""
    behaviour = row["behavior"]
    if not behaviour:
        raise BadInput(f"{where}: no behavior")
    if behaviour not in seen.behaviours:
        seen.behaviours.append(behaviour)
    length = next((row[name] for name in _LENGTH if row.get(name)), "")
    if length and length.upper() != "NA":
        # Several players show one observation at a time; the first one counts.
        seen.length_s = seconds(length.split(";")[0].split("|")[0], f"{where}, observed length")
    rate = next((row[name] for name in _RATE if row.get(name)), "")
    if rate.replace(".", "", 1).isdecimal():
        seen.fps = float(rate)
    for name in (
        *(row.get(key, "") for key in _MEDIA),
        row.get("observation id", ""),
        block.get("observation id", ""),
    ):
        recording = file_stem(name.split(";")[0])
        if recording and recording not in seen.names:
            seen.names.append(recording)
    offset = row.get("time offset (s)") or block.get("time offset (s)") or "0"
    return row.get("subject", ""), behaviour, _offset(offset, where)


def _offset(cell: str, where: str) -> float:
    sign, cell = (-1, cell[1:]) if cell.startswith("-") else (1, cell)
    return sign * seconds(cell, f"{where}, time offset")


Events = Sequence[tuple[int, Mapping[str, str]]]


def _observation_of(row: Mapping[str, str], block: Mapping[str, str]) -> str:
    return row.get("observation id") or block.get("observation id") or ""


def _events(
    events: Events, block: Mapping[str, str], observations: dict[str, _Observation], path: Path
) -> None:
    open_since: dict[tuple[str, str, str], tuple[int, float]] = {}
    problems = []
    for line, row in events:
        where = f"{path}, line {line}"
        observation = _observation_of(row, block)
        seen = observations[observation]
        subject, behaviour, offset = _note(seen, row, block, where)
        time = max(0.0, seconds(row["time"], where) - offset)
        status = (row.get("status") or row.get("behavior type") or "").upper()
        key = (observation, subject, behaviour)
        if status == "POINT":
            seen.bouts[subject].append(Bout(time, time, behaviour, where))
        elif status == "START":
            if key in open_since:
                problems.append(
                    f"line {line}: {behaviour} starts again at {time:g} s; it has not stopped "
                    f"since line {open_since[key][0]}"
                )
            open_since[key] = (line, time)
        elif status == "STOP":
            begun = open_since.pop(key, None)
            if begun is None or begun[1] > time:
                problems.append(
                    f"line {line}: {behaviour} stops at {time:g} s without having started before"
                )
            else:
                seen.bouts[subject].append(Bout(begun[1], time, behaviour, where))
        else:
            problems.append(f"line {line}: status {status[:20]!r}; wanted START, STOP or POINT")
    problems += [
        f"line {line}: {key[2]} starts at {time:g} s and never stops"
        for key, (line, time) in open_since.items()
    ]
    refuse(problems[:20], about=str(path))


def _aggregated(
    events: Events, block: Mapping[str, str], observations: dict[str, _Observation], path: Path
) -> None:
    for line, row in events:
        where = f"{path}, line {line}"
        seen = observations[_observation_of(row, block)]
        subject, behaviour, offset = _note(seen, row, block, where)
        kind = row.get("behavior type", "STATE").upper() or "STATE"
        if kind not in ("STATE", "POINT"):
            raise BadInput(f"{where}: behavior type {kind[:20]!r}; wanted STATE or POINT")
        start = max(0.0, seconds(row["start (s)"], where) - offset)
        stop = start if kind == "POINT" else max(0.0, seconds(row["stop (s)"], where) - offset)
        if stop < start:
            raise BadInput(
                f"{where}: {behaviour} stops at {stop:g} s, before it starts at {start:g} s"
            )
        seen.bouts[subject].append(Bout(start, stop, behaviour, where))


def _sheets(seen: _Observation, path: Path, *, alone: bool) -> list[Sheet]:
    own = file_stem(path)
    names = [name for name in seen.names if name]
    # A file of one observation is named by its user; the media path may be another computer's or a
    # re-encoded copy's.
    recording = tuple(dict.fromkeys([own, *names] if alone else names or [own]))
    return [
        Sheet(
            path=path,
            recording=recording,
            stream=subject,
            bouts=tuple(bouts),
            in_seconds=True,
            behaviours=tuple(b for b in seen.behaviours if b in {bout.behaviour for bout in bouts}),
            seen=None if seen.length_s is None else (0.0, seen.length_s),
            fps=seen.fps,
        )
        for subject, bouts in (seen.bouts or {"": []}).items()
    ]
