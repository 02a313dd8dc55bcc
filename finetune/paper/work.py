"""One piece of the table: one network of one row and seed, trained and scored on test. Plain torch;
``reproduce.py`` deals pieces out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.fit.fit import Probabilities
from finetune.fit.frames import Frames, gather_poses
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import ClassScores, Scores
from finetune.paper.fit import (
    Inputs,
    Start,
    gather_inputs,
    label_steps,
    label_videos,
    phase_steps,
    train_network,
)
from finetune.paper.joint_fit import epoch_steps, fit_member, footage, layers_of, unlabelled_videos
from finetune.paper.joint_fit import label_steps as joint_label_steps
from finetune.paper.table import Row, Settings
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.train.torch_setup import configure_torch


class Piece(NamedTuple):
    """What is done at once."""

    row: str
    seed: int
    part: int
    """A problem of the row's task, or a network of its ensemble."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A row with everything it needs but the frames."""

    row: Row
    problems: Sequence[Problem]
    settings: Settings
    schema: Schema
    epochs_share: float
    device: str
    unlabelled: Sequence[str] = ()
    start_classes: Sequence[str] = ()

    @property
    def parts(self) -> int:
        """Pieces of a seed."""
        return self.settings.joint[self.row.joint].members if self.row.joint else len(self.problems)

    def steps(self, part: int, frames_of: Callable[[str], int]) -> int:
        """Optimiser steps of a piece, about, and what labelling the test videos is worth in
        them."""
        if self.row.joint:
            settings = self.settings.joint[self.row.joint]
            total = sum(
                map(
                    frames_of,
                    {*self.unlabelled, *(name for p in self.problems for name in p.train)},
                )
            )
            layers, test = (
                len(layers_of(self.problems, settings)),
                sum(frames_of(name) for p in self.problems for name in p.test),
            )
            epochs = epoch_steps(settings, layers, total) * settings.epochs * self.epochs_share
            return round(epochs + joint_label_steps(settings, layers, test))
        network = self.settings.networks[self.row.network]
        epoch = -(-sum(map(len, self.problems[part].train.values())) // network.batch)
        steps = sum(
            phase_steps(epoch, phase, self.epochs_share) for phase, _ in self.row.phases(network)
        )
        return steps + round(label_steps(network, sum(map(frames_of, self.problems[part].test))))


class PieceResult(NamedTuple):
    """What a piece leaves."""

    probabilities: Mapping[int, Probabilities]
    """Problem to its test videos."""
    weights: Mapping[str, npt.NDArray[Any]]
    """Of a network that others may start from; empty for a joint one."""
    about: Mapping[str, Any]


def gather(
    work: Work, store: Store, *, moments_of: Sequence[str], on_progress: Callable[[int], object]
) -> Inputs | Frames:
    """The frames of a row, for all of its pieces."""
    videos = sorted(
        {name for p in work.problems for held in (p.train, p.test) for name in held}
        | set(work.unlabelled)
    )
    if work.row.joint:
        return footage(
            gather_poses(store, videos, on_progress=on_progress),
            work.settings.joint[work.row.joint],
            store.schema.image_px,
        )
    return gather_inputs(
        store, videos, features=work.row.features, moments_of=moments_of, on_progress=on_progress
    )


def unlabelled_of(row: Row, store: Store, problems: Sequence[Problem]) -> list[str]:
    """Videos that a row learns from without labels."""
    every = [held["name"] for held in store.videos]
    return unlabelled_videos(every, problems, transductive=row.transductive) if row.joint else []


def do(
    work: Work,
    piece: Piece,
    frames: Any,
    start: Mapping[str, npt.NDArray[Any]] | None,
    on_progress: Callable[[float], object],
) -> PieceResult:
    """Trains and labels the test videos; their labels are not looked at.

    Args:
        work: The row.
        piece: Which part and seed of it.
        frames: What :func:`gather` gives.
        start: Weights to start from, where the row has a start.
        on_progress: Called with the number of steps done, labelling counted as in
            :meth:`Work.steps`.
    """
    began = time.monotonic()
    configure_torch()
    if work.row.joint:
        found, about = fit_member(
            frames,
            work.problems,
            work.unlabelled,
            work.settings.joint[work.row.joint],
            work.schema,
            seed=piece.seed,
            member=piece.part,
            epochs_share=work.epochs_share,
            device=work.device,
            on_progress=on_progress,
        )
        return PieceResult(
            dict(enumerate(found)),
            {},
            {"layers": about, "seconds": round(time.monotonic() - began, 1)},
        )
    settings, problem = work.settings.networks[work.row.network], work.problems[piece.part]
    animals, keypoints, coordinates = work.schema.shape
    network = train_network(
        frames,
        problem,
        settings,
        work.row.phases(settings),
        seed=piece.seed,
        coordinates=animals * keypoints * coordinates,
        start=None if start is None else Start(weights=start, classes=work.start_classes),
        class_weight=work.row.class_weight,
        epochs_share=work.epochs_share,
        device=work.device,
        on_progress=on_progress,
    )
    found_here = label_videos(
        network, frames, sorted(problem.test), settings, device=work.device, on_progress=on_progress
    )
    weights = {name: held.cpu().numpy() for name, held in network.state_dict().items()}
    return PieceResult(
        {piece.part: found_here}, weights, {"seconds": round(time.monotonic() - began, 1)}
    )


def together(work: Work, parts: Sequence[Mapping[int, Probabilities]]) -> list[Probabilities]:
    """Probabilities of every problem of a seed: the mean over the networks that labelled it."""
    found: list[Probabilities] = []
    for place in range(len(work.problems)):
        held = [part[place] for part in parts if place in part]
        found.append({name: _mean([one[name] for one in held]) for name in held[0]})
    return found


def _mean(found: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    return (
        found[0]
        if len(found) == 1
        else np.asarray(np.mean(found, axis=0, dtype=np.float64), np.float32)
    )


def restored(held: Mapping[str, Any]) -> Scores:
    """Scores from what ``Scores.to_dict`` made of them."""
    values: dict[str, Any] = {
        key: math.nan if value is None else value for key, value in held.items()
    }
    values |= {key: tuple(held[key]) for key in ("classes", "counted", "notes")}
    values["confusion"] = (
        None if held["confusion"] is None else np.array(held["confusion"], np.int64)
    )
    values["problems"] = {name: restored(one) for name, one in held["problems"].items()}
    values["per_class"] = {name: _class_scores(one) for name, one in held["per_class"].items()}
    return Scores(**values)


def _class_scores(held: Mapping[str, Any]) -> ClassScores:
    values: dict[str, Any] = {
        key: math.nan if value is None else value for key, value in held.items()
    }
    return ClassScores(**values)
