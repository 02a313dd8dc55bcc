"""BORIS projects: the observations of a ``.boris`` file, as they were coded.

An event is [time (s), subject, behaviour, modifier, comment…]. Of a state event each second one of
the same subject, behaviour and modifier is a stop. A behaviour that the ethogram of the project
does not name is a state event. Observations without events were not coded yet and are passed over,
as are those of which no recording is known.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._boris import sheets_of
from pretrain.readers.label_formats._text import read_lines
from pretrain.readers.score_sheets import ScoreSheet

_log = logging.getLogger(__name__)
_DAMAGE = ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError
_Row = tuple[str, dict[str, str]]


class BorisProject(AbstractLabelFormat):
    """Times are seconds."""

    description = "BORIS project"
    suffixes = (".boris",)
    unmistakable = (".boris",)

    def recognise(self, file: UnknownFile) -> bool:
        """By the keys that it begins with."""
        keys = (
            b'"project_name"',
            b'"project_format_version"',
            b'"behaviors_conf"',
            b'"observations"',
        )
        return file.head.lstrip().startswith(b"{") and any(key in file.head for key in keys)

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each observation and subject."""
        lines = "\n".join(read_lines(path))
        rows: list[_Row] = []
        try:
            project = json.loads(lines)
            observations = project["observations"].items()
            types = {
                str(each["code"]): str(each["type"])
                for each in project.get("behaviors_conf", {}).values()
            }
            for name, observation in observations:
                try:
                    rows += _rows(name, observation, types, path)
                except BadInput as error:
                    if observation.get("type") != "LIVE":
                        raise
                    _log.warning("%s; an observation of no video, passed over", error)
            empty = [name for name, observation in observations if not observation["events"]]
        except BadInput:
            raise
        except _DAMAGE as error:
            raise BadInput(f"{path}: no project of BORIS, or damaged ({error!r})") from error
        if empty:
            _log.warning("%s: observations without events: %s", path, ", ".join(empty[:10]))
        if not rows:
            return []
        return [replace(sheet, alternative=True) for sheet in sheets_of(rows, {}, path)]


def _rows(name: str, observation: Any, types: Mapping[str, str], path: Path) -> list[_Row]:
    """The bouts of an observation, as a table of aggregated events has them."""
    players = observation["file"] or {}  # of a live observation an empty list
    media: list[str] = next((files for _, files in sorted(players.items()) if files), [])
    interval = observation.get("observation time interval") or (0, 0)
    info = observation.get("media_info", {})
    lengths, rates = info.get("length", {}), info.get("fps", {})
    about = {
        "observation id": name,
        "description": str(observation.get("description") or ""),
        "source": "player #1:" + ";".join(media),
        "media file name": media[0] if media else "",
        "time offset (s)": str(observation.get("time offset", 0)),
        "observation interval start": str(interval[0] or 0),
        "observation interval stop": str(interval[1] or 0),
    }
    if media and all(medium in lengths for medium in media):
        about["media duration (s)"] = ";".join(str(lengths[medium]) for medium in media)
    if media and media[0] in rates:
        about["fps"] = str(rates[media[0]])
    return [(location, about | bout) for location, bout in _bouts(name, observation, types, path)]


def _bouts(name: str, observation: Any, types: Mapping[str, str], path: Path) -> Iterator[_Row]:
    begun: dict[tuple[str, str, str], tuple[str, str]] = {}
    events = sorted(enumerate(observation["events"], start=1), key=lambda each: float(each[1][0]))
    for number, (time, subject, behaviour, *more) in events:
        location, key = f"observation {name!r}, event {number}", (subject, behaviour, *more[:1])
        row = {"subject": str(subject), "behavior": str(behaviour), "start (s)": str(time)}
        if types.get(behaviour, "").lower().startswith("point"):
            yield location, row | {"behavior type": "POINT"}
        elif key in begun:
            yield begun[key][0], row | {"start (s)": begun[key][1], "stop (s)": str(time)}
            del begun[key]
        else:
            begun[key] = location, str(time)
    refuse(
        [
            f"{location}: {key[1]} starts at {start} s and never stops"
            for key, (location, start) in begun.items()
        ],
        about=str(path),
    )
