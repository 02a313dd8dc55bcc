"""Ray Train, driver side: the sizes of a run, the trainer, the result."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from pretrain.config import Recipe, Scale, plain
from pretrain.data.store import Store
from pretrain.errors import BadInput, RunFailed
from pretrain.redact import write_json
from pretrain.runs import paths
from pretrain.runs.tracked_run import TrackedRun
from pretrain.train.cluster import DATA_CPUS
from pretrain.train.learner import Learner
from pretrain.train.loop import train
from pretrain.train.messages import Messages


def arithmetic(recipe: Recipe, scale: Scale, store: Store) -> dict[str, Any]:
    """Batches and memory of a run, worked out before anything starts.

    Raises:
        BadInput: If the global batch cannot be divided among the workers.
    """
    if recipe.batch % scale.workers:
        divisors = [n for n in range(1, recipe.batch + 1) if recipe.batch % n == 0]
        raise BadInput(
            f"a global batch of {recipe.batch} windows cannot be divided among {scale.workers} "
            f"workers; it can among {divisors}"
        )
    windows = int((-(-store.chunks.frames.astype(int) // recipe.window)).sum())
    steps = -(-windows // recipe.batch)
    external = tuple(recipe.features.get("external") or ())
    bytes_per_worker = store.frames * store.frame_bytes(external) / scale.workers
    return {
        "videos": len(store.videos),
        "frames": store.frames,
        "windows_per_epoch": windows,
        "global_batch": recipe.batch,
        "batch_per_worker": recipe.batch // scale.workers,
        "steps_per_epoch": steps,
        "steps": steps * recipe.epochs,
        "megabytes_per_worker": round(bytes_per_worker / 1e6, 1),
        "cpus_wanted": scale.workers * scale.cpus_per_worker + DATA_CPUS,
        "gpus_wanted": scale.workers if scale.gpu else 0,
    }


def pretrain(
    recipe: Recipe,
    scale: Scale,
    learner: Learner,
    *,
    store: Store,
    out: Path,
    run: TrackedRun | None,
) -> dict[str, Any]:
    """Trains on the cluster that is up; leaves ``encoder/`` and ``result.json`` in ``out``.

    A run that was interrupted goes on from its last checkpoint when it is called again with the
    same ``out``.

    Returns:
        What is in ``result.json``.
    """
    messages = Messages()
    settings = {
        "recipe": plain(recipe),
        "scale": plain(scale),
        "data": store.address if "://" in store.address else store.path,
        "learner": ray.put(learner),
        "messages": messages,
    }
    trainer = ray.train.torch.TorchTrainer(
        _train_unless_hopeless,
        train_loop_config=settings,
        torch_config=ray.train.torch.TorchConfig(timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers,
            use_gpu=scale.gpu,
            resources_per_worker={"CPU": scale.cpus_per_worker, "GPU": int(scale.gpu)},
        ),
        run_config=ray.train.RunConfig(
            name="checkpoints" if scale.storage is None else out.name,
            storage_path=paths.absolute_address(scale.storage or str(out)),
            failure_config=ray.train.FailureConfig(max_failures=scale.retries),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            worker_runtime_env={
                "env_vars": {"GLOO_SOCKET_IFNAME": os.environ["GLOO_SOCKET_IFNAME"]}
            }
            if "GLOO_SOCKET_IFNAME" in os.environ
            else None,
        ),
    )
    with messages.received(run, out / "train.log"):
        try:
            finished = trainer.fit()
        except ray.train.WorkerGroupError:
            messages.raise_final_error()
            raise
        messages.raise_final_error()
    with finished.checkpoint.as_directory() as folder:
        shutil.copytree(Path(folder) / "encoder", out / "encoder", dirs_exist_ok=True)
    result: dict[str, Any] = dict(finished.return_value) | {
        "recipe": settings["recipe"],
        "scale": settings["scale"],
        "data": settings["data"],
        "fingerprint": store.fingerprint,
        "encoder": str(out / "encoder"),
    }
    write_json(out / "result.json", result)
    return result


def _train_unless_hopeless(settings: dict[str, Any]) -> dict[str, Any]:
    """:func:`train`, unless an earlier attempt of this run met an error that would only come again:
    bad input, a loss that is not finite."""
    messages: Messages = settings["messages"]
    if messages.has_final_error():
        return {}
    try:
        return train(settings)
    except (BadInput, RunFailed) as error:
        messages.send_final_error(error)
        raise
