"""Six people who watch the same mice and write down different things.

They share the hidden truth and differ only in the habits of annotators.yaml, which are invented
(what separates the real annotators was not published) but of a size that moves frames as much as
theirs do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from pretrain.arena.paths import Series, smooth
from pretrain.arena.timeline import Action, Random, Timeline
from pretrain.readers.calms21.expected_counts import CLASSES

_ATTACK, _INVESTIGATION, _MOUNT, _OTHER = range(4)


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """Habits of one annotator; lengths and delays in frames."""

    begins: float = 0.0
    """How late the first frame of a bout is noted (negative: early)."""
    ends: float = 0.0
    """How late its end is noted."""
    jitter: float = 2.5
    """Standard deviation of each boundary."""
    min_bout: int = 1
    """Shorter bouts are passed over."""
    merge_gap: int = 0
    """Up to this length, other between two bouts of one class is not noticed."""
    reach_px: float = np.inf
    """Investigation only while the resident's nose is this near to the intruder."""
    greet_px: float = 0.0
    """Other becomes investigation while it is this near."""
    chase_is_attack: bool = False
    attempt_is_mount: bool = False
    late_frames: int = 0
    """First frames of an attack or mount that are still called investigation."""


_HABITS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
ANNOTATORS = {name: Annotator(**habits) for name, habits in _HABITS.items()}
"""By name: "0" of Task 1, "1" to "5" of Task 2."""


def annotate(
    rng: Random, habits: Annotator, truth: Timeline, reach_T: Series
) -> npt.NDArray[np.int8]:
    """What an annotator of these habits writes down: (T,) indices into ``CLASSES``. ``reach_T``
    leads from the resident's nose to the nearest point of the intruder (px)."""
    seen_T = truth.class_T.copy()
    if habits.chase_is_attack:
        seen_T[truth.action_T == Action.CHASE] = _ATTACK
    if habits.attempt_is_mount:
        seen_T[truth.action_T == Action.MOUNT_ATTEMPT] = _MOUNT
    near_T = smooth(reach_T, 9)
    seen_T[(seen_T == _INVESTIGATION) & (near_T > habits.reach_px)] = _OTHER
    seen_T[(seen_T == _OTHER) & (near_T < habits.greet_px)] = _INVESTIGATION
    if habits.late_frames:
        starts, ends, classes = runs(seen_T)
        for start, end, seen in zip(starts, ends, classes, strict=True):
            if seen in (_ATTACK, _MOUNT):
                seen_T[start : min(end, start + habits.late_frames)] = _INVESTIGATION
    return _tidied(_noted(rng, habits, seen_T), habits)


def annotate_behaviour(rng: Random, shown_T: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Task 3: 0 other, 1 the behaviour, with annotator 0's care about boundaries."""
    noted_T = _noted(rng, ANNOTATORS["0"], np.where(shown_T, _ATTACK, _OTHER).astype(np.int8))
    return np.asarray(noted_T == _ATTACK, np.int8)


def runs(
    values_T: npt.NDArray[np.int8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Stretches of equal values: first frames, ends (exclusive) and values."""
    starts = np.flatnonzero(np.diff(values_T, prepend=values_T[:1] - 1))
    return starts, np.append(starts[1:], len(values_T)).astype(np.int64), values_T[starts]


def _noted(rng: Random, habits: Annotator, seen_T: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Moves every boundary by habit and by chance; a bout that begins after its end is lost."""
    frames = len(seen_T)
    starts, ends, classes = runs(seen_T)
    social = classes != _OTHER
    # A bout that hands over to another is ended by the other's beginning.
    # Mostly right, now and then far off: as wide as a normal deviate, with longer tails.
    spread = habits.jitter / np.sqrt(2)
    begin = starts + habits.begins + rng.laplace(0, spread, len(starts))
    end = ends + habits.ends + rng.laplace(0, spread, len(starts))
    handed = np.append(social[:-1] & social[1:], False)
    end[:-1] = np.where(handed[:-1], begin[1:], end[:-1])
    begin[starts == 0], end[ends == frames] = 0, frames
    noted_T = np.full(frames, _OTHER, np.int8)
    for first, last, seen in zip(
        np.rint(begin[social]), np.rint(end[social]), classes[social], strict=True
    ):
        noted_T[max(int(first), 0) : max(int(last), 0)] = seen
    return noted_T


def _tidied(noted_T: npt.NDArray[np.int8], habits: Annotator) -> npt.NDArray[np.int8]:
    """Closes short gaps, then passes over bouts that are still too short."""
    if habits.merge_gap:
        starts, ends, classes = runs(noted_T)
        for run in range(1, len(starts) - 1):
            if (
                classes[run] == _OTHER
                and ends[run] - starts[run] <= habits.merge_gap
                and classes[run - 1] == classes[run + 1]
            ):
                noted_T[starts[run] : ends[run]] = classes[run - 1]
    if habits.min_bout > 1:
        starts, ends, classes = runs(noted_T)
        for first, last, label in zip(starts, ends, classes, strict=True):
            if label != _OTHER and last - first < habits.min_bout:
                # Within a longer interaction the bout before goes on; else nothing happened.
                noted_T[first:last] = (
                    noted_T[first - 1] if first and noted_T[first - 1] != _OTHER else _OTHER
                )
    return noted_T


assert CLASSES == ("attack", "investigation", "mount", "other")
