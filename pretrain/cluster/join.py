"""A Ray to run on: one that is up, or one of our own."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ray

from pretrain.cluster.resources import (
    Machine,
    cluster_machines,
    this_machine,
    with_cpus_per_worker,
)
from pretrain.config import Scale
from pretrain.errors import BadInput, RunFailed, refuse
from pretrain.runs import quiet_environment

log = logging.getLogger(__name__)


@contextmanager
def cluster(
    scale: Scale,
    *,
    cpus_wanted: float | None = None,
    gpus_wanted: float = 0,
    meanwhile: Callable[[], Any] = lambda: None,
) -> Iterator[Any]:
    """A Ray to run on: the one joined, or one of our own that ends with the block.

    Args:
        scale: Where.
        cpus_wanted: CPUs the work reserves; None: those of the scale's workers.
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
    address = scale.address or os.environ.get("RAY_ADDRESS")
    if address is not None:  # nodes that are taken away give notice; this machine does not
        quiet_environment.set_defaults({"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1"})
    quiet_environment.set_defaults(quiet_environment.RAY)

    def refuse_small(machines: Sequence[Machine], where: str) -> None:
        if cpus_wanted is None:
            with_cpus_per_worker(scale, machines)
        else:
            _refuse_small(machines, cpus_wanted, gpus_wanted, where)

    if ray.is_initialized():
        refuse_small(cluster_machines(), "this cluster")
        yield meanwhile()
        return
    if address is None:
        machine = this_machine(scale)
        if not scale.gpu:
            refuse_small([machine], "this machine (scale key cpus)")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(meanwhile)
            _start_here(machine)
    else:
        try:
            # Each process asks this cluster, not the latest of those that run on its machine.
            own = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
            if "://" not in address and address != "auto":
                own["RAY_ADDRESS"] = address
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": own},
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"no Ray answers at {address}: {error}. Start one with `ray start --head`, or "
                "leave scale key address empty"
            ) from error
    try:
        where = f"the cluster at {address}" if address else "this machine"
        refuse_small(cluster_machines(), where)
        yield result.result() if address is None else meanwhile()
    finally:
        ray.shutdown()


def _start_here(machine: Machine) -> None:
    """A Ray of our own; tried twice, since a port may have been taken meanwhile.

    Raises:
        RunFailed: If it does not start.
    """
    for attempt in (1, 2):
        try:
            with _own_address():
                ray.init(
                    address="local",
                    num_cpus=max(1, int(machine.cpus)),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            return
        except Exception as error:
            ray.shutdown()
            if attempt == 2:
                folder = os.environ.get("RAY_TMPDIR", "/tmp")
                raise RunFailed(
                    f"Ray does not start on this machine: {error}. See that {folder} (RAY_TMPDIR) "
                    "can be written and has room, that memory is free, and try again"
                ) from error
            log.warning("Ray did not start (%s); trying once more", error)


@contextmanager
def _own_address() -> Iterator[None]:
    """Processes that Ray starts within the block ask this Ray about itself. Without an address they
    ask the latest one on the machine, and Ray Train takes its controller for dead where that does
    not know it."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    own = {
        "RAY_GCS_SERVER_PORT": str(port),
        "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}",
    }
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def _refuse_small(machines: Sequence[Machine], cpus: float, gpus: float, where: str) -> None:
    has_cpus, has_gpus = sum(one.cpus for one in machines), sum(one.gpus for one in machines)
    errors = []
    if cpus > has_cpus + 1e-6:
        errors.append(f"it wants {cpus:g} CPUs, {where} has {has_cpus:g}")
    if gpus > has_gpus + 1e-6:
        errors.append(f"it wants {gpus:g} GPUs, {where} has {has_gpus:g}: set gpu=false")
    refuse(errors, about="the scale does not fit")
