"""The tracks of one recording as a tracker wrote them, and what brings recordings to one form. Pure
functions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain.data.schema import Float, Schema, Video
from pretrain.errors import BadInput, refuse

MAX_PX = 1e6  # no camera is this wide; beyond it a number is not a position
# Peaks of a heat map may leave 0…1 a little; beyond this it is another column.
CONFIDENCE_RANGE = (-0.5, 2.0)
_FRAMES_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """What one file says. Where only its names were read, it has no frames."""

    name: str
    """Of the recording, without what the tracker added to the file's name."""
    animals: tuple[str, ...]
    keypoints: tuple[str, ...]
    position_TMKX: Float
    """Pixels, NaN = missing."""
    confidence_TMK: Float
    """0 to 1; 0 = missing."""
    coordinates: tuple[str, ...] = ("x", "y")
    fps: float | None = None
    """Frames per second, where the file says it."""
    image_px: tuple[float, ...] | None = None
    """Width, height, where the file says it."""
    edges: tuple[tuple[str, str], ...] = ()
    """Bones, where the file says them."""
    mirror_pairs: tuple[tuple[str, str], ...] | None = None
    """Keypoints that a mirror exchanges, where the file says them."""
    axis: tuple[str, str] | None = None
    """(back, front) of the body, where the file says it."""
    counted_from: int = 0
    """What the file calls its first frame."""
    individual: str = ""
    """Of a file of one animal that says which, and whose name ends so: that animal."""
    start_s: float = 0.0
    """When the first frame was, by the file."""
    original_videos: tuple[str, ...] = ()
    """The videos it is of, where the file says them."""
    path: Path = Path()
    more_paths: tuple[Path, ...] = ()
    """Of the other animals, where each has a file of its own."""
    source_sha256: str = ""
    """Checksum of the file, or of those of all files; empty where only the names were read."""

    def __post_init__(self) -> None:
        shape = (len(self.animals), len(self.keypoints), len(self.coordinates))
        assert self.position_TMKX.shape[1:] == shape, (self.position_TMKX.shape, shape)
        assert self.confidence_TMK.shape == self.position_TMKX.shape[:3]

    @property
    def frames(self) -> int:
        """Length of axis T."""
        return len(self.position_TMKX)

    def video(self) -> Video:
        """The form in which a store takes it."""
        return Video(
            name=self.name,
            position_TMKX=self.position_TMKX,
            confidence_TMK=self.confidence_TMK,
            source=", ".join(map(str, (self.path, *self.more_paths))),
            source_sha256=self.source_sha256,
        )


def clean_points(
    position: npt.NDArray[np.floating],
    confidence: npt.NDArray[np.floating],
    *,
    where: Callable[[int, int, int, int], str],
    about: str,
) -> tuple[Float, Float]:
    """Numbers as read to numbers that can be believed.

    A point is missing where a coordinate is NaN or the confidence is 0; a point with coordinates
    and no (NaN) confidence was placed by somebody and counts as seen, confidence 1. Confidence is
    clipped to 0…1.

    Args:
        position: (T, M, K, X) px.
        confidence: (T, M, K).
        where: Says where in the file a number is, from (frame, animal, keypoint, coordinate);
            coordinate -1 is the confidence.
        about: The file.

    Returns:
        Positions and confidence, float32; a missing point is NaN with confidence 0.

    Raises:
        BadInput: If a number is infinite or cannot be a position or a confidence; with the first of
            each kind.
    """
    clean, kept = np.empty(position.shape, np.float32), np.empty(confidence.shape, np.float32)
    first, number = dict[str, tuple[int, ...]](), Counter[str]()
    low, high = CONFIDENCE_RANGE
    for begin in range(0, len(position), _FRAMES_AT_ONCE):
        rows = slice(begin, begin + _FRAMES_AT_ONCE)
        p, c = position[rows].astype(np.float64), confidence[rows].astype(np.float64)
        with np.errstate(invalid="ignore"):
            far, odd = np.abs(p) > MAX_PX, (c < low) | (c > high)
        for kind, wrong in (("position", far), ("confidence", odd)):
            if wrong.any():
                number[kind] += int(wrong.sum())
                t, *at = (int(i) for i in np.argwhere(wrong)[0])
                first.setdefault(kind, (begin + t, *at))
        seen = ~np.isnan(p).any(-1) & ~(c <= 0)
        clean[rows] = np.where(seen[..., None], p, np.nan)
        clipped = np.clip(np.where(np.isnan(c), 1, c), np.finfo(np.float32).tiny, 1)
        kept[rows] = np.where(seen, clipped, 0)
    errors = []
    if "position" in first:
        t, m, k, x = first["position"]
        errors.append(
            f"{where(t, m, k, x)}: {position[t, m, k, x]:g} is not a position in pixels "
            f"({number['position']} such numbers)"
        )
    if "confidence" in first:
        t, m, k = first["confidence"]
        errors.append(
            f"{where(t, m, k, -1)}: {confidence[t, m, k]:g} is not a confidence between 0 and 1 "
            f"({number['confidence']} such numbers)"
        )
    refuse(errors, about=about)
    return clean, kept


