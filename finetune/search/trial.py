"""What one Ray process does: a trial of the search, or a final fit of one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray.tune
import torch

from finetune.fit.fit import Model, Outputs, fit, score_problems, validation_score
from finetune.fit.frames import Frames, embed, recordings
from finetune.heads import head_class
from finetune.labels.hold_out import hold_out
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import is_parent, without_scored_frames
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.train.torch_setup import configure_torch


def evaluation_steps(tuning: Tuning) -> list[int]:
    """Steps after which a trial is scored on validation."""
    return sorted(
        {
            max(1, round(tuning.steps * part / tuning.evaluations))
            for part in range(1, tuning.evaluations + 1)
        }
    )


def run_trial(
    trial: Mapping[str, Any],
    *,
    frames: Frames,
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
        frames: Frames, shared by all trials.
        problems: With the training labels within the budget; their test labels are not looked at.
        tuning: Settings that the choice is laid over.
        embedder: To train along, or None where ``frames`` holds embeddings.
        seed: Of weights, windows and the validation split (the same split in every trial).
    """
    configure_torch()
    settings = tuning.with_choice(trial["choice"])
    parts = hold_out(problems, share=tuning.validation, seed=seed, recording=recordings(frames))
    fitted = without_scored_frames([part for part, _ in parts], [labels for _, labels in parts])
    truth: list[Labelled] = [
        {} if is_parent(problems, problem) else labels
        for problem, (_, labels) in zip(problems, parts, strict=True)
    ]
    steps = evaluation_steps(settings)
    if not head_class(settings.head).by_gradient:
        steps = steps[-1:]  # it is the same at every one
    for step, loss, model in fit(
        frames,
        fitted,
        settings,
        embedder=embedder,
        seed=seed,
        stops=steps,
    ):
        scores = score_problems(problems, model.predict(frames, problems, truth), truth)
        ray.tune.report(
            {
                "steps": step,
                "score": validation_score(scores),
                "macro_f1": scores.macro_f1,
                "map": scores.map,
                "training_loss": loss,
            }
        )


def embed_on_gpu(poses: Frames, embedder: Embedder, stride: int) -> Frames:
    """Embeddings of the same frames, on the GPU that Ray gives this process."""
    configure_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return embed(poses, embedder, device=device, stride=stride)


def fit_final(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    seed: int,
    steps: int,
) -> tuple[Model, list[Outputs]]:
    """Fits on all training labels of the budget and predicts every test video.

    Args:
        frames: Frames of training and test videos.
        problems: The budget of this seed, and the test videos.
        tuning: Best settings of the search.
        embedder: To train along, or None where ``frames`` holds embeddings.
        seed: Of weights and windows.
        steps: To fit for.

    Returns:
        The model, and what each member of its head gives for the test videos.
    """
    ((_, _, model),) = fit(frames, problems, tuning, embedder=embedder, seed=seed, stops=[steps])
    members = model.predict_members(frames, problems, [problem.test for problem in problems])
    return model.to("cpu"), members  # the driver may have no GPU
