"""SLEAP's project files (``.slp``): a list of instances, each a track in a frame.

Of two instances of one track in one frame the one that a person placed counts. Instances without a
track are taken where there is one animal, and refused where there are more: nobody knows who they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.recfunctions import unstructured_to_structured

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.safe_files.hdf5 import (
    array,
    node,
    open_hdf5,
    parsed_json,
    refuse_bad_names,
    refuse_too_large,
    text,
    texts,
)
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.track_formats.sleap import Content, Edges, Names, Numbers, sleap_tracks
from pretrain.readers.tracks import Tracks

NEWEST_FORMAT = 3.0
_USER, _PREDICTED = 0, 1


class SleapProject(AbstractTrackFormat):
    """Instances, predicted or placed by a person."""

    description = "SLEAP .slp"
    suffixes = (".slp", ".h5", ".hdf5")

    def recognise(self, file: UnknownFile) -> bool:
        """By its groups."""
        return "instances" in file.hdf5 and "metadata" in file.hdf5

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame, track and node."""
        with open_hdf5(path) as file:
            position, confidence, animals, keypoints, edges = _project(file, path, names_only)
        return sleap_tracks(
            path,
            position,
            confidence,
            animals=animals,
            keypoints=keypoints,
            edges=edges,
            names_only=names_only,
        )


def _project(file: Any, path: Path, names_only: bool) -> Content:
    metadata = node(file, "metadata", path)
    version = float(metadata.attrs.get("format_id", 1.0))
    if not version < NEWEST_FORMAT:
        raise BadInput(
            f"{path}: SLEAP format {version:g} is newer than what is read here (below "
            f"{NEWEST_FORMAT:g}); export analysis h5"
        )
    keypoints, edges = _skeleton(
        parsed_json(text(metadata.attrs["json"], "metadata", path), "metadata", path), path
    )
    tracks = texts(file, "tracks_json", path) if node(file, "tracks_json", path) is not None else ()
    animals = tuple(_track_name(row, path) for row in tracks) or ("animal",)
    refuse_bad_names(path, tracks=animals, nodes=keypoints)
    if names_only:
        return np.empty(0), np.empty(0), animals, keypoints, edges
    tables = {name: _records(file, name, fields, path) for name, fields in _FIELDS.items()}
    frames, instances = tables["frames"], tables["instances"]
    videos = np.unique(frames["video"])
    if len(videos) > 1:
        raise BadInput(f"{path} holds {len(videos)} videos: export one analysis h5 for each")
    if not len(frames):
        raise BadInput(f"{path} has no frames")
    length = _length(file, frames, path)
    refuse_too_large(length * len(animals) * len(keypoints) * 24, name="frame_idx", path=path)
    return (
        *_filled(tables, instances, length, len(animals), len(keypoints), version, path),
        animals,
        keypoints,
        edges,
    )


def _filled(
    tables: dict[str, Numbers],
    instances: Numbers,
    length: int,
    animals: int,
    keypoints: int,
    version: float,
    path: Path,
) -> tuple[Numbers, Numbers]:
    position = np.full((length, animals, keypoints, 2), np.nan)
    confidence = np.zeros((length, animals, keypoints))
    # Old files count from a pixel's corner, newer ones from its centre.
    shift = 0.5 if version < 1.1 else 0.0
    frames = tables["frames"]
    frame_of = dict(zip(frames["frame_id"].tolist(), frames["frame_idx"].tolist(), strict=True))
    kind_at: dict[tuple[int, int], int] = {}
    errors = []
    for number, row in enumerate(instances):
        kind, track = int(row["instance_type"]), int(row["track"])
        frame = frame_of.get(int(row["frame_id"]))
        begin, end = int(row["point_id_start"]), int(row["point_id_end"])
        points = tables["points" if kind == _USER else "pred_points"][begin:end]
        if (
            kind not in (_USER, _PREDICTED)
            or frame is None
            or not 0 <= begin <= end
            or len(points) != keypoints
            or not -1 <= track < animals
        ):
            errors.append(
                f"instances, row {number}: damaged (frame {frame}, track {track}, points "
                f"{begin}-{end})"
            )
            continue
        animal = max(track, 0)
        if track < 0 and animals > 1:
            errors.append(
                f"frame {frame}: an instance without a track; track the animals in SLEAP first"
            )
        elif kind_at.get((frame, animal)) == kind:
            errors.append(
                f"frame {frame}: two animals and no tracks: track them in SLEAP first"
                if track < 0
                else f"frame {frame}: two instances of track {track}"
            )
        elif kind_at.get((frame, animal)) != _USER:
            kind_at[frame, animal] = kind
            seen = points["visible"] & ~np.isnan(points["x"])
            xy = np.stack([points["x"], points["y"]], axis=1) - shift
            position[frame, animal] = np.where(seen[:, None], xy, np.nan)
            score = points["score"] if kind == _PREDICTED else 1.0
            confidence[frame, animal] = np.where(seen, score, 0.0)
        if len(errors) >= 20:
            break
    refuse(errors, about=str(path))
    return position, confidence


