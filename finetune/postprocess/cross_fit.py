"""Cross-fitting: predictions for training videos by networks that were not fitted on them, the only
frames that the postprocessing may learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.fit.fit import fit
from finetune.fit.frames import Frames, recordings
from finetune.heads import is_timid
from finetune.labels.folds import split_folds
from finetune.labels.problems import Problem
from finetune.labels.refine import without_scored_frames
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import LearnedPostprocessing, choose_steps
from finetune.settings import Tuning
from pretrain.encoders import Embedder


def learn_postprocessing(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> list[LearnedPostprocessing]:
    """The postprocessing of each problem, learned only on training videos of the budget: their
    ``train`` labels are used, nothing else of them.

    Networks are fitted as in the run itself: from poses where there is an ``embedder`` to train
    along, for ``stop`` steps.
    """
    timid = is_timid(tuning.head)
    if all(len(problem.train) < 2 for problem in problems):  # a fit would serve nothing
        nobody = HeldOutPredictions(probabilities={}, labels={}, fold={})
        return [choose_steps(problem, nobody, timid=timid) for problem in problems]
    predictions = cross_fit(frames, problems, tuning, embedder, seed=seed, stop=stop)
    return [
        choose_steps(problem, held_out, timid=timid)
        for problem, held_out in zip(problems, predictions, strict=True)
    ]


def cross_fit(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> list[HeldOutPredictions]:
    """Fits once a fold on the videos of the other folds, and predicts those of this one.

    Arguments as of :func:`learn_postprocessing`.
    """
    assert tuning.postprocess_folds > 0, "no postprocessing was asked for"
    probabilities: list[dict[str, np.ndarray]] = [{} for _ in problems]
    labels: list[dict[str, np.ndarray]] = [{} for _ in problems]
    fold_of: list[dict[str, int]] = [{} for _ in problems]
    folds = split_folds(
        problems,
        folds=tuning.postprocess_folds,
        share=tuning.validation,
        seed=seed,
        recording=recordings(frames),
    )
    for fold, sides in enumerate(folds):
        outside = [labels for _, labels in sides]
        inside = without_scored_frames([problem for problem, _ in sides], outside)
        ((_, _, model),) = fit(frames, inside, tuning, embedder=embedder, seed=seed, stops=[stop])
        for p, predicted in enumerate(model.predict(frames, problems, outside)):
            probabilities[p] |= predicted
            labels[p] |= outside[p]
            fold_of[p] |= dict.fromkeys(predicted, fold)
    return [
        HeldOutPredictions(probabilities=p, labels=truth, fold=fold)
        for p, truth, fold in zip(probabilities, labels, fold_of, strict=True)
    ]
