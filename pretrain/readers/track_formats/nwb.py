"""NWB with poses in the ndx-pose extension: a PoseEstimation for each animal, a
PoseEstimationSeries for each keypoint.

HDF5 keeps no order of its groups, so animals come in the order of the alphabet, keypoints in that
of the skeleton. Frames come from the series' rate, or from their timestamps; where timestamps leave
frames out, those are missing. Series that begin or end at other times lie on one clock, the
earliest first. A rate of exactly 1 counts frames, and tells none.

DLC2NWB writes a file for each individual, ``…_ind1.nwb``; which one it is of stands in the
descriptions of its series, ``Keypoint snout from individual ind1.`` Other writers state a subject.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.hdf5 import (
    array,
    kind,
    node,
    open_hdf5,
    refuse_bad_names,
    refuse_too_large,
    text,
    texts,
)
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

Numbers = npt.NDArray[Any]


class Nwb(AbstractTrackFormat):
    """The only format that states rate, image and skeleton."""

    description = "NWB (ndx-pose)"
    suffixes = (".nwb", ".h5", ".hdf5")

    def recognise(self, file: UnknownFile) -> bool:
        """By the version it states, with poses or without; not an ethogram, which is labels."""
        module = "processing/behavior"
        if f"{module}/ethogram" in file.hdf5:
            things = (node(file.hdf5, f"{module}/{n}", file.path) for n in file.hdf5[module])
            return "PoseEstimation" in map(kind, things)
        attributes = getattr(file.hdf5, "attrs", {})
        return "nwb_version" in attributes or {"processing", "specifications"} <= set(file.hdf5)

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame, animal and keypoint."""
        with open_hdf5(path) as file:
            animals = _animals(file, path)
            names = tuple(animals)
            have = {name: _keypoints(group, path) for name, group in animals.items()}
            keypoints, edges = have[names[0]]
            refuse(
                [
                    f"animal {name} has keypoints {', '.join(theirs)}, animal {names[0]} has "
                    f"{', '.join(keypoints)}"
                    for name, (theirs, _) in have.items()
                    if set(theirs) != set(keypoints)
                ],
                about=str(path),
            )
            refuse_bad_names(path, animals=names, keypoints=keypoints)
            series = [[node(animals[a], k, path) for k in keypoints] for a in names]
            coordinates = ("x", "y", "z")[: _width(series[0][0], path)]
            rate, start = _rate(series, path), 0.0
            if names_only:
                position, confidence = no_frames(len(names), len(keypoints), len(coordinates))
            else:
                raw_position, raw_confidence, start = _on_one_clock(
                    series, rate, width=len(coordinates), path=path
                )
                position, confidence = clean_points(
                    raw_position,
                    raw_confidence,
                    about=str(path),
                    where=lambda t, m, k, x: (
                        f"frame {t}, animal {names[m]}, keypoint {keypoints[k]}"
                    ),
                )
            # of 3-D poses the image says nothing: their extent is taken from the points
            image = _image(animals[names[0]], path) if len(coordinates) == 2 else None
            individual = _individual(file, series[0], path) if len(names) == 1 else ""
            videos = _videos(animals[names[0]], path)
        return Tracks(
            name=recording_stem(path),
            animals=names,
            keypoints=keypoints,
            coordinates=coordinates,
            fps=None if rate == 1.0 else rate,
            image_px=image,
            edges=edges,
            individual=individual,
            start_s=start,
            original_videos=videos,
            position_TMKX=position,
            confidence_TMK=confidence,
        )


def _animals(file: Any, path: Path) -> dict[str, Any]:
    animals: dict[str, Any] = {}
    for module in node(file, "processing", path) or ():
        group = node(file, f"processing/{module}", path)
        for name in group if hasattr(group, "keys") else ():
            pose = node(group, name, path)
            if kind(pose) == "PoseEstimation":
                if name in animals:
                    raise BadInput(f"{path}: two PoseEstimation are named {name!r}")
                animals[name] = pose
    if not animals:
        raise BadInput(
            f"{path}: no PoseEstimation (ndx-pose) under processing; it is NWB without poses"
        )
    return animals


