"""Checkpoints by way of Ray Train: written by rank 0, found again by every worker, chosen and
cleared by the driver."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch
from pyarrow import fs

from pretrain import distributed
from pretrain.errors import BadInput
from pretrain.runs import paths
from pretrain.train.checkpoint import is_complete, load_state, save_encoder, save_state
from pretrain.train.learner import Learner
from pretrain.train.messages import Messages

log = logging.getLogger(__name__)

STEPS_PER_NOTICE = 20
"""Steps between two looks for a notice that the run is about to be stopped: all workers must agree
on it, which takes them one to two milliseconds."""


def report_checkpoint(learner: Learner, state: dict[str, Any], made_by: dict[str, Any]) -> None:
    """Reports a checkpoint: the full state and, ready for use, the encoder folder. All workers call
    it, rank 0 writes."""
    if distributed.rank() > 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(Path(folder) / "encoder", learner.embedder, made_by=made_by)
        save_state(Path(folder), state)
        position = {"epoch": state["at"]["epoch"], "step": state["at"]["step"]}
        ray.train.report(position, checkpoint=ray.train.Checkpoint.from_directory(folder))


def latest_state(settings: dict[str, Any]) -> dict[str, Any] | None:
    """The state that a worker goes on from: of the last checkpoint of this command, else of the one
    chosen (``resume_from``), else of the last there is; None at the beginning of a run."""
    latest = ray.train.get_checkpoint()
    state = latest and _load(latest)
    chosen = settings["resume_from"]
    if chosen and (state is None or state["at"].get("command") != settings["command"]):
        return _load(ray.train.Checkpoint(chosen))
    return state


def _load(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        return load_state(Path(folder))


class StopNotice:
    """Whether this run is about to be stopped, so that a checkpoint should be written now.

    The notice comes from Ray (a node that is to be taken away: a spot instance, ``ray drain-node``)
    or from the driver (SIGTERM: SLURM, Kubernetes, a stopped job). Every worker asks, and all
    get the same answer.
    """

    def __init__(self, messages: Messages, device: torch.device) -> None:
        self._messages, self._device = messages, device
        self._saved = False
        self.must_end = False
        """Whether the driver wants the run to end after the checkpoint."""

    def is_new(self, step: int) -> bool:
        """Whether a notice has come that no checkpoint was written for yet; now and then."""
        if self._saved or (step + 1) % STEPS_PER_NOTICE:
            return False
        told = distributed.rank() == 0 and self._messages.must_stop()
        flag = torch.tensor(float(told), device=self._device)
        self.must_end = bool(distributed.mean(flag) > 0)
        self._saved = self.must_end or ray.train.get_preemption_info() is not None
        return self._saved


def find_checkpoint(name: str, folder: str) -> str:
    """The address of the checkpoint that ``--from`` names.

    Args:
        name: A checkpoint's folder, or its name below the run's checkpoints.
        folder: Where the run keeps its checkpoints.

    Raises:
        BadInput: If there is no such checkpoint or a part of it is missing; lists those there are.
    """
    address = paths.absolute_address(name) if "/" in name else f"{folder}/{name}"
    system, path = fs.FileSystem.from_uri(address) if "://" in address else (None, address)
    if system is None:
        there = is_complete(Path(path))
    else:
        there = system.get_file_info(f"{path}/complete").type == fs.FileType.File
    if not there:
        known = ", ".join(sorted(Path(one).name for one in _checkpoints(folder))) or "none"
        raise BadInput(f"--from {name}: no complete checkpoint at {address}; there are: {known}")
    return address


def _checkpoints(folder: str) -> list[str]:
    """Paths of the checkpoint folders of a run, complete or not."""
    system, path = fs.FileSystem.from_uri(folder) if "://" in folder else (None, folder)
    found = (system or fs.LocalFileSystem()).get_file_info(fs.FileSelector(path, True, True))
    return [
        one.path
        for one in found
        if one.type == fs.FileType.Directory and one.base_name.startswith("checkpoint_")
    ]


def remove_orphans(finished: ray.train.Result) -> None:
    """Removes checkpoints that interrupted attempts left half-written, once a run has come to its
    end."""
    kept = {Path(checkpoint.path).name for checkpoint, _ in finished.best_checkpoints or []}
    kept.add(Path(finished.checkpoint.path).name)
    system, folder = finished.checkpoint.filesystem, str(Path(finished.checkpoint.path).parent)
    for one in system.get_file_info(fs.FileSelector(folder)):
        is_folder = one.type == fs.FileType.Directory
        if is_folder and one.base_name.startswith("checkpoint_") and one.base_name not in kept:
            log.info("removing %s, which an interrupted attempt left half-written", one.path)
            system.delete_dir(one.path)
