"""A Ray to run on: one that is up, or one of our own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ray

from pretrain.config import Scale
from pretrain.errors import BadInput, refuse
from pretrain.runs import quiet_environment

DATA_CPUS = 1
"""CPUs that Ray Data needs besides those of the workers; with none it waits for ever, without a
word."""


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
    quiet_environment.set_defaults(quiet_environment.RAY)
    address = scale.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        _refuse_small(scale, ray.cluster_resources(), cpus_wanted, gpus_wanted, "this cluster")
        yield meanwhile()
        return
    if address is None:
        cpus = int(scale.cpus or os.cpu_count() or 1)
        if not scale.gpu:
            where = "this machine (scale key cpus)"
            _refuse_small(scale, {"CPU": cpus}, cpus_wanted, gpus_wanted, where)
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(meanwhile)
            ray.init(
                address="local",
                num_cpus=cpus,
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
        where = f"the cluster at {address}" if address else "this machine"
        _refuse_small(scale, ray.cluster_resources(), cpus_wanted, gpus_wanted, where)
        yield result.result() if address is None else meanwhile()
    finally:
        ray.shutdown()


def _refuse_small(
    scale: Scale, resources: Mapping[str, float], cpus: float, gpus: float, where: str
) -> None:
    has_cpus, has_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    errors = []
    if cpus > has_cpus + 1e-6:
        reserved = scale.workers * scale.cpus_per_worker
        errors.append(
            f"it wants {cpus:g} CPUs ({scale.workers} workers x {scale.cpus_per_worker:g}, and "
            f"{cpus - reserved:g} for Ray Data to read with), {where} has {has_cpus:g}: lower "
            "scale key workers or cpus_per_worker"
        )
    if gpus > has_gpus + 1e-6:
        errors.append(
            f"it wants {gpus:g} GPUs, {where} has {has_gpus:g}: lower scale key workers, or set "
            "gpu=false"
        )
    refuse(errors, about="the scale does not fit")