def _individual(file: Any, series: Sequence[Any], path: Path) -> str:
    """Which animal the file says it is of; empty where the file's name does not end so."""
    subject = node(file, "general/subject/subject_id", path)
    named = [] if subject is None else list(texts(file, "general/subject/subject_id", path))
    for each in series:
        words = text(each.attrs.get("description", ""), f"{each.name}: its description", path)
        named += re.findall(r" from individual (.+)\.$", words)
    return next((name for name in named if name and path.stem[1:].endswith(f"_{name}")), "")


def _videos(group: Any, path: Path) -> tuple[str, ...]:
    """Those the poses are of, as far as the file names them."""
    datasets = ("original_videos", "source_video/external_file")  # before and since ndx-pose 0.4
    return tuple(
        video
        for dataset in datasets
        if node(group, dataset, path) is not None
        for video in texts(group, dataset, path)
        if video
    )


def _keypoints(group: Any, path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Names in the skeleton's order where there is one, else in the file's."""
    series = [name for name in group if kind(node(group, name, path)) == "PoseEstimationSeries"]
    if not series:
        raise BadInput(f"{path}: {group.name} holds no PoseEstimationSeries")
    # The link to the skeleton bears the skeleton's own name; older files list the nodes next to
    # the series.
    holder = next(
        (
            thing
            for thing in (node(group, name, path) for name in group)
            if kind(thing) == "Skeleton"
        ),
        group,
    )
    ordered = texts(holder, "nodes", path) if node(holder, "nodes", path) is not None else ()
    # Writers name a series after its node, some with words around it.
    match = {
        name: [s for s in series if s == name]
        or [s for s in series if s in (f"PoseEstimationSeries{name}", f"{name}_series")]
        for name in ordered
    }
    if (
        not ordered
        or len(ordered) != len(series)
        or any(len(names) != 1 for names in match.values())
    ):
        return tuple(series), ()
    edges: tuple[tuple[str, str], ...] = ()
    if node(holder, "edges", path) is not None:
        pairs = array(holder, "edges", path)
        if (
            pairs.ndim == 2
            and pairs.shape[1:] == (2,)
            and (not pairs.size or 0 <= pairs.min() <= pairs.max() < len(ordered))
        ):
            edges = tuple((match[ordered[int(a)]][0], match[ordered[int(b)]][0]) for a, b in pairs)
    return tuple(match[name][0] for name in ordered), edges


def _width(series: Any, path: Path) -> int:
    data = node(series, "data", path)
    if getattr(data, "ndim", 0) != 2 or data.shape[1] not in (2, 3):
        raise BadInput(
            f"{path}: {series.name}/data has shape {getattr(data, 'shape', None)}; wanted (frames, "
            "2 or 3)"
        )
    return int(data.shape[1])


@dataclass(frozen=True)
class _Clock:
    """When the rows of a series were."""

    rate: float | None
    """Frames per second; 1 where the file counts frames, None where a row or none cannot say it."""
    start: float
    """Of the first row, s."""
    frame: npt.NDArray[np.int64]
    """Of each row, counted from the first."""


def _clock(series: Any, path: Path) -> _Clock:
    _width(series, path)
    rows = int(node(series, "data", path).shape[0])
    refuse_too_large(rows * 24, name=f"{series.name}/data", path=path)
    start = node(series, "starting_time", path)
    if start is not None:
        rate = float(start.attrs.get("rate", 1.0))
        begin = array(series, "starting_time", path).item()
        if not (np.isfinite(rate) and rate > 0 and np.isfinite(begin)):
            raise BadInput(f"{path}: {series.name} starts at {begin} s with rate {rate}")
        return _Clock(rate if rows else None, begin, np.arange(rows))
    stamps = array(series, "timestamps", path, ndim=1)
    if len(stamps) != rows:
        raise BadInput(f"{path}: {series.name} has {rows} positions and {len(stamps)} timestamps")
    if rows < 2 and np.isfinite(stamps).all():
        return _Clock(None, float(stamps.sum()), np.arange(rows))
    frame, rate = _frames_of(stamps, series.name, path)
    return _Clock(rate, float(stamps[0]), frame)


def _rate(series: Sequence[Sequence[Any]], path: Path) -> float:
    """Of the first series that says it."""
    clocks = (_clock(each, path) for row in series for each in row)
    rate = next((clock.rate for clock in clocks if clock.rate), None)
    if rate is None:
        raise BadInput(f"{path}: no PoseEstimationSeries has two timestamps, or a rate and frames")
    return rate


def _on_one_clock(
    series: Sequence[Sequence[Any]], rate: float, *, width: int, path: Path
) -> tuple[Numbers, Numbers, float]:
    """Positions (T, M, K, X) px, confidence (T, M, K), and when the first frame was, s."""
    clocks = {(m, k): _clock(s, path) for m, row in enumerate(series) for k, s in enumerate(row)}
    refuse(
        [
            f"{series[m][k].name} has {clock.rate:g} frames/s, another series {rate:g}"
            for (m, k), clock in clocks.items()
            if clock.rate and abs(clock.rate - rate) > 1e-3 * rate
        ],
        about=str(path),
    )
    begin = min(clock.start for clock in clocks.values() if len(clock.frame))
    frames = {at: c.frame + round((c.start - begin) * rate) for at, c in clocks.items()}
    length = 1 + max(int(frame[-1]) for frame in frames.values() if len(frame))
    shape = (length, len(series), len(series[0]))
    refuse_too_large(prod(shape) * 24, name="PoseEstimation", path=path)
    position, confidence = np.full((*shape, width), np.nan), np.zeros(shape)
    for (m, k), frame in frames.items():
        position[frame, m, k], confidence[frame, m, k] = _values(series[m][k], width, path)
    return position, confidence, begin


def _frames_of(stamps: Numbers, name: str, path: Path) -> tuple[npt.NDArray[np.int64], float]:
    """The frame of each timestamp, and the rate: 1 where the stamps are frame numbers.

    A row is the next frame unless about two steps or more lie before it. The step is that of all
    rows together, since a single one may be rounded to milliseconds.
    """
    steps = np.diff(stamps.astype(np.float64))
    if not len(steps) or not np.isfinite(steps).all() or not (steps > 0).all():
        raise BadInput(f"{path}: {name}/timestamps must be at least two rising numbers")
    step = float(np.median(steps))
    step = float(steps[np.rint(steps / step) == 1].mean())
    count = np.concatenate([[0.0], np.cumsum(np.maximum(1, np.rint(steps / step)))])
    step = float(np.polyfit(count, stamps - stamps[0], 1)[0])
    off = (stamps - stamps[0]) / step - count
    if np.ptp(off) > 0.5 * max(1.0, len(stamps) ** 0.5):
        raise BadInput(
            f"{path}: {name}/timestamps keep no steady rate (about {1 / step:.3g} frames/s); "
            "resample the recording first"
        )
    refuse_too_large(int(count[-1]) * 24, name=f"{name}/timestamps", path=path)
    numbered = bool((steps == np.rint(steps)).all()) and abs(step - 1) < 1e-9
    # the rate that the file's writer meant, where rounding has hidden it
    rate = 1 / step
    if abs(rate - round(rate, 2)) < 1e-4 * rate:
        rate = round(rate, 2)
    return count.astype(np.int64), 1.0 if numbered else rate


def _values(series: Any, width: int, path: Path) -> tuple[Numbers, Numbers]:
    """Position (rows, X) px and confidence (rows,) of one keypoint."""
    if _width(series, path) != width:
        raise BadInput(
            f"{path}: {series.name} has {_width(series, path)} coordinates, the first keypoint "
            f"{width}"
        )
    data = array(series, "data", path, ndim=2).astype(np.float64)
    factor = float(node(series, "data", path).attrs.get("conversion", 1.0))
    seen = (
        array(series, "confidence", path, ndim=1).astype(np.float64)
        if node(series, "confidence", path) is not None
        else np.ones(len(data))
    )
    if len(seen) != len(data):
        raise BadInput(
            f"{path}: {series.name} has {len(data)} positions and {len(seen)} confidences"
        )
    return data * factor, seen


def _image(group: Any, path: Path) -> tuple[float, ...] | None:
    for dataset in ("dimensions", "source_video/dimension"):  # before and since ndx-pose 0.4
        if node(group, dataset, path) is not None:
            sizes = np.atleast_2d(array(group, dataset, path))
            if sizes.ndim == 2 and sizes.shape[1] == 2 and len(sizes) and (sizes[0] > 0).all():
                return float(sizes[0, 0]), float(sizes[0, 1])
    return None
