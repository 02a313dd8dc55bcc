"""CPUs and GPUs of the machines, and whether the workers of a scale find room on them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import joblib
import ray

from pretrain.config import Scale
from pretrain.errors import BadInput

LEAST_CPUS = 0.5
_CPUS_PER_WORKER = (4.0, 3.0, 2.0, 1.0, LEAST_CPUS)
"""What a worker may reserve where the scale leaves it open; the most that fits."""


@dataclass(frozen=True)
class Machine:
    """What one machine lends to Ray."""

    name: str
    cpus: float
    gpus: float = 0.0
    node_id: str = ""
    """Ray's name for it."""


def this_machine(scale: Scale, gpus: float = 0.0) -> Machine:
    """This machine: the CPUs that this process may use (affinity, cgroup), or those of the
    scale."""
    return Machine("this machine", scale.cpus or joblib.cpu_count(), gpus)


def cluster_machines() -> list[Machine]:
    """The machines of the Ray that is up."""
    return [
        Machine(
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node["NodeID"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def room(machines: Sequence[Machine], cpus: float, *, gpu: bool) -> int:
    """How many workers find room, each on one machine.

    Args:
        machines: The machines.
        cpus: CPUs of a worker.
        gpu: Whether each needs a GPU.
    """
    return sum(
        min(int((machine.cpus + 1e-6) // cpus), int(machine.gpus) if gpu else sys.maxsize)
        for machine in machines
    )


def with_cpus_per_worker(scale: Scale, machines: Sequence[Machine]) -> Scale:
    """The scale with ``cpus_per_worker`` filled in where it leaves it open.

    Raises:
        BadInput: If the workers find no room on these machines; says what each has.
    """
    open_to = (scale.cpus_per_worker,) if scale.cpus_per_worker else _CPUS_PER_WORKER
    for cpus in open_to:
        if room(machines, cpus, gpu=scale.gpu) >= scale.most_workers:
            return dataclasses.replace(scale, cpus_per_worker=cpus)
    for cpus in open_to:  # an elastic run may begin with fewer
        if room(machines, cpus, gpu=scale.gpu) >= scale.least_workers:
            return dataclasses.replace(scale, cpus_per_worker=cpus)
    cpus = open_to[-1]
    each = f"{cpus:g} CPUs" + (" and a GPU" if scale.gpu else "")
    there = "; ".join(
        f"{machine.name} has {machine.cpus:g} CPUs"
        + (f", {machine.gpus:g} GPUs" if scale.gpu or machine.gpus else "")
        for machine in machines
    )
    fitting = room(machines, cpus, gpu=scale.gpu)
    keys = "workers" + (" or cpus_per_worker" if scale.cpus_per_worker else "")
    without = " or set gpu=false" if scale.gpu else ""
    raise BadInput(
        f"the scale does not fit: {scale.least_workers} workers want {each} each; {there}: "
        f"there is room for {fitting}. "
        f"Lower scale key {keys}{without}"
    )