def no_frames(animals: int, keypoints: int, coordinates: int) -> tuple[Float, Float]:
    """Positions and confidence without frames, for a file of which only the names are read."""
    return np.empty((0, animals, keypoints, coordinates), np.float32), np.empty(
        (0, animals, keypoints), np.float32
    )


def check_agreement(tracks: Sequence[Tracks]) -> None:
    """Refuses recordings that cannot share a store, before anything long is read.

    Order may differ (:func:`conform` puts it right); names may not.

    Raises:
        BadInput: Naming each recording that differs from the first, with both lists.
    """
    errors = []
    for other in tracks[1:]:
        first = tracks[0]
        for axis, option in (
            ("keypoints", "rename or subset them with --keypoints"),
            ("animals", "name them with --animals or join pieces of tracks with --join-tracks"),
        ):
            mine, theirs = getattr(first, axis), getattr(other, axis)
            if set(mine) != set(theirs):
                errors.append(
                    f"{axis} differ: {first.path} has {', '.join(mine)}; {other.path} has "
                    f"{', '.join(theirs)}. "
                    f"Either {option}, or prepare the two groups into two stores"
                    + (_proposal(mine, theirs) if axis == "keypoints" else "")
                )
        if first.coordinates != other.coordinates:
            errors.append(
                f"coordinates differ: {first.path} has {', '.join(first.coordinates)}; "
                f"{other.path} {', '.join(other.coordinates)}"
            )
    refuse(errors, about=f"{len(tracks)} recordings do not have one skeleton")


_SAME = (("snout", "nose"), ("lateral|lat|side|flank", "hip"), ("l", "left"), ("r", "right"))
"""Words of names of keypoints, and the one that stands for them."""


def counterparts(wanted: Iterable[str], there: Sequence[str]) -> dict[str, str]:
    """Keypoints under other names: ``lateral_left`` is ``hip_left``, ``left_hip`` and ``hipL``.

    Returns:
        Of each wanted name the one that is there, where just one can be meant.
    """

    def words(name: str) -> tuple[str, ...]:
        text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower().replace("tailbase", "tail base")
        for pattern, word in _SAME:
            text = re.sub(rf"(?<![a-z])({pattern})(?![a-z])", word, text.replace("_", " "))
        return tuple(sorted(re.findall(r"[a-z0-9]+", text)))

    found = {}
    for name in wanted:
        alike = [name] if name in there else [one for one in there if words(one) == words(name)]
        if len(alike) == 1:
            found[name] = alike[0]
    return found


def _proposal(mine: Sequence[str], theirs: Sequence[str]) -> str:
    found = counterparts(mine, theirs)
    if len(set(found.values())) < len(mine):
        return ""
    both = (name if found[name] == name else f"{found[name]}={name},{name}" for name in mine)
    return f". Perhaps --keypoints {','.join(both)}"


def conform(tracks: Tracks, *, animals: Sequence[str], keypoints: Sequence[str]) -> Tracks:
    """Puts animals and keypoints into this order, dropping those not named.

    Raises:
        BadInput: If one of the names is not there.
    """
    errors = [
        f"there is no {kind} {name!r}; there are {', '.join(have)}"
        for kind, names, have in (
            ("animal", animals, tracks.animals),
            ("keypoint", keypoints, tracks.keypoints),
        )
        for name in names
        if name not in have
    ]
    errors += [
        f"{kind} are named twice: {', '.join(names)}"
        for kind, names in (("animals", animals), ("keypoints", keypoints))
        if len(set(names)) < len(names)
    ]
    refuse(errors, about=f"{tracks.path}")
    if tuple(animals) == tracks.animals and tuple(keypoints) == tracks.keypoints:
        return tracks
    m = [tracks.animals.index(name) for name in animals]
    k = [tracks.keypoints.index(name) for name in keypoints]
    return replace(
        tracks,
        animals=tuple(animals),
        keypoints=tuple(keypoints),
        position_TMKX=tracks.position_TMKX[:, m][:, :, k],
        confidence_TMK=tracks.confidence_TMK[:, m][:, :, k],
        edges=_pairs_among(tracks.edges, keypoints),
        mirror_pairs=None
        if tracks.mirror_pairs is None
        else _pairs_among(tracks.mirror_pairs, keypoints),
        axis=None if tracks.axis is None or not set(tracks.axis) <= set(keypoints) else tracks.axis,
    )


