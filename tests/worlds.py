"""Small worlds whose truth is known: marked frames, stiff mice on lines, a spinner, an approach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pretrain.components import build
from pretrain.data.schema import CALMS21, Schema, Video
from pretrain.data.store import Chunks, Store
from pretrain.data.store_writer import StoreWriter
from pretrain.data.windows import Pose, Windows
from pretrain.encoders import Embedder, build_embedder
from pretrain.objectives import AbstractObjective
from pretrain.train.learner import Learner
from pretrain.transforms.augment import Augment
from pretrain.transforms.feature_groups import all_groups

MICE = CALMS21
RATS = Schema.from_names(
    animals=("rat1", "rat2"),
    keypoints=("top", "body", "tail", "tail-m", "tail-e"),
    fps=30.0,
    image_px=(640.0, 480.0),
)
SPACE = replace(RATS, coordinates=("x", "y", "z"), image_px=(640.0, 480.0, 200.0))
SKELETONS = {"mice": MICE, "rats": RATS, "rats in space": SPACE}

# A mouse that looks along +x of the picture, its points around their mean. y points down, so its
# left has the smaller y.
BODY_KX = np.array(
    [[37, 0], [22, -10], [22, 10], [12, 0], [-21, -12], [-21, 12], [-51, 0]], np.float32
)
GROUPS = tuple(all_groups())
FEATURES = {"groups": ["posture", "motion", "relation", "distances", "scene", "confidence"]}
SMALL = {"tcn": {"width": 16, "layers": 3}}  # other encoders are taken as they are


def stiff(centre_TX: npt.ArrayLike, heading_T: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """A stiff mouse at ``centre`` that looks along ``heading`` (radians, from +x towards +y): (T,
    K, X)."""
    centre, heading = np.asarray(centre_TX, float), np.asarray(heading_T, float)
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    x, y = BODY_KX.T
    return (np.stack([cos * x - sin * y, sin * x + cos * y], -1) + centre[:, None]).astype(
        np.float32
    )


def pose_of(*animals_TKX: npt.NDArray[np.float32]) -> Pose:
    """One window of animals that are all visible: B = 1."""
    position = torch.from_numpy(np.stack(animals_TKX, 1))[None]
    return Pose(position, torch.ones(position.shape[:4]))


def line(
    start: Sequence[float],
    velocity: Sequence[float],
    *,
    frames: int = 64,
    heading: float | None = None,
) -> npt.NDArray[np.float32]:
    """A mouse on a straight line (px, px a frame), looking where it goes or along a given
    heading."""
    centre = np.asarray(start, float) + np.arange(frames)[:, None] * np.asarray(velocity, float)
    look = math.atan2(velocity[1], velocity[0]) if heading is None else heading
    return stiff(centre, np.full(frames, look))


def wander(
    schema: Schema, frames: int, *, seed: int = 0, missing: float = 0.1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Animals that drift and turn at random with points that come and go: positions (T, M, K, X)
    and confidence (T, M, K)."""
    rng = np.random.default_rng(seed)
    animals, keypoints, _ = schema.shape
    body = (
        BODY_KX
        if schema is MICE
        else np.stack([40 - 20 * np.arange(keypoints), 3 * np.sin(np.arange(keypoints))], -1)
    )
    turn = rng.normal(scale=0.1, size=(frames, animals)).cumsum(0) + rng.uniform(0, 6, animals)
    centre = (
        rng.normal(scale=3, size=(frames, animals, 2)).cumsum(0)
        + np.array(schema.image_px[:2]) / 2
        + rng.normal(scale=80, size=(animals, 2))
    )
    cos, sin = np.cos(turn)[..., None], np.sin(turn)[..., None]
    x, y = body.T
    position = (
        np.stack([cos * x - sin * y, sin * x + cos * y], -1)
        + centre[:, :, None]
        + rng.normal(size=(frames, animals, keypoints, 2))
    )
    if len(schema.coordinates) == 3:  # heads go up and down
        height = 30 + 10 * np.sin(np.arange(frames) / 9)[:, None, None] * np.arange(keypoints)
        height = height + rng.normal(size=position.shape[:3])
        position = np.concatenate([position, height[..., None]], -1)
    gone = rng.random((frames, animals, keypoints)) < missing
    position[gone] = np.nan
    return position.astype(np.float32), np.where(gone, 0, rng.uniform(0.2, 1, gone.shape)).astype(
        np.float32
    )


