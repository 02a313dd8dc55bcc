"""A piece of the table: one network of one row and seed, trained, and its predictions for the test
videos. Plain torch; ``jobs.py`` runs pieces with Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from finetune.fit.fit import Probabilities
from finetune.fit.frames import Frames, gather_poses
from finetune.labels.problems import Problem
from finetune.paper.fit import (
    InitialWeights,
    Inputs,
    label_steps,
    label_videos,
    phase_steps,
    read_inputs,
    train_network,
)
from finetune.paper.joint_fit import (
    epoch_steps,
    fit_member,
    output_layers,
    unlabelled_videos,
    with_head_inputs,
)
from finetune.paper.joint_fit import label_steps as joint_label_steps
from finetune.paper.table import Row, Settings
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.train.torch_setup import configure_torch


class Piece(NamedTuple):
    """What one process does."""

    row: str
    seed: int
    part: int
    """A problem of the row's task, or a network of its ensemble."""


@dataclass(frozen=True, kw_only=True)
class ResolvedRow:
    """A row with everything its pieces need but the frames."""

    row: Row
    problems: Sequence[Problem]
    settings: Settings
    schema: Schema
    epochs_share: float
    device: str
    unlabelled: Sequence[str] = ()
    """Videos that it learns from without labels."""
    start_classes: Sequence[str] = ()
    """Classes of the row that it starts from."""

    @property
    def parts(self) -> int:
        """Pieces for each seed."""
        return self.settings.joint[self.row.joint].members if self.row.joint else len(self.problems)

    @property
    def tasks(self) -> list[str]:
        """Label sets of its problems."""
        return list(dict.fromkeys(problem.task for problem in self.problems))

    def steps(self, part: int, frames_in: Callable[[str], int]) -> int:
        """Optimiser steps of a piece, about, given the frames of each video; labelling the test
        videos counts as the steps that take as long."""
        if self.row.joint:
            joint = self.settings.joint[self.row.joint]
            videos = {*self.unlabelled, *(name for p in self.problems for name in p.train)}
            layers = len(output_layers(self.problems, joint))
            test_frames = sum(frames_in(name) for p in self.problems for name in p.test)
            epoch = epoch_steps(joint, layers, sum(map(frames_in, videos)))
            epochs = joint.epochs * self.epochs_share
            return round(epoch * epochs + joint_label_steps(joint, layers, test_frames))
        network, problem = self.settings.networks[self.row.network], self.problems[part]
        epoch = -(-sum(map(len, problem.train.values())) // network.batch)
        phases = self.row.phases(network)
        training = sum(phase_steps(epoch, phase, self.epochs_share) for phase in phases)
        return training + round(label_steps(network, sum(map(frames_in, problem.test))))


class PieceResult(NamedTuple):
    """What a piece leaves."""

    probabilities: Mapping[int, Probabilities]
    """Index of a problem to its test videos."""
    weights: Mapping[str, npt.NDArray[Any]]
    """Of a network that others may start from; empty for a joint one."""
    about: Mapping[str, Any]


def read_frames(
    row: ResolvedRow,
    store: Store,
    *,
    moments_from: Sequence[str],
    on_progress: Callable[[int], object],
) -> Inputs | Frames:
    """The frames of a row, for all of its pieces; ``moments_from`` as of :func:`read_inputs`."""
    videos = {name for p in row.problems for labels in (p.train, p.test) for name in labels}
    names = sorted(videos | set(row.unlabelled))
    if row.row.joint:
        poses = gather_poses(store, names, on_progress=on_progress)
        return with_head_inputs(poses, row.settings.joint[row.row.joint], store.schema)
    return read_inputs(
        store, names, features=row.row.features, moments_from=moments_from, on_progress=on_progress
    )


def unlabelled_of(row: Row, store: Store, problems: Sequence[Problem]) -> list[str]:
    """Videos that a row learns from without labels."""
    names = [video["name"] for video in store.videos]
    return unlabelled_videos(names, problems, transductive=row.transductive) if row.joint else []


def run_piece(
    row: ResolvedRow,
    piece: Piece,
    frames: Any,
    start: Mapping[str, npt.NDArray[Any]] | None,
    on_progress: Callable[[float], object],
) -> PieceResult:
    """Trains on what :func:`read_frames` returned and labels the test videos, whose labels are not
    looked at; ``start`` are weights to start from, where the row has a start. ``on_progress`` is
    told the steps made, labelling counted as in :meth:`ResolvedRow.steps`."""
    began = time.monotonic()
    configure_torch()
    how: dict[str, Any] = {"device": row.device, "on_progress": on_progress}
    about: dict[str, Any] = {}
    weights: dict[str, npt.NDArray[Any]] = {}
    if row.row.joint:
        each, about["layers"] = fit_member(
            frames,
            row.problems,
            row.unlabelled,
            row.settings.joint[row.row.joint],
            row.schema,
            seed=piece.seed,
            member=piece.part,
            epochs_share=row.epochs_share,
            **how,
        )
        probabilities = dict(enumerate(each))
    else:
        settings, problem = row.settings.networks[row.row.network], row.problems[piece.part]
        initial = None
        if start is not None:
            initial = InitialWeights(weights=start, classes=row.start_classes)
        network = train_network(
            frames,
            problem,
            settings,
            row.row.phases(settings),
            seed=piece.seed,
            epochs_share=row.epochs_share,
            coordinates=math.prod(row.schema.shape),
            start=initial,
            class_weight=row.row.class_weight,
            **how,
        )
        weights = {name: weight.cpu().numpy() for name, weight in network.state_dict().items()}
        labelled = label_videos(network, frames, sorted(problem.test), settings, **how)
        probabilities = {piece.part: labelled}
    about["seconds"] = round(time.monotonic() - began, 1)
    return PieceResult(probabilities, weights, about)
