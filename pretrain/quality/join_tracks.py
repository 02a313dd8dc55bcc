"""Pieces of tracks joined into as many animals as there are.

A tracker that loses an animal gives it a new track when it finds it again; a recording of two mice
may hold twelve tracks. From frame to frame, each track that appears goes on with the animal, of
those that are not seen just then, that was last seen nearest to it (all that appear in one frame
together, by the Hungarian method); a track that pauses goes on with the animal it was. That
identities are right after a gap is no more than likely: ``ethoray prepare check`` looks for swaps.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pretrain.readers.tracks import Tracks, no_frames

_log = logging.getLogger(__name__)
_NEVER_SEEN_PX = 1e9  # an animal that was seen before is taken first


def warn_of_pieces(tracks: Tracks) -> None:
    """Tells of a recording that has more tracks than animals at once."""
    count, at_once = len(tracks.animals), int(_seen(tracks).sum(1).max(initial=0))
    if 0 < at_once < count:
        _log.warning(
            "%s: %d tracks, at most %d at once: if they are pieces of tracks, --join-tracks %d "
            "joins them",
            tracks.path,
            count,
            at_once,
            at_once,
        )


def joined(tracks: Tracks, animals: int) -> Tracks:
    """The recording with so many animals, ``animal1`` and on.

    Where more are seen at once, the tracks that are seen longest are kept; the log says how many
    joins were made and how much was left out. A recording without frames gets the names.
    """
    names = tuple(f"animal{m + 1}" for m in range(animals))
    if not tracks.frames:
        points = no_frames(animals, len(tracks.keypoints), len(tracks.coordinates))
        return replace(tracks, animals=names, position_TMKX=points[0], confidence_TMK=points[1])
    seen = _seen(tracks)
    longest = np.argsort(-seen.sum(0), kind="stable")
    kept = np.zeros_like(seen)
    kept[:, longest] = seen[:, longest] & (seen[:, longest].cumsum(1) <= animals)
    if len(tracks.animals) <= animals:
        track_TM = np.where(kept, np.arange(len(tracks.animals)), -1)
        track_TM = np.pad(track_TM, ((0, 0), (0, animals - kept.shape[1])), constant_values=-1)
    else:
        with np.errstate(invalid="ignore"):
            points = np.nan_to_num(tracks.position_TMKX).sum(2)
            centre_TMX = points / (tracks.confidence_TMK > 0).sum(2)[..., None]
        track_TM, joins = _assigned(kept, centre_TMX, animals)
        lost = 1 - kept.sum() / max(1, seen.sum())
        _log.warning(
            "%s: %d tracks joined into %d animals by %d joins%s",
            *(tracks.path, len(tracks.animals), animals, joins),
            f"; {lost:.1%} of what was tracked is left out: more were seen at once" if lost else "",
        )
    frame, empty = np.arange(tracks.frames)[:, None], (track_TM < 0)[..., None]
    position, confidence = tracks.position_TMKX[frame, track_TM], tracks.confidence_TMK
    return replace(
        tracks,
        animals=names,
        position_TMKX=np.where(empty[..., None], np.float32(np.nan), position),
        confidence_TMK=np.where(empty, np.float32(0), confidence[frame, track_TM]),
    )


def _seen(tracks: Tracks) -> npt.NDArray[np.bool_]:
    return np.asarray((tracks.confidence_TMK > 0).any(2))


def _assigned(
    seen: npt.NDArray[np.bool_], centre_TMX: npt.NDArray[np.floating], animals: int
) -> tuple[npt.NDArray[np.intp], int]:
    """The track (T, animals) that each animal has, -1 where it is not seen; and the joins made.
    Never are more tracks seen than there are animals."""
    edges = np.diff(np.pad(seen.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    track_TM = np.full((len(seen), animals), -1)
    last_track, last_seen = np.full(animals, -1), np.full(animals, -1)
    stops, joins = [np.flatnonzero(column == -1) for column in edges.T], 0
    for start in np.flatnonzero((edges == 1).any(1)):
        starting = np.flatnonzero(edges[start] == 1)
        free = np.flatnonzero(last_seen < start)
        steps = centre_TMX[start, starting, None] - centre_TMX[last_seen[free], last_track[free]]
        costs = np.linalg.norm(steps, axis=-1)
        costs[:, last_track[free] < 0] = _NEVER_SEEN_PX
        costs[starting[:, None] == last_track[free]] = 0
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            track, animal = starting[row], free[column]
            stop = stops[track][np.searchsorted(stops[track], start, side="right")]
            joins += int(last_track[animal] not in (-1, track))
            track_TM[start:stop, animal] = track
            last_track[animal], last_seen[animal] = track, stop - 1
    return track_TM, joins