def windows_of(
    schema: Schema,
    *,
    batch: int = 6,
    frames: int = 48,
    seed: int = 0,
    cut: Sequence[int] = (),
    missing: float = 0.1,
) -> Windows:
    """Windows of wandering animals. The last rows have only ``cut`` frames each; 0 is an empty
    row."""
    position, confidence = wander(schema, batch * frames, seed=seed, missing=missing)
    length = torch.tensor([frames] * (batch - len(cut)) + list(cut))
    valid = torch.arange(frames) < length[:, None]
    shape = (batch, frames, *schema.shape[:2])
    pose = Pose(
        torch.from_numpy(position).view(*shape, schema.shape[2]),
        torch.from_numpy(confidence).view(shape),
    )
    pose = Pose(
        pose.position_BTMKX.masked_fill(~valid[:, :, None, None, None], torch.nan),
        pose.confidence_BTMK.masked_fill(~valid[:, :, None, None], 0.0),
    )
    key = torch.from_numpy(np.random.default_rng([seed, 1]).integers(-(2**63), 2**63 - 1, batch))
    return Windows(pose, valid, key, torch.full_like(key, seed))


def rows_of(windows: Windows, rows: slice | Tensor) -> Windows:
    """Some rows of a batch."""
    assert windows.batch_key_B is not None
    return Windows(
        Pose(*(x[rows] for x in windows.pose[:2])),
        windows.valid_BT[rows],
        windows.key_B[rows],
        windows.batch_key_B[rows],
    )


def embedder_of(schema: Schema, encoder: str, pose: Pose) -> Embedder:
    """An embedder with weights from a seed and features fitted on ``pose``."""
    torch.manual_seed(7)
    embedder = build_embedder(
        schema, features=FEATURES, encoder={"name": encoder, **SMALL.get(encoder, {})}
    )
    embedder.features.fit(pose)
    return embedder


def learner_of(
    schema: Schema, encoder: str, objective: str, pose: Pose, augment: Augment | None = None
) -> Learner:
    """What is trained, from the names of its components, always the same."""
    embedder = embedder_of(schema, encoder, pose)
    loss: AbstractObjective = build(
        "pretrain.objectives", {"name": objective}, AbstractObjective, embedder.dim, schema
    )
    loss.fit(pose)
    return Learner(embedder, loss, augment or Augment(), precision="float32")


def marked(number: int, frames: int, schema: Schema = MICE) -> Video:
    """A video whose every point says which video and frame it is: x is the video's number, y the
    frame's; some points are missing."""
    animals, keypoints, _ = schema.shape
    position = np.empty((frames, animals, keypoints, 2), np.float32)
    position[..., 0], position[..., 1] = number, np.arange(frames)[:, None, None]
    confidence = np.ones((frames, animals, keypoints), np.float32)
    position[1::3, 1], confidence[1::3, 1] = np.nan, 0
    return Video(name=f"video {number}", position_TMKX=position, confidence_TMK=confidence)


def marked_store(folder: Path, lengths: Sequence[int], schema: Schema = MICE) -> Store:
    """A store of marked videos."""
    with StoreWriter(folder, schema, origin="marked frames") as writer:
        for number, frames in enumerate(lengths):
            writer.add(marked(number, frames, schema))
    return Store(folder)


def wander_store(
    folder: Path, lengths: Sequence[int], schema: Schema = MICE, *, seed: int = 0
) -> Store:
    """A store of wandering animals."""
    with StoreWriter(folder, schema, origin="wandering animals") as writer:
        for number, frames in enumerate(lengths):
            position, confidence = wander(schema, frames, seed=seed + number)
            writer.add(
                Video(name=f"video {number}", position_TMKX=position, confidence_TMK=confidence)
            )
    return Store(folder)


def frames_seen(windows: Windows) -> list[list[tuple[int, int]]]:
    """For each window of marked frames the (video, frame) it holds, in order; read off the first
    animal's first point."""
    first = windows.pose.position_BTMKX[:, :, 0, 0]
    return [
        [(int(x), int(y)) for x, y in row[valid].tolist()]
        for row, valid in zip(first, windows.valid_BT, strict=True)
    ]


def chunks_of(lengths: Sequence[int], *, chunk_frames: int = 1024, group_chunks: int = 1) -> Chunks:
    """Where chunks would lie in a store of videos of these lengths."""
    video = [v for v, frames in enumerate(lengths) for _ in range(0, frames, chunk_frames)]
    first = [f for frames in lengths for f in range(0, frames, chunk_frames)]
    size = [
        min(chunk_frames, frames - f) for frames in lengths for f in range(0, frames, chunk_frames)
    ]
    group = np.arange(len(video)) // group_chunks
    column: dict[str, Any] = {
        name: np.asarray(values, np.int32)
        for name, values in (
            ("video", video),
            ("first_frame", first),
            ("frames", size),
            ("group", group),
        )
    }
    return Chunks(part=np.zeros(len(video), np.int32), group_id=group.astype(np.int64), **column)
