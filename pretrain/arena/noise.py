"""What a camera and a pose tracker make of the simulated mice: jitter, jumps, mixed-up animals,
doubt and missing points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretrain.arena.paths import Points, Series, wander
from pretrain.arena.timeline import Random
from pretrain.data.schema import CALMS21, Float

JITTER_PX = 0.95
"""Standard deviation a coordinate in clear view; about 2 px from the true position."""
KEYPOINT_JITTER = (1.25, 0.9, 0.9, 1.0, 1.25, 1.25, 1.1)
"""By keypoint: nose and hips are tracked less surely than ears and neck."""
INTRUDER_JITTER = 1.3
"""The white mouse on light bedding, against the black one."""
JUMPS_PER_POINT = 0.0008
"""Jumps that begin, per point and frame in clear view; twelve times that in close contact."""
SWAPS_PER_CLOSE_FRAME = 0.0008
"""Swaps of the animals that begin, per frame of close contact."""
MISSING = 0.004
"""Share of points lost by default. CalMS21 has none (it gives doubtful ones instead); other
trackers lose up to a third."""
MISSING_FRAMES = 4.0
"""For how long a point is lost, on average."""


def watch(
    rng: Random, keypoint_TMK: Points, *, missing: float = MISSING
) -> tuple[Float, Float, npt.NDArray[np.bool_]]:
    """Films and tracks a scene of true positions (px), of whose points a share is missing.

    Returns:
        Positions (T, M, K, X) in px, NaN where lost; confidence (T, M, K), 0 where lost; frames
        (T,) in which the tracker took each animal for the other.
    """
    frames, animals, keypoints = keypoint_TMK.shape
    width, height = CALMS21.image_px
    centre = np.complex64(width / 2 + 1j * height / 2)
    camera = rng.lognormal(0.0, 0.025) * np.exp(1j * rng.normal(0.0, 0.012))
    shift = centre + np.complex64(rng.normal(0, 8) + 1j * rng.normal(0, 6))
    seen = ((keypoint_TMK - centre) * np.complex64(camera) + shift).reshape(frames, -1)
    close_T = np.exp(
        -((np.abs(keypoint_TMK[:, 0].mean(1) - keypoint_TMK[:, 1].mean(1)) / 85) ** 2)
    ).astype(np.float32)

    quality = JITTER_PX * rng.lognormal(0.0, 0.2)
    usual = (
        np.float32(quality)
        * np.outer([1.0, INTRUDER_JITTER], KEYPOINT_JITTER).astype(np.float32).ravel()
    )
    spread_T = 1 + 1.6 * close_T
    channels = animals * keypoints
    noise = 0.75 * rng.standard_normal((2 * channels, frames), dtype=np.float32) + 0.65 * wander(
        rng, frames, 6, channels=2 * channels
    )
    noise *= np.tile(usual, 2)[:, None] * spread_T
    error = np.empty((frames, channels), np.complex64)
    error.real, error.imag = noise[:channels].T, noise[channels:].T

    _jump(rng, error, seen, close_T)
    tracked = seen + error
    doubt = np.abs(error)
    swapped_T = _swap(rng, tracked, close_T)
    confidence = (
        1 / (1 + (doubt / 11) ** 2) * (1 - 0.12 * close_T[:, None]) * rng.uniform(0.94, 0.99)
    )
    confidence += 0.045 * rng.standard_normal(confidence.shape, dtype=np.float32)
    confidence[swapped_T] *= 0.85
    np.clip(confidence, 0.02, 1.0, out=confidence)

    position = np.empty((frames, channels, 2), np.float32)
    np.clip(tracked.real, 0, width - 1, out=position[..., 0])
    np.clip(tracked.imag, 0, height - 1, out=position[..., 1])
    lost = _lost(rng, confidence, missing)
    position[lost] = np.nan
    confidence[lost] = 0
    shape = (frames, animals, keypoints)
    return (
        position.reshape(*shape, 2),
        confidence.reshape(shape).astype(np.float32, copy=False),
        swapped_T,
    )


def _jump(rng: Random, error: Points, seen: Points, close_T: Series) -> None:
    """Sends single points astray for a few frames: far off, or in contact onto the same part of the
    other animal."""
    frames, channels = error.shape
    chance = 1 + 11 * close_T
    count = rng.poisson(JUMPS_PER_POINT * float(chance.sum()) * channels)
    start = np.searchsorted(np.cumsum(chance), rng.random(count) * float(chance.sum()))
    point = rng.integers(channels, size=count)
    far = rng.normal(0, 28, count) + 1j * rng.normal(0, 28, count)
    onto_other = rng.random(count) < 0.5 * close_T[np.minimum(start, frames - 1)]
    row, event = _spans(start, rng.geometric(0.35, count), frames)
    column = point[event]
    there = seen[row, (column + channels // 2) % channels] - seen[row, column]
    error[row, column] += np.where(
        onto_other[event], rng.uniform(0.5, 1.0, count)[event] * there, far[event]
    )


def _swap(rng: Random, tracked: Points, close_T: Series) -> npt.NDArray[np.bool_]:
    frames, channels = tracked.shape
    near = np.flatnonzero(close_T > 0.3)
    count = rng.poisson(SWAPS_PER_CLOSE_FRAME * len(near))
    swapped_T = np.zeros(frames, np.bool_)
    if count:
        row, _ = _spans(rng.choice(near, count), 2 + rng.geometric(0.12, count), frames)
        swapped_T[row] = True
        tracked[swapped_T] = np.roll(tracked[swapped_T], channels // 2, axis=1)
    return swapped_T


def _lost(rng: Random, confidence: Float, missing: float) -> npt.NDArray[np.bool_]:
    """Which points are lost: the doubtful ones first, for a few frames each."""
    lost = np.zeros(confidence.shape, np.bool_)
    frames, channels = confidence.shape
    doubt = np.cumsum((1.02 - confidence.ravel()) ** 2, dtype=np.float64)
    for _ in range(12):
        # Spans fall on each other: go on until the share is there.
        lacking = missing * lost.size - np.count_nonzero(lost)
        if lacking < 0.01 * missing * lost.size or missing <= 0:
            break
        count = rng.poisson(lacking / MISSING_FRAMES)
        point = np.minimum(np.searchsorted(doubt, rng.random(count) * doubt[-1]), lost.size - 1)
        row, event = _spans(point // channels, rng.geometric(1 / MISSING_FRAMES, count), frames)
        lost[row, (point % channels)[event]] = True
    return lost


def _spans(
    start: npt.NDArray[np.int64], length: npt.NDArray[np.int64], frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every frame of every span, and the span it belongs to; spans end with the recording."""
    length = np.minimum(length, frames - start)
    event = np.repeat(np.arange(len(start)), length)
    offset = np.arange(len(event)) - np.repeat(np.cumsum(length) - length, length)
    return start[event] + offset, event
