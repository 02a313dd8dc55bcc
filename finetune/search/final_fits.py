"""The fits that are scored and saved, and what comes after each, as Ray jobs side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.fit.fit import Model, Outputs, Probabilities, mean_of_members
from finetune.fit.frames import Frames
from finetune.heads.stack import Stack
from finetune.labels.problems import Problem
from finetune.postprocess.cross_fit import (
    CrossFit,
    Fold,
    choose_postprocessing,
    crossed,
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


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What became of it."""

    model: Model
    tuning: Tuning
    """With the weights of a stack as they were learned."""
    probabilities: Sequence[Probabilities]
    """For the test videos of each problem."""
    postprocessing: Sequence[LearnedPostprocessing] | None
    """Of each problem, where some was asked for."""


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
) -> dict[FitKey, Fitted]:
    """Fits on the labels of each, and learns by cross-fitting, once for all seeds that learn from
    the same labels, the weights of a stack that asks for it and the postprocessing.

    Args:
        shared_frames: The frames, as Ray holds them.
        frames: The same, here.
        fits: What to fit.
        embedder: To train along, or None where the frames are embeddings.
        scale: Jobs at a time.
    """
    first: dict[str, FitKey] = {}
    for key, one in fits.items():
        if one.tuning.postprocess_folds:
            first.setdefault(one.fingerprint, key)
    folds: dict[FitKey, list[Fold]] = {
        key: inner_folds(frames, fits[key].problems, fits[key].tuning, seed=key[0])
        for key in first.values()
    }
    predicted: dict[FitKey, dict[int, Sequence[Outputs]]] = {key: {} for key in folds}
    cross_fits: dict[FitKey, CrossFit] = {}
    fitted: dict[FitKey, tuple[Model, Sequence[Outputs]]] = {}
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
            given["held_out"] = cross_fits[job.key].held_out
            return {"function": job.function, "arguments": given}
        given |= {"seed": job.key[0], "steps": one.steps}
        if job.fold is not None:
            given["fold"] = folds[job.key][job.fold]
        return {"function": job.function, "arguments": given, "frames": shared_frames}

    def cross_where_all_folds_are_predicted(key: FitKey) -> None:
        if len(predicted[key]) == len(folds[key]):
            ordered = [predicted[key].pop(number) for number in range(len(folds[key]))]
            one = fits[key]
            cross_fits[key] = crossed(one.problems, folds[key], ordered, one.tuning, fps=frames.fps)

    def ready(job: _Job) -> bool:
        return job.function is not choose_postprocessing or job.key in cross_fits

    def name(job: _Job) -> str:
        seed, fold = job.key
        words = [f"seed {seed}", *([f"fold {fold}"] if fold else []), job.words]
        return " ".join(filter(None, words))

    for key in folds:
        cross_where_all_folds_are_predicted(key)  # there may be none
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
            cross_where_all_folds_are_predicted(job.key)
        elif job.function is choose_postprocessing:
            learned[job.key] = result
        else:
            fitted[job.key] = result
    results = {}
    for key, one in fits.items():  # in the order asked for, not the one in which they ended
        model, members = fitted[key]
        same = first.get(one.fingerprint)
        weights = cross_fits[same].weights if same else None
        tuning, of_members = one.tuning, [1.0]
        if isinstance(model.head, Stack):
            model.head.weights = weights or model.head.weights
            tuning = replace(tuning, head={**tuning.head, "weights": model.head.weights})
            of_members = model.head.weights if len(members) > 1 else [1.0]
        results[key] = Fitted(
            model=model,
            tuning=tuning,
            probabilities=mean_of_members(
                one.problems,
                members,
                of_members,
                [problem.test for problem in one.problems],
            ),
            postprocessing=learned[same] if same else None,
        )
    return results


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
