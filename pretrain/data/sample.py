"""A sample of the poses of a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretrain.data.store import Store
from pretrain.data.windows import FrameBuffer, Pose, chunk_offset, hash_integers


def sample(
    store: Store, *, seed: int, windows: int = 128, frames: int = 256, features: Sequence[str] = ()
) -> Pose:
    """Poses from all over a store, to fit features on: the same for whoever asks with the same
    seed.

    Returns:
        Up to ``windows`` stretches of ``frames`` frames, no two from one chunk.
    """
    chunks = store.chunks
    order = np.argsort(hash_integers(seed, 5, np.arange(len(chunks))), kind="stable")
    if chunks.left_out is not None:
        order = order[~chunks.left_out[order]]
    picked = np.sort(order[:windows])
    offset = chunk_offset(chunks)
    extra = sum(store.feature(name)["dim"] for name in features)
    buffer = FrameBuffer(frames * len(picked), store.schema.shape, window=frames, extra=extra)
    begins = []
    for chunk in picked:
        first = int(offset[chunk])
        rows = slice(first, first + min(frames, int(chunks.frames[chunk])))
        group = store.read_group(int(chunks.group_id[chunk]), features)
        begins.append(buffer.put(*(values[rows] for values in group)))
    length = np.minimum(chunks.frames[picked], frames).astype(np.int64)
    return buffer.cut(np.array(begins), length, np.zeros(len(picked), np.int64)).pose
