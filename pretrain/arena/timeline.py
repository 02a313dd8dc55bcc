"""Who does what when in the arena: the hidden behaviour of every frame.

A semi-Markov process draws bouts of Task 1's four classes with the real lengths and transitions.
Finer actions are then put into the bouts where they belong, each until its share of the recording
is reached: an approach ends at an investigation, a chase ends in an attack, a mount attempt follows
sniffing at the rear, intromission is the later part of a mount. The intruder's rearing is
independent of all this. So the actions of Task 3 are seen in every recording, whether or not it is
labelled for them.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pretrain.arena.statistics import BOUT_FRAMES, QUANTILES, TRANSITIONS
from pretrain.readers.calms21.expected_counts import CLASSES, NEW_BEHAVIORS


class Action(IntEnum):
    """What the resident may be doing; the intruder's rearing is apart from it."""

    EXPLORE = 0
    GROOM = 1
    APPROACH = 2
    DISENGAGED = 3
    SNIFF_FACE = 4
    SNIFF_BODY = 5
    SNIFF_REAR = 6
    CHASE = 7
    ATTACK = 8
    MOUNT_ATTEMPT = 9
    MOUNT = 10
    INTROMISSION = 11


ACTIONS = tuple(action.name.lower() for action in Action)

USUAL_SHARE = {
    "approach": 0.03,
    "disengaged": 0.013,
    "groom": 0.06,
    "mount_attempt": 0.006,
    "sniff_face": 0.055,
    "whiterearing": 0.09,
}
"""Share of frames of an action where a recording was not chosen for it; intromission takes
``INTROMISSION_OF_MOUNT`` of mounting."""

INTROMISSION_OF_MOUNT = 0.55
CUT_FROM_FRAMES = 9_000
"""A shorter recording is cut out of a session of this length, where it shows what it is for."""
LACKING_COST = 50.0
"""Of a cut that lacks an action: more than all else together."""
MAX_SESSIONS = 12
"""Searched for such a cut."""

Frames = npt.NDArray[np.int64]
Random = np.random.Generator


@dataclass(frozen=True)
class Timeline:
    """The truth about a recording, frame by frame."""

    class_T: npt.NDArray[np.int8]
    """Task 1's class, an index into ``CLASSES``, before any annotator's habits."""
    action_T: npt.NDArray[np.int8]
    """The resident's action, an index into ``ACTIONS``."""
    rears_T: npt.NDArray[np.bool_]
    """Whether the intruder rears."""

    def shows(self, behaviour: str) -> npt.NDArray[np.bool_]:
        """Frames of one of Task 3's behaviours (or any other action), (T,)."""
        if behaviour == "whiterearing":
            return self.rears_T
        out: npt.NDArray[np.bool_] = self.action_T == ACTIONS.index(behaviour)
        return out


def draw_timeline(
    rng: Random,
    frames: int,
    *,
    split: str,
    attack: float,
    mount: float,
    behaviour: str = "",
    behaviour_share: float = 0.0,
) -> Timeline:
    """Draws the hidden behaviour of a recording, with the bout lengths and transitions of train or
    test. ``attack`` and ``mount`` are shares of frames, 0 where these animals never do it;
    ``behaviour`` is what the recording was chosen for in Task 3, if any, and its share of
    frames."""
    shares = USUAL_SHARE | {"intromission": INTROMISSION_OF_MOUNT * mount}
    shares = {action: share * float(rng.lognormal(-0.03, 0.25)) for action, share in shares.items()}
    if behaviour:
        shares[behaviour] = behaviour_share
    session = max(frames, CUT_FROM_FRAMES)
    for _ in range(MAX_SESSIONS):
        bout_class, starts = _bouts(rng, session, split=split, attack=attack, mount=mount)
        whole = _assign_actions(rng, bout_class, starts, session, shares)
        if session == frames:
            return whole
        if behaviour:
            needed = [(whole.shows(behaviour), behaviour_share, 14)]
        else:
            # Every annotator must see it, also one who is late and passes over short bouts.
            usual = ((0, attack, 45), (1, 0.25, 70), (2, mount, 45), (3, 0.55, 60))
            needed = [
                (whole.class_T == index, share, least) for index, share, least in usual if share > 0
            ]
        cut, shows_all = _best_cut(rng, needed, session, frames)
        if shows_all:
            break
    return Timeline(whole.class_T[cut], whole.action_T[cut], whole.rears_T[cut])


def draw_lengths(rng: Random, quantiles: list[float], count: int) -> npt.NDArray[np.float64]:
    """Lengths with these quantiles: straight lines between them on a logarithmic
    scale."""
    return np.exp(np.interp(rng.random(count), QUANTILES, np.log(quantiles)))


