"""Cross-fitting: predictions for training videos by networks that were not fitted on them, the only
frames that the postprocessing may learn from."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.fit.fit import Probabilities, fit
from finetune.fit.frames import Frames, recordings
from finetune.heads import is_timid
from finetune.labels.folds import split_folds
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import without_scored_frames
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import LearnedPostprocessing, choose_steps
from finetune.settings import Tuning
from pretrain.encoders import Embedder

Fold = Sequence[tuple[Problem, Labelled]]
"""For each problem what is fitted on, and the labels of the videos held out."""


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
    held_out = cross_fit(frames, problems, tuning, embedder, seed=seed, stop=stop)
    return choose_postprocessing(problems, held_out, tuning)


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
    folds = inner_folds(frames, problems, tuning, seed=seed)
    return held_out_predictions(
        problems,
        folds,
        [
            predict_fold(frames, problems, fold, tuning, embedder, seed=seed, steps=stop)
            for fold in folds
        ],
    )


def inner_folds(
    frames: Frames, problems: Sequence[Problem], tuning: Tuning, *, seed: int
) -> list[Fold]:
    """The folds of the training videos; none where no problem has two, for nothing could then be
    judged on a video that it was not learned on."""
    assert tuning.postprocess_folds > 0, "no postprocessing was asked for"
    if all(len(problem.train) < 2 for problem in problems):
        return []
    return [
        *split_folds(
            problems,
            folds=tuning.postprocess_folds,
            share=tuning.validation,
            seed=seed,
            recording=recordings(frames),
        )
    ]


def predict_fold(
    frames: Frames,
    problems: Sequence[Problem],
    fold: Fold,
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    steps: int,
) -> Sequence[Probabilities]:
    """Fits on the videos of the other folds; probabilities for those of this one."""
    outside = [labels for _, labels in fold]
    inside = without_scored_frames([problem for problem, _ in fold], outside)
    ((_, _, model),) = fit(frames, inside, tuning, embedder=embedder, seed=seed, stops=[steps])
    return model.predict(frames, problems, outside)


def held_out_predictions(
    problems: Sequence[Problem], folds: Sequence[Fold], predicted: Sequence[Sequence[Probabilities]]
) -> list[HeldOutPredictions]:
    """What every fold's videos were predicted to show, of each problem."""
    return [
        HeldOutPredictions(
            probabilities={name: q for each in predicted for name, q in each[p].items()},
            labels={name: y for fold in folds for name, y in fold[p][1].items()},
            fold={name: number for number, each in enumerate(predicted) for name in each[p]},
        )
        for p in range(len(problems))
    ]


def choose_postprocessing(
    problems: Sequence[Problem], held_out: Sequence[HeldOutPredictions], tuning: Tuning
) -> list[LearnedPostprocessing]:
    """What does best on those predictions, of each problem."""
    timid = is_timid(tuning.head)
    return [
        choose_steps(problem, predictions, timid=timid)
        for problem, predictions in zip(problems, held_out, strict=True)
    ]
