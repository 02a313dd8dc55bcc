"""The columns of DeepLabCut's files, shared by its CSV and its h5."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.schema import Float
from pretrain.errors import BadInput, refuse
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.tracks import Tracks, clean_points, no_frames

ONE_ANIMAL = "animal"
"""What the animal is called where a file of one animal does not name it."""
_log = logging.getLogger(__name__)


class Layout:
    """Which column holds what.

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
        column_of = _indices(columns, path)
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
        names = tuple(by_animal)
        self.animals = tuple(name or ONE_ANIMAL for name in names)
        self.keypoints = tuple(by_animal[names[0]])
        have = {axis for animal, _, axis in columns if animal in by_animal}
        self.coordinates = ("x", "y", "z") if "z" in have else ("x", "y")
        axes = (*self.coordinates, *(["likelihood"] if "likelihood" in have else []))
        missing = [
            (animal, point, axis)
            for animal in names
            for point in self.keypoints
            for axis in axes
            if (animal, point, axis) not in column_of
        ]
        errors = [
            f"there is no column {', '.join(filter(None, m))}; each animal needs "
            f"{', '.join(axes)} of each bodypart"
            for m in missing[:5]
        ]
        errors += [
            f"animal {animal} has bodyparts {', '.join(points)}, animal {names[0]} has "
            f"{', '.join(self.keypoints)}"
            for animal, points in by_animal.items()
            if set(points) != set(self.keypoints)
        ]
        refuse(errors, about=str(path))
        self._columns_MKA = np.array(
            [[[column_of[m, k, axis] for axis in axes] for k in self.keypoints] for m in names]
        )
        """Index of each column; A: the coordinates and, where there is one, the likelihood."""

    def points(
        self, cells: npt.NDArray[np.float64], where: Callable[[int, int], str]
    ) -> tuple[Float, Float]:
        """Cells (T, columns) to positions (T, M, K, X) and confidence (T, M, K); ``where`` names a
        cell from (column, frame)."""
        axes = len(self.coordinates)
        columns_MKX, likelihood = self._columns_MKA[..., :axes], self._columns_MKA[..., axes:]
        position = cells[:, columns_MKX]
        confidence = (
            cells[:, likelihood[..., 0]]
            if likelihood.size
            else np.where(np.isnan(position).any(-1), 0.0, 1.0)
        )

        def cell(t: int, m: int, k: int, x: int) -> str:
            return where(int(self._columns_MKA[m, k, x]), t)

        # DeepLabCut's median filter pads both ends of a recording with zeros: no animal was at
        # exactly (0, 0).
        position[(position == 0).all(-1)] = np.nan
        return clean_points(position, confidence, where=cell, about=str(self.path))

    def tracks(self, position: Float, confidence: Float, *, counted_from: int = 0) -> Tracks:
        """Under the names of the header."""
        return Tracks(
            name=self.name,
            animals=self.animals,
            keypoints=self.keypoints,
            coordinates=self.coordinates,
            position_TMKX=position,
            confidence_TMK=confidence,
            counted_from=counted_from,
        )

    def no_tracks(self) -> Tracks:
        """The names alone."""
        return self.tracks(
            *no_frames(len(self.animals), len(self.keypoints), len(self.coordinates))
        )


IMAGES = re.compile(r"labeled-data|\.(png|jpe?g|tiff?)\b", re.I)
NO_RECORDING = "these are labelled images, no recording: give what the network made of a video"


def first_index(index: npt.NDArray[Any], where: Callable[[int], str]) -> int:
    """What a file calls its first frame; the others follow without a gap.

    Args:
        index: Of each row.
        where: Says where in the file a row is.

    Raises:
        BadInput: If they do not.
    """
    numbers = index.dtype.kind in "iuf"
    first = index[0] if numbers and index[0] >= 0 and index[0] == index[0] // 1 else 0
    wrong = np.flatnonzero(index != first + np.arange(len(index)))
    if len(wrong):
        frame = int(wrong[0])
        found = f"{index[frame]:.0f}" if numbers else str(index[frame])
        hint = NO_RECORDING if IMAGES.search(found) else "frames must be counted without a gap"
        raise BadInput(
            f"{where(frame)}: frame index is {found.replace('nan', 'empty')}, wanted "
            f"{int(first) + frame}; {hint}"
        )
    return int(first)


def _indices(
    columns: Sequence[tuple[str, str, str]], path: Path
) -> dict[tuple[str, str, str], int]:
    """The index of each column by what it holds."""
    errors = [] if columns else ["it has no columns: no heading names a point"]
    known = {column for column in columns if column[2] in ("x", "y", "z", "likelihood")}
    # An ensemble Kalman smoother writes medians and variances next to the coordinates.
    aside = {
        column
        for column in set(columns) - known
        if {(*column[:2], axis) for axis in ("x", "y")} <= known
    }
    if aside:
        names = ", ".join(sorted({axis for _, _, axis in aside}))
        _log.info("%s: columns that are no coordinates are left aside: %s", path, names)
    errors += [
        f"column {i + 2}: {column[2]!r} is not a coordinate; allowed: x, y, z, likelihood"
        for i, column in enumerate(columns)
        if column not in known | aside
    ]
    index_of: dict[tuple[str, str, str], int] = {}
    for index, column in enumerate(columns):
        if column in aside:
            continue
        if column in index_of:
            errors.append(
                f"column {index + 2} repeats column {index_of[column] + 2} "
                f"({', '.join(filter(None, column))})"
            )
        index_of.setdefault(column, index)
        if not column[1]:
            errors.append(f"column {index + 2} has no bodypart")
    refuse(errors, about=str(path))
    return index_of


def _recording(path: Path, scorer: str) -> str:
    """The video's name: DeepLabCut names its output VIDEO + scorer (+ _filtered…)."""
    stem = path.stem
    if scorer and not stem.startswith(scorer) and scorer in stem:
        return stem.split(scorer)[0].rstrip("_- ") or stem
    return recording_stem(path)