@lru_cache(maxsize=4096)
def transition_rows(split: str, attack: float, mount: float) -> tuple[tuple[float, ...], ...]:
    """Cumulated transition probabilities with which attack and mount take these shares of time.

    The real counts hold for all recordings together; a single recording has its own temper. The
    columns of attack and mount are scaled until the stationary shares of the semi-Markov process
    are right.
    """
    grid = np.linspace(0.0005, 0.9995, 2000)
    logs = [np.interp(grid, QUANTILES, np.log(BOUT_FRAMES[split][name])) for name in CLASSES]
    mean = np.exp(logs).mean(1)
    counts = np.array(TRANSITIONS[split], np.float64)
    scale, target = np.ones(4), np.array([attack, 0.0, mount, 0.0])
    for _ in range(60):
        rows = counts * np.where(target > 0, scale, [0, 1, 0, 1])
        rows /= rows.sum(1, keepdims=True)
        visits = np.linalg.lstsq(
            np.vstack([rows.T - np.eye(4), np.ones(4)]), np.array([0, 0, 0, 0, 1.0]), rcond=None
        )[0]
        share = visits * mean / (visits @ mean)
        scale = np.where(
            target > 0, np.clip(scale * (target / np.maximum(share, 1e-9)) ** 0.7, 1e-6, 1e6), scale
        )
    return tuple(tuple(row) for row in rows.cumsum(1).tolist())


def _bouts(
    rng: Random, frames: int, *, split: str, attack: float, mount: float
) -> tuple[Frames, Frames]:
    """Class and first frame of each bout; every recording begins with other."""
    rows = transition_rows(split, round(attack, 4), round(mount, 4))
    count = frames // 25 + 50
    lengths = {
        index: iter(draw_lengths(rng, BOUT_FRAMES[split][name], count).tolist())
        for index, name in enumerate(CLASSES)
    }
    chance = iter(rng.random(4 * count).tolist())
    current, frame = CLASSES.index("other"), 0
    classes, starts = [], []
    while frame < frames:
        classes.append(current)
        starts.append(frame)
        frame += max(1, round(next(lengths[current], 30.0)))
        current = min(bisect(rows[current], next(chance)), 3)
    return np.array(classes), np.array(starts)


