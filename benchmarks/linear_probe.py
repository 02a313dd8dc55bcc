"""One linear probe for embeddings of any origin: logistic regression on standardised numbers, its
strength chosen on training videos."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import Scores, score
from pretrain.errors import BadInput

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 3
ITERATIONS = 200
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def probe(z: Mapping[str, Floats], problem: Problem) -> tuple[Scores, float]:
    """Fits on a problem's training videos and scores on its test videos.

    The strength is that with the best MAP on training videos left out in turn, whole videos at a
    time; test is looked at once.

    Args:
        z: Video to the embeddings of some of its frames, (n, D).
        problem: Its labels are of the same frames, (n,).

    Returns:
        Scores on test, and the strength (scikit-learn's C).
    """
    train = sorted(problem.train)
    z_ND, y_N = _labelled(z, problem.train)
    video_N = np.repeat(
        np.arange(len(train)), [int((problem.train[name] != UNLABELLED).sum()) for name in train]
    )
    folds = list(GroupKFold(min(FOLDS, len(train))).split(z_ND, y_N, video_N))
    best = max(
        STRENGTHS,
        key=lambda strength: float(
            np.nanmean([_on_fold(z_ND, y_N, fold, strength, problem) for fold in folds])
        ),
    )
    test_ND, truth_N = _labelled(z, problem.test)
    return _scored(_fitted(z_ND, y_N, best), test_ND, truth_N, problem), best


def refuse_what_is_not_probed(problem: Problem, videos: int) -> None:
    """Refuses problems that one logistic regression does not fit.

    Raises:
        BadInput: If behaviours overlap, or there are too few videos to leave some out, or nothing
            to score on.
    """
    if problem.overlapping:
        raise BadInput(
            f"{problem.name}: its behaviours overlap; this probe tells exclusive classes apart"
        )
    if min(videos, len(problem.train)) < 2 or not problem.test:
        raise BadInput(
            f"{problem.name}: {len(problem.train)} training and {len(problem.test)} test videos, "
            f"budget {videos}; "
            "wanted two or more to train on and one or more to test on"
        )


def _labelled(
    z: Mapping[str, Floats], labels: Mapping[str, npt.NDArray[np.int8]]
) -> tuple[Floats, Ints]:
    names = sorted(labels)
    known = {name: labels[name] != UNLABELLED for name in names}
    return (
        np.concatenate([z[name][known[name]] for name in names]),
        np.concatenate([labels[name][known[name]] for name in names]).astype(np.int64),
    )


def _fitted(z_ND: Floats, y_N: Ints, strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=ITERATIONS)).fit(
        z_ND, y_N
    )


def _on_fold(
    z_ND: Floats, y_N: Ints, fold: tuple[Ints, Ints], strength: float, problem: Problem
) -> float:
    fit, left = fold
    if len(np.unique(y_N[fit])) < 2:
        return float("nan")
    return _scored(_fitted(z_ND[fit], y_N[fit], strength), z_ND[left], y_N[left], problem).map


def _scored(model: Pipeline, z_ND: Floats, y_N: Ints, problem: Problem) -> Scores:
    p_NC = np.zeros((len(z_ND), len(problem.classes)))
    p_NC[:, model.classes_] = model.predict_proba(z_ND)
    return score(probabilities_TC=p_NC, labels=y_N, classes=problem.classes)
