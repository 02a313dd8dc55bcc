"""Learns an encoder in this process, for a given time: to compare recipes and to measure steps. No
Ray, no checkpoints."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from pretrain.config import Recipe
from pretrain.data.store import Store
from pretrain.data.windows import BatchPlan, FrameBuffer, Windows, chunk_offset, group_frames
from pretrain.encoders import Embedder
from pretrain.train.learner import new_learner
from pretrain.train.step import OptimiserStep

WARM_UP_STEPS, TIMED_STEPS = 2, 4


class InMemory:
    """All frames of a store in the memory of a device, and the global batches of every epoch.

    Args:
        store: The store.
        recipe: Its window, batch, seed and external features count.
        device: Where.
    """

    def __init__(self, store: Store, recipe: Recipe, *, device: str = "cpu") -> None:
        chunks = store.chunks
        self.plan = BatchPlan.from_chunks(
            chunks, window=recipe.window, batch=recipe.batch, seed=recipe.seed
        )
        features = tuple(recipe.features.get("external") or ())
        extra = sum(store.feature(name)["dim"] for name in features)
        self._buffer = FrameBuffer(
            store.frames, store.schema.shape, window=recipe.window, extra=extra, device=device
        )
        begin = np.zeros(len(group_frames(chunks)), np.int64)
        for group in np.unique(chunks.group_id):
            begin[group] = self._buffer.put(*store.read_group(int(group), features))
        self._begin_of_chunk = begin[chunks.group_id] + chunk_offset(chunks)

    def batches(self) -> Iterator[Windows]:
        """Global batch after global batch, epoch after epoch, without end."""
        for epoch in itertools.count():
            for step, row in enumerate(self.plan.epoch(epoch)):
                window, empty = np.maximum(row, 0), row < 0
                tiles = self.plan.tiles(window)
                begin = np.where(empty, 0, self._begin_of_chunk[tiles.chunk] + tiles.start)
                frames = np.where(empty, 0, tiles.frames)
                yield self._buffer.cut(
                    begin,
                    frames,
                    self.plan.key(window, epoch),
                    batch_key=int(self.plan.batch_key(epoch, step)),
                )


def learn_in_memory(
    recipe: Recipe, store: Store, *, seconds: float, device: str = "cpu"
) -> tuple[Embedder, dict[str, Any]]:
    """Learns for a given time: a step is timed first, the schedule is laid over as many steps as
    fit.

    Args:
        recipe: What is learned; its ``epochs`` do not count.
        store: Poses.
        seconds: Processor time of this process (on a GPU: time on the clock), so that other work on
            the machine takes none of it.
        device: Where.

    Returns:
        The embedder, and ``steps``, ``windows``, ``frames``, ``epochs``, ``seconds``, ``loss`` (the
        mean of the last twentieth), ``parts``.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    frames = InMemory(store, recipe, device=device)
    learner = new_learner(recipe, store).to(device)
    steps = max(1, round(seconds / _seconds_per_step(recipe, learner, frames, clock)))
    optimiser_step, last, start = OptimiserStep(learner, recipe.optimiser), [], clock()
    for step, windows in zip(range(steps), frames.batches(), strict=False):
        lr = recipe.optimiser.lr * recipe.optimiser.rate(step, steps)
        loss, _ = optimiser_step(windows, lr=lr)
        if step >= steps * 19 // 20:
            last.append(loss)
    parts = last[0].parts
    about = {
        "steps": steps,
        "windows": steps * recipe.batch,
        "frames": steps * recipe.batch * recipe.window,
        "epochs": round(steps / frames.plan.steps, 2),
        "seconds": round(clock() - start, 1),
        "loss": float(torch.stack([loss.total for loss in last]).mean()),
        "parts": {
            name: float(torch.stack([loss.parts[name] for loss in last]).mean()) for name in parts
        },
    }
    return learner.embedder.eval(), about


def _seconds_per_step(
    recipe: Recipe, learner: nn.Module, frames: InMemory, clock: Callable[[], float]
) -> float:
    """Measured on a copy of the learner that is thrown away."""
    optimiser_step = OptimiserStep(copy.deepcopy(learner), recipe.optimiser)
    batches = frames.batches()
    for _ in range(WARM_UP_STEPS):
        optimiser_step(next(batches))[0].total.item()
    start = clock()
    for _ in range(TIMED_STEPS):
        optimiser_step(next(batches))[0].total.item()
    return (clock() - start) / TIMED_STEPS
