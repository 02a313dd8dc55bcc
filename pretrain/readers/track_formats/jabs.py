"""JABS pose files (``VIDEO_pose_est_vN.h5``), versions 2 to 8: twelve keypoints of a mouse, seen
from above.

Points are stored (y, x); a point with confidence 0 was not found. From version 4 on an animal is a
long-term identity; instances that have none are left out. Version 3 has tracklets only: each takes
the animal that has been free for longest, so an animal there is one only as long as its tracklet
lasts. The log says so.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.track_formats.hdf5 import array, node, open_hdf5, refuse_too_large
from pretrain.readers.tracks import Tracks, clean_points, no_frames

NAME = "JABS pose h5"
KEYPOINTS = (
    "nose",
    "left_ear",
    "right_ear",
    "base_neck",
    "left_front_paw",
    "right_front_paw",
    "center_spine",
    "left_rear_paw",
    "right_rear_paw",
    "base_tail",
    "mid_tail",
    "tip_tail",
)
EDGES = (
    ("nose", "left_ear"),
    ("nose", "right_ear"),
    ("left_ear", "base_neck"),
    ("right_ear", "base_neck"),
    ("base_neck", "center_spine"),
    ("center_spine", "base_tail"),
    ("base_neck", "left_front_paw"),
    ("base_neck", "right_front_paw"),
    ("base_tail", "left_rear_paw"),
    ("base_tail", "right_rear_paw"),
    ("base_tail", "mid_tail"),
    ("mid_tail", "tip_tail"),
)
_OLDEST, _NEWEST = 2, 8
_log = logging.getLogger(__name__)
Numbers = npt.NDArray[Any]


def recognises(file: Any) -> bool:
    """Whether an open HDF5 file is one of JABS'."""
    return "poseest" in file


def read(path: Path, *, names_only: bool = False) -> Tracks:
    """Reads one file.

    Raises:
        BadInput: If it is damaged or of a version not known.
    """
    with open_hdf5(path) as file:
        version = int(np.atleast_1d(node(file, "poseest", path).attrs["version"])[0])
        if not _OLDEST <= version <= _NEWEST:
            raise BadInput(
                f"{path}: JABS pose version {version}; versions {_OLDEST} to {_NEWEST} are read"
            )
        points = array(file, "poseest/points", path, ndim=3 if version == _OLDEST else 4)
        confidence = array(file, "poseest/confidence", path, ndim=points.ndim - 1)
        if (
            points.shape[-2:] != (len(KEYPOINTS), 2)
            or points.shape[:-1] != confidence.shape
            or not len(points)
        ):
            raise BadInput(
                f"{path}: points have shape {points.shape}, confidence {confidence.shape}; wanted "
                f"(frames, instances, {len(KEYPOINTS)}, 2)"
            )
        if version == _OLDEST:
            points, confidence, animal = (
                points[:, None],
                confidence[:, None],
                np.zeros((len(points), 1), np.int64),
            )
        else:
            animal = (_tracklets if version == 3 else _identities)(file, path, confidence)
    animals = max(1, int(animal.max(initial=-1)) + 1)
    names = tuple(f"animal{place + 1}" for place in range(animals))
    if names_only:
        return _tracks(path, names, *no_frames(animals, len(KEYPOINTS), 2))
    refuse_too_large(len(points) * animals * len(KEYPOINTS) * 24, place="identities", path=path)
    position, sure = (
        np.full((len(points), animals, len(KEYPOINTS), 2), np.nan),
        np.zeros((len(points), animals, len(KEYPOINTS))),
    )
    frame, slot = np.nonzero(animal >= 0)
    who = animal[frame, slot]
    place = frame * animals + who
    if len(np.unique(place)) < len(place):
        repeated = frame[np.flatnonzero(np.bincount(place)[place] > 1)[0]]
        raise BadInput(f"{path}: frame {int(repeated)} has two instances of one identity")
    position[frame, who] = points[frame, slot][..., ::-1]
    sure[frame, who] = confidence[frame, slot]
    cleaned = clean_points(
        position,
        sure,
        about=str(path),
        where=lambda t, m, k, x: f"poseest/points, frame {t}, {names[m]}, {KEYPOINTS[k]}",
    )
    return _tracks(path, names, *cleaned, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _tracks(
    path: Path, names: tuple[str, ...], position: Numbers, confidence: Numbers, sha256: str = ""
) -> Tracks:
    return Tracks(
        name=recording_stem(path),
        animals=names,
        keypoints=KEYPOINTS,
        edges=EDGES,
        position_TMKX=position,
        confidence_TMK=confidence,
        path=path,
        source_sha256=sha256,
    )


def _identities(file: Any, path: Path, confidence: Numbers) -> npt.NDArray[np.int64]:
    """The animal of each instance (T, slots); -1 where it has no long-term identity."""
    identity = array(file, "poseest/instance_embed_id", path, ndim=2).astype(np.int64)
    masked = array(file, "poseest/id_mask", path, ndim=2) != 0
    if identity.shape != confidence.shape[:2] or masked.shape != identity.shape:
        raise BadInput(
            f"{path}: identities have shape {identity.shape}, their mask {masked.shape}, "
            f"confidence {confidence.shape}"
        )
    if identity.min(initial=0) < 0 or identity[~masked].max(initial=0) > 1000:
        raise BadInput(
            f"{path}: identities reach from {identity.min()} to {identity.max()}; damaged"
        )
    return np.where(masked, -1, identity - 1)


def _tracklets(file: Any, path: Path, confidence: Numbers) -> npt.NDArray[np.int64]:
    """As :func:`_identities` for version 3."""
    tracklet = array(file, "poseest/instance_track_id", path, ndim=2).astype(np.int64)
    count = array(file, "poseest/instance_count", path, ndim=1).astype(np.int64)
    if (
        tracklet.shape != confidence.shape[:2]
        or count.shape != tracklet.shape[:1]
        or count.max(initial=0) > tracklet.shape[1]
    ):
        raise BadInput(
            f"{path}: tracklets have shape {tracklet.shape}, counts {count.shape} (up to "
            f"{count.max(initial=0)}), "
            f"confidence {confidence.shape}"
        )
    there = np.arange(tracklet.shape[1]) < count[:, None]
    ids, where = np.unique(tracklet[there], return_inverse=True)
    frame = np.nonzero(there)[0]
    first, last = np.full(len(ids), len(tracklet)), np.full(len(ids), -1)
    np.minimum.at(first, where, frame)
    np.maximum.at(last, where, frame)
    free_since: list[int] = []
    animal_of = np.zeros(len(ids), np.int64)
    for place in np.argsort(first, kind="stable"):
        free = [m for m, since in enumerate(free_since) if since < first[place]]
        chosen = min(free, key=lambda m: free_since[m]) if free else len(free_since)
        if not free:
            free_since.append(-1)
        animal_of[place], free_since[chosen] = chosen, int(last[place])
    if len(ids) > len(free_since):
        _log.warning(
            "%s: %d tracklets were joined into %d animals; version 3 knows no longer identities",
            path,
            len(ids),
            len(free_since),
        )
    animal = np.full(tracklet.shape, -1, np.int64)
    animal[there] = animal_of[where]
    return animal
