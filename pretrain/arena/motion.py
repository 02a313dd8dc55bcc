"""How the simulated mice move: from actions to two positions and headings a frame, and from those
to keypoints.

Points of the plane are complex numbers, x + iy in pixels (y down), and a heading is a number of
length one, so that turning is multiplication. Each animal has a free path through the cage, walked
at a pace that its action sets. During contact the resident leaves its own path for a position
relative to the intruder that belongs to the action (nose at the rear, on top, ...); before and
after it travels between the two. No frame is computed from the one before it except inside filters,
so all of it is array arithmetic over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from pretrain.arena.paths import (
    Points,
    Series,
    free_path,
    heading,
    push_apart,
    rhythm,
    shake,
    smooth,
    turned,
    unit,
    wander,
)
from pretrain.arena.statistics import SHAPE_PX
from pretrain.arena.timeline import Action, Random, Timeline

RESIDENT, INTRUDER = 0, 1
PACE_PX = np.array([1.8, 2.0], np.float32)
"""Pace of resident and intruder, px a frame in the animal's own time."""
_ROWS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
TABLE = {name: np.array(of_actions, np.float32) for name, of_actions in _ROWS.items()}
"""What each action looks like: parameter to its value for each of ``Action``."""
NECK, NOSE = 0.21, 0.68
"""Places along the body ahead of its middle, in lengths from neck to tail base."""


@dataclass(frozen=True)
class Scene:
    """Two animals without a camera or a tracker."""

    keypoint_TMK: Points
    """True positions (px)."""
    reach_T: Series
    """From the resident's nose to the nearest point of the intruder (px)."""


def draw_scene(rng: Random, truth: Timeline) -> Scene:
    """Moves two mice as their actions demand."""
    frames, action_T = len(truth.action_T), truth.action_T
    pace = rng.lognormal(0.0, 0.22, 2).astype(np.float32) * PACE_PX
    length = np.abs([SHAPE_PX["resident"][-1], SHAPE_PX["intruder"][-1]]) * rng.lognormal(
        0.0, 0.07, 2
    )
    size = length.astype(np.float32)
    turn_T, turns = _turns(rng, action_T)
    vigour_T = smooth(rng.lognormal(-0.1, 0.5, turns).astype(np.float32)[turn_T], 7)

    def level(name: str) -> Series:
        return smooth(TABLE[name][action_T], 7)

    rears_T = smooth(truth.rears_T.astype(np.float32), 9)
    body_TM = _body_lengths(rng, size, level("stretch"), level("other_stretch"), rears_T)

    other_pace_T = (
        level("other_pace")
        * (1 - np.float32(0.93) * rears_T)
        * np.where(action_T >= Action.CHASE, vigour_T, np.float32(1))
    )
    other_T = free_path(rng, other_pace_T * pace[INTRUDER]) + level(
        "other_jerk"
    ) * vigour_T * shake(rng, frames)
    other_way_T = heading(other_T)
    other_facing_T = other_way_T * turned(
        level("other_twist") * vigour_T * wander(rng, frames, 5) + 0.18 * wander(rng, frames, 40)
    )

    # The resident keeps to the other's side, but it does not swing round with its every turn.
    steady_T = unit(smooth(smooth(other_way_T, 51), 35))
    nose_T, facing_T = _contact_position(rng, action_T, turn_T, other_T, steady_T, size[INTRUDER])
    thrust_T = level("thrust") * vigour_T * rhythm(rng, turn_T, turns, TABLE["thrust_hz"][action_T])
    contact_T = nose_T - facing_T * (np.float32(NOSE) * size[RESIDENT] - thrust_T)
    contact_T = other_T + push_apart(contact_T - other_T, level("apart"))
    free_T = free_path(rng, level("pace") * pace[RESIDENT])
    # Without business with each other they keep their distance.
    free_T += smooth(
        smooth(push_apart(free_T - other_T, np.float32(230)) - (free_T - other_T), 41), 31
    )
    joined_T = _joined(rng, action_T, np.abs(free_T - other_T))
    middle_T: Points = smooth(free_T + joined_T * (contact_T - free_T), 5).astype(
        np.complex64, copy=False
    )
    there_T = np.clip((joined_T - np.float32(0.8)) / np.float32(0.2), 0, 1)
    facing_T = unit(smooth(heading(middle_T) * (1 - there_T) + facing_T * there_T, 5))
    facing_T *= turned(
        level("twist") * vigour_T * wander(rng, frames, 5) + 0.15 * wander(rng, frames, 40)
    )
    middle_T += level("jerk") * vigour_T * shake(rng, frames)

    bob_T = (
        level("bob") / np.float32(40) * rhythm(rng, turn_T, turns, np.full(frames, 4.5, np.float32))
    )
    head_T = level("head") * wander(rng, frames, 9) + bob_T
    other_head_T = np.float32(0.6) * wander(rng, frames, 12)
    resident = _keypoints(rng, "resident", middle_T, facing_T, body_TM[:, RESIDENT], head_T)
    intruder = _keypoints(
        rng, "intruder", other_T, other_facing_T, body_TM[:, INTRUDER], other_head_T
    )
    reach_T = np.abs(resident[:, :1] - intruder).min(1)
    return Scene(np.stack([resident, intruder], axis=1), reach_T)


