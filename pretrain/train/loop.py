"""The training loop, as every Ray Train worker runs it. Read it downwards."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from pretrain import distributed
from pretrain.config import Recipe, Scale, make
from pretrain.data.ray_stream import FrameStream
from pretrain.data.store import Store
from pretrain.data.windows import BatchPlan
from pretrain.train.checkpoint import load_state, save_encoder, save_state
from pretrain.train.learner import Learner
from pretrain.train.progress import Progress
from pretrain.train.torch_setup import configure_torch


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Learns an encoder; what ``TorchTrainer`` calls on each worker.

    Args:
        settings: ``recipe`` and ``scale`` as plain values, ``data`` (address of the store),
            ``learner`` (untrained, in Ray's object store), ``run`` (a tracked run), ``log`` (a
            file).

    Returns:
        Last loss, frames, seconds, frames per second: for ``result.json``.
    """
    recipe = make(Recipe, settings["recipe"], about="recipe")
    scale = make(Scale, settings["scale"], about="scale")
    if distributed.rank() == 0:
        speak(settings["log"])
    device = ray.train.torch.get_device()
    share_cores()
    torch.manual_seed(recipe.seed)

    store = Store(settings["data"])
    lanes = BatchPlan.deal(store.chunks, window=recipe.window, batch=recipe.batch, seed=recipe.seed)
    learner: Learner = ray.get(settings["learner"]).to(device)
    stream = FrameStream(
        store,
        lanes,
        rank=distributed.rank(),
        workers=distributed.count(),
        device=device,
        resident_bytes=scale.resident_gb * 1e9,
        features=tuple(learner.embedder.features.external),
    )
    before = last_checkpoint()
    at: dict[str, Any] = before["at"] if before else {"epoch": 0, "step": 0, "progress": None}
    optimiser = torch.optim.AdamW(
        learner.parameters(),
        lr=recipe.optimiser.lr,
        weight_decay=recipe.optimiser.weight_decay,
        fused=True,
    )
    model = nn.parallel.DistributedDataParallel(learner) if distributed.count() > 1 else learner
    if before:
        learner.load_state_dict(before["learner"])
        optimiser.load_state_dict(before["optimiser"])

    steps = lanes.steps * recipe.epochs
    progress = Progress(
        steps=steps,
        frames=store.frames * recipe.epochs,
        epochs=recipe.epochs,
        before=at["progress"],
        run=settings["run"],
    )
    while at["epoch"] < recipe.epochs:
        for windows in stream.epoch(at["epoch"], at["step"]):
            step = at["epoch"] * lanes.steps + at["step"]
            rate = recipe.optimiser.lr * recipe.optimiser.rate(step, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate

            learner.watch = progress.logs(step)
            loss = model(windows)
            optimiser.zero_grad(set_to_none=True)
            loss.total.backward()
            norm = nn.utils.clip_grad_norm_(
                learner.parameters(), recipe.optimiser.clip or torch.inf
            )
            if not norm.isfinite():
                raise FloatingPointError(
                    f"the gradient is {norm.item()} at step {step}, nothing was updated: lower "
                    "optimiser.lr or set precision=float32"
                )
            optimiser.step()

            progress.step(
                step, {"loss": loss.total, **loss.parts, "gradient_norm": norm, "lr": rate}
            )
            at["step"] += 1
            last_of_epoch = at["step"] == lanes.steps
            if last_of_epoch:
                at["epoch"], at["step"] = at["epoch"] + 1, 0
            if last_of_epoch or (
                scale.checkpoint_steps and (step + 1) % scale.checkpoint_steps == 0
            ):
                at["progress"] = progress.state()
                made_by = {
                    "recipe": settings["recipe"],
                    "data": store.fingerprint,
                    "step": step + 1,
                    "steps": steps,
                }
                keep(
                    learner,
                    {
                        "learner": learner.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "at": at,
                    },
                    made_by,
                )
    return progress.result()


def last_checkpoint() -> dict[str, Any] | None:
    """The full state of a run that goes on."""
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            return load_state(Path(folder))
    return None


def keep(learner: Learner, state: dict[str, Any], made_by: dict[str, Any]) -> None:
    """Reports a checkpoint: the full state and, ready for use, the encoder folder. All workers call
    it, rank 0 writes."""
    if distributed.rank() > 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(Path(folder) / "encoder", learner.embedder, made_by=made_by)
        save_state(Path(folder), state)
        reached = {"epoch": state["at"]["epoch"], "step": state["at"]["step"]}
        ray.train.report(reached, checkpoint=ray.train.Checkpoint.from_directory(folder))


def share_cores() -> None:
    """Lets torch use this machine's cores: Ray would hold it to the CPUs it reserved, which on a
    laptop is one."""
    beside = ray.train.get_context().get_local_world_size()
    configure_torch(max(1, (os.cpu_count() or 1) // beside))


def speak(log_file: str) -> None:
    """Sends this worker's log to a file of the run, where the driver reads along; elsewhere to the
    job's log."""
    there = Path(log_file).parent.is_dir()
    handler = logging.FileHandler(log_file, encoding="utf-8") if there else logging.StreamHandler()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("ray").setLevel(logging.WARNING)
