"""Where a tracker went wrong: points that jump, and animals that were mistaken for each other. One
pass, in memory that does not grow.

A **jump**: a point that was seen in two neighbouring frames is further apart in them than
``JUMP_BODIES_PER_S`` body lengths a second. A mouse at full run makes about ten; fifteen no mammal
makes.

A **suspected swap**: from one frame to the next, exchanging two animals would at least halve the
distance that their points move (``SWAP_SHARE``) and shorten it by ``SWAP_BODIES`` body lengths a
point on average. A swap for a while is seen twice, when it begins and when it ends. A real scuffle
can look like one, and one that hides in a gap of the track is not seen: look at the frames that are
named.

The body length of an animal is the median over frames of the largest distance between two of its
points.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.schema import Float
from pretrain.data.store import Store

JUMP_BODIES_PER_S = 15.0
SWAP_SHARE = 0.5
SWAP_BODIES = 0.2
_SAMPLED_GROUPS = 24
_BLOCK_FRAMES = 16_384
_MAX_EXAMPLES = 5

Bools = npt.NDArray[np.bool_]


def body_lengths_px(store: Store) -> npt.NDArray[np.float64]:
    """The body length of each animal (M,), from row groups spread over the store; NaN where it
    never shows two points."""
    chunks = store.chunks
    groups, first = np.unique(chunks.group_id, return_index=True)
    chosen = np.unique(
        np.linspace(0, len(groups) - 1, min(len(groups), _SAMPLED_GROUPS)).round().astype(int)
    )
    lengths = []
    for row in first[chosen]:
        position, _ = store.decode(
            store.read_groups(int(chunks.part[row]), [int(chunks.group[row])])
        )
        lengths.append(_extent(position[:: max(1, len(position) // 500)]))
    joined = np.concatenate(lengths)
    known = [values[~np.isnan(values)] for values in joined.T]
    return np.array([np.median(values) if len(values) else np.nan for values in known])


def _extent(position_TMKX: Float) -> npt.NDArray[np.float64]:
    """Largest distance between two points of an animal (T, M); NaN where fewer than two were
    seen."""
    points = position_TMKX.shape[2]
    longest = np.full(position_TMKX.shape[:2], np.nan)
    for a, b in combinations(range(points), 2):
        longest = np.fmax(
            longest, np.linalg.norm(position_TMKX[:, :, a] - position_TMKX[:, :, b], axis=-1)
        )
    return longest


class JumpsAndSwaps:
    """Counts jumps and suspected swaps; it takes all frames of a store in order.

    Args:
        store: Whose frames they are.
        body_M: Body length of each animal (px).
    """

    def __init__(self, store: Store, body_M: npt.NDArray[np.float64]) -> None:
        animals, keypoints, coordinates = store.schema.shape
        self._store, self._body = store, body_M
        self._jump_px = body_M * JUMP_BODIES_PER_S / store.schema.fps
        self._last: Float = np.full((1, animals, keypoints, coordinates), np.nan, np.float32)
        self._video = -1
        self._steps = 0
        self._seen = np.zeros((animals, keypoints), np.int64)
        self._jumps = np.zeros((animals, keypoints), np.int64)
        self._jump_frames = 0
        self._pairs = 0
        self._swaps = 0
        self._examples: dict[str, list[str]] = {"jumps": [], "swaps": []}

    def add(self, video: int, first_frame: int, position_TMKX: Float) -> None:
        """Takes the next frames, all of one video."""
        before = self._last if video == self._video else np.full_like(self._last, np.nan)
        for begin in range(0, len(position_TMKX), _BLOCK_FRAMES):
            block = position_TMKX[begin : begin + _BLOCK_FRAMES]
            from_TMKX = np.concatenate([before, block[:-1]])
            self._count(from_TMKX, block, self._store.videos[video]["name"], first_frame + begin)
            before = block[-1:].copy()
        self._last, self._video = before, video

    def _count(self, from_TMKX: Float, to_TMKX: Float, name: str, first_frame: int) -> None:
        moved_TMK = np.linalg.norm(to_TMKX - from_TMKX, axis=-1)
        known = ~np.isnan(moved_TMK)
        jumps = moved_TMK > self._jump_px[:, None]  # false for NaN
        jump_T = jumps.any((1, 2))
        self._steps += int(known.any((1, 2)).sum())
        self._seen += known.sum(0)
        self._jumps += jumps.sum(0)
        self._jump_frames += int(jump_T.sum())
        self._add_examples("jumps", jump_T, name, first_frame)
        seen_T, swap_T = np.zeros(len(moved_TMK), np.bool_), np.zeros(len(moved_TMK), np.bool_)
        for a, b in combinations(range(moved_TMK.shape[1]), 2):
            both, swapped = self._exchanged(from_TMKX, to_TMKX, moved_TMK, a, b)
            seen_T |= both
            swap_T |= swapped
        self._pairs += int(seen_T.sum())
        self._swaps += int(swap_T.sum())
        self._add_examples("swaps", swap_T, name, first_frame)

    def _exchanged(
        self, from_TMKX: Float, to_TMKX: Float, moved_TMK: Float, a: int, b: int
    ) -> tuple[Bools, Bools]:
        """Frames in which both were seen before and after, and those in which exchanging them would
        shorten their moves much."""
        crossed_TK = np.linalg.norm(to_TMKX[:, a] - from_TMKX[:, b], axis=-1) + np.linalg.norm(
            to_TMKX[:, b] - from_TMKX[:, a], axis=-1
        )
        moved_TK = moved_TMK[:, a] + moved_TMK[:, b]
        usable = ~np.isnan(crossed_TK + moved_TK)
        count_T = usable.sum(1)
        moved_T, crossed_T = (
            np.where(usable, values, 0).sum(1) for values in (moved_TK, crossed_TK)
        )
        both = count_T >= min(2, moved_TK.shape[1])
        shortened_px = (moved_T - crossed_T) / (2 * np.maximum(count_T, 1))
        known = self._body[[a, b]][~np.isnan(self._body[[a, b]])]
        swapped = (
            both
            & (crossed_T < SWAP_SHARE * moved_T)
            & (shortened_px > SWAP_BODIES * (known.mean() if len(known) else np.inf))
        )
        return both, swapped

    def _add_examples(self, kind: str, found_T: Bools, video: str, first_frame: int) -> None:
        room = _MAX_EXAMPLES - len(self._examples[kind])
        self._examples[kind] += [
            f"{video}, frame {first_frame + int(t)}" for t in np.flatnonzero(found_T)[:room]
        ]

    def summary(self) -> dict[str, Any]:
        """Shares of what could be compared, with the rule and the first frames."""
        schema = self._store.schema
        share_MK = self._jumps / np.maximum(self._seen, 1)
        body = {
            animal: None if np.isnan(length) else round(float(length), 1)
            for animal, length in zip(schema.animals, self._body, strict=True)
        }
        limit = {
            animal: None if np.isnan(px) else round(float(px), 1)
            for animal, px in zip(schema.animals, self._jump_px, strict=True)
        }
        return {
            "body_length_px": body,
            "jumps": {
                "rule": f"a point moves faster than {JUMP_BODIES_PER_S:g} body lengths a second",
                "limit_px_per_frame": limit,
                "frames": self._jump_frames,
                "share_of_frames": round(self._jump_frames / max(self._steps, 1), 6),
                "by_keypoint": {
                    animal: {
                        point: round(float(share_MK[m, k]), 6)
                        for k, point in enumerate(schema.keypoints)
                    }
                    for m, animal in enumerate(schema.animals)
                },
                "first": self._examples["jumps"],
            },
            "swaps": {
                "rule": "exchanging two animals would shorten the way to less than "
                f"{SWAP_SHARE:g} of it, and by more than {SWAP_BODIES:g} body lengths a point",
                "frames": self._swaps,
                "share_of_frames": round(self._swaps / max(self._pairs, 1), 6),
                "first": self._examples["swaps"],
            },
        }


def store_chunks(store: Store) -> Iterator[tuple[int, int, Float, npt.NDArray[np.uint8]]]:
    """Every chunk of a store in order, one part in memory at a time: video, first frame, positions
    and confidence."""
    chunks = store.chunks
    for part in range(len(store.parts)):
        position, confidence = store.decode(store.read_groups(part))
        end = 0
        for row in np.flatnonzero(chunks.part == part):
            begin, end = end, end + int(chunks.frames[row])
            yield (
                int(chunks.video[row]),
                int(chunks.first_frame[row]),
                position[begin:end],
                confidence[begin:end],
            )
