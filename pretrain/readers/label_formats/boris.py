"""BORIS exports, as CSV, TSV or Excel: tabular events and aggregated events.

Tabular events have a row for each START and STOP (older exports open with a block on the
observation); aggregated events have a row for each bout. Times are seconds of the recording, the
observation's time offset taken off. What becomes of them is in ``_boris.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._boris import Rows, sheets_of
from pretrain.readers.label_formats._text import cells_of, delimiter_of, read_lines
from pretrain.readers.score_sheets import ScoreSheet

_HEADING_WITHIN = 200  # lines


class Boris(AbstractLabelFormat):
    """Times are seconds."""

    description = "BORIS events (tabular or aggregated; CSV, TSV, xlsx)"
    suffixes = (".csv", ".tsv", ".xlsx")
    name_endings = ("boris",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its first cell, or by a heading in its first lines."""
        first = "".join(file.lines[:1]).lstrip('"')
        return first.startswith("Observation id") or _heading(file.lines) is not None

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each observation and subject."""
        rows, block = _table(path)
        return sheets_of(rows, block, path)


def _heading(lines: Sequence[str]) -> int | None:
    """Index of the line that heads the table of events."""
    for index, line in enumerate(lines[:_HEADING_WITHIN]):
        names = {cell.strip().strip('"').lower() for cell in line.split(delimiter_of(line))}
        events = "time" in names and bool(names & {"status", "behavior type"})
        if "behavior" in names and (events or {"start (s)", "stop (s)"} <= names):
            return index
    return None


def _table(path: Path) -> tuple[Rows, dict[str, str]]:
    """The rows of the table, and what the lines above it say of the observation."""
    lines = read_lines(path, keep_ends=True)
    index = _heading(lines)
    if index is None:
        raise BadInput(
            f"{path}: no heading with Behavior, and either Time and Status or Start (s) and Stop "
            "(s); export events from BORIS as CSV"
        )
    table = list(cells_of(lines[index:], delimiter_of(lines[index]), path, first_line=index + 1))
    heading = [cell.lower() for cell in table[0][1]]
    twice = sorted({name for name in heading if name and heading.count(name) > 1})
    if twice:
        raise BadInput(f"{path}, line {index + 1}: a column comes twice: {', '.join(twice)}")
    body = [(line, cells) for line, cells in table[1:] if any(cells)]
    refuse(
        [
            f"line {line}: {len(cells)} cells under {len(heading)} headings"
            for line, cells in body
            if len(cells) != len(heading)
        ],
        about=str(path),
    )
    rows = [(f"line {line}", dict(zip(heading, cells, strict=True))) for line, cells in body]
    return rows, _block(lines[:index], path)


def _block(lines: Sequence[str], path: Path) -> dict[str, str]:
    """The lines above the heading: a name and a value each."""
    values = {}
    for line in lines:
        cells = next((c for _, c in cells_of([line], delimiter_of(line), path)), [])
        if len(cells) > 1 and cells[0]:
            values[cells[0].lower()] = cells[1]
    return values
