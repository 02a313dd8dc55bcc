"""One trial: one process that fits one head and is scored on validation. And the last fits, one a
seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray.tune
import torch

from finetune.fit.fit import Model, Probabilities, fit, score_problems, validation_score
from finetune.fit.frames import Frames, embed
from finetune.labels.problems import Labelled, Problem, hold_out
from finetune.postprocess.cross_fit import learn_postprocessing
from finetune.postprocess.learn import LearnedPostprocessing
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.train.torch_setup import configure_torch


def stops_of(tuning: Tuning) -> list[int]:
    """Steps after which a trial is scored on validation."""
    return sorted(
        {
            max(1, round(tuning.steps * part / tuning.evaluations))
            for part in range(1, tuning.evaluations + 1)
        }
    )


def validate(
    trial: Mapping[str, Any],
    *,
    material: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    seed: int,
) -> None:
    """A Ray Tune trial: fits on part of the labelled training videos and reports scores on the
    rest.

    Its reports are a function of its choice, wherever and whenever it runs.

    Args:
        trial: ``choice``: searched keys and their values.
        material: Frames, shared by all trials.
        problems: With the training labels within the budget; their test labels are not looked at.
        tuning: Settings that the choice is laid over.
        embedder: To train along, or None where ``material`` holds embeddings.
        seed: Of weights, windows and the validation split (the same split in every trial).
    """
    configure_torch()
    settings = tuning.with_choice(trial["choice"])
    parts: list[tuple[Problem, Labelled]] = [
        hold_out(problem, share=tuning.validation, seed=seed) for problem in problems
    ]
    truth = [labels for _, labels in parts]
    for step, loss, model in fit(
        material,
        [part for part, _ in parts],
        settings,
        embedder=embedder,
        seed=seed,
        stops=stops_of(settings),
    ):
        scores = score_problems(problems, model.predict(material, problems, truth), truth)
        ray.tune.report(
            {
                "steps": step,
                "score": validation_score(scores),
                "macro_f1": scores.macro_f1,
                "map": scores.map,
                "training_loss": loss,
            }
        )


def embed_there(poses: Frames, embedder: Embedder) -> Frames:
    """Embeddings of the same frames, on the GPU that Ray lends this process."""
    configure_torch()
    return embed(poses, embedder, device="cuda" if torch.cuda.is_available() else "cpu")


def final(
    material: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    seed: int,
    stop: int,
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
    configure_torch()
    ((_, _, model),) = fit(material, problems, tuning, embedder=embedder, seed=seed, stops=[stop])
    found = model.predict(material, problems, [problem.test for problem in problems])
    return model.to("cpu"), found  # who asked may have no GPU


def after(
    material: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    seed: int,
    stop: int,
) -> list[LearnedPostprocessing]:
    """What comes after the network of one seed; arguments as of :func:`final`."""
    configure_torch()
    return learn_postprocessing(material, problems, tuning, embedder, seed=seed, stop=stop)
