"""Before the first step on several machines: what would go wrong later is found now, and said."""

from __future__ import annotations

import logging
import platform
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import ray
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pretrain.cluster.resources import Machine
from pretrain.data.store import Store
from pretrain.data.store_address import filesystem
from pretrain.errors import BadInput, refuse
from pretrain.redact import redact
from pretrain.runs.provenance import source_hash

log = logging.getLogger(__name__)

_SECONDS = 60
"""A machine that has not answered by then is refused."""


@dataclass(frozen=True)
class _Answer:
    """What a machine says of itself."""

    software: dict[str, str]
    free_gpu_memory: str
    errors: list[str]


def check_machines(machines: Sequence[Machine], store: Store, storage: str) -> None:
    """Asks every machine whether it sees the store and the storage and runs the same code; logs a
    table.

    Args:
        machines: Of the cluster that is up.
        store: What the run reads.
        storage: Where its checkpoints go.

    Raises:
        BadInput: If a machine cannot take part, with the remedy; everything at once.
    """
    token = check_storage(storage, remove=False)
    system, path = filesystem(storage)
    look = ray.remote(num_cpus=0)(_look)
    asked = {
        machine: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node_id, soft=False)
        ).remote(store.address, store.fingerprint, storage, token, str(number))
        for number, machine in enumerate(machines)
    }
    here = software()
    errors = []
    try:
        for number, (machine, answer) in enumerate(asked.items()):
            try:
                found: _Answer = ray.get(answer, timeout=_SECONDS)
            except ray.exceptions.RayError as error:
                errors.append(f"{machine.name}: no answer in {_SECONDS} s ({error})")
                continue
            log.info("%s", _row(machine, found))
            errors += [f"{machine.name}: {sentence}" for sentence in found.errors]
            errors += [
                f"{machine.name}: {name} is {found.software[name]}, here {value}: "
                + ("run the same files there" if name == "ethoray" else "install the same there")
                for name, value in here.items()
                if found.software[name] != value
            ]
            written = system.get_file_info(f"{path}/{token}-{number}").type == fs.FileType.File
            if not found.errors and not written:
                errors.append(f"{machine.name}: {_elsewhere(storage)}")
    finally:
        for number in range(len(machines)):
            _remove(system, f"{path}/{token}-{number}")
        _remove(system, f"{path}/{token}")
    refuse(errors, about="the machines of this cluster cannot work together")


def check_storage(storage: str, *, remove: bool = True) -> str:
    """Writes a small file to where checkpoints are to go; returns its name.

    Args:
        storage: Folder or address; made if it is not there.
        remove: Whether the file is removed again.

    Raises:
        BadInput: If it cannot be written.
    """
    token = f".preflight-{uuid.uuid4().hex[:12]}"
    system, path = filesystem(storage)
    try:
        system.create_dir(path, recursive=True)
        _write(system, f"{path}/{token}")
        if remove:
            _remove(system, f"{path}/{token}")
    except OSError as error:
        raise BadInput(f"scale key storage: cannot write to {redact(storage)}: {error}") from error
    return token


def software() -> dict[str, str]:
    """What must be the same on every machine."""
    packages = {name: version(name) for name in ("torch", "ray", "numpy")}
    return {"ethoray": source_hash(), "python": platform.python_version(), **packages}


def _look(address: str, fingerprint: str, storage: str, token: str, number: str) -> _Answer:
    """Runs on the machine that is asked."""
    errors = []
    try:
        if Store(address).fingerprint != fingerprint:
            errors.append(f"the store {redact(address)} is another one there")
    except BadInput as error:
        errors.append(
            f"{error}. Put the store where every machine sees it: a shared folder, or s3://…"
        )
    try:
        system, path = filesystem(storage)
        if system.get_file_info(f"{path}/{token}").type != fs.FileType.File:
            errors.append(_elsewhere(storage))
        else:
            _write(system, f"{path}/{token}-{number}")
    except (OSError, BadInput) as error:
        errors.append(f"cannot write to the storage {redact(storage)}: {error}")
    return _Answer(software(), _free_gpu_memory(), errors)


def _elsewhere(storage: str) -> str:
    return (
        f"the storage {redact(storage)} is not the same place there as here: set scale key storage "
        "to a folder that every machine sees, or s3://…"
    )


def _write(system: fs.FileSystem, path: str) -> None:
    with system.open_output_stream(path) as stream:
        stream.write(b"x")


def _remove(system: fs.FileSystem, path: str) -> None:
    if system.get_file_info(path).type == fs.FileType.File:
        system.delete_file(path)


def _free_gpu_memory() -> str:
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(process.stdout.split("\n")).strip(", ")


def _row(machine: Machine, found: _Answer) -> str:
    gpus = f"  {machine.gpus:g} GPUs ({found.free_gpu_memory} free)" if machine.gpus else ""
    packages = "  ".join(f"{name} {value}" for name, value in found.software.items())
    return f"{machine.name}  {machine.cpus:g} CPUs{gpus}  {packages}"
