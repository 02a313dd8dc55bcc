"""DeepLabCut's CSV: three header rows (scorer, bodyparts, coords) for one animal, four
(individuals) for several.

A row is a frame: its index from 0, then a cell a column. Points DeepLabCut did not find have empty
x and y (and, in its multi-animal files, likelihood 1.0). Coordinates x, y, with z in 3D files; a
likelihood may be absent. Bodyparts that belong to no animal (individual "single") are left out, and
the log says so.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from pretrain.data.schema import Float
from pretrain.errors import BadInput, refuse
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.tracks import Tracks, clean_points, no_frames

NAME = "DeepLabCut CSV"
ONE_ANIMAL = "animal"
"""What the animal is called where a file of one animal does not name it."""
_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_HEADER_BYTES = 1 << 20
Cells = npt.NDArray[np.float64]
_log = logging.getLogger(__name__)


def recognises(head: bytes) -> bool:
    """Whether a file that begins like this is DeepLabCut's CSV (whole or not)."""
    first = (
        head.split(b"\n", 1)[0]
        .removeprefix(b"\xef\xbb\xbf")
        .split(b",")[0]
        .strip(b'" \r\t')
        .lower()
    )
    return first in (b"scorer", b"individuals", b"bodyparts")


def read(path: Path, *, names_only: bool = False) -> Tracks:
    """Reads one file.

    Raises:
        BadInput: If the file is not whole and regular; with line and column.
    """
    with path.open("rb") as file:
        raw = file.read(_HEADER_BYTES) if names_only else file.read()
    columns, header_rows = _header(raw, path)
    layout = Layout([column[1:] for column in columns], path=path, scorer=columns[0][0])
    if names_only:
        return layout.no_tracks()
    if not raw.endswith((b"\n", b"\r")):
        line = raw.count(b"\n") + 1
        raise BadInput(
            f"{path}, line {line}: the last line has no line break, so the file looks cut off. If "
            "it is whole, add one at its end"
        )
    table = _table(raw, path, columns=len(columns) + 1, header_rows=header_rows)
    _refuse_broken_index(table.column(0).to_numpy(), path, header_rows)
    cells = np.empty((table.num_rows, len(columns)), np.float64)
    for place in range(len(columns)):
        cells[:, place] = table.column(place + 1).to_numpy()

    def where(place: int, frame: int) -> str:
        return (
            f"line {header_rows + frame + 1}, column {place + 2} "
            f"({', '.join(filter(None, columns[place][1:]))})"
        )

    return layout.tracks(*layout.points(cells, where), sha256=hashlib.sha256(raw).hexdigest())


