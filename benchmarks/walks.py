"""Recordings to measure with, of any size and made at once: two mice on random walks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pretrain.data.schema import CALMS21, Schema, Video
from pretrain.data.store import Chunks, Store
from pretrain.data.store_writer import CHUNK_FRAMES, StoreWriter
from pretrain.data.windows import BatchPlan, FrameBuffer, Pose, Windows, chunk_offset

VIDEO_FRAMES = 20_480
MISSING = 0.05
BODY_KX = np.array(
    [[37, 0], [22, -10], [22, 10], [12, 0], [-21, -12], [-21, 12], [-51, 0]], np.float32
)
Floats = npt.NDArray[np.float32]


def walk(frames: int, *, seed: int = 0) -> tuple[Floats, Floats]:
    """Two mice that drift and turn: positions (T, M, K, X) px, NaN = missing, and confidence (T, M,
    K)."""
    rng = np.random.default_rng(seed)
    turn = rng.normal(scale=0.1, size=(frames, 2)).cumsum(0).astype(np.float32)
    # A walk that turns back at the walls: a triangle wave of a free one.
    free = rng.normal(scale=3, size=(frames, 2, 2)).cumsum(0) + rng.uniform(0, 500, (2, 2))
    image = np.array(CALMS21.image_px)
    centre = (image - np.abs(np.mod(free, 2 * image) - image)).astype(np.float32)
    cos, sin = np.cos(turn)[..., None], np.sin(turn)[..., None]
    x, y = BODY_KX.T
    position = np.stack([cos * x - sin * y, sin * x + cos * y], -1) + centre[:, :, None]
    position += rng.standard_normal(position.shape, np.float32)
    confidence = rng.uniform(0.3, 1, position.shape[:3]).astype(np.float32)
    gone = rng.random(confidence.shape, np.float32) < MISSING
    position[gone], confidence[gone] = np.nan, 0
    return position, confidence


def write_store(folder: Path, frames: int) -> Store:
    """A store of so many frames: one recording over and over, a little further each time."""
    position, confidence = walk(min(frames, VIDEO_FRAMES))
    with StoreWriter(folder, CALMS21, origin="random walks, to measure with") as writer:
        for number, first in enumerate(range(0, frames, VIDEO_FRAMES)):
            count = min(VIDEO_FRAMES, frames - first)
            shifted = position[:count] + np.float32(number % 64)
            writer.add(
                Video(
                    name=f"walk {number:05d}",
                    position_TMKX=shifted,
                    confidence_TMK=confidence[:count],
                )
            )
    return Store(folder)


def chunks_of(frames: int) -> Chunks:
    """Where the chunks of such a store lie; no store is needed."""
    size = np.minimum(CHUNK_FRAMES, frames - np.arange(0, frames, CHUNK_FRAMES)).astype(np.int32)
    place = np.arange(len(size))
    zeros = np.zeros(len(size), np.int32)
    return Chunks(
        part=zeros,
        group=place.astype(np.int32),
        group_id=place,
        video=zeros,
        first_frame=zeros,
        frames=size,
    )


class Resident:
    """Frames that lie on a device, and batches of windows cut from them in the order of an epoch;
    no Ray.

    Args:
        frames: How many frames.
        window: Frames of a window.
        batch: Windows of a batch.
        device: Where.
    """

    def __init__(
        self, frames: int, *, window: int, batch: int, device: str = "cpu", schema: Schema = CALMS21
    ) -> None:
        chunks = chunks_of(frames)
        self.plan = BatchPlan.from_chunks(chunks, window=window, batch=batch, seed=0)
        self.buffer = FrameBuffer(frames, schema.shape, window=window, device=device)
        position, confidence = walk(min(frames, VIDEO_FRAMES))
        steps = torch.from_numpy(
            np.where(confidence > 0, np.clip(np.rint(confidence * 255), 1, 255), 0).astype(np.uint8)
        )
        for first in range(0, frames, VIDEO_FRAMES):
            count = min(VIDEO_FRAMES, frames - first)
            self.buffer.put(torch.from_numpy(position[:count]), steps[:count])
        begin = np.cumsum(chunks.frames, dtype=np.int64) - chunks.frames
        assert not chunk_offset(chunks).any(), "row groups here are of one chunk"
        self._tiles = self.plan.tiles(np.arange(len(self.plan)))
        self._begin, self._grid = begin[self._tiles.chunk] + self._tiles.start, self.plan.epoch(0)

    def windows(self, step: int) -> Windows:
        """The batch of a step; steps beyond the last whole one begin again."""
        row = self._grid[step % max(1, self.plan.steps - 1)]
        held = np.maximum(row, 0)
        frames = np.where(row < 0, 0, self._tiles.frames[held])
        return self.buffer.cut(
            np.where(row < 0, 0, self._begin[held]), frames, self.plan.key(held, 0)
        )


def sample_pose(*, windows: int = 64, frames: int = 256) -> Pose:
    """Poses to fit features on."""
    position, confidence = walk(windows * frames, seed=1)
    shape = (windows, frames, *CALMS21.shape[:2])
    return Pose(
        torch.from_numpy(position).view(*shape, 2), torch.from_numpy(confidence).view(shape)
    )