def _assign_actions(
    rng: Random, bout_class: Frames, starts: Frames, frames: int, shares: dict[str, float]
) -> Timeline:
    ends = np.append(starts[1:], frames)
    length = ends - starts
    class_T = np.repeat(bout_class, length).astype(np.int8)
    action_T = np.array([Action.ATTACK, Action.SNIFF_BODY, Action.MOUNT, Action.EXPLORE], np.int8)[
        class_T
    ]
    investigation, mount, other = (bout_class == index for index in (1, 2, 3))
    before = np.append(-1, bout_class[:-1])
    after = np.append(bout_class[1:], -1)
    to_attack, to_mount = after == 0, after == 2

    def assign(action: int, start: Frames, size: Frames, share: float) -> None:
        """Gives an action to stretches in random order until it has its share of all frames."""
        fits = np.flatnonzero(size >= 4)
        fits = rng.permutation(fits)
        # The last one is taken whole with the chance that makes the expected share right.
        before_it = np.cumsum(size[fits]) - size[fits]
        for index in fits[before_it + size[fits] * rng.random() < share * frames]:
            action_T[start[index] : start[index] + size[index]] = action

    def uniform(low: float, high: float) -> Frames:
        return np.rint(rng.uniform(low, high, len(starts))).astype(np.int64)

    piece_start, piece_size = _pieces(rng, class_T == 1, starts[investigation], frames)
    at_rear = rng.random(len(piece_start)) < 0.42
    for first, size in zip(piece_start[at_rear], piece_size[at_rear], strict=True):
        action_T[first : first + size] = Action.SNIFF_REAR
    assign(Action.SNIFF_FACE, piece_start[~at_rear], piece_size[~at_rear], shares["sniff_face"])
    # Courting goes along the rear; a fight is led up to by a run after the other.
    courting = np.where(investigation & to_mount, np.minimum(length, uniform(20, 90)), 0)
    assign(Action.SNIFF_REAR, ends - courting, courting, 1.0)
    attempt = np.where(investigation & (length >= 28), uniform(10, 26), 0)
    assign(Action.MOUNT_ATTEMPT, ends - attempt, attempt, shares["mount_attempt"])
    chance = rng.random(len(starts))
    chase = np.where(
        (to_attack & (chance < 0.65)) | (investigation & (chance < 0.04)),
        np.minimum(uniform(8, 40), length // 2),
        0,
    )
    assign(Action.CHASE, ends - chase, chase, 1.0)
    inside = np.where(mount, np.maximum(length - uniform(10, 40), 0), 0)
    assign(Action.INTROMISSION, ends - inside, inside, shares["intromission"])

    approach = np.where(
        other & (after == 1) & (length >= 30), np.minimum(uniform(15, 45), length - 12), 0
    )
    leaving = np.where(
        other & (before >= 0) & (length >= 20), np.minimum(uniform(10, 32), length - 8), 0
    )
    middle = np.where(other, length - approach - leaving, 0)
    groom = np.where(
        middle > 50,
        np.minimum(rng.lognormal(4.5, 0.6, len(starts)).astype(np.int64), middle - 10),
        0,
    )
    assign(
        Action.GROOM,
        starts + leaving + ((middle - groom) * rng.random(len(starts))).astype(np.int64),
        groom,
        shares["groom"],
    )
    assign(Action.APPROACH, ends - approach, approach, shares["approach"])
    assign(Action.DISENGAGED, starts, leaving, shares["disengaged"])
    return Timeline(class_T, action_T, _rearing(rng, action_T, shares["whiterearing"]))


def _pieces(
    rng: Random, where_T: npt.NDArray[np.bool_], starts: Frames, frames: int
) -> tuple[Frames, Frames]:
    """Cuts stretches into pieces of one to a few seconds; returns first frame and length of
    each."""
    cuts = np.cumsum(np.maximum(rng.lognormal(4.2, 0.6, frames // 20 + 20), 6)).astype(np.int64)
    leaving = np.flatnonzero(where_T[:-1] & ~where_T[1:]) + 1
    cuts = np.unique(np.concatenate([cuts[cuts < frames], starts, leaving, [frames]]))
    first, size = cuts[:-1], np.diff(cuts)
    inside = where_T[first]
    return first[inside], size[inside]


def _rearing(rng: Random, action_T: npt.NDArray[np.int8], share: float) -> npt.NDArray[np.bool_]:
    """Rearing takes turns with standing on all fours; nobody rears while mounted, chased or
    bitten."""
    free = action_T < Action.CHASE
    inside = min(share * len(action_T) / max(int(free.sum()), 1), 0.6)
    up = np.maximum(rng.lognormal(3.4, 0.5, len(action_T) // 20 + 20), 6)
    down = rng.exponential(up.mean() * (1 - inside) / max(inside, 1e-3), len(up))
    turns = np.rint(np.stack([down, up], 1)).astype(np.int64).ravel()
    turns[0] = int(turns[0] * rng.random())
    until = np.cumsum(turns)
    needed = int(np.searchsorted(until, len(action_T))) + 1
    rears = np.repeat(np.arange(needed) % 2 == 1, turns[:needed])
    return np.resize(rears, len(action_T)) & free


def _best_cut(
    rng: Random, needed: list[tuple[npt.NDArray[np.bool_], float, int]], session: int, frames: int
) -> tuple[slice, bool]:
    """Where to cut a short recording of so many frames out of a session, so that each needed action
    is in it, once and better twice, at about its share.

    ``needed`` holds for each action the frames (T,) that show it, its share of frames, and how many
    frames one bout of it must have within the cut.

    Returns:
        The cut, and whether it holds every action long enough.
    """
    first = np.arange(0, session - frames + 1, 5)
    cost = 0.3 * np.abs(rng.standard_normal(len(first)))
    for shown_T, share, least in needed:
        count = np.concatenate([[0], np.cumsum(shown_T)])
        shown = count[first + frames] - count[first]
        cost += np.abs(np.log((shown + 1) / (share * frames + 1)))
        # A stretch of the action that is long enough ends where its last frames all show it.
        whole = np.concatenate([np.zeros(least), count[least:] - count[:-least] == least]).astype(
            np.int64
        )
        last = np.cumsum(whole)
        ends = last[first + frames] - last[np.minimum(first + least - 1, session)]
        cost += np.where(ends < 1, LACKING_COST, 0.0)
        begins = np.cumsum(shown_T & ~np.concatenate([[False], shown_T[:-1]]))
        cost += np.where(begins[first + frames - 1] - begins[first] + shown_T[first] < 2, 0.7, 0.0)
    best = int(np.argmin(cost))
    return slice(int(first[best]), int(first[best]) + frames), bool(cost[best] < LACKING_COST)


assert set(USUAL_SHARE) | {"intromission"} == set(NEW_BEHAVIORS)