class Layout:
    """Which column holds what: shared by DeepLabCut's CSV and h5 files.

    Args:
        columns: (individual, bodypart, coordinate) of each; individual is empty in files of one
            animal.
        path: Of the file.
        scorer: DeepLabCut's name for the network; it ends the file's name, too.

    Raises:
        BadInput: If columns are repeated, missing or unknown.
    """

    def __init__(self, columns: Sequence[tuple[str, str, str]], *, path: Path, scorer: str) -> None:
        self.path = path
        self.name = _recording(path, scorer)
        problems = [
            f"column {i + 2}: {c[2]!r} is not a coordinate; allowed: x, y, z, likelihood"
            for i, c in enumerate(columns)
            if c[2] not in ("x", "y", "z", "likelihood")
        ]
        first_place: dict[tuple[str, str, str], int] = {}
        for place, column in enumerate(columns):
            if column in first_place:
                problems.append(
                    f"column {place + 2} repeats column {first_place[column] + 2} "
                    f"({', '.join(filter(None, column))})"
                )
            first_place.setdefault(column, place)
            if not column[1]:
                problems.append(f"column {place + 2} has no bodypart")
        refuse(problems[:20], about=str(path))
        by_animal: dict[str, list[str]] = {}
        for animal, point, _ in columns:
            if point not in by_animal.setdefault(animal, []):
                by_animal[animal].append(point)
        if len(by_animal) > 1 and by_animal.get("single"):
            _log.info(
                "%s: points that belong to no animal are left out: %s",
                path,
                ", ".join(by_animal.pop("single")),
            )
        self._names = tuple(by_animal)
        self.animals = tuple(name or ONE_ANIMAL for name in by_animal)
        self.keypoints = tuple(by_animal[self._names[0]])
        have = {c for animal, _, c in columns if animal in by_animal}
        self.coordinates = ("x", "y", "z") if "z" in have else ("x", "y")
        self._confident = "likelihood" in have
        wanted = (*self.coordinates, "likelihood") if self._confident else self.coordinates
        missing = [
            (a, k, c)
            for a in self._names
            for k in self.keypoints
            for c in wanted
            if (a, k, c) not in first_place
        ]
        problems = [
            f"there is no column {', '.join(filter(None, m))}; each animal needs "
            f"{', '.join(wanted)} of each bodypart"
            for m in missing[:5]
        ]
        problems += [
            f"animal {a} has bodyparts {', '.join(k)}, animal {self._names[0]} has "
            f"{', '.join(self.keypoints)}"
            for a, k in by_animal.items()
            if set(k) != set(self.keypoints)
        ]
        refuse(problems, about=str(path))
        self._at = [
            [[first_place[a, k, c] for c in self.coordinates] for k in self.keypoints]
            for a in self._names
        ]
        self._likelihood_at = (
            [[first_place[a, k, "likelihood"] for k in self.keypoints] for a in self._names]
            if self._confident
            else None
        )

    def points(self, cells: Cells, where: Callable[[int, int], str]) -> tuple[Float, Float]:
        """Cells (T, columns) to positions (T, M, K, X) and confidence (T, M, K); ``where`` names a
        place from (column, frame)."""
        at = np.array(self._at)
        position = cells[:, at]
        if self._likelihood_at is None:
            likelihood_at, confidence = at[..., 0], np.where(np.isnan(position).any(-1), 0.0, 1.0)
        else:
            likelihood_at = np.array(self._likelihood_at)
            confidence = cells[:, likelihood_at]

        def place(t: int, m: int, k: int, x: int) -> str:
            return where(int(likelihood_at[m, k] if x < 0 else at[m, k, x]), t)

        # DeepLabCut's median filter pads both ends of a recording with zeros: exactly (0, 0) is no
        # place an animal was.
        position[(position == 0).all(-1)] = np.nan
        return clean_points(position, confidence, where=place, about=str(self.path))

    def tracks(self, position: Float, confidence: Float, sha256: str = "") -> Tracks:
        """Under the names of the header."""
        return Tracks(
            name=self.name,
            animals=self.animals,
            keypoints=self.keypoints,
            coordinates=self.coordinates,
            path=self.path,
            position_TMKX=position,
            confidence_TMK=confidence,
            source_sha256=sha256,
        )

    def no_tracks(self) -> Tracks:
        """The names alone."""
        return self.tracks(
            *no_frames(len(self.animals), len(self.keypoints), len(self.coordinates))
        )


def _recording(path: Path, scorer: str) -> str:
    """The video's name: DeepLabCut names its output VIDEO + scorer (+ _filtered…)."""
    stem = path.stem
    if scorer and not stem.startswith(scorer) and scorer in stem:
        return stem.split(scorer)[0].rstrip("_- ") or stem
    return recording_stem(path)


