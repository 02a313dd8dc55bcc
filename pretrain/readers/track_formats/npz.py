"""Tracks in a plain npz, for trackers that nothing else here reads. Written with ``numpy.savez``.

position       numbers; axes in the order that ``axes`` says; NaN = missing (required)
keypoints      their names, in order (required)
axes           the letter of each axis of ``position``: T frames, M animals, K keypoints, X
               coordinates; M may be absent for one animal. Default TMKX
confidence     0 to 1, the axes of ``position`` without X. Default 1 where there is a position
animals        their names, in order. Default animal1, animal2…
fps            frames per second
image_px       width, height
name           the recording's (default: the file's)
edges          (n, 2) names of keypoints: bones. Default: from the names
mirror_pairs   (n, 2) names of keypoints: (left, right) that a mirror exchanges. Default: from the
               names
axis           (back, front): the two keypoints that give the direction of the body. Default: from
               the names
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.npz import names_in, number_in, read_arrays
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

_KEYS = (
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
Numbers = npt.NDArray[Any]


class NpzTracks(AbstractTrackFormat):
    """Axes are known by their letters, in any order."""

    description = "npz with named axes"
    suffixes = (".npz",)

    def recognise(self, file: UnknownFile) -> bool:
        """By the array ``position``."""
        return "position" in file.npz

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Arrays that are not known are refused: a mistyped name would be lost."""
        arrays = read_arrays(path)
        unknown = sorted(set(arrays) - set(_KEYS))
        refuse(
            [f"{key!r} is not known; allowed: {', '.join(_KEYS)}" for key in unknown],
            about=str(path),
        )
        raw = arrays.get("position")
        if raw is None or raw.dtype.kind not in "iuf":
            raise BadInput(
                f"{path}: position is {'absent' if raw is None else raw.dtype}; wanted numbers"
            )
        axes = "TMKX" if "axes" not in arrays else "".join(names_in(arrays, "axes", path)).upper()
        if sorted(axes) not in (sorted("TMKX"), sorted("TKX")) or raw.ndim != len(axes):
            raise BadInput(
                f"{path}: axes are {axes!r} for positions of shape {raw.shape}; wanted each of T, "
                "M, K, X once (M may be absent)"
            )
        position = _reordered(raw, axes, "TMKX")
        keypoints = names_in(arrays, "keypoints", path)
        animals = (
            names_in(arrays, "animals", path)
            if "animals" in arrays
            else tuple(f"animal{m + 1}" for m in range(position.shape[1]))
        )
        confidence, image = arrays.get("confidence"), arrays.get("image_px")
        without_x = tuple(raw.shape[axes.index(axis)] for axis in axes if axis != "X")
        refuse(
            [
                *_shape_errors(position, animals, keypoints),
                *_confidence_errors(confidence, without_x),
                *_image_errors(image, position.shape[-1]),
            ],
            about=str(path),
        )
        points = no_frames(*position.shape[1:])
        if not names_only:
            points = clean_points(
                position,
                np.broadcast_to(np.float32(1), position.shape[:3])
                if confidence is None
                else _reordered(confidence, axes.replace("X", ""), "TMK"),
                about=str(path),
                where=lambda t, m, k, x: (
                    f"{'confidence' if x < 0 else 'position'}, frame {t}, {animals[m]}, "
                    f"{keypoints[k]}"
                ),
            )
        if "axis" in arrays:
            arrays["axis"] = arrays["axis"].reshape(1, -1)
        edges, mirror_pairs, axis = (
            _pairs_in(arrays, key, keypoints, path) for key in ("edges", "mirror_pairs", "axis")
        )
        return Tracks(
            name=names_in(arrays, "name", path)[0] if "name" in arrays else recording_stem(path),
            edges=edges or (),
            mirror_pairs=mirror_pairs,
            axis=axis[0] if axis else None,
            animals=animals,
            keypoints=keypoints,
            coordinates=("x", "y", "z")[: position.shape[-1]],
            fps=number_in(arrays, "fps", path),
            image_px=None if image is None else tuple(map(float, image)),
            position_TMKX=points[0],
            confidence_TMK=points[1],
        )


def _shape_errors(
    position: Numbers, animals: tuple[str, ...], keypoints: tuple[str, ...]
) -> list[str]:
    frames, animal_count, keypoint_count, width = position.shape
    errors = [
        f"{count} {kind} in position, {len(names)} names ({', '.join(names[:20])})"
        for kind, count, names in (
            ("animals", animal_count, animals),
            ("keypoints", keypoint_count, keypoints),
        )
        if count != len(names)
    ]
    if width not in (2, 3):
        errors.append(f"{width} coordinates; wanted 2 (x, y) or 3 (x, y, z)")
    if not frames:
        errors.append("no frames")
    if not animal_count:
        errors.append("no animals")
    return errors


def _confidence_errors(confidence: Numbers | None, shape: tuple[int, ...]) -> list[str]:
    if confidence is None or (confidence.shape == shape and confidence.dtype.kind in "iuf"):
        return []
    return [
        f"confidence is {confidence.dtype} of shape {confidence.shape}; wanted numbers of shape "
        f"{shape}"
    ]


def _image_errors(image: Numbers | None, width: int) -> list[str]:
    if image is None or (
        image.shape == (width,)
        and image.dtype.kind in "iuf"
        and ((image > 0) & np.isfinite(image)).all()
    ):
        return []
    return [f"image_px is {image.dtype} of shape {image.shape}; wanted {width} positive numbers"]


def _pairs_in(
    arrays: dict[str, Numbers], key: str, keypoints: tuple[str, ...], path: Path
) -> tuple[tuple[str, str], ...] | None:
    """Pairs of keypoints among the arrays; None where they are absent."""
    pairs = arrays.get(key)
    if pairs is None:
        return None
    if not pairs.size:
        return ()
    if (
        pairs.dtype.kind != "U"
        or pairs.ndim != 2
        or pairs.shape[1] != 2
        or not set(pairs.ravel().tolist()) <= set(keypoints)
    ):
        raise BadInput(
            f"{path}: {key} holds {pairs.dtype} of shape {pairs.shape}; wanted (n, 2) names of "
            f"keypoints: {', '.join(keypoints)}"
        )
    return tuple((str(a), str(b)) for a, b in pairs.tolist())


def _reordered(values: Numbers, axes: str, order: str) -> Numbers:
    """The axes in another order; one of length 1 for animals where there is none."""
    if "M" not in axes:
        values, axes = values[..., None], axes + "M"
    return values.transpose([axes.index(axis) for axis in order])
