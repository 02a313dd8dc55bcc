"""How far probabilities can be taken at their word."""

from __future__ import annotations

import numpy as np

from finetune.labels.frame_labels import UNLABELLED, Ints, Reals, examine


def expected_calibration_error(*, probabilities_TC: Reals, labels: Ints, bins: int = 15) -> float:
    """Mean of |accuracy - confidence| over labelled frames, in bins of equal parts of 0…1, each
    closed on the right (Guo et al. 2017).

    Of exclusive classes, labelled (T,), it asks whether the chosen class of each frame is right; of
    overlapping behaviours, (T, C), every behaviour of every frame.

    Raises:
        BadInput: If shapes disagree, no frame is labelled or a score is not finite.
    """
    width = probabilities_TC.shape[1] if probabilities_TC.ndim == 2 else 0
    classes = [f"class {c}" for c in range(width)]
    examine(labels=labels, classes=classes, probabilities_TC=probabilities_TC)
    p, known = np.asarray(probabilities_TC, np.float64), labels != UNLABELLED
    if labels.ndim == 2:
        confidence, right = p[known], labels[known] == 1
    else:
        confidence, right = p[known].max(axis=1), labels[known] == p[known].argmax(axis=1)
    bin_N = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    confident, correct = (
        np.bincount(bin_N, weights=values, minlength=bins) for values in (confidence, right)
    )
    return float(np.abs(correct - confident).sum() / max(len(bin_N), 1))