def _turns(rng: Random, action_T: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.int64], int]:
    """Which turn at its action each frame belongs to: a new action, or a new position within it."""
    begins = rng.random(len(action_T), dtype=np.float32) < 1 / TABLE["hold"][action_T]
    begins[0] = True
    begins[1:] |= action_T[1:] != action_T[:-1]
    turn_T = np.cumsum(begins) - 1
    return turn_T, int(turn_T[-1]) + 1


def _body_lengths(
    rng: Random, length: Series, stretch_T: Series, other_stretch_T: Series, rears_T: Series
) -> Series:
    """Length from neck to tail base (px), (T, M): the animal's own, its action, and slow changes of
    posture."""
    posture = np.minimum(
        wander(rng, len(stretch_T), 70, channels=2), 1.8
    )  # there is an end to stretching
    resident = 1.05 * stretch_T * np.exp(0.17 * posture[0])
    # Seen from above a rearing mouse is short. The white mouse is also tracked with less certainty
    # about its length.
    intruder = (
        1.09
        * other_stretch_T
        * np.exp(0.2 * posture[1] - 0.22 * np.minimum(posture[1], 0) ** 2)
        * (1 - 0.42 * rears_T)
    )
    return np.stack([resident * length[0], intruder * length[1]], axis=1).astype(np.float32)


def _contact_position(
    rng: Random,
    action_T: npt.NDArray[np.int8],
    turn_T: npt.NDArray[np.int64],
    other_T: Points,
    other_heading_T: Points,
    length: np.float32,
) -> tuple[Points, Points]:
    """The resident's nose and heading where its action puts it, next to an intruder of that
    length."""
    begins = np.flatnonzero(np.diff(turn_T, prepend=-1))
    of_turn, turns = action_T[begins], len(begins)
    along = TABLE["along"][of_turn] + TABLE["along_sd"][of_turn] * rng.standard_normal(turns)
    aside = TABLE["aside"][of_turn] + TABLE["aside_sd"][of_turn] * rng.standard_normal(turns)
    aside *= np.where(rng.random(turns) < 0.5, -1, 1)
    angle = TABLE["turned"][of_turn] + TABLE["turned_sd"][of_turn] * rng.standard_normal(turns)
    angle *= -np.sign(aside)  # from the left it looks to the right: its body stays outside
    angle += np.pi * (rng.random(turns) < TABLE["reversed_share"][of_turn])
    offset = along + 1j * aside
    away = of_turn == Action.DISENGAGED
    out = np.exp(2j * np.pi * rng.random(turns))
    offset = np.where(away, out * rng.uniform(1.2, 2.1, turns), offset)
    angle = np.where(away, np.angle(out) + 0.6 * rng.standard_normal(turns), angle)
    spin = np.where(of_turn == Action.ATTACK, 0.05 * rng.standard_normal(turns), 0)
    since_T = np.arange(len(action_T)) - begins[turn_T]
    # A fight changes in a blink; otherwise a new position takes half a second.
    quick_T = smooth(TABLE["quick"][action_T], 9)

    def reached(values_T: Points) -> Points:
        return quick_T * smooth(values_T, 9) + (1 - quick_T) * smooth(smooth(values_T, 15), 11)

    offset_T = reached(offset.astype(np.complex64)[turn_T])
    heading_T = turned((angle[turn_T] + spin[turn_T] * since_T).astype(np.float32))
    heading_T = unit(reached(heading_T) + np.complex64(1e-4))
    x, y = wander(rng, len(action_T), 30, channels=2)
    nose_T = (
        other_T
        + other_heading_T * (offset_T + np.complex64(0.05) * (x + np.complex64(1j) * y)) * length
    )
    return nose_T, other_heading_T * heading_T