_FIELDS = {
    "frames": ("frame_id", "video", "frame_idx"),
    "instances": ("instance_type", "frame_id", "track", "point_id_start", "point_id_end"),
    "points": ("x", "y", "visible"),
    "pred_points": ("x", "y", "visible", "score"),
}


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("x", "y", "score", "tracking_score"), np.float64),
    **dict.fromkeys(("visible", "complete"), np.bool_),
}
"""Of a table's columns that are no whole numbers."""


def _records(file: Any, name: str, fields: Sequence[str], path: Path) -> Numbers:
    rows = array(file, name, path)
    stated = getattr(node(file, name, path), "attrs", {}).get("field_names")
    if rows.ndim == 2 and stated is not None:  # written by SLEAP in a browser: a plain table
        names = parsed_json(text(stated, name, path), name, path)
        if not isinstance(names, list) or len(names) != rows.shape[1]:
            raise BadInput(f"{path}: {name} has {rows.shape[1]} columns, and names {names}")
        if rows.dtype == np.float32 and rows.size and np.nanmax(rows) >= 2**24:
            raise BadInput(f"{path}: {name} counts in float32 beyond 2**24; export analysis h5")
        kinds = np.dtype([(str(n), _KINDS.get(str(n), np.int64)) for n in names])
        with np.errstate(invalid="ignore"):
            rows = unstructured_to_structured(rows, kinds, casting="unsafe")
    if rows.ndim != 1:
        raise BadInput(f"{path}: {name} has shape {rows.shape}; wanted a list of records")
    missing = [field for field in fields if field not in (rows.dtype.names or ())]
    refuse([f"{name} has no field {field!r}" for field in missing], about=str(path))
    return rows


def _length(file: Any, frames: Numbers, path: Path) -> int:
    """Frames of the video where the file says it, else up to the last one that holds an
    instance."""
    last = int(frames["frame_idx"].max()) + 1
    if len(np.unique(frames["frame_idx"])) < len(frames):
        raise BadInput(f"{path}: a frame is listed twice")
    for row in (
        texts(file, "videos_json", path)[:1] if node(file, "videos_json", path) is not None else ()
    ):
        video = parsed_json(row, "videos_json", path)
        shape = (
            video.get("backend", {}).get("shape")
            if isinstance(video, dict) and isinstance(video.get("backend"), dict)
            else None
        )
        if (
            isinstance(shape, list)
            and shape
            and isinstance(shape[0], int)
            and last <= shape[0] <= 100 * last + 10**6
        ):
            return shape[0]
    return last


def _track_name(row: str, path: Path) -> str:
    track = parsed_json(row, "tracks_json", path)
    if not isinstance(track, list) or len(track) < 2:
        raise BadInput(f"{path}: tracks_json holds {row[:60]!r}; damaged")
    return str(track[1])


def _skeleton(metadata: Any, path: Path) -> tuple[Names, Edges]:
    try:
        names = [str(node["name"]) for node in metadata["nodes"]]
        skeletons = metadata["skeletons"]
        if len(skeletons) != 1:
            raise BadInput(f"{path} has {len(skeletons)} skeletons; wanted one")
        graph = skeletons[0].get("nx_graph", skeletons[0])
        indices = [int(node["id"]) for node in graph["nodes"]]
        if not all(0 <= index < len(names) for index in indices):
            raise IndexError("a node that is not named")
        edges = [
            (names[int(link["source"])], names[int(link["target"])])
            for link in graph.get("links", [])
            if _edge_kind(link) == 1 and {int(link["source"]), int(link["target"])} <= set(indices)
        ]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: the skeleton in its metadata is damaged ({error!r})") from error
    return tuple(names[index] for index in indices), tuple(edges)


def _edge_kind(link: Any) -> int:
    """1 a bone, 2 a symmetry. jsonpickle states a kind once in full and then by its number, which
    follows the same order."""
    kind = link["type"]
    if "py/reduce" in kind:
        return int(
            next(
                part["py/tuple"][0]
                for part in kind["py/reduce"]
                if isinstance(part, dict) and "py/tuple" in part
            )
        )
    return int(kind.get("py/id", 1))