def _pairs_among(
    pairs: Iterable[tuple[str, str]], keypoints: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    return tuple((a, b) for a, b in pairs if a in keypoints and b in keypoints)


def rename(tracks: Tracks, names: Mapping[str, str], *, of: str = "keypoints") -> Tracks:
    """Gives keypoints (or animals) other names.

    Args:
        tracks: The recording.
        names: Old name to new name. An old name that this recording lacks is passed over, since
            recordings differ; :func:`check_agreement` sees whether the outcome fits.
        of: ``keypoints`` or ``animals``.

    Raises:
        BadInput: If two would bear one name.
    """
    assert of in ("keypoints", "animals"), of
    fresh = tuple(names.get(name, name) for name in getattr(tracks, of))
    if len(set(fresh)) < len(fresh):
        raise BadInput(f"{tracks.path}: after renaming, two {of} bear one name: {', '.join(fresh)}")
    if of == "animals":
        return replace(tracks, animals=fresh)

    def renamed(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((names.get(a, a), names.get(b, b)) for a, b in pairs)

    return replace(
        tracks,
        keypoints=fresh,
        edges=renamed(tracks.edges),
        mirror_pairs=None if tracks.mirror_pairs is None else renamed(tracks.mirror_pairs),
        axis=None if tracks.axis is None else renamed([tracks.axis])[0],
    )


def scale(tracks: Tracks, factor: float) -> Tracks:
    """Multiplies positions (and the image's extent): pixels of this recording to pixels of the
    store.

    Raises:
        BadInput: If the factor is not a positive number.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise BadInput(
            f"the scale is {factor}; it must be a positive number (pixels of the store in a pixel "
            "of the recording)"
        )
    image = (
        None if tracks.image_px is None else tuple(extent * factor for extent in tracks.image_px)
    )
    return replace(tracks, position_TMKX=tracks.position_TMKX * np.float32(factor), image_px=image)


def resample(tracks: Tracks, fps: float) -> Tracks:
    """Brings a recording to another frame rate: positions and confidence by linear interpolation.

    A new frame between two old ones has a point only where both have it, so that no gap is bridged;
    one that falls on an old frame takes it as it is. A recording whose rate the file does not say
    is taken to have the rate asked for.

    Raises:
        BadInput: If a rate is not a positive number.
    """
    for rate in (fps, fps if tracks.fps is None else tracks.fps):
        if not (math.isfinite(rate) and rate > 0):
            raise BadInput(
                f"{tracks.path}: {rate} is not a frame rate; it must be a positive number of "
                "frames per second"
            )
    if tracks.fps is None or tracks.fps == fps or not tracks.frames:
        return replace(tracks, fps=fps)
    position = resample_values(tracks.position_TMKX, old_fps=tracks.fps, fps=fps)
    confidence = resample_values(tracks.confidence_TMK, old_fps=tracks.fps, fps=fps)
    confidence[np.isnan(position).any(-1)] = 0
    return replace(tracks, fps=fps, position_TMKX=position, confidence_TMK=confidence)


def resampled_times(frames: int, *, old_fps: float, fps: float) -> npt.NDArray[np.float64]:
    """Where the frames of the new rate lie, counted in frames of the old; the last one at or before
    the last old frame."""
    count = math.floor((frames - 1) * fps / old_fps + 1e-6) + 1
    if count > 100 * frames + 1000:
        raise BadInput(
            f"{old_fps} to {fps} frames/s would make {count:,} frames of {frames:,}: check the "
            "rates"
        )
    times = np.arange(count) * (old_fps / fps)
    whole = np.rint(times)
    return np.clip(np.where(np.abs(times - whole) < 1e-6, whole, times), 0, frames - 1)


def resample_values(values: Float, *, old_fps: float, fps: float) -> Float:
    """Numbers of each frame, axis T first, at another rate: linear between neighbours, NaN where
    one of them is NaN."""
    if old_fps == fps or not len(values):
        return values
    times = resampled_times(len(values), old_fps=old_fps, fps=fps)
    before = np.floor(times).astype(np.int64)
    after = np.minimum(before + 1, len(values) - 1)
    share = (times - before).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    mixed = (1 - share) * values[before] + share * values[after]
    return np.where(share == 0, values[before], mixed).astype(np.float32)


def extent_px(tracks: Tracks) -> tuple[float, ...]:
    """How far a recording's points reach: the image where the file says it, else from the points.

    From the points: per coordinate the 99.99 % quantile of all seen points, so that one wild point
    does not set it, rounded up to the next 10 px.
    """
    if tracks.image_px is not None:
        return tracks.image_px
    points = tracks.position_TMKX.reshape(-1, len(tracks.coordinates))
    points = points[~np.isnan(points).any(-1)]
    if not len(points):
        return (10.0,) * len(tracks.coordinates)
    return tuple(
        max(10.0, math.ceil(float(edge) / 10) * 10) for edge in np.quantile(points, 0.9999, axis=0)
    )


def schema_of(tracks: Tracks, *, fps: float, extents: Iterable[tuple[float, ...]]) -> Schema:
    """The schema of a store for recordings with these names.

    Args:
        tracks: Any of them; it may have no frames.
        fps: The store's rate.
        extents: Of each recording (:func:`extent_px`); the store's image holds them all.
    """
    image = tuple(np.max(np.array(list(extents), float), axis=0).tolist())
    schema = Schema.from_names(
        animals=tracks.animals, keypoints=tracks.keypoints, fps=fps, image_px=image[:2]
    )
    if tracks.coordinates != ("x", "y"):
        schema = replace(schema, coordinates=tracks.coordinates, image_px=image)
    return replace(
        schema,
        edges=tracks.edges or schema.edges,
        mirror_pairs=schema.mirror_pairs if tracks.mirror_pairs is None else tracks.mirror_pairs,
        axis=tracks.axis or schema.axis,
    )
