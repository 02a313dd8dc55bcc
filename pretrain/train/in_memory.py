"""Learns an encoder in this process alone, for a given time: to compare recipes and to measure
steps. No Ray, no checkpoints.

What a run learns is in ``loop.py``; this is the same step on frames that lie in memory, as short as
a comparison can bear.
"""

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
from pretrain.objectives import Loss
from pretrain.train.learner import new_learner

WARM, TIMED = 2, 4


class Training:
    """The step of the training loop: views, loss, gradient, clipping, optimiser.

    Args:
        recipe: What is learned.
        learner: Compiled or not.
    """

    def __init__(self, recipe: Recipe, learner: nn.Module) -> None:
        self.recipe, self.learner = recipe, learner
        settings = recipe.optimiser
        self.optimiser = torch.optim.AdamW(
            learner.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def step(self, windows: Windows, *, rate: float = 1.0) -> Loss:
        """One step, as in ``loop.py``.

        Args:
            windows: A global batch.
            rate: Learning rate as a share of the recipe's.

        Returns:
            The loss before the step, without gradient.

        Raises:
            FloatingPointError: If the gradient is not finite; nothing was updated.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.optimiser.lr * rate
        loss: Loss = self.learner(windows)
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            self.learner.parameters(), self.recipe.optimiser.clip or torch.inf
        )
        if not norm.isfinite():
            raise FloatingPointError(
                f"the gradient is {norm.item()}: lower optimiser.lr or set precision=float32"
            )
        self.optimiser.step()
        return Loss(loss.total.detach(), {name: part.detach() for name, part in loss.parts.items()})


class InMemory:
    """All frames of a store in the memory of a device, and the global batches of every epoch.

    Args:
        store: The store.
        recipe: Its window, batch, seed and features from elsewhere count.
        device: Where.
    """

    def __init__(self, store: Store, recipe: Recipe, *, device: str = "cpu") -> None:
        chunks = store.chunks
        self.lanes = BatchPlan.deal(
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
        self._begin = (
            begin[self.lanes.group] + chunk_offset(chunks)[self.lanes.chunk] + self.lanes.start
        )

    def batches(self) -> Iterator[Windows]:
        """Global batch after global batch, epoch after epoch, without end."""
        for epoch in itertools.count():
            for row in self.lanes.epoch(epoch):
                held, empty = np.maximum(row, 0), row < 0
                frames = np.where(empty, 0, self.lanes.frames[held])
                yield self._buffer.cut(
                    np.where(empty, 0, self._begin[held]), frames, self.lanes.key(held, epoch)
                )


def learn_alone(
    recipe: Recipe, store: Store, *, seconds: float, device: str = "cpu"
) -> tuple[Embedder, dict[str, Any]]:
    """Learns for a given time: what a step costs is measured first, the schedule is laid over as
    many steps as fit.

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
    steps = max(1, round(seconds / _cost(recipe, learner, frames, clock)))
    training, last, begin = Training(recipe, learner), [], clock()
    for step, windows in zip(range(steps), frames.batches(), strict=False):
        loss = training.step(windows, rate=recipe.optimiser.rate(step, steps))
        if step >= steps * 19 // 20:
            last.append(loss)
    done = steps * recipe.batch
    about = {
        "steps": steps,
        "windows": done,
        "frames": done * recipe.window,
        "epochs": round(steps / frames.lanes.steps, 2),
        "seconds": round(clock() - begin, 1),
        "loss": float(torch.stack([one.total for one in last]).mean()),
        "parts": {
            name: float(torch.stack([one.parts[name] for one in last]).mean())
            for name in last[0].parts
        },
    }
    return learner.embedder.eval(), about


def _cost(
    recipe: Recipe, learner: nn.Module, frames: InMemory, clock: Callable[[], float]
) -> float:
    """Seconds of a step, on a copy that is thrown away."""
    trial = Training(recipe, copy.deepcopy(learner))
    batches = frames.batches()
    for _ in range(WARM):
        trial.step(next(batches)).total.item()
    begin = clock()
    for _ in range(TIMED):
        trial.step(next(batches)).total.item()
    return (clock() - begin) / TIMED
