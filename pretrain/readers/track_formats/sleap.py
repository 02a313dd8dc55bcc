"""SLEAP's analysis h5: dense arrays, an animal a track.

Axes are taken from the ``dims`` that newer files state; without them they are in SLEAP's own order
(track, xy, node, frame) where the names' lengths allow it, else in the one order that fits. A file
that could be read two ways is refused rather than guessed.

sleap-anipose writes points in space, (frame, track, node, xyz), without a name: they are
``track_0``… and ``node_0``…
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.hdf5 import (
    array,
    node,
    open_hdf5,
    parsed_json,
    refuse_bad_names,
    text,
    texts,
)
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

Numbers = npt.NDArray[Any]
Names = tuple[str, ...]
Edges = tuple[tuple[str, str], ...]
Content = tuple[Numbers, Numbers, Names, Names, Edges]
"""Positions (T, M, K, X), confidence (T, M, K), animals, keypoints, bones."""
_AXES = ("frame", "track", "node", "xy")
_MOST = 10_000  # tracks or nodes
_SPACE = "(n_frames, n_tracks, n_nodes, 3)"


class SleapAnalysis(AbstractTrackFormat):
    """Arrays of all tracks."""

    description = "SLEAP analysis h5"
    suffixes = (".h5", ".hdf5")
    name_endings = ("sleap",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its datasets; points in space by how their axes are described."""
        if "tracks" not in file.hdf5:
            return False
        tracks = node(file.hdf5, "tracks", file.path)
        described = getattr(tracks, "attrs", {}).get("Description", "")
        return "node_names" in file.hdf5 or _SPACE in str(described)

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame, track and node."""
        with open_hdf5(path) as file:
            if "node_names" not in file:
                return _in_space(file, path, names_only)
            position, confidence, animals, keypoints, edges = _analysis(file, path, names_only)
        return sleap_tracks(
            path,
            position,
            confidence,
            animals=animals,
            keypoints=keypoints,
            edges=edges,
            names_only=names_only,
        )


def sleap_tracks(
    path: Path,
    position: Numbers,
    confidence: Numbers,
    *,
    animals: Names,
    keypoints: Names,
    edges: Edges = (),
    coordinates: Names = ("x", "y"),
    counted_from: int = 0,
    names_only: bool,
) -> Tracks:
    """What all of SLEAP's formats end in: numbers checked and named.

    Raises:
        BadInput: If there are no frames, or a number is impossible.
    """
    if names_only:
        position, confidence = no_frames(len(animals), len(keypoints), len(coordinates))
    else:
        if not len(position):
            raise BadInput(f"{path} has no frames")
        position, confidence = clean_points(
            position,
            confidence,
            about=str(path),
            where=lambda t, m, k, x: f"frame {t}, track {animals[m]}, node {keypoints[k]}",
        )
    return Tracks(
        name=recording_stem(path),
        animals=animals,
        keypoints=keypoints,
        position_TMKX=position,
        confidence_TMK=confidence,
        coordinates=coordinates,
        edges=edges,
        counted_from=counted_from,
    )


def _in_space(file: Any, path: Path, names_only: bool) -> Tracks:
    shape: tuple[int, ...] = getattr(node(file, "tracks", path), "shape", ())
    if len(shape) != 4 or shape[-1] != 3 or not 0 < max(shape[1:3]) <= _MOST:
        raise BadInput(f"{path}: tracks has shape {shape}; wanted {_SPACE}")
    points = np.empty(0)
    if not names_only:
        points = array(file, "tracks", path, ndim=4).astype(np.float64)
    first = 0
    if node(file, "frames", path) is not None:
        frames = array(file, "frames", path, ndim=1)
        first = int(frames[0]) if len(frames) and 0 <= frames[0] < 2**31 else 0
    return sleap_tracks(
        path,
        points,
        np.where(np.isnan(points).any(-1), 0.0, 1.0),
        animals=tuple(f"track_{m}" for m in range(shape[1])) if shape[1] > 1 else ("animal",),
        keypoints=tuple(f"node_{k}" for k in range(shape[2])),
        coordinates=("x", "y", "z"),
        counted_from=first,
        names_only=names_only,
    )


def _analysis(file: Any, path: Path, names_only: bool) -> Content:
    keypoints = texts(file, "node_names", path)
    tracks = node(file, "tracks", path)
    if getattr(tracks, "ndim", 0) != 4:
        raise BadInput(
            f"{path}: tracks has shape {getattr(tracks, 'shape', None)}; wanted 4 axes: frame, "
            "track, node, xy"
        )
    animals = (
        texts(file, "track_names", path) if node(file, "track_names", path) is not None else ()
    )
    dims = _dims(tracks, path)
    if not animals:  # a project without tracks has one animal at most
        animals = ("animal",)
    refuse_bad_names(path, track_names=animals, node_names=keypoints)
    order = _order(
        tracks.shape, dims, {"track": len(animals), "node": len(keypoints), "xy": 2}, path
    )
    if names_only:
        return np.empty(0), np.empty(0), animals, keypoints, _edges(file, keypoints, path)
    position = (
        array(file, "tracks", path, ndim=4)
        .astype(np.float64)
        .transpose([order.index(axis) for axis in _AXES])
    )
    if node(file, "point_scores", path) is None:
        confidence = np.where(np.isnan(position).any(-1), 0.0, 1.0)
    else:
        scores = array(file, "point_scores", path, ndim=3).astype(np.float64)
        stated = _dims(node(file, "point_scores", path), path)
        rest = stated if len(stated) == 3 else tuple(axis for axis in order if axis != "xy")
        scores = scores.transpose([rest.index(axis) for axis in _AXES[:3]])
        if scores.shape != position.shape[:3]:
            raise BadInput(
                f"{path}: point_scores has shape {scores.shape} where tracks has {position.shape} "
                "(frame, track, node)"
            )
        # A node that a person placed has no score (0 or NaN); what is there was seen.
        confidence = np.where(
            np.isnan(position).any(-1),
            0.0,
            np.where(scores > 0, scores, np.where(scores <= 0, 1.0, scores)),
        )
    return position, confidence, animals, keypoints, _edges(file, keypoints, path)


def _dims(dataset: Any, path: Path) -> tuple[str, ...]:
    stated = getattr(dataset, "attrs", {}).get("dims")
    if stated is None:
        return ()
    dims = parsed_json(text(stated, "dims", path), "dims", path)
    if (
        not isinstance(dims, list)
        or len(dims) != dataset.ndim
        or len(set(map(str, dims))) < len(dims)
        or not set(map(str, dims)) <= set(_AXES)
    ):
        raise BadInput(
            f"{path}: {dataset.name} states the axes {dims}; wanted each of {', '.join(_AXES)} once"
        )
    return tuple(map(str, dims))


def _order(
    shape: Sequence[int], dims: tuple[str, ...], lengths: dict[str, int], path: Path
) -> tuple[str, ...]:
    """The name of each stored axis. SLEAP's own order comes first; another is taken only where it
    is the one that fits."""

    def fits(order: Sequence[str]) -> bool:
        return all(
            length == lengths.get(axis, length) for length, axis in zip(shape, order, strict=True)
        )

    if dims:
        if not fits(dims):
            raise BadInput(
                f"{path}: tracks has shape {tuple(shape)} along {', '.join(dims)}, but the file "
                f"names {lengths['track']} tracks and {lengths['node']} nodes"
            )
        return dims
    usual = ("track", "xy", "node", "frame")
    if fits(usual):
        return usual
    possible = [order for order in itertools.permutations(_AXES) if fits(order)]
    if len(possible) != 1:
        verdict = "fits several orders of axes" if possible else "fits no order of axes"
        raise BadInput(
            f"{path}: tracks has shape {tuple(shape)}, which {verdict}: {lengths['track']} tracks, "
            f"{lengths['node']} nodes, 2 coordinates"
        )
    return possible[0]


def _edges(file: Any, keypoints: tuple[str, ...], path: Path) -> tuple[tuple[str, str], ...]:
    if node(file, "edge_inds", path) is None:
        return ()
    pairs = array(file, "edge_inds", path)
    if (
        pairs.ndim != 2
        or pairs.shape[1:] != (2,)
        or (pairs.size and not 0 <= pairs.min() <= pairs.max() < len(keypoints))
    ):
        return ()
    return tuple((keypoints[int(a)], keypoints[int(b)]) for a, b in pairs)
