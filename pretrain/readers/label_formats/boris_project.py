"""A BORIS project: its observations, as the tables that BORIS exports have them.

State events have no START and STOP here: each other one of a behaviour ends it. An observation
without an event says nothing of its recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import read_lines
from pretrain.readers.label_formats.boris import sheets_of
from pretrain.readers.safe_files.hdf5 import parsed_json
from pretrain.readers.score_sheets import ScoreSheet


class BorisProject(AbstractLabelFormat):
    """Times are seconds."""

    description = "BORIS project"
    suffixes = unmistakable = (".boris",)

    def recognise(self, file: UnknownFile) -> bool:
        """By what BORIS projects begin with."""
        keys = (b'"project_format_version"', b'"behaviors_conf"', b'"observations"')
        return file.head.lstrip().startswith(b"{") and any(key in file.head for key in keys)

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each observation and subject; errors number the events of all observations
        from 1."""
        project = parsed_json("\n".join(read_lines(path)), "the project", path)
        try:
            points = {
                one["code"]
                for one in project.get("behaviors_conf", {}).values()
                if one["type"].lower().startswith("point")
            }
            rows = [
                row
                for name, observation in project["observations"].items()
                for row in _rows(name, observation, points)
            ]
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise BadInput(f"{path}: no BORIS project that can be read ({error!r})") from error
        return sheets_of(list(enumerate(rows, 1)), {}, path) if rows else []


def _rows(name: str, observation: dict[str, Any], points: set[str]) -> list[dict[str, str]]:
    """The events of an observation as rows of BORIS' tabular events."""
    media = (observation.get("file") or {}).get("1") or []
    info = observation.get("media_info") or {}
    lengths = [info["length"][one] for one in media if one in info.get("length", {})]
    rates = [info["fps"][one] for one in media if one in info.get("fps", {})]
    common = {
        "observation id": name,
        "description": str(observation.get("description") or ""),
        "source": "player #1:" + ";".join(map(str, media)),
        "time offset (s)": str(observation.get("time offset") or 0),
        "media duration (s)": ";".join(map(str, lengths)) if len(lengths) == len(media) else "",
        "fps (frame/s)": str(rates[0]) if rates else "",
        "media file name": ";".join(map(str, media)),
    }
    running: set[tuple[str, str]] = set()
    rows = []
    for event in sorted(observation["events"], key=lambda event: float(event[0])):
        time, subject, code = str(event[0]), str(event[1]), str(event[2])
        status = "POINT"
        if code not in points:
            status = "STOP" if (subject, code) in running else "START"
            running ^= {(subject, code)}
        rows.append(common | {"subject": subject, "behavior": code, "time": time, "status": status})
    return rows
