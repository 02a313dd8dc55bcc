"""Tracks in a plain npz, for trackers that nothing else here reads. Written with ``numpy.savez``.

position     numbers; axes in the order that ``axes`` says; NaN = missing (required)
keypoints    their names, in order (required)
axes         the letter of each axis of ``position``: T frames, M animals, K keypoints, X
coordinates; M may be
             absent for one animal. Default TMKX
confidence   0 to 1, the axes of ``position`` without X. Default 1 where there is a position
animals      their names, in order. Default animal1, animal2…
fps          frames per second
image_px     width, height
name         the recording's (default: the file's)
edges, mirror_pairs   (n, 2) names of keypoints: bones, and (left, right) that a mirror exchanges.
Default: told from the names axis         (back, front): the two keypoints that give the direction
    of the body. Default: told from the names
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_npz import names_in, number_in, read_arrays
from pretrain.readers.tracks import Tracks, clean_points, no_frames

NAME = "npz with named axes"
KEYS = (
    "position",
    "keypoints",
    "axes",
    "confidence",
    "animals",
    "fps",
    "image_px",
    "name",
    "edges",
    "mirror_pairs",
    "axis",
)


def recognises(names: tuple[str, ...]) -> bool:
    """Whether a zip with these arrays is such a file."""
    return "position" in names


def read(path: Path, *, names_only: bool = False) -> Tracks:
    """Reads one file.

    Raises:
        BadInput: If an array is absent, of a wrong kind, or does not fit the others.
    """
    arrays = read_arrays(path)
    unknown = sorted(set(arrays) - set(KEYS))
    refuse(
        [f"{key!r} is not known; allowed: {', '.join(KEYS)}" for key in unknown], about=str(path)
    )
    raw = arrays.get("position")
    if raw is None or raw.dtype.kind not in "iuf":
        raise BadInput(
            f"{path}: position is {'absent' if raw is None else raw.dtype}; wanted numbers"
        )
    axes = "TMKX" if "axes" not in arrays else "".join(names_in(arrays, "axes", path)).upper()
    if sorted(axes) not in (sorted("TMKX"), sorted("TKX")) or raw.ndim != len(axes):
        raise BadInput(
            f"{path}: axes are {axes!r} for positions of shape {raw.shape}; wanted each of T, M, "
            "K, X once (M may be absent)"
        )
    position = _ordered(raw, axes, "TMKX")
    frames, animals_count, keypoints_count, width = position.shape
    keypoints = names_in(arrays, "keypoints", path)
    animals = (
        names_in(arrays, "animals", path)
        if "animals" in arrays
        else tuple(f"animal{m + 1}" for m in range(animals_count))
    )
    sure = arrays.get("confidence")
    wanted = tuple(raw.shape[axes.index(axis)] for axis in axes if axis != "X")
    named = (("animals", animals_count, animals), ("keypoints", keypoints_count, keypoints))
    problems = [
        f"{n} {what} in position, {len(names)} names ({', '.join(names[:20])})"
        for what, n, names in named
        if n != len(names)
    ]
    problems += (
        [f"{width} coordinates; wanted 2 (x, y) or 3 (x, y, z)"] if width not in (2, 3) else []
    )
    problems += ["no frames"] if not frames else []
    problems += ["no animals"] if not animals_count else []
    if sure is not None and (sure.shape != wanted or sure.dtype.kind not in "iuf"):
        problems.append(
            f"confidence is {sure.dtype} of shape {sure.shape}; wanted numbers of shape {wanted}"
        )
    image = arrays.get("image_px")
    if image is not None and (
        image.shape != (width,)
        or image.dtype.kind not in "iuf"
        or not ((image > 0) & np.isfinite(image)).all()
    ):
        problems.append(
            f"image_px is {image.dtype} of shape {image.shape}; wanted {width} positive numbers"
        )
    refuse(problems, about=str(path))
    if names_only:
        clean, confidence = no_frames(animals_count, keypoints_count, width)
    else:
        given = (
            np.ones(position.shape[:3])
            if sure is None
            else _ordered(sure, axes.replace("X", ""), "TMK").astype(np.float64)
        )
        clean, confidence = clean_points(
            position.astype(np.float64),
            given,
            about=str(path),
            where=lambda t, m, k, x: (
                f"{'confidence' if x < 0 else 'position'}, frame {t}, {animals[m]}, {keypoints[k]}"
            ),
        )
    name = names_in(arrays, "name", path)[0] if "name" in arrays else recording_stem(path)
    edges, pairs = (_pairs_in(arrays, key, keypoints, path) for key in ("edges", "mirror_pairs"))
    axis = (
        _pairs_in({"axis": arrays["axis"].reshape(1, -1)}, "axis", keypoints, path)
        if "axis" in arrays
        else None
    )
    return Tracks(
        name=name,
        edges=edges or (),
        mirror_pairs=pairs,
        axis=axis[0] if axis else None,
        animals=animals,
        keypoints=keypoints,
        coordinates=("x", "y", "z")[:width],
        fps=number_in(arrays, "fps", path),
        image_px=None if image is None else tuple(map(float, image)),
        position_TMKX=clean,
        confidence_TMK=confidence,
        path=path,
        source_sha256="" if names_only else hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _pairs_in(
    arrays: dict[str, npt.NDArray[Any]], key: str, keypoints: tuple[str, ...], path: Path
) -> tuple[tuple[str, str], ...] | None:
    """Pairs of keypoints among the arrays; None where they are absent."""
    held = arrays.get(key)
    if held is None:
        return None
    if not held.size:
        return ()
    if (
        held.dtype.kind != "U"
        or held.ndim != 2
        or held.shape[1] != 2
        or not set(held.ravel().tolist()) <= set(keypoints)
    ):
        raise BadInput(
            f"{path}: {key} holds {held.dtype} of shape {held.shape}; wanted (n, 2) names of "
            f"keypoints: {', '.join(keypoints)}"
        )
    return tuple((str(a), str(b)) for a, b in held.tolist())


def _ordered(values: npt.NDArray[Any], axes: str, wanted: str) -> npt.NDArray[Any]:
    """Axes into the wanted order; a length of 1 for animals where there is no such axis."""
    if "M" not in axes:
        values, axes = values[..., None], axes + "M"
    return values.transpose([axes.index(axis) for axis in wanted])
