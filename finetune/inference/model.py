"""A finished run of ``ethoray finetune``, opened to label recordings that nobody labelled: the
networks of its seeds and their postprocessing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.fit.fit import Model, as_probabilities, logits_of
from finetune.labels.frame_labels import UNLABELLED, Ints, Reals
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from finetune.postprocess.postprocessing import Postprocessing
from finetune.report.model_folder import load_model, load_postprocessing
from pretrain.data.schema import Schema
from pretrain.encoders import Embedder
from pretrain.errors import BadInput, refuse
from pretrain.train.embed_video import embed_parts, embed_video
from pretrain.transforms.features import Features

log = logging.getLogger(__name__)

BRIDGE_S = 1.0
"""Seconds of the longest gap without any pose that is labelled by what lies around it."""


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one video in one problem."""

    probabilities_TC: Reals
    """Calibrated where a calibration was learned; NaN in frames that no pose supports."""
    labels: Ints
    """(T,) classes, or (T, C) of 0 and 1; UNLABELLED in frames that no pose supports."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """Networks (one, or one for each seed), each with the postprocessing of each problem."""

    models: Sequence[Model]
    postprocessing: Sequence[Sequence[Postprocessing]]
    """Of each network, of each of ``all_problems``."""
    all_problems: Sequence[Problem]
    """Without labels; in the order of the networks' outputs."""
    selected: Sequence[int]
    """Indices of the problems that are asked for."""
    schema: Schema
    folder: str
    """The run or the model, as the user named it."""

    @property
    def problems(self) -> list[Problem]:
        """The problems that are asked for."""
        return [self.all_problems[p] for p in self.selected]

    @property
    def features(self) -> Features:
        """What the first network reads of poses."""
        return _embedder(self.models[0]).features

    @property
    def external(self) -> Mapping[str, int]:
        """External features that encoder or head read: name to dimension."""
        return {
            name: dim for model in self.models for name, dim in _embedder(model).external.items()
        }

    @property
    def stride(self) -> int:
        """Frames from one that the first network's head reads to the next."""
        return self.models[0].head.stride

    def embed(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """(T, D): embeddings by the first network's encoder."""
        return embed_video(_embedder(self.models[0]).eval(), arrays)

    def predict(
        self,
        arrays: Mapping[str, Tensor],
        *,
        bridge_s: float = BRIDGE_S,
        every_animal: bool = False,
        on_embeddings: Callable[[Tensor], object] = lambda rows: None,
    ) -> list[Prediction]:
        """Labels one whole video, but for the frames that no pose supports.

        Of several networks the probabilities are the mean of the calibrated ones; the decision is
        that of the mean of the adjusted ones, smoothed as the first network's are.

        Args:
            arrays: ``position`` (T, M, K, X), ``confidence`` (T, M, K), and ``extra`` (T, E) where
                the encoder reads it.
            bridge_s: As of :func:`without_pose`.
            every_animal: As of :func:`without_pose`.
            on_embeddings: Called with consecutive rows of the (T / stride, D) embeddings of the
                first network's encoder, of the frames that its head reads.

        Returns:
            The prediction in each problem that is asked for.
        """
        raw: dict[int, list[Reals]] = {}
        for indices in self._of_one_encoder():
            heads = [self.models[i].head for i in indices]
            parts = embed_parts(
                _embedder(self.models[indices[0]]).eval(), arrays, stride=heads[0].stride
            )
            if 0 in indices:
                parts = _passed_on(parts, on_embeddings)
            for i, logits in zip(
                indices, logits_of(heads, parts, len(arrays["position"])), strict=True
            ):
                raw[i] = as_probabilities(self.all_problems, logits)
        unseen_T = without_pose(
            arrays["position"].numpy(),
            bridge=round(bridge_s * self.schema.fps),
            every_animal=every_animal,
        )
        predictions = []
        for p in self.selected:
            steps = [steps[p] for steps in self.postprocessing]
            both = [(one, raw[i][p]) for i, one in enumerate(steps)]
            calibrated = np.mean([one.calibrated(p_TC) for one, p_TC in both], axis=0)
            adjusted = np.mean([one.adjusted(p_TC) for one, p_TC in both], axis=0)
            labels = steps[0].smoothed(adjusted)
            if unseen_T.any():  # smoothing must not reach across what nobody saw
                for start, stop, seen in bouts(np.asarray(~unseen_T, np.int8)):
                    labels[start:stop] = (
                        steps[0].smoothed(adjusted[start:stop]) if seen else UNLABELLED
                    )
                calibrated = np.where(unseen_T[:, None], np.float32(np.nan), calibrated)
            predictions.append(Prediction(calibrated, labels))
        return predictions

    def _of_one_encoder(self) -> list[list[int]]:
        """Indices of the networks whose heads read the same embeddings."""
        groups: list[list[int]] = []
        for i, model in enumerate(self.models):
            for group in groups:
                first = self.models[group[0]]
                if first.head.stride == model.head.stride and _same_weights(
                    _embedder(first), _embedder(model)
                ):
                    group.append(i)
                    break
            else:
                groups.append([i])
        return groups


def _passed_on(parts: Iterable[Tensor], on_part: Callable[[Tensor], object]) -> Iterator[Tensor]:
    for part in parts:
        on_part(part)
        yield part


def without_pose(
    position_TMKX: Reals, *, bridge: int, every_animal: bool = False
) -> npt.NDArray[np.bool_]:
    """(T,), true where no pose supports a label: in gaps longer than ``bridge`` frames in which no
    point of any animal is seen.

    Args:
        position_TMKX: NaN where a point is missing.
        bridge: Frames of the longest gap that is labelled by what lies around it.
        every_animal: A gap of one animal is enough.
    """
    point_TMK = np.all(np.isfinite(position_TMKX), axis=-1)
    animal_TM = np.any(point_TMK, axis=-1)
    seen_T = np.all(animal_TM, axis=1) if every_animal else np.any(animal_TM, axis=1)
    unseen_T = np.zeros(len(seen_T), np.bool_)
    for start, stop, missing in bouts(np.asarray(~seen_T, np.int8)):
        unseen_T[start:stop] = bool(missing) and stop - start > bridge
    return unseen_T


def open_model(
    path: str, *, seed: int | None = None, ensemble: bool = False, labels_of: str | None = None
) -> LoadedModel:
    """Opens the model of a run.

    Args:
        path: The ``--out`` folder of a finished ``ethoray finetune``, or one model folder in it.
        seed: Which of its networks; None: the first.
        ensemble: All of them together.
        labels_of: A task, an annotator or a problem; None: all problems of the model.

    Raises:
        BadInput: If there is no such model, seed or problem, or it is damaged.
    """
    folders = _folders(Path(path).expanduser())
    if not folders:
        raise BadInput(
            f"there is no model at {path}: give the --out folder of a finished `ethoray finetune`"
        )
    if seed is not None and seed not in folders:
        raise BadInput(
            f"{path} has no model of seed {seed}; it has: {', '.join(map(str, folders))}"
        )
    chosen = list(folders) if ensemble else [next(iter(folders)) if seed is None else seed]
    models, postprocessing, problems = [], [], []
    for folder in (folders[one] for one in chosen):
        model, saved = load_model(folder)
        models.append(model)
        problems.append([_problem(values, folder) for values in saved])
        postprocessing.append(
            load_postprocessing(folder, len(saved))
            or [Postprocessing(overlapping=problem.overlapping) for problem in problems[-1]]
        )
    if any(other != problems[0] for other in problems):
        raise BadInput(
            f"{path}: its models were fitted on different problems, so they make no ensemble"
        )
    return LoadedModel(
        models=models,
        postprocessing=postprocessing,
        all_problems=problems[0],
        selected=_selected(problems[0], labels_of, path),
        folder=path,
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


def _folders(path: Path) -> dict[int, Path]:
    """Seed to model folder, rising; a model folder given by itself counts as seed 0 where its name
    does not say it."""
    seed_name = re.compile(r"seed-(\d+)")
    if (path / "head.json").is_file():
        match = seed_name.fullmatch(path.name)
        return {int(match[1]) if match else 0: path}
    folders = {
        int(match[1]): folder
        for root in (path / "model", path)
        if root.is_dir()
        for folder in root.iterdir()
        if (folder / "head.json").is_file() and (match := seed_name.fullmatch(folder.name))
    }
    return dict(sorted(folders.items()))


def _problem(values: Mapping[str, Any], folder: Path) -> Problem:
    try:
        return Problem(
            name=str(values["name"]),
            task=str(values["task"]),
            classes=tuple(map(str, values["classes"])),
            annotator=str(values["annotator"]),
            overlapping=bool(values["overlapping"]),
            refines=None if (of := values.get("refines")) is None else (str(of[0]), str(of[1])),
            train={},
            test={},
        )
    except (KeyError, TypeError, IndexError) as error:
        raise BadInput(f"the model {folder} is damaged: head.json: {error!r}") from error


def _selected(problems: Sequence[Problem], labels_of: str | None, path: str) -> list[int]:
    if labels_of is None:
        return list(range(len(problems)))
    selected = [
        p
        for p, problem in enumerate(problems)
        if labels_of and labels_of in (problem.task, problem.name, problem.annotator)
    ]
    names = list(dict.fromkeys(name for one in problems for name in (one.task, one.name)))
    refuse(
        [] if selected else [f"--labels-of {labels_of!r}: the model has {', '.join(names)}"],
        about=path,
    )
    return selected


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays of one video as a network takes them."""
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
