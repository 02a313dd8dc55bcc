"""Ray Train, driver side: the sizes of a run, the trainer, the result."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from pretrain.cluster.preflight import check_machines
from pretrain.cluster.resources import (
    LEAST_CPUS,
    cluster_machines,
    with_cpus_per_worker,
)
from pretrain.config import Recipe, Scale, plain
from pretrain.data.leave_out import fingerprints, joined
from pretrain.data.store import Store
from pretrain.errors import FULL, BadInput, RunFailed
from pretrain.redact import write_json
from pretrain.runs import paths
from pretrain.runs.tracked_run import TrackedRun
from pretrain.train.learner import Learner
from pretrain.train.loop import train
from pretrain.train.messages import Messages
from pretrain.train.ray_checkpoints import find_checkpoint, remove_orphans

log = logging.getLogger(__name__)

RESIZE_SECONDS = 60.0
"""How often an elastic run looks whether there is room for more workers; each change costs a start
from the last checkpoint."""


def arithmetic(recipe: Recipe, scale: Scale, store: Store) -> dict[str, Any]:
    """Batches and memory of a run, worked out before anything starts.

    Raises:
        BadInput: If the global batch cannot be divided among the workers.
    """
    numbers = range(scale.least_workers, scale.most_workers + 1)
    if unfit := [number for number in numbers if recipe.batch % number]:
        divisors = [n for n in range(1, recipe.batch + 1) if recipe.batch % n == 0]
        raise BadInput(
            f"a global batch of {recipe.batch} windows cannot be divided among "
            f"{', '.join(map(str, unfit[:5]))} workers; it can among {divisors}"
        )
    chunk_frames = store.chunks.frames.astype(int)
    if store.chunks.left_out is not None:
        chunk_frames = chunk_frames[~store.chunks.left_out]
    windows = int((-(-chunk_frames // recipe.window)).sum())
    steps = -(-windows // recipe.batch)
    external = tuple(recipe.features.get("external") or ())
    bytes_per_worker = int(chunk_frames.sum()) * store.frame_bytes(external) / scale.least_workers
    return {
        "videos": len(store.learned_videos),
        "frames": int(chunk_frames.sum()),
        "windows_per_epoch": windows,
        "global_batch": recipe.batch,
        "batch_per_worker": recipe.batch // scale.most_workers,
        "steps_per_epoch": steps,
        "steps": steps * recipe.epochs,
        "megabytes_per_worker": round(bytes_per_worker / 1e6, 1),
        "cpus_wanted": scale.least_workers * (scale.cpus_per_worker or LEAST_CPUS),
        "gpus_wanted": scale.least_workers if scale.gpu else 0,
    }


def pretrain(
    recipe: Recipe,
    scale: Scale,
    learner: Learner,
    *,
    store: Store,
    out: Path,
    run: TrackedRun | None,
    resume_from: str | None = None,
) -> dict[str, Any]:
    """Trains on the cluster that is up; leaves ``encoder/`` and ``result.json`` in ``out``.

    A run that was interrupted goes on from its last checkpoint when it is called again with the
    same ``out``.

    Args:
        recipe: What is learned.
        scale: Where.
        learner: Untrained.
        store: The frames.
        out: The run's folder.
        run: Where it is tracked.
        resume_from: Checkpoint to go on from; None for the last, if there is any.

    Returns:
        What is in ``result.json``.

    Raises:
        RunFailed: If it was stopped (SIGTERM) after a last checkpoint, or cannot go on.
        BadInput: If the workers find no room, or there is no such checkpoint.
    """
    machines = cluster_machines()
    scale = with_cpus_per_worker(scale, machines)
    storage = paths.absolute_address(scale.storage or str(out))
    name = "checkpoints" if scale.storage is None else out.name
    if resume_from is not None:
        resume_from = find_checkpoint(resume_from, f"{storage}/{name}")
    if len(machines) > 1:
        check_machines(machines, store, storage)
    messages = Messages()
    settings = {
        "recipe": plain(recipe),
        "scale": plain(scale),
        "data": store.address if "://" in store.address else store.path,
        "leave_out": sorted(store.leave_out),
        "fingerprints": joined(fingerprints(store, store.learned_videos)),
        "learner": ray.put(learner),
        "messages": messages,
        "resume_from": resume_from,
        "command": uuid.uuid4().hex,
    }
    workers = scale.workers
    trainer = ray.train.torch.TorchTrainer(
        _train_unless_hopeless,
        train_loop_config=settings,
        torch_config=ray.train.torch.TorchConfig(timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers if isinstance(workers, int) else (workers[0], workers[1]),
            use_gpu=scale.gpu,
            resources_per_worker={"CPU": scale.cpus_per_worker, "GPU": int(scale.gpu)},
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            failure_config=ray.train.FailureConfig(max_failures=scale.retries),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": network_environment()},
        ),
    )
    with messages.received(run, out / "train.log"), _stopping_at_sigterm(messages):
        try:
            finished = trainer.fit()
        except ray.train.WorkerGroupError:
            messages.raise_final_error()
            raise
        messages.raise_final_error()
    if not finished.return_value:
        raise RunFailed("stopped (SIGTERM) after a last checkpoint: go on with --resume")
    remove_orphans(finished)
    with finished.checkpoint.as_directory() as folder:
        shutil.copytree(Path(folder) / "encoder", out / "encoder", dirs_exist_ok=True)
    result: dict[str, Any] = dict(finished.return_value) | {
        "recipe": settings["recipe"],
        "scale": settings["scale"],
        "data": settings["data"],
        "leave_out": settings["leave_out"],
        "fingerprint": store.fingerprint,
        "encoder": str(out / "encoder"),
    }
    write_json(out / "result.json", result)
    return result


def network_environment() -> dict[str, str]:
    """What this process was told of the network between workers; they are told the same."""
    return {k: v for k, v in os.environ.items() if k.startswith(("NCCL_", "GLOO_"))}


def _train_unless_hopeless(settings: dict[str, Any]) -> dict[str, Any]:
    """:func:`train`, unless an earlier attempt of this run met an error that would only come again:
    bad input, a loss that is not finite, a full disk."""
    messages: Messages = settings["messages"]
    if messages.has_final_error():
        return {}
    try:
        return train(settings)
    except (BadInput, RunFailed) as error:
        messages.send_final_error(error)
        raise
    except OSError as error:
        if error.errno in FULL:
            sentence = f"a checkpoint cannot be written: {error}: make room, then pass --resume"
            messages.send_final_error(RunFailed(sentence))
        raise


@contextmanager
def _stopping_at_sigterm(messages: Messages) -> Iterator[None]:
    """SIGTERM (of SLURM, Kubernetes, ``ray job stop``) writes a checkpoint before the run ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        log.warning("SIGTERM: a last checkpoint is written, then the run ends")
        messages.stop()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
