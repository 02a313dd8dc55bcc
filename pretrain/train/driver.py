"""Ray, driver side: a cluster to run on, the trainer, the result."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from pretrain.config import Recipe, Scale, plain
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.runs.mlflow_server import TrackedRun
from pretrain.train.learner import Learner
from pretrain.train.loop import train

log = logging.getLogger(__name__)

# Ray reports home, exports metrics and prints tables unless it is told otherwise; a user's own
# setting stands.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
DATA_CPUS = 1  # what Ray Data needs beside the workers; with none it waits for ever, without a word


def arithmetic(recipe: Recipe, scale: Scale, store: Store) -> dict[str, Any]:
    """Batches and memory of a run, worked out before anything starts.

    Raises:
        BadInput: If the global batch cannot be divided among the workers.
    """
    if recipe.batch % scale.workers:
        near = [n for n in range(1, recipe.batch + 1) if recipe.batch % n == 0]
        raise BadInput(
            f"a global batch of {recipe.batch} windows cannot be divided among {scale.workers} "
            f"workers; it can among {near}"
        )
    windows = int((-(-store.chunks.frames.astype(int) // recipe.window)).sum())
    beside = tuple(recipe.features.get("external") or ())
    return {
        "videos": len(store.videos),
        "frames": store.frames,
        "windows_per_epoch": windows,
        "global_batch": recipe.batch,
        "batch_per_worker": recipe.batch // scale.workers,
        "steps_per_epoch": -(-windows // recipe.batch),
        "steps": -(-windows // recipe.batch) * recipe.epochs,
        "megabytes_per_worker": round(
            store.frames * store.frame_bytes(beside) / scale.workers / 1e6, 1
        ),
        "cpus_wanted": scale.workers * scale.cpus_per_worker + DATA_CPUS,
        "gpus_wanted": scale.workers if scale.gpu else 0,
    }


@contextmanager
def cluster(
    scale: Scale,
    *,
    cpus_wanted: float,
    gpus_wanted: float = 0,
    meanwhile: Callable[[], Any] = lambda: None,
) -> Iterator[Any]:
    """A Ray to run on: the one joined, or one of our own that ends with the block.

    Args:
        scale: Where.
        cpus_wanted: CPUs the work reserves, Ray Data's included.
        gpus_wanted: GPUs the work reserves.
        meanwhile: What is to be done while a Ray of our own starts, which takes seconds in other
            processes.

    Yields:
        What ``meanwhile`` returned.

    Raises:
        BadInput: If the machines have less than that, or the address does not answer; nothing is
            started then.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = scale.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        _refuse_small(scale, ray.cluster_resources(), cpus_wanted, gpus_wanted, "this cluster")
        yield meanwhile()
        return
    if address is None:
        own = {"CPU": float(scale.cpus or os.cpu_count() or 1)}
        if not scale.gpu:
            _refuse_small(scale, own, cpus_wanted, gpus_wanted, "this machine (scale key cpus)")
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(meanwhile)
            ray.init(
                address="local",
                num_cpus=int(own["CPU"]),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    else:
        try:
            ray.init(address=address, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"no Ray answers at {address}: {error}. Start one with `ray start --head`, or "
                "leave scale key address empty"
            ) from error
    try:
        _refuse_small(
            scale,
            ray.cluster_resources(),
            cpus_wanted,
            gpus_wanted,
            f"the cluster at {address}" if address else "this machine",
        )
        yield done.result() if address is None else meanwhile()
    finally:
        ray.shutdown()


def _refuse_small(
    scale: Scale, has: dict[str, float], cpus: float, gpus: float, where: str
) -> None:
    have_cpus, have_gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
    problems = []
    if cpus > have_cpus + 1e-6:
        reserved = scale.workers * scale.cpus_per_worker
        problems.append(
            f"it wants {cpus:g} CPUs ({scale.workers} workers x {scale.cpus_per_worker:g}, and "
            f"{cpus - reserved:g} for Ray "
            f"Data to read with), {where} has {have_cpus:g}: lower scale key workers or "
            "cpus_per_worker"
        )
    if gpus > have_gpus + 1e-6:
        problems.append(
            f"it wants {gpus:g} GPUs, {where} has {have_gpus:g}: lower scale key workers, or set "
            "gpu=false"
        )
    refuse(problems, about="the scale does not fit")


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
    log_file = out / "train.log"
    settings = {
        "recipe": plain(recipe),
        "scale": plain(scale),
        "data": absolute(store.uri),
        "learner": ray.put(learner),
        "run": run,
        "log": str(log_file),
    }
    trainer = ray.train.torch.TorchTrainer(
        train,
        train_loop_config=settings,
        torch_config=ray.train.torch.TorchConfig(timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers,
            use_gpu=scale.gpu,
            resources_per_worker={"CPU": scale.cpus_per_worker, "GPU": int(scale.gpu)},
        ),
        run_config=ray.train.RunConfig(
            name="checkpoints" if scale.storage is None else out.name,
            storage_path=absolute(scale.storage or str(out)),
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
    with following(log_file):
        try:
            finished = trainer.fit()
        except ray.train.WorkerGroupError as error:
            for cause in error.worker_failures.values():
                if isinstance(cause, BadInput):  # a part of the store that is damaged, say
                    raise cause from error
            raise
    with finished.checkpoint.as_directory() as folder:
        shutil.copytree(Path(folder) / "encoder", out / "encoder", dirs_exist_ok=True)
    result: dict[str, Any] = dict(finished.return_value) | {
        "recipe": settings["recipe"],
        "scale": settings["scale"],
        "data": settings["data"],
        "fingerprint": store.fingerprint,
        "encoder": str(out / "encoder"),
    }
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


@contextmanager
def following(file: Path) -> Iterator[None]:
    """Repeats here what a worker on this machine writes to a log file, as it is written."""
    over = threading.Event()

    def follow() -> None:
        place = file.stat().st_size if file.is_file() else 0
        while True:
            last = over.wait(0.1)
            if file.is_file():
                with file.open(encoding="utf-8") as lines:
                    lines.seek(place)
                    for line in lines.read().splitlines():
                        log.info("%s", line)
                    place = lines.tell()
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def absolute(place: str) -> str:
    """A path that means the same in every process; addresses stay as they are."""
    return place if "://" in place else str(Path(place).expanduser().absolute())
