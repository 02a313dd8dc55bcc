"""What each action of the simulated mice looks like: the parameters that ``motion.py`` turns into
movement."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pretrain.arena.timeline import ACTIONS


class MotionParameters(NamedTuple):
    """Of one action. The resident's nose is in body lengths of the intruder, from its middle."""

    pace: float = 1.0
    """Resident's pace on its own path, in its usual one."""
    other_pace: float = 1.0
    """The intruder's."""
    along: float = 0.0
    """Resident's nose along the intruder's axis: +0.7 its nose, -0.8 its tail base."""
    along_sd: float = 0.0
    aside: float = 0.0
    """To the left or right of that axis, with equal chance."""
    aside_sd: float = 0.0
    turned: float = 0.0
    """Resident's heading against the intruder's (rad)."""
    turned_sd: float = 0.5
    reversed_share: float = 0.0
    """How often it stands the other way round."""
    hold: float = 30.0
    """Frames until a new position is taken."""
    jerk: float = 0.5
    """Irregular movement of the resident (px)."""
    other_jerk: float = 0.4
    twist: float = 0.03
    """Irregular turning of the resident (rad)."""
    other_twist: float = 0.03
    head: float = 0.45
    """Turning of the resident's head (rad)."""
    stretch: float = 1.0
    """Its length, in its usual one."""
    other_stretch: float = 1.0
    thrust: float = 0.0
    """Amplitude of rhythmic movement along the body (px)."""
    thrust_hz: float = 3.0
    bob: float = 0.0
    """Amplitude of rhythmic movement of the head (px)."""
    apart: float = 40.0
    """Least distance between the middles of the two (px)."""
    quick: float = 0.0
    """1 where new positions are taken at once."""


PARAMETERS: dict[str, MotionParameters] = {
    "explore": MotionParameters(),
    "groom": MotionParameters(pace=0.03, head=0.5, stretch=0.8, bob=4.0),
    "approach": MotionParameters(pace=1.2, other_pace=0.5, head=0.15, stretch=1.07),
    "disengaged": MotionParameters(other_pace=0.4, turned_sd=0.4, hold=90, head=0.5, stretch=0.95),
    "sniff_face": MotionParameters(
        other_pace=0.4,
        along=0.78,
        along_sd=0.12,
        aside_sd=0.14,
        turned=1.5,
        turned_sd=0.8,
        hold=250,
        jerk=0.8,
        head=0.3,
        apart=50,
    ),
    "sniff_body": MotionParameters(
        other_pace=0.7,
        along=0.4,
        along_sd=0.5,
        aside=0.25,
        aside_sd=0.15,
        turned=1.3,
        turned_sd=0.6,
        reversed_share=0.1,
        hold=200,
        jerk=1.0,
        head=0.4,
        apart=60,
    ),
    "sniff_rear": MotionParameters(
        other_pace=0.9,
        along=-0.85,
        along_sd=0.16,
        aside_sd=0.16,
        turned=1.7,
        turned_sd=0.8,
        hold=250,
        jerk=0.8,
        head=0.35,
        stretch=1.03,
        apart=50,
    ),
    "chase": MotionParameters(
        other_pace=3.2,
        along=-1.15,
        along_sd=0.25,
        aside_sd=0.25,
        turned_sd=0.35,
        hold=20,
        jerk=2.5,
        twist=0.06,
        head=0.25,
        stretch=1.1,
        other_stretch=1.08,
        apart=50,
        quick=1,
    ),
    "attack": MotionParameters(
        other_pace=2.0,
        along=-0.1,
        along_sd=0.5,
        aside_sd=0.35,
        turned_sd=1.6,
        hold=18,
        jerk=3.5,
        other_jerk=3.0,
        twist=0.17,
        other_twist=0.17,
        head=0.5,
        stretch=0.92,
        other_stretch=0.9,
        apart=32,
        quick=1,
    ),
    "mount_attempt": MotionParameters(
        other_pace=0.9,
        along_sd=0.3,
        aside_sd=0.4,
        turned_sd=0.6,
        hold=20,
        jerk=2.0,
        stretch=0.93,
        other_stretch=0.92,
        thrust=1.5,
        thrust_hz=5.0,
        apart=20,
        quick=1,
    ),
    "mount": MotionParameters(
        other_pace=0.6,
        along=0.3,
        along_sd=0.25,
        aside=0.48,
        aside_sd=0.2,
        turned=0.2,
        turned_sd=0.5,
        hold=120,
        jerk=1.5,
        head=0.35,
        stretch=0.94,
        other_stretch=0.9,
        thrust=2.5,
        thrust_hz=4.5,
        apart=10,
    ),
    "intromission": MotionParameters(
        other_pace=0.15,
        along=0.25,
        along_sd=0.2,
        aside=0.35,
        aside_sd=0.2,
        turned=0.1,
        turned_sd=0.35,
        hold=150,
        jerk=1.0,
        head=0.25,
        stretch=0.9,
        other_stretch=0.88,
        thrust=4.5,
        thrust_hz=1.8,
        apart=10,
    ),
}
"""By action. Their ranges overlap on purpose, and each turn at an action has a vigour of its own on
top."""

TABLE = {
    name: np.array([getattr(PARAMETERS[action], name) for action in ACTIONS], np.float32)
    for name in MotionParameters._fields
}
"""Each parameter for all actions, in the order of ``ACTIONS``."""
IN_CONTACT = np.array([action not in ("explore", "groom", "approach") for action in ACTIONS])
"""Whether the resident's position follows from the intruder's."""
assert set(PARAMETERS) == set(ACTIONS)
