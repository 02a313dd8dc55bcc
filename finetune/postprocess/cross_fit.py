"""Cross-fitting: predictions for training videos by networks that were not fitted on them, the only
frames that the postprocessing may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.fit.fit import Outputs, fit, mean_of_members
from finetune.fit.frames import Frames, recordings
from finetune.heads import is_timid
from finetune.heads.stack import shares
from finetune.labels.folds import split_folds
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import without_scored_frames
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import LearnedPostprocessing, choose_steps
from finetune.postprocess.member_weights import learn_weights
from finetune.settings import Tuning
from pretrain.encoders import Embedder

Fold = Sequence[tuple[Problem, Labelled]]
"""For each problem what is fitted on, and the labels of the videos held out."""


@dataclass(frozen=True)
class CrossFit:
    """What is learned on predictions for videos held out, and the predictions."""

    held_out: list[HeldOutPredictions]
    """Of each problem."""
    weights: list[float] | None
    """Of the members of a stack that has them learned; they made the predictions."""


def cross_fit(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> CrossFit:
    """Fits once a fold on the videos of the other folds, and predicts those of this one: training
    videos of the budget alone, of which the ``train`` labels are used and nothing else.

    Networks are fitted as in the run itself: from poses where there is an ``embedder`` to train
    along, for ``stop`` steps.
    """
    folds = inner_folds(frames, problems, tuning, seed=seed)
    return crossed(
        problems,
        folds,
        [
            predict_fold(frames, problems, fold, tuning, embedder, seed=seed, steps=stop)
            for fold in folds
        ],
        tuning,
        fps=frames.fps,
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
) -> list[Outputs]:
    """Fits on the videos of the other folds; what each member of the head gives for those of this
    one."""
    outside = [labels for _, labels in fold]
    inside = without_scored_frames([problem for problem, _ in fold], outside)
    ((_, _, model),) = fit(frames, inside, tuning, embedder=embedder, seed=seed, stops=[steps])
    return model.predict_members(frames, problems, outside)


def crossed(
    problems: Sequence[Problem],
    folds: Sequence[Fold],
    predicted: Sequence[Sequence[Outputs]],
    tuning: Tuning,
    *,
    fps: float,
) -> CrossFit:
    """What every fold's videos were predicted to show, of each problem, and the weights of the
    members that this asks for."""
    weights = None
    if predicted and len(predicted[0]) > 1:
        # a video may be held out in several folds, with other problems
        members: list[Outputs] = [
            {f"{n} {video}": each for n, fold in enumerate(one) for video, each in fold.items()}
            for one in zip(*predicted, strict=True)
        ]
        truth = [
            {f"{n} {video}": y for n, fold in enumerate(folds) for video, y in fold[p][1].items()}
            for p in range(len(problems))
        ]
        given = shares(tuning.head.get("weights", ()), len(members))
        weights = learn_weights(problems, members, truth, given=given)
    held_out = [
        mean_of_members(problems, fold, weights or [1.0], [y for _, y in of_problems])
        for fold, of_problems in zip(predicted, folds, strict=True)
    ]
    return CrossFit(
        [
            HeldOutPredictions(
                probabilities={name: q for each in held_out for name, q in each[p].items()},
                labels={name: y for fold in folds for name, y in fold[p][1].items()},
                fold={name: number for number, each in enumerate(held_out) for name in each[p]},
                fps=fps,
            )
            for p in range(len(problems))
        ],
        weights,
    )


def choose_postprocessing(
    problems: Sequence[Problem], held_out: Sequence[HeldOutPredictions], tuning: Tuning
) -> list[LearnedPostprocessing]:
    """What does best on those predictions, of each problem."""
    timid = is_timid(tuning.head)
    return [
        choose_steps(problem, predictions, timid=timid)
        for problem, predictions in zip(problems, held_out, strict=True)
    ]