def _header(raw: bytes, path: Path) -> tuple[list[tuple[str, str, str, str]], int]:
    """(scorer, individual, bodypart, coordinate) of each column after the index, and the count of
    header rows."""
    if not raw.strip():
        raise BadInput(f"{path} is empty")
    lines = raw[:_HEADER_BYTES].split(b"\n", 5)[:5]
    rows: dict[str, list[str]] = {}
    for line, cells in enumerate(_text(lines, path), start=1):
        level = cells[0].strip().lower() if cells else ""
        if level not in _LEVELS:
            break
        if level in rows or _LEVELS.index(level) < len(rows):
            raise BadInput(
                f"{path}, line {line}: header row {level!r} out of order; wanted "
                f"{', '.join(_LEVELS)}"
            )
        rows[level] = [cell.strip() for cell in cells[1:]]
        if "coords" in rows:
            break
    missing = [level for level in ("bodyparts", "coords") if level not in rows]
    if missing:
        hint = (
            " (it is separated by ';': save it with commas)"
            if b";" in lines[0] and b"," not in lines[0]
            else ""
        )
        raise BadInput(
            f"{path}, line {len(rows) + 1}: no header row {missing[0]!r}; DeepLabCut's CSV begins "
            f"with {', '.join(_LEVELS)}{hint}"
        )
    widths = {level: len(cells) for level, cells in rows.items()}
    if len(set(widths.values())) > 1 or not widths["coords"]:
        told = ", ".join(f"{level} {width}" for level, width in widths.items())
        raise BadInput(
            f"{path}, lines 1-{len(rows)}: header rows differ in their number of columns ({told})"
        )
    blank = [""] * widths["coords"]
    return list(zip(*(rows.get(level, blank) for level in _LEVELS), strict=True)), len(rows)


def _text(lines: Sequence[bytes], path: Path) -> list[list[str]]:
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            cells = next(
                csv.reader([line.removeprefix(b"\xef\xbb\xbf").decode("utf-8").rstrip("\r")]), []
            )
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}, line {number}: byte {error.start + 1} is not UTF-8; save the file as "
                "UTF-8"
            ) from error
        except csv.Error as error:
            raise BadInput(f"{path}, line {number}: {error}") from error
        parsed.append(cells)
    return parsed


def _table(raw: bytes, path: Path, *, columns: int, header_rows: int) -> pa.Table:
    names = [str(place) for place in range(columns)]
    longest = max(len(line) for line in raw[:_HEADER_BYTES].split(b"\n"))
    try:
        return pacsv.read_csv(
            pa.py_buffer(raw),
            # One thread, because only then do errors carry the row.
            read_options=pacsv.ReadOptions(
                skip_rows=header_rows,
                column_names=names,
                use_threads=False,
                block_size=max(1 << 20, 4 * longest),
            ),
            parse_options=pacsv.ParseOptions(ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.int64() if name == "0" else pa.float64() for name in names},
                null_values=["", "nan", "NaN", "NA", "null"],
            ),
        )
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise BadInput(f"{path}: {_told(str(error), header_rows)}") from error


def _told(error: str, header_rows: int) -> str:
    """Arrow's message with lines and columns counted as a text editor does."""
    error = error.splitlines()[0].removeprefix("CSV parse error: ")
    error = re.sub(r"In CSV column #(\d+): ", lambda m: f"column {int(m[1]) + 1}: ", error)
    error = re.sub(r"Row #(\d+)", lambda m: f"line {int(m[1])}", error)
    if "straddling" in error:
        return "a line is far longer than the header: line breaks are missing"
    if "empty CSV" in error.lower() or "Empty CSV" in error:
        return f"line {header_rows + 1}: a header and no frames"
    return error


def _refuse_broken_index(index: Cells, path: Path, header_rows: int) -> None:
    if not len(index):
        raise BadInput(f"{path}, line {header_rows + 1}: a header and no frames")
    wrong = np.flatnonzero(index != np.arange(len(index)))
    if len(wrong):
        frame = int(wrong[0])
        found = "empty" if np.isnan(index[frame]) else f"{index[frame]:.0f}"
        raise BadInput(
            f"{path}, line {header_rows + frame + 1}, column 1: frame index is {found}, wanted "
            f"{frame}; frames must be counted "
            "from 0 without a gap"
        )
