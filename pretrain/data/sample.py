"""A sample of the poses of a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretrain.data.store import Store
from pretrain.data.windows import FrameBuffer, Pose, chunk_offset, mix


def sample(
    store: Store, *, seed: int, windows: int = 128, frames: int = 256, features: Sequence[str] = ()
) -> Pose:
    """Poses from all over a store, to fit features on: the same for whoever asks with the same
    seed.

    Args:
        store: The store.
        seed: Of the choice.
        windows: Stretches at most.
        frames: Of a stretch.
        features: Features from elsewhere to read with them.

    Returns:
        Up to ``windows`` stretches of ``frames`` frames, no two from one chunk.
    """
    chunks = store.chunks
    picked = np.sort(np.argsort(mix(seed, 5, np.arange(len(chunks))), kind="stable")[:windows])
    offset = chunk_offset(chunks)
    extra = sum(store.feature(name)["dim"] for name in features)
    buffer = FrameBuffer(frames * len(picked), store.schema.shape, window=frames, extra=extra)
    begins = []
    for chunk in picked:
        rows = slice(
            int(offset[chunk]), int(offset[chunk]) + min(frames, int(chunks.frames[chunk]))
        )
        held = store.read_group(int(chunks.group_id[chunk]), features)
        begins.append(buffer.put(*(values[rows] for values in held)))
    length = np.minimum(chunks.frames[picked], frames).astype(np.int64)
    return buffer.cut(np.array(begins), length, np.zeros(len(picked), np.int64)).pose
