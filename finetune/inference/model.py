"""A finished run of ``finetune/run.py``, ready to label frames that nobody labelled: networks of
its seeds and what comes after them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.fit.fit import Model
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import Ints, Reals
from finetune.labels.problems import Problem
from finetune.postprocess.learn import Postprocessing
from finetune.report.model_folder import load_model, load_postprocessing
from pretrain.data.schema import Schema
from pretrain.encoders import Embedder
from pretrain.errors import BadInput, refuse
from pretrain.train.embed_video import embed_video

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """What is said of one video in one problem."""

    probabilities_TC: Reals
    """Calibrated where a temperature was learned."""
    labels: Ints
    """(T,) classes, or (T, C) of 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """Networks (one, or one a seed), each with what comes after it for each problem."""

    models: Sequence[Model]
    afters: Sequence[Sequence[Postprocessing]]
    problems: Sequence[Problem]
    """Without labels; in the order of the networks' outputs."""
    wanted: Sequence[int]
    """Places of the problems that are asked for."""
    schema: Schema
    folder: str
    """The run or the model, as the user named it."""

    @property
    def asked(self) -> list[Problem]:
        """The problems that are asked for."""
        return [self.problems[p] for p in self.wanted]

    @property
    def external(self) -> Mapping[str, int]:
        """Features from elsewhere that encoder or head read: name to dimension."""
        return {
            name: dim for model in self.models for name, dim in _embedder(model).external.items()
        }

    def embed(self, frames: Mapping[str, Tensor]) -> Tensor:
        """(T, D): embeddings by the first network's encoder."""
        return embed_video(_embedder(self.models[0]).eval(), frames)

    def predict(self, frames: Mapping[str, Tensor]) -> tuple[list[Predicted], Tensor]:
        """Labels one whole video.

        Several networks: the mean of their calibrated probabilities is shown; the decision is that
        of the mean of their moved ones (after the thresholds of each), smoothed as the first
        network's predictions are.

        Args:
            frames: ``position`` (T, M, K, X), ``confidence`` (T, M, K), and ``extra`` (T, E) where
                the encoder reads it.

        Returns:
            What is said in each problem that is asked for, and the (T, D) embeddings of the first
            network's encoder.
        """
        videos = [[""] if p in self.wanted else [] for p in range(len(self.problems))]
        raw, embedded = [], list[tuple[Embedder, Tensor]]()
        for model in self.models:
            embedder = _embedder(model)
            z_TD = next((held for other, held in embedded if _same_weights(other, embedder)), None)
            if z_TD is None:
                z_TD = embed_video(embedder.eval(), frames)
                embedded.append((embedder, z_TD))
            material = Frames(place={"": (0, len(z_TD))}, arrays={"z": z_TD.numpy()})
            raw.append(Model(model.head, None).predict(material, self.problems, videos))
        found = []
        for p in self.wanted:
            each = [
                (afters[p], scores[p][""]) for afters, scores in zip(self.afters, raw, strict=True)
            ]
            calm = np.mean([after.calibrated(scores) for after, scores in each], axis=0)
            moved = np.mean([after.moved(scores) for after, scores in each], axis=0)
            found.append(Predicted(calm, each[0][0].smoothed(moved)))
        return found, embedded[0][1]


def open_model(
    place: str, *, seed: int | None = None, ensemble: bool = False, labels_of: str | None = None
) -> LoadedModel:
    """Opens the model of a run.

    Args:
        place: The ``--out`` folder of a finished ``finetune/run.py``, or one model folder in it.
        seed: Which of its networks; None: the first.
        ensemble: All of them together.
        labels_of: A task, an annotator or a problem; None: all problems of the model.

    Raises:
        BadInput: If there is no such model, seed or problem, or it is damaged.
    """
    folders = _folders(Path(place).expanduser())
    if not folders:
        raise BadInput(
            f"there is no model at {place}: give the --out folder of a finished finetune/run.py"
        )
    if seed is not None and seed not in folders:
        raise BadInput(
            f"{place} has no model of seed {seed}; it has: {', '.join(map(str, folders))}"
        )
    chosen = (
        list(folders.values())
        if ensemble
        else [folders[seed if seed is not None else next(iter(folders))]]
    )
    models, afters, told = [], [], []
    for folder in chosen:
        model, problems = load_model(folder)
        learned = load_postprocessing(folder, len(problems))
        models.append(model)
        told.append([_problem(held, folder) for held in problems])
        afters.append(
            learned or [Postprocessing(overlapping=problem.overlapping) for problem in told[-1]]
        )
    if any(names != told[0] for names in told):
        raise BadInput(
            f"{place}: its models were fitted on unlike problems, so they make no ensemble"
        )
    return LoadedModel(
        models=models,
        afters=afters,
        problems=told[0],
        wanted=_wanted(told[0], labels_of, place),
        folder=place,
        schema=_embedder(models[0]).features.schema,
    )


def _embedder(model: Model) -> Embedder:
    assert model.embedder is not None, "a saved model has its encoder"
    return model.embedder


def _same_weights(one: Embedder, other: Embedder) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return one.settings == other.settings and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )


def _folders(place: Path) -> dict[int, Path]:
    """Seed to model folder, rising; a model folder given by itself counts as seed 0 where its name
    does not say it."""
    number = re.compile(r"seed-(\d+)")
    if (place / "head.json").is_file():
        said = number.fullmatch(place.name)
        return {int(said[1]) if said else 0: place}
    inside = [
        path
        for root in (place / "model", place)
        if root.is_dir()
        for path in root.iterdir()
        if (path / "head.json").is_file()
    ]
    found = {int(said[1]): path for path in inside if (said := number.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _problem(held: Mapping[str, Any], folder: Path) -> Problem:
    try:
        return Problem(
            name=str(held["name"]),
            task=str(held["task"]),
            classes=tuple(map(str, held["classes"])),
            annotator=str(held["annotator"]),
            overlapping=bool(held["overlapping"]),
            train={},
            test={},
        )
    except (KeyError, TypeError) as error:
        raise BadInput(f"the model {folder} is damaged: head.json: {error!r}") from error


def _wanted(problems: Sequence[Problem], labels_of: str | None, place: str) -> list[int]:
    if labels_of is None:
        return list(range(len(problems)))
    found = [
        p
        for p, held in enumerate(problems)
        if labels_of in (held.task, held.name, held.annotator) and labels_of
    ]
    names = list(dict.fromkeys(word for held in problems for word in (held.task, held.name)))
    refuse(
        [] if found else [f"--labels-of {labels_of!r}: the model has {', '.join(names)}"],
        about=place,
    )
    return found


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays of one video as a network takes them."""
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
