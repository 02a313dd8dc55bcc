"""Which windows an epoch is made of, and cutting them out of whole frames. Plain numpy and torch.

Every chunk is tiled into windows; no window crosses a chunk, so none crosses a video, and each
frame lies in exactly one window. The windows of a store, in an order drawn once from the seed, are
divided into as many **lanes** of equal length as a global batch has rows. Lane ``i`` supplies row
``i`` of every global batch, and worker ``r`` of ``R`` owns the lanes ``r*batch/R … (r+1)*batch/R``.
So the batches are the same for any number of workers, a worker always needs the same frames (it may
keep them), and it can fetch them in order when they do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pretrain import distributed
from pretrain.data.store import CONFIDENCE_STEPS, Chunks
from pretrain.data.window_rng import WindowRNG

Ints = npt.NDArray[np.int64]


class Pose(NamedTuple):
    """Tracks on their way through the encoder."""

    position_BTMKX: Tensor
    """float32, px; NaN where a point is missing."""
    confidence_BTMK: Tensor
    """float32, 0 to 1; 0 = missing."""
    extra_BTE: Tensor | None = None
    """float32, external features side by side (:attr:`Features.external`); NaN where unknown. None:
    there are none."""

    def hidden(self, points_BTMK: Tensor) -> Pose:
        """The same with these points missing; where a frame loses every point, its external
        features are unknown too."""
        position = self.position_BTMKX.masked_fill(points_BTMK.unsqueeze(-1), torch.nan)
        extra = self.extra_BTE
        if extra is not None:
            extra = extra.masked_fill(points_BTMK.flatten(2).all(-1, keepdim=True), torch.nan)
        return Pose(position, self.confidence_BTMK.masked_fill(points_BTMK, 0.0), extra)


def concatenate(poses: Sequence[Pose]) -> Pose:
    """Poses of one shape as one batch."""
    extra = [pose.extra_BTE for pose in poses if pose.extra_BTE is not None]
    assert len(extra) in (0, len(poses)), "some poses have external features, others none"
    return Pose(
        torch.cat([pose.position_BTMKX for pose in poses]),
        torch.cat([pose.confidence_BTMK for pose in poses]),
        torch.cat(extra) if extra else None,
    )


class Windows(NamedTuple):
    """This worker's rows of one global batch."""

    pose: Pose
    valid_BT: Tensor
    """bool; False beyond the end of a window that is cut short by the end of its chunk, and in
    empty rows."""
    key_B: Tensor
    """int64; the seed of every random number of that window, made of (seed, epoch, chunk,
    start)."""
    batch_key_B: Tensor | None = None
    """int64; the seed that all windows of the global batch share, made of (seed, epoch, step). None
    where one process has the whole batch: its first window's seed then serves."""

    def batch_rng(self) -> WindowRNG:
        """Random draws that are the same for every window of the global batch, on every worker."""
        if self.batch_key_B is not None:
            return WindowRNG(self.batch_key_B)
        assert distributed.count() == 1, "several workers, and no seed that they share"
        return WindowRNG(self.key_B[:1].expand_as(self.key_B))


def hash_integers(*parts: Ints | int) -> npt.NDArray[np.uint64]:
    """Hashes integers to well-spread 64 bits (splitmix64's finaliser, Steele et al. 2014),
    elementwise."""
    state: npt.NDArray[np.uint64] = np.array(0x9E3779B97F4A7C15, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = (
                state
                + np.asarray(part).astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
                + np.uint64(0x9E3779B97F4A7C15)
            )
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state, np.uint64)


class Tiles(NamedTuple):
    """Where windows lie; an entry for each."""

    chunk: Ints
    """Chunk of the store the window lies in."""
    start: Ints
    """First frame of the window within its chunk."""
    frames: Ints
    """Frames of the window; fewer than ``window`` only at the end of a chunk."""
    group: Ints
    """Row group of the store the chunk lies in: what is read at once."""
    lane: Ints
    """Row of the global batch that the window is used in."""


