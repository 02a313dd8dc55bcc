"""The training loop, as every Ray Train worker runs it. Read it downwards."""

from __future__ import annotations

from typing import Any

import joblib
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
from pretrain.train.diagnostics.probe import ProbedEpochs, open_probe
from pretrain.train.learner import Learner, restore
from pretrain.train.messages import Messages
from pretrain.train.progress import Progress
from pretrain.train.ray_checkpoints import StopNotice, latest_state, report_checkpoint
from pretrain.train.step import OptimiserStep
from pretrain.train.torch_setup import configure_torch


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Learns an encoder; what ``TorchTrainer`` calls on each worker.

    Args:
        settings: ``recipe`` and ``scale`` as plain values, ``data`` (address of the store),
            ``leave_out`` (videos of it that nothing is learned from), ``fingerprints`` (of the
            others),
            ``learner`` (untrained, in Ray's object store), ``messages`` (to the driver),
            ``resume_from`` (a checkpoint, or None), ``command`` (differs in every start).

    Returns:
        Last loss, frames, seconds, frames per second: for ``result.json``. Nothing if it was
        stopped.
    """
    recipe = make(Recipe, settings["recipe"], about="recipe")
    scale = make(Scale, settings["scale"], about="scale")
    messages: Messages = settings["messages"]
    if distributed.rank() == 0:
        messages.send_log()
    device = ray.train.torch.get_device()
    # Ray would hold torch to the CPUs it reserved, which on a laptop is one
    workers_here = ray.train.get_context().get_local_world_size()
    configure_torch(max(1, joblib.cpu_count() // workers_here))
    torch.manual_seed(recipe.seed)

    store = Store(settings["data"], leave_out=settings["leave_out"])
    plan = BatchPlan.from_chunks(
        store.chunks, window=recipe.window, batch=recipe.batch, seed=recipe.seed
    )
    learner: Learner = ray.get(settings["learner"]).to(device)
    external = tuple(learner.embedder.features.external)
    stream = FrameStream(
        store,
        plan,
        rank=distributed.rank(),
        workers=distributed.count(),
        device=device,
        resident_bytes=scale.resident_gb * 1e9,
        features=external,
    )
    model: nn.Module = learner
    if distributed.count() > 1:  # running averages are of the global batch, the same everywhere
        model = nn.parallel.DistributedDataParallel(learner, broadcast_buffers=False)
    optimiser_step = OptimiserStep(model, recipe.optimiser)
    at: dict[str, Any] = {"epoch": 0, "step": 0, "progress": None, "probe": []}
    if state := latest_state(settings):
        at |= state["at"]
        restore(learner, state["learner"])
        optimiser_step.optimiser.load_state_dict(state["optimiser"])

    steps = plan.steps * recipe.epochs
    progress = Progress(
        steps=steps,
        frames=plan.frames * recipe.epochs,
        epochs=recipe.epochs,
        state=at["progress"],
        send_metrics=messages.send_metrics,
    )
    stop = StopNotice(messages, device)
    first = distributed.rank() == 0
    probe = open_probe(store, seed=recipe.seed, external=external, device=device) if first else None
    probed = ProbedEpochs(probe, recipe.epochs, at["probe"], messages.send_metrics)
    if not at["epoch"] and not at["step"]:
        probed.after(0, learner.embedder, step=0)
    while at["epoch"] < recipe.epochs and not stop.must_end:
        for windows in stream.epoch(at["epoch"], at["step"]):
            step = at["epoch"] * plan.steps + at["step"]
            lr = recipe.optimiser.lr * recipe.optimiser.rate(step, steps)
            learner.watch = progress.is_logged(step)
            loss, norm = optimiser_step(windows, lr=lr)
            progress.step(step, {"loss": loss.total, **loss.parts, "gradient_norm": norm, "lr": lr})

            at["step"] += 1
            epoch_ended = at["step"] == plan.steps
            if epoch_ended:
                at["epoch"], at["step"] = at["epoch"] + 1, 0
                probed.after(at["epoch"], learner.embedder, step=step + 1)
            due = scale.checkpoint_steps and (step + 1) % scale.checkpoint_steps == 0
            if stop.is_new(step) or epoch_ended or due:
                at |= {"progress": progress.state(), "command": settings["command"]}
                state = {
                    "learner": learner.state_dict(),
                    "optimiser": optimiser_step.optimiser.state_dict(),
                    "at": at,
                }
                made_by = {"recipe": settings["recipe"], "data": store.fingerprint}
                made_by["learned_from"] = settings["fingerprints"]
                report_checkpoint(learner, state, made_by | {"step": step + 1, "steps": steps})
                if stop.must_end:
                    break
    return {} if at["epoch"] < recipe.epochs else progress.result() | probed.result()
