"""Curves in time for the simulated mice: noise, rhythm, walks through the cage. Points are complex
numbers, x + iy in pixels."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

from pretrain.arena.timeline import Random

Points = npt.NDArray[np.complex64]
Series = npt.NDArray[np.float32]
A = TypeVar("A", bound=np.generic)

CAGE_PX = (80.0, 944.0, 85.0, 485.0)
"""Where the middle of a mouse may be: left, right, top, bottom."""


def smooth(values: npt.NDArray[A], frames: int) -> npt.NDArray[A]:
    """Running mean over time (first axis), beyond the ends their values."""
    if np.iscomplexobj(values):
        pairs = np.ascontiguousarray(values).view(np.float32).reshape(len(values), 2)
        return np.asarray(
            uniform_filter1d(pairs, frames, axis=0, mode="nearest").reshape(-1).view(values.dtype)
        )
    return np.asarray(uniform_filter1d(values, frames, axis=0, mode="nearest"))


def wander(rng: Random, frames: int, memory: float, channels: int = 0) -> Series:
    """Noise of unit variance that forgets itself in about ``memory`` frames; (T,), or (channels,
    T)."""
    keep = np.float32(np.exp(-1 / memory))
    fresh = rng.standard_normal((max(channels, 1), frames), dtype=np.float32)
    before = rng.standard_normal((len(fresh), 1), dtype=np.float32) * keep
    drawn, _ = lfilter(
        np.array([np.sqrt(1 - keep**2)], np.float32),
        np.array([1, -keep], np.float32),
        fresh,
        zi=before,
    )
    return np.asarray(drawn if channels else drawn[0])


def shake(rng: Random, frames: int) -> Points:
    """Irregular movement that ends where it began, of about one pixel."""
    x, y = wander(rng, frames, 4, channels=2)
    return smooth(x + np.complex64(1j) * y, 3)


def turned(angle: Series) -> Points:
    """Turns by these angles (rad): multiply a heading by them."""
    turns = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=turns.real)
    np.sin(angle, out=turns.imag)
    return turns


def unit(values: Points) -> Points:
    """The same directions with length one."""
    return np.asarray(values / np.maximum(np.abs(values), np.float32(1e-6)), np.complex64)


def rhythm(rng: Random, turn_T: npt.NDArray[np.int64], turns: int, hz_T: Series) -> Series:
    """A sine of unit amplitude whose rate differs from turn to turn."""
    rate = rng.lognormal(0.0, 0.15, turns).astype(np.float32)[turn_T]
    return np.sin(np.cumsum(hz_T * rate) * np.float32(2 * np.pi / 30)).astype(np.float32)


def free_path(rng: Random, pace_T: Series) -> Points:
    """A walk of stops and runs through the cage, mostly along its walls; ``pace_T`` scales its
    speed, 1 = 1 px a frame on average.

    The walk is laid out in its own time and then read at the pace of the moment: at pace 0 the
    animal stands.
    """
    own_T = np.cumsum(pace_T, dtype=np.float64)
    legs = int(own_T[-1] / 45) + 8
    far = rng.random(legs) < 0.3
    left, right, top, bottom = CAGE_PX
    x, y = rng.beta(0.3, 0.3, legs), rng.beta(0.7, 0.7, legs)
    goal = left + (right - left) * x + 1j * (top + (bottom - top) * y)
    near = np.cumsum(rng.lognormal(3.6, 0.7, legs) * np.exp(2j * np.pi * rng.random(legs)))
    # A short leg goes on from the last far goal; the walls fold it back inside.
    last = np.maximum.accumulate(np.where(far, np.arange(legs), 0))
    stop = goal[last] + near - near[last]
    stop = _folded(stop.real, left, right) + 1j * _folded(stop.imag, top, bottom)
    way = np.abs(np.diff(stop, prepend=stop[0]))
    speed = rng.lognormal(1.2, 1.1, legs)
    duration = np.stack([np.maximum(way / speed, 4), rng.lognormal(2.8, 1.3, legs)], axis=1)
    at = np.cumsum(duration.ravel())
    knots = np.repeat(stop, 2)
    if at[-1] < own_T[-1]:
        at *= own_T[-1] / at[-1]
    return smooth(smooth(np.interp(own_T, at, knots).astype(np.complex64), 9), 7)


def _folded(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    width = high - low
    return low + width - np.abs((values - low) % (2 * width) - width)


def heading(path_T: Points) -> Points:
    """Where a moving animal looks: along its way, and while it stands where it looked last."""
    step = 4
    ahead, behind = np.roll(path_T, -step), np.roll(path_T, step)
    ahead[-step:], behind[:step] = path_T[-1], path_T[0]
    way = ahead - behind
    moved = np.abs(way) > 5.0
    last = np.maximum.accumulate(np.where(moved, np.arange(len(way)), -1))
    first = int(np.argmax(moved)) if moved.any() else 0
    facing = unit(way[np.where(last < 0, first, last)] + np.complex64(1e-3))
    return unit(smooth(smooth(facing, 9), 7) + np.complex64(1e-4))


def push_apart(away_T: Points, least: Series | np.float32) -> Points:
    """Two bodies cannot be in one position: lengthens the vectors between them to at least a
    distance, smoothly."""
    far_T = np.abs(away_T) + np.float32(1e-3)
    return np.asarray(away_T * (np.hypot(far_T, least) / far_T), np.complex64)