@dataclass(frozen=True)
class BatchPlan:
    """Which windows each global batch is made of, by lanes (see above).

    Windows are numbered lane after lane. Arrays have one entry for each chunk, in the order of its
    windows: a store has some sixteen times as many windows, and every worker holds a plan.
    """

    chunk: Ints
    """Chunk of the store."""
    chunk_frames: Ints
    """Its frames."""
    chunk_group: Ints
    """Its row group."""
    first: Ints
    """Its first window; one entry more, the number of windows."""
    window: int
    batch: int
    seed: int

    @classmethod
    def from_chunks(cls, chunks: Chunks, *, window: int, batch: int, seed: int) -> BatchPlan:
        """Tiles the chunks into windows and divides them into as many lanes as a global batch has
        windows; the seed decides which windows share a lane."""
        groups = np.unique(chunks.group_id)
        order = np.empty(groups.max() + 1, np.int64)
        order[groups] = np.argsort(
            np.argsort(hash_integers(seed, 1, groups), kind="stable"), kind="stable"
        )
        by_order = np.argsort(order[chunks.group_id], kind="stable")
        if chunks.left_out is not None:
            by_order = by_order[~chunks.left_out[by_order]]
        frames = chunks.frames[by_order].astype(np.int64)
        by_order, frames = by_order[frames > 0], frames[frames > 0]
        first = np.concatenate([[0], np.cumsum(-(-frames // window))])
        group = chunks.group_id[by_order].astype(np.int64)
        return cls(by_order, frames, group, first, window, batch, seed)

    def __len__(self) -> int:
        return int(self.first[-1])

    @cached_property
    def steps(self) -> int:
        """Global batches of an epoch."""
        return -(-len(self) // self.batch)

    @cached_property
    def frames(self) -> int:
        """Frames of an epoch."""
        return int(self.chunk_frames.sum())

    @cached_property
    def _lane_starts(self) -> Ints:
        """First window of each lane; one entry more, the number of windows."""
        return np.arange(self.batch + 1) * len(self) // self.batch

    def tiles(self, windows: Ints) -> Tiles:
        """Where windows lie, by their numbers, of whatever shape."""
        at = np.searchsorted(self.first, windows, side="right") - 1
        start = (windows - self.first[at]) * self.window
        return Tiles(
            self.chunk[at],
            start,
            np.minimum(self.chunk_frames[at] - start, self.window),
            self.chunk_group[at],
            np.searchsorted(self._lane_starts, windows, side="right") - 1,
        )

    def windows_of(self, lanes: slice) -> Ints:
        """The windows of neighbouring lanes."""
        return np.arange(self._lane_starts[lanes.start], self._lane_starts[lanes.stop])

    def epoch(self, epoch: int, lanes: slice | None = None) -> Ints:
        """The windows of every step of an epoch.

        Args:
            epoch: Which.
            lanes: Only these, which are neighbours; None: all.

        Returns:
            (steps, lanes): column ``i`` is the ``i``-th lane, in an order drawn from (seed, epoch):
            row group after row group, shuffled within each. -1 where a lane has no window left;
            only the last step has such rows.
        """
        lanes = lanes or slice(0, self.batch)
        index = self.windows_of(lanes)
        tiles = self.tiles(index)
        by_group = hash_integers(self.seed, 2, epoch, tiles.lane, tiles.group)
        order = np.lexsort((hash_integers(self.seed, 3, epoch, index), by_group, tiles.lane))
        grid = np.full((self.steps, lanes.stop - lanes.start), -1, np.int64)
        grid[index - self._lane_starts[tiles.lane], tiles.lane - lanes.start] = index[order]
        return grid

    def key(self, windows: Ints, epoch: int) -> Ints:
        """Seeds of the random numbers of windows in an epoch, the same for any number of
        workers."""
        tiles = self.tiles(windows)
        return hash_integers(self.seed, 4, epoch, tiles.chunk, tiles.start).view(np.int64)

    def batch_key(self, epoch: int, step: Ints | int) -> Ints:
        """Seed of the random numbers that all windows of a global batch share, for each step."""
        return hash_integers(self.seed, 5, epoch, step).view(np.int64)

    def lanes_of(self, rank: int, workers: int) -> slice:
        """The lanes of one worker."""
        assert self.batch % workers == 0, (
            f"{self.batch} lanes cannot be divided among {workers} workers"
        )
        rows = self.batch // workers
        return slice(rank * rows, (rank + 1) * rows)


class FrameBuffer:
    """Whole frames in the memory of a device, and windows cut from them.

    Args:
        frames: Its capacity.
        slot: None: what is put stays. Else the buffer is divided into slots of so many frames, and
            what is dropped makes room.
        shape: (M, K, X).
        window: Frames of a window.
        extra: External features of a frame (E).
        device: Where the frames lie and the windows are cut.
    """

    def __init__(
        self,
        frames: int,
        shape: tuple[int, int, int],
        *,
        window: int,
        slot: int | None = None,
        extra: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._shape, self._window, self._slot, self._filled = shape, window, slot, 0
        self._free = list(range(0, frames, slot))[::-1] if slot else []
        total = frames + window  # a window cut short may reach beyond the last frame
        animals, keypoints, coordinates = shape
        # Memory that no frame was written to costs nothing; nobody sees what is there, since `cut`
        # masks it.
        self._position = torch.empty((total, animals * keypoints * coordinates), device=device)
        self._confidence = torch.empty(
            (total, animals * keypoints), dtype=torch.uint8, device=device
        )
        self._extra = torch.empty((total, extra), device=device)
        # Overlapping views: row i is the window that starts at frame i. Selecting rows copies whole
        # windows at once.
        self._position_windows = _overlapping(self._position, window)
        self._confidence_windows = _overlapping(self._confidence, window)
        self._extra_windows = _overlapping(self._extra, window) if extra else None
        self._whole = torch.ones((1, window), dtype=torch.bool, device=device)

    def put(
        self, position: npt.ArrayLike, confidence: npt.ArrayLike, extra: npt.ArrayLike | None = None
    ) -> int:
        """Copies frames into the buffer and returns where in it they begin.

        Args:
            position: (frames, M, K, X) px, NaN where a point is missing: as stores hold them.
            confidence: (frames, M, K) in steps of 1/255.
            extra: (frames, E) external features, where the buffer was made for them.
        """
        begin = self._free.pop() if self._slot else self._filled
        end = begin + len(np.asarray(position))
        assert end <= (begin + self._slot if self._slot else len(self._position)), (
            "more frames than the buffer was made for"
        )
        self._filled = max(self._filled, end)
        _fill(self._position[begin:end], position)
        _fill(self._confidence[begin:end], confidence)
        if extra is not None:
            _fill(self._extra[begin:end], extra)
        return begin

    def drop(self, begin: int) -> None:
        """Frees the slot that begins there."""
        self._free.append(begin)

    def cut(self, begin: Ints, frames: Ints, key: Ints, *, batch_key: int | None = None) -> Windows:
        """Cuts windows.

        Args:
            begin: (B,) first frame of each window, counted in the buffer; anything where ``frames``
                is 0.
            frames: (B,) frames of each window.
            key: (B,) seeds of their random numbers.
            batch_key: Seed of those that the whole global batch shares.
        """
        animals, keypoints, coordinates = self._shape
        device = self._position.device
        rows = torch.from_numpy(begin).to(device, non_blocking=True)
        # index_select copies whole rows where indexing goes number by number: two to three times as
        # fast on a CPU.
        position = self._position_windows.index_select(0, rows).view(
            -1, self._window, animals, keypoints, coordinates
        )
        steps = self._confidence_windows.index_select(0, rows).view(
            -1, self._window, animals, keypoints
        )
        confidence = steps.to(torch.float32).mul_(1 / CONFIDENCE_STEPS)
        extra = None
        if self._extra_windows is not None:
            extra = self._extra_windows.index_select(0, rows).view(len(rows), self._window, -1)
        if (frames < self._window).any():
            length_B1 = torch.from_numpy(frames).to(device).unsqueeze(1)
            valid = torch.arange(self._window, device=device) < length_B1
            position.masked_fill_(~valid[:, :, None, None, None], torch.nan)
            confidence.masked_fill_(~valid[:, :, None, None], 0)
            extra = None if extra is None else extra.masked_fill_(~valid[:, :, None], torch.nan)
        else:
            valid = self._whole.expand(len(rows), -1)
        key_B, batch_key_B = torch.from_numpy(key).to(device, non_blocking=True), None
        if batch_key is not None:
            batch_key_B = torch.full_like(key_B, batch_key)
        return Windows(Pose(position, confidence, extra), valid, key_B, batch_key_B)


def _fill(target: Tensor, values: npt.ArrayLike) -> None:
    flat = np.asarray(values).reshape(len(target), -1)
    if target.device.type == "cpu":
        np.copyto(
            target.numpy(), flat
        )  # from memory that Ray shares read-only, without a copy between
    else:
        target.copy_(torch.tensor(flat), non_blocking=True)


def _overlapping(frames: Tensor, window: int) -> Tensor:
    width = frames.shape[1]
    return frames.as_strided((len(frames) - window + 1, window * width), (width, 1))


def group_frames(chunks: Chunks) -> Ints:
    """Frames of every row group of a store."""
    return np.bincount(chunks.group_id, weights=chunks.frames).astype(np.int64)


def chunk_offset(chunks: Chunks) -> Ints:
    """Where every chunk begins within its row group (frames)."""
    before = np.cumsum(chunks.frames, dtype=np.int64) - chunks.frames
    return before - before[np.searchsorted(chunks.group_id, chunks.group_id)]


def cover(pose: Pose, *, window: int, overlap: int) -> Iterator[tuple[Windows, slice, slice]]:
    """Windows that cover one whole video with overlap, for embedding every frame of it once.

    Args:
        pose: The video, (1, T, …).
        window: Frames handed to the encoder at once.
        overlap: Frames of context on each side whose embeddings are not used.

    Yields:
        Windows with B = 1, the frames of the video whose embeddings they give, and where in the
        window those are.
    """
    position = pose.position_BTMKX
    total, step = position.shape[1], max(1, window - 2 * overlap)
    for first in range(0, total, step):
        begin, end = max(0, first - overlap), min(total, first + step + overlap)
        last = min(total, first + step)
        stretch = Pose(*(None if x is None else x[:, begin:end] for x in pose))  # type: ignore[arg-type]
        valid = torch.ones((1, end - begin), dtype=torch.bool, device=position.device)
        key = torch.zeros(1, dtype=torch.int64, device=position.device)
        frames, inside = slice(first, last), slice(first - begin, last - begin)
        yield Windows(stretch, valid, key), frames, inside
