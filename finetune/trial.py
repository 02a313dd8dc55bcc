"""One trial: one process that fits one head and is scored on validation. And the last fits, one a seed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import ray.tune
import torch

from finetune.fit import Model, Probabilities, fit, one_number, score_problems
from finetune.labels import Labelled, Problem, hold_out
from finetune.material import Material
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.tracking import TrackedRun


def stops_of(tuning: Tuning) -> list[int]:
    """Steps after which a trial is scored on validation."""
    return sorted({max(1, round(tuning.steps * part / tuning.evaluations)) for part in range(1, tuning.evaluations + 1)})


def validate(
    choice: Mapping[str, Any], *, material: Material, problems: Sequence[Problem], tuning: Tuning, embedder: Embedder | None, seed: int,
    run: TrackedRun | None,
) -> None:  # fmt: skip
    """A Ray Tune trial: fits on part of the labelled training videos and reports scores on the rest.

    Args:
        choice: Searched keys and their values.
        material: Frames, shared by all trials.
        problems: With the training labels within the budget; their test labels are not looked at.
        tuning: Settings that ``choice`` is laid over.
        embedder: To train along, or None where ``material`` holds embeddings.
        seed: Of weights, windows and the validation split (the same split in every trial).
        run: Parent of the trial's own run.
    """
    _one_share_of_cores()
    settings = tuning.with_choice(choice)
    parts: list[tuple[Problem, Labelled]] = [hold_out(problem, share=tuning.validation, seed=seed) for problem in problems]
    best = {"best_score": -1.0, "best_steps": 0}
    with _own_run(run, choice) as own:
        for step, loss, model in fit(
            material, [part for part, _ in parts], settings, embedder=embedder, seed=seed, stops=stops_of(settings)
        ):
            truth = [labels for _, labels in parts]
            scores = score_problems(problems, model.predict(material, problems, truth), truth)
            found = {"score": one_number(scores), "macro_f1": scores.macro_f1, "map": scores.map}
            if own is not None:
                own.log_metrics({f"validation_{key}": value for key, value in found.items()} | {"training_loss": loss}, step=step)
            if found["score"] > best["best_score"]:
                best = {"best_score": found["score"], "best_steps": step}
            ray.tune.report(found | best | {"training_loss": loss, "steps": step})


def _own_run(run: TrackedRun | None, choice: Mapping[str, Any]) -> AbstractContextManager[TrackedRun | None]:
    if run is None:
        return nullcontext()
    return run.tracking.start(run.experiment, ray.tune.get_context().get_trial_name(), parent=run, params=dict(choice))


def final(
    material: Material, problems: Sequence[Problem], tuning: Tuning, embedder: Embedder | None, seed: int, stop: int
) -> tuple[Model, Sequence[Probabilities]]:
    """Fits on all training labels of the budget and predicts every test video.

    Args:
        material: Frames of training and test videos.
        problems: The budget of this seed, and the test videos.
        tuning: Best settings of the search.
        embedder: To train along, or None where ``material`` holds embeddings.
        seed: Of weights and windows.
        stop: Steps to fit for.

    Returns:
        The model, and probabilities for the test videos of each problem.
    """
    _one_share_of_cores()
    ((_, _, model),) = fit(material, problems, tuning, embedder=embedder, seed=seed, stops=[stop])
    return model, model.predict(material, problems, [problem.test for problem in problems])


def _one_share_of_cores() -> None:
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1") or 1)))
