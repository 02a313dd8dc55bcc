"""Per-frame features that another tool computed: .npy or .npz arrays (frames, D), one file a
recording.

found = find_features("NAME=FOLDER", videos)         which file belongs to which recording; no array
is read yet values, note = found.read("m1", frames=1800)         its features, as long as its track
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from pretrain.data.schema import Float
from pretrain.errors import BadInput, refuse
from pretrain.readers.recording_names import candidates, common_ending, natural_order, nearest
from pretrain.readers.safe_npz import HEADER_ERRORS, read_arrays

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
        held = np.full((frames, values.shape[1]), np.nan, np.float32)
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            held[: min(count, frames)] = values[:frames]
        wild = np.argwhere(np.isinf(held))
        if len(wild):
            raise BadInput(
                f"{path}: frame {int(wild[0, 0])}, column {int(wild[0, 1])}: infinite or too large "
                "for float32; NaN = unknown"
            )
        if count == frames:
            return held, ""
        told = (
            f"end {frames - count:,} frames before it; those are unknown"
            if count < frames
            else f"end {count - frames:,} frames after it"
        )
        return held, f"video {video} ({frames:,} frames): features {self.name} ({path.name}) {told}"


def find_features(given: str, videos: Iterable[str]) -> FeatureFiles:
    """Finds the file of each recording.

    Args:
        given: ``NAME=FOLDER``, or a folder whose name is taken.
        videos: Names of the recordings.

    Raises:
        BadInput: If there are no files, or one belongs to no recording or to several, or two to
            one.
    """
    name, told, where = given.partition("=")
    folder = Path(where if told else given).expanduser()
    name = name if told else folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise BadInput(
            f"--features {given}: {name!r} is no name for features; write NAME=FOLDER, the name of "
            "letters, digits, - _ ."
        )
    if not folder.is_dir():
        raise BadInput(f"--features {given}: there is no folder {folder} to read features from")
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
    names, ending = list(videos), common_ending(paths)
    files: dict[str, Path] = {}
    problems = []
    for path in paths:
        whole = unquote(path.relative_to(folder).with_suffix("").as_posix())
        found = (
            [whole]
            if whole in names
            else candidates(path.name, names, folder=path.parent.name, ending=ending)
        )
        if len(found) != 1:
            problems.append(_unplaced(path, found, names))
        elif found[0] in files:
            problems.append(f"video {found[0]!r} has two files: {files[found[0]]} and {path}")
        else:
            files[found[0]] = path
    refuse(
        problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else []),
        about=f"features {name} in {folder}",
    )
    return FeatureFiles(name=name, files=files)


def _unplaced(path: Path, found: list[str], names: list[str]) -> str:
    if found:
        return f"{path} could belong to several recordings: {', '.join(found)}. Name it after one"
    listed = ", ".join(names[:8]) + (f"… ({len(names)} in all)" if len(names) > 8 else "")
    near = nearest(path.name, names)
    return f"{path} belongs to no known recording; recordings: {listed}" + (
        f". If it is {near}, name it so" if near else ""
    )


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
            values = np.lib.format.open_memmap(
                path, mode="r"
            )  # mapped: a header that states too much takes no memory
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
