"""JABS pose files (``VIDEO_pose_est_vN.h5``), versions 2 to 8: twelve keypoints of a mouse, seen
from above.

Points are stored (y, x); a point with confidence 0 was not found. Where there are long-term
identities (from version 4 on, whatever the file calls its version), they are the animals, and
instances that have none are left out. Where there are tracklets only, each takes the animal that
has been free for longest, so an animal there is one only as long as its tracklet lasts. The log
says so.
"""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.hdf5 import array, node, open_hdf5, refuse_too_large
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

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


class Jabs(AbstractTrackFormat):
    """All versions give (x, y) and an animal for each identity."""

    description = "JABS pose h5"
    suffixes = (".h5", ".hdf5")
    name_endings = (r"pose_est(_v\d+)?", "jabs")

    def recognise(self, file: UnknownFile) -> bool:
        """By its group."""
        return "poseest" in file.hdf5

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame, animal and keypoint."""
        with open_hdf5(path) as file:
            points, instance_confidence, animal_of = _instances(file, path)
        animals = max(1, int(animal_of.max(initial=-1)) + 1)
        names = tuple(f"animal{number + 1}" for number in range(animals))
        position, confidence = no_frames(animals, len(KEYPOINTS), 2)
        if not names_only:
            shape = (len(points), animals, len(KEYPOINTS))
            refuse_too_large(prod(shape) * 24, name="identities", path=path)
            frame, slot = np.nonzero(animal_of >= 0)
            animal = animal_of[frame, slot]
            _refuse_twice_in_a_frame(frame, animal, path)
            raw_position, raw_confidence = np.full((*shape, 2), np.nan), np.zeros(shape)
            raw_position[frame, animal] = points[frame, slot][..., ::-1]
            raw_confidence[frame, animal] = instance_confidence[frame, slot]
            position, confidence = clean_points(
                raw_position,
                raw_confidence,
                about=str(path),
                where=lambda t, m, k, x: f"poseest/points, frame {t}, {names[m]}, {KEYPOINTS[k]}",
            )
        return Tracks(
            name=recording_stem(path),
            animals=names,
            keypoints=KEYPOINTS,
            edges=EDGES,
            position_TMKX=position,
            confidence_TMK=confidence,
        )


def _instances(file: Any, path: Path) -> tuple[Numbers, Numbers, npt.NDArray[np.int64]]:
    """Points (T, slots, K, 2), confidence (T, slots, K), and the animal in each slot (T, slots), -1
    where there is none."""
    # files of version 2, of one animal, do not name it
    attributes = node(file, "poseest", path).attrs
    version = int(np.atleast_1d(attributes.get("version", _OLDEST))[0])
    if not _OLDEST <= version <= _NEWEST:
        raise BadInput(
            f"{path}: JABS pose version {version}; versions {_OLDEST} to {_NEWEST} are read"
        )
    points = array(file, "poseest/points", path)
    if points.ndim not in (3, 4):
        raise BadInput(f"{path}: points have shape {points.shape}; wanted 3 axes or 4")
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
    # heights of heat maps, which reach 6 in real files
    confidence = np.clip(confidence, 0, 1)
    if points.ndim == 3:
        return points[:, None], confidence[:, None], np.zeros((len(points), 1), np.int64)
    known = version > 3 or node(file, "poseest/instance_embed_id", path) is not None
    return points, confidence, (_identities if known else _tracklets)(file, path, confidence)


def _refuse_twice_in_a_frame(frame: Numbers, animal: Numbers, path: Path) -> None:
    pairs, counts = np.unique(np.stack([frame, animal]), axis=1, return_counts=True)
    if (counts > 1).any():
        first = int(pairs[0, np.argmax(counts > 1)])
        raise BadInput(f"{path}: frame {first} has two instances of one identity")


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
    ids, number_of = np.unique(tracklet[there], return_inverse=True)
    frame = np.nonzero(there)[0]
    first, last = np.full(len(ids), len(tracklet)), np.full(len(ids), -1)
    np.minimum.at(first, number_of, frame)
    np.maximum.at(last, number_of, frame)
    free_since: list[int] = []
    animal_of = np.zeros(len(ids), np.int64)
    for number in np.argsort(first, kind="stable"):
        free = [m for m, since in enumerate(free_since) if since < first[number]]
        chosen = min(free, key=lambda m: free_since[m]) if free else len(free_since)
        if not free:
            free_since.append(-1)
        animal_of[number], free_since[chosen] = chosen, int(last[number])
    if len(ids) > len(free_since):
        _log.warning(
            "%s: %d tracklets were joined into %d animals; the file knows no longer identities",
            path,
            len(ids),
            len(free_since),
        )
    animal = np.full(tracklet.shape, -1, np.int64)
    animal[there] = animal_of[number_of]
    return animal
