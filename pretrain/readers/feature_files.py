"""Per-frame features that another tool computed: .npy or .npz arrays (frames, D), one file a
recording.

files = find_features("NAME=FOLDER", videos)         # which file belongs to which recording
values, note = files.read("m1", frames=1800)         # its features, as long as its track
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from pretrain.data.recording_file import recording_file
from pretrain.data.schema import Float
from pretrain.errors import BadInput, refuse
from pretrain.readers.recording_names import (
    assignment_error,
    candidates,
    common_ending,
    natural_order,
)
from pretrain.readers.safe_files.npz import HEADER_ERRORS, read_arrays

_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True, kw_only=True)
class FeatureFiles:
    """Files of one kind of features, by recording."""

    name: str
    files: Mapping[str, Path]

    def read(self, video: str, *, frames: int) -> tuple[Float | None, str]:
        """The features of a recording, cut or filled with NaN to the length of its track.

        Returns:
            (frames, D), or None where it has no file; a sentence where file and track differ in
            length, else "".

        Raises:
            BadInput: If the file is damaged, holds pickles, or no array of numbers (frames, D).
        """
        path = self.files.get(video)
        if path is None:
            return None, ""
        values = read_array(path, self.name)
        count = len(values)
        fitted = np.full((frames, values.shape[1]), np.nan, np.float32)
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            fitted[: min(count, frames)] = values[:frames]
        infinite = np.argwhere(np.isinf(fitted))
        if len(infinite):
            frame, column = infinite[0].tolist()
            raise BadInput(
                f"{path}: frame {frame}, column {column}: infinite or too large for float32; NaN = "
                "unknown"
            )
        if count == frames:
            return fitted, ""
        difference = (
            f"end {frames - count:,} frames before it; those are unknown"
            if count < frames
            else f"end {count - frames:,} frames after it"
        )
        note = f"video {video} ({frames:,} frames): features {self.name} ({path.name}) {difference}"
        return fitted, note


def find_features(option: str, videos: Iterable[str]) -> FeatureFiles:
    """Finds the file of each recording.

    Args:
        option: ``NAME=FOLDER``, or a folder whose name is taken.
        videos: Names of the recordings.

    Raises:
        BadInput: If there are no files, or one belongs to no recording or to several, or two to
            one.
    """
    name, equals, address = option.partition("=")
    folder = Path(address if equals else option).expanduser()
    name = name if equals else folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise BadInput(
            f"--features {option}: {name!r} is no name for features; write NAME=FOLDER, the name "
            "of letters, digits, - _ ."
        )
    if not folder.is_dir():
        raise BadInput(f"--features {option}: there is no folder {folder} to read features from")
    inside = [
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    ]
    paths = sorted(
        (path for path in inside if path.suffix.lower() in _SUFFIXES),
        key=lambda path: natural_order(str(path)),
    )
    if not paths:
        kinds = ", ".join(sorted({path.suffix or "no extension" for path in inside})) or "nothing"
        raise BadInput(
            f"found 0 feature files in {folder}: looked for {', '.join(_SUFFIXES)}; found "
            f"{len(inside)} other files ({kinds})"
        )
    return FeatureFiles(name=name, files=_assigned(paths, folder, list(videos), name))


def _assigned(paths: list[Path], folder: Path, videos: list[str], name: str) -> dict[str, Path]:
    ending = common_ending(paths)
    files: dict[str, Path] = {}
    errors = []
    own = {recording_file(folder, video, end): video for video in videos for end in _SUFFIXES}
    for path in paths:
        # earlier releases wrote folders as %2F
        whole = own.get(path) or unquote(path.relative_to(folder).with_suffix("").as_posix())
        found = (
            [whole]
            if whole in videos
            else candidates(path.name, videos, folder=path.parent.name, ending=ending)
        )
        if len(found) != 1:
            errors.append(assignment_error(path, found, videos))
        elif found[0] in files:
            errors.append(f"video {found[0]!r} has two files: {files[found[0]]} and {path}")
        else:
            files[found[0]] = path
    refuse(errors, about=f"features {name} in {folder}")
    return files


def read_array(path: Path, name: str) -> npt.NDArray[Any]:
    """The array (frames, D) of a file; (frames,) is one number a frame. Nothing in it is executed.

    Args:
        path: A .npy file, or a .npz whose only array it is, or in which it has this name or is
            named ``features``.
        name: Of the features.

    Raises:
        BadInput: If there is no such array, or the file is damaged or holds pickles.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"PK"
    if packed:
        arrays = read_arrays(path)
        if len(arrays) > 1 and not {name, "features"} & set(arrays):
            raise BadInput(
                f"{path} holds several arrays ({', '.join(sorted(arrays))}): name the one that is "
                f"meant {name!r} or 'features'"
            )
        values = arrays.get(name, arrays.get("features", next(iter(arrays.values()), np.empty(0))))
    else:
        try:
            # Mapped: a header that states too much takes no memory.
            values = np.lib.format.open_memmap(path, mode="r")
        except (OSError, *HEADER_ERRORS) as error:
            hint = (
                "; arrays of objects are pickles, which could run code: save numbers"
                if "object" in str(error).lower()
                else ""
            )
            raise BadInput(
                f"{path} is not a whole .npy file of numbers "
                f"({error or type(error).__name__}){hint}"
            ) from error
    if values.dtype.kind not in "iufb" or values.ndim not in (1, 2) or not values.size:
        raise BadInput(
            f"{path} holds {values.dtype} of shape {values.shape}; wanted numbers (frames, D)"
        )
    return np.asarray(values.reshape(len(values), -1))


def named_twice(features: Iterable[FeatureFiles]) -> list[str]:
    """A sentence for each name that several have."""
    counts = Counter(files.name for files in features)
    return [f"{name!r} is given twice" for name, count in counts.items() if count > 1]
