"""The fits that are scored and saved, and what comes after each, as Ray jobs side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.fit.fit import Model, Probabilities
from finetune.fit.frames import Frames
from finetune.labels.problems import Problem
from finetune.postprocess.cross_fit import (
    Fold,
    choose_postprocessing,
    held_out_predictions,
    inner_folds,
    predict_fold,
)
from finetune.postprocess.learn import LearnedPostprocessing
from finetune.search.ray_jobs import run_jobs
from finetune.search.trial import fit_final
from finetune.settings import Tuning
from pretrain.config import Scale
from pretrain.encoders import Embedder
from pretrain.train.torch_setup import configure_torch

FitKey = tuple[int, int | None]
"""Seed, and the fold that it is scored on, counted from 1; None: the fit that becomes the model."""


@dataclass(frozen=True, kw_only=True)
class FinalFit:
    """What a fit learns from, and how."""

    problems: Sequence[Problem]
    tuning: Tuning
    steps: int

    @property
    def fingerprint(self) -> str:
        """The same for all fits that learn from the same labels in the same way: they differ by
        their seed alone, and share what is learned on videos held out."""
        digest = hashlib.sha256(repr((self.tuning, self.steps)).encode())
        for problem in self.problems:
            digest.update(repr((problem.name, problem.classes)).encode())
            for video, labels in sorted(problem.train.items()):
                digest.update(f"{video} {labels.shape} ".encode() + labels.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Job:
    words: str
    function: Callable[..., Any]
    key: FitKey
    fold: int | None = None
    """Of those that the postprocessing is learned on."""


def run_fits(
    shared_frames: Any,
    frames: Frames,
    fits: Mapping[FitKey, FinalFit],
    *,
    embedder: Embedder | None,
    scale: Scale,
) -> tuple[
    dict[FitKey, tuple[Model, Sequence[Probabilities]]], dict[FitKey, list[LearnedPostprocessing]]
]:
    """Fits on the labels of each, and learns its postprocessing by cross-fitting: once for all
    seeds that learn from the same labels.

    Args:
        shared_frames: The frames, as Ray holds them.
        frames: The same, here.
        fits: What to fit.
        embedder: To train along, or None where the frames are embeddings.
        scale: Jobs at a time.

    Returns:
        Of each fit the model and its probabilities for the test videos; and its postprocessing,
        where some is asked for.
    """
    first: dict[str, FitKey] = {}
    for key, one in fits.items():
        if one.tuning.postprocess_folds:
            first.setdefault(one.fingerprint, key)
    folds: dict[FitKey, list[Fold]] = {
        key: inner_folds(frames, fits[key].problems, fits[key].tuning, seed=key[0])
        for key in first.values()
    }
    predicted: dict[FitKey, dict[int, Sequence[Probabilities]]] = {key: {} for key in folds}
    fitted: dict[FitKey, tuple[Model, Sequence[Probabilities]]] = {}
    learned: dict[FitKey, list[LearnedPostprocessing]] = {}
    jobs = [
        _Job(f"without {number + 1} of {len(each)}", predict_fold, key, number)
        for key, each in folds.items()
        for number in range(len(each))
    ]
    jobs += [_Job("postprocessing", choose_postprocessing, key) for key in folds]
    jobs += [_Job("", fit_final, key) for key in fits]

    def arguments(job: _Job) -> dict[str, Any]:
        one = fits[job.key]
        given: dict[str, Any] = {"problems": one.problems, "tuning": one.tuning}
        if job.function is choose_postprocessing:
            ordered = [predicted[job.key].pop(number) for number in range(len(folds[job.key]))]
            given["held_out"] = held_out_predictions(one.problems, folds[job.key], ordered)
            return {"function": job.function, "arguments": given}
        given |= {"seed": job.key[0], "steps": one.steps}
        if job.fold is not None:
            given["fold"] = folds[job.key][job.fold]
        return {"function": job.function, "arguments": given, "frames": shared_frames}

    def ready(job: _Job) -> bool:
        return job.function is not choose_postprocessing or len(predicted[job.key]) == len(
            folds[job.key]
        )

    def name(job: _Job) -> str:
        seed, fold = job.key
        words = [f"seed {seed}", *([f"fold {fold}"] if fold else []), job.words]
        return " ".join(filter(None, words))

    for job, result in run_jobs(
        _call,
        jobs,
        arguments,
        shared={"embedder": embedder},
        scale=scale,
        description="fits",
        unit="fit",
        name=name,
        ready=ready,
    ):
        if job.fold is not None:
            predicted[job.key][job.fold] = result
        elif job.function is choose_postprocessing:
            learned[job.key] = result
        else:
            fitted[job.key] = result
    # in the order asked for, not the one in which they ended
    return {key: fitted[key] for key in fits}, {
        key: learned[first[one.fingerprint]]
        for key, one in fits.items()
        if one.tuning.postprocess_folds
    }


def _call(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    embedder: Embedder | None,
    frames: Frames | None = None,
) -> Any:
    configure_torch()
    if frames is None:
        return function(**arguments)
    return function(frames=frames, embedder=embedder, **arguments)