def _joined(rng: Random, action_T: npt.NDArray[np.int8], apart_T: Series) -> Series:
    """How far the resident has gone over from its own path (0) to the contact (1).

    Between two contacts it leaves and comes back; how far it gets depends on its speed, the
    distance and the time.
    """
    frames = len(action_T)
    contact = action_T > Action.APPROACH  # its position follows from the intruder's
    edges = np.flatnonzero(np.diff(contact, prepend=True, append=True))
    if not len(edges):
        return np.ones(frames, np.float32)
    start, end = edges[::2], edges[1::2]
    first, last = start == 0, end == frames
    middle = apart_T[(start + end - 1) // 2] + 1.0
    size = (end - start).astype(np.float64)
    leave = middle / rng.lognormal(2.5, 0.45, len(start))
    comes = middle / rng.lognormal(2.1, 0.5, len(start))
    # An approach is as long as it is labelled: count the frames of it that end this gap.
    running = np.concatenate([[0], np.cumsum(action_T == Action.APPROACH)])
    approach = running[end] - running[start]
    comes = np.where(approach > 0, approach, comes)
    leave, comes = np.where(first, 0, leave), np.where(last, 0, comes)
    depth = np.minimum(1.0, size / np.maximum(leave + comes, 1e-6))
    scale = np.where(approach > 0, 1.0, depth)
    comes = np.minimum(comes * scale, size)
    leave = np.minimum(leave * depth, size - comes)
    low = 1 - depth
    at = np.stack([start, start + leave, end - comes, end - 1e-3 * (end < frames)], axis=1)
    values = np.stack([np.where(first, low, 1.0), low, low, np.where(last, low, 1.0)], axis=1)
    joined_T = np.interp(np.arange(frames), at.ravel(), values.ravel(), left=1.0, right=1.0)
    joined_T[contact] = 1.0
    eased = joined_T * joined_T * (3 - 2 * joined_T)
    return smooth(eased.astype(np.float32), 7)


def _keypoints(
    rng: Random, animal: str, middle_T: Points, heading_T: Points, length_T: Series, head_T: Series
) -> Points:
    """Seven points (T, K) of a body: longer bodies are narrower, the head turns at the neck, the
    trunk bends."""
    shape = np.array(SHAPE_PX[animal], np.complex64)
    shape[0] /= 0.93  # turning the head takes that much off the nose's mean position
    usual = np.float32(abs(shape[-1]))
    longer_T = length_T / usual
    wider_T = rng.normal(1.0, 0.05) * longer_T ** np.float32(-0.25)
    bend_T = 9.0 * wander(rng, len(middle_T), 25) + 5.0 * head_T
    # Foreshortening actions on the head only in part; the ears follow the nose half way.
    along = np.stack([np.sqrt(longer_T)] * 4 + [longer_T] * 3)
    own = (shape.real[:, None] * along + 1j * shape.imag[:, None] * wider_T).astype(np.complex64)
    own[0] *= turned(head_T)
    own[1:3] *= turned(0.45 * head_T)
    own[4:6] += (1j * bend_T).astype(np.complex64)
    neck_T = middle_T + heading_T * (np.float32(NECK) * length_T)
    return np.ascontiguousarray((neck_T + heading_T * own).T)
