"""Labels of frames: which count, which class is the rest, what a network decides, what is refused.

Labels are (T,) indices of classes, or (T, C) of 0 and 1 where behaviours overlap;
``UNLABELLED`` in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import refuse
from pretrain.readers.score_sheets import rest_of

Ints = npt.NDArray[Any]
Reals = npt.NDArray[Any]
ByVideo = Mapping[str, npt.NDArray[Any]]

UNLABELLED = -1  # as in a store's labels: nobody looked at this frame


def rest_class(*, classes: Sequence[str], rest: str | None = None) -> str | None:
    """The class that the means leave out.

    Args:
        classes: Names of the classes.
        rest: A name; None takes that of :func:`pretrain.readers.score_sheets.rest_of`; an empty
            text leaves no class out.

    Raises:
        BadInput: If ``rest`` is not one of the classes, or no other class remains.
    """
    if rest is None:
        left_out = rest_of(classes)
    else:
        left_out = rest or None
    errors = []
    if not classes or len(set(classes)) != len(classes):
        errors.append(f"the classes are {list(classes)}; give at least one, each once")
    elif left_out is not None and left_out not in classes:
        errors.append(f"the rest class is {left_out!r}; allowed: {', '.join(classes)}")
    elif list(classes) == [left_out]:
        errors.append(f"{left_out!r} is the only class, and it does not count")
    refuse(errors, about="cannot score these classes")
    return left_out


def looked_at(labels: Ints) -> npt.NDArray[np.bool_]:
    """(T,), true where a frame is labelled, for at least one of overlapping behaviours."""
    known: npt.NDArray[np.bool_] = labels != UNLABELLED
    return np.asarray(known.any(axis=1)) if labels.ndim == 2 else known


def examine(
    *,
    labels: Ints,
    classes: Sequence[str],
    probabilities_TC: Reals | None = None,
    predicted: Ints | None = None,
) -> None:
    """Refuses labels, probabilities and predictions that cannot be scored together.

    Raises:
        BadInput: If shapes disagree, a value is out of range or not finite, or no frame is
            labelled.
    """
    n, about, errors = len(classes), "cannot score these frames", []
    if (
        labels.ndim not in (1, 2)
        or (labels.ndim == 2 and labels.shape[1] != n)
        or labels.dtype.kind not in "iub"
    ):
        errors.append(
            f"labels have shape {labels.shape} and type {labels.dtype}; allowed: integers, (T,) or "
            f"(T, {n})"
        )
    elif probabilities_TC is not None and probabilities_TC.shape != (len(labels), n):
        errors.append(
            f"probabilities have shape {probabilities_TC.shape}; allowed: {(len(labels), n)} for "
            f"{', '.join(classes)}"
        )
    elif predicted is not None and predicted.shape != labels.shape:
        errors.append(f"predictions have shape {predicted.shape}, labels {labels.shape}")
    elif predicted is not None and predicted.dtype.kind not in "iub":
        errors.append(f"predictions have type {predicted.dtype}; allowed: integers")
    refuse(errors, about=about)
    known = labels != UNLABELLED
    upper = 1 if labels.ndim == 2 else n - 1
    if not known.any():
        errors.append(f"none of the {len(labels)} frames is labelled")
    for name, values in (("label", labels), ("prediction", predicted)):
        if values is not None and ((values[known] < 0) | (values[known] > upper)).any():
            errors.append(f"a {name} lies outside 0…{upper}")
    if probabilities_TC is not None:
        rows = looked_at(labels)
        lost = ~np.isfinite(probabilities_TC).all(axis=1) & rows
        if lost.any():
            errors.append(
                f"the scores of {lost.sum()} of {len(lost)} frames are not finite, first at frame "
                f"{lost.argmax()}: "
                "the training has diverged; try a lower learning rate"
            )
        elif (
            labels.ndim == 2 and ((probabilities_TC[rows] < 0) | (probabilities_TC[rows] > 1)).any()
        ):
            errors.append(
                "scores of overlapping behaviours lie outside 0…1; give probabilities, not logits"
            )
    refuse(errors, about=about)


def examine_videos(*, labels: ByVideo, classes: Sequence[str], probabilities: ByVideo) -> None:
    """Refuses labels and probabilities by video that do not fit each other.

    Raises:
        BadInput: If the videos differ, or as :func:`examine` of all their frames.
    """
    about, errors = "cannot use these videos", []
    if labels.keys() != probabilities.keys() or not labels:
        errors.append(
            f"labelled videos are {sorted(labels)}, those with probabilities "
            f"{sorted(probabilities)}"
        )
    refuse(errors, about=about)
    if len({frames.shape[1:] for frames in labels.values()}) > 1:
        errors.append("labels are (T,) in all videos or (T, C) in all; these are mixed")
    errors += [
        f"{name}: probabilities have shape {probabilities[name].shape}, labels {frames.shape}; "
        f"allowed: (T, {len(classes)}) and (T, …)"
        for name, frames in labels.items()
        if probabilities[name].shape != (len(frames), len(classes))
    ]
    refuse(errors, about=about)
    examine(
        labels=np.concatenate(list(labels.values())),
        classes=classes,
        probabilities_TC=np.concatenate([probabilities[name] for name in labels]),
    )


def examine_video(*, probabilities_TC: Reals, n_classes: int | None = None) -> None:
    """Refuses probabilities of one video that are not finite or not (T, C).

    Raises:
        BadInput: In that case.
    """
    errors = []
    if probabilities_TC.ndim != 2 or (
        n_classes is not None and probabilities_TC.shape[1] != n_classes
    ):
        errors.append(f"they have shape {probabilities_TC.shape}; allowed: (T, {n_classes or 'C'})")
    elif not np.isfinite(probabilities_TC).all():
        errors.append(
            "they are not finite, first at frame "
            f"{(~np.isfinite(probabilities_TC)).any(axis=1).argmax()}"
        )
    refuse(errors, about="the probabilities of a video")


def decide(*, probabilities_TC: Reals, overlapping: bool = False) -> Ints:
    """The protocol's decision: the argmax (of two equals the first), or above 0.5 for each
    overlapping behaviour.

    Returns:
        (T,) classes, or (T, C) of 0 and 1.
    """
    return (
        (probabilities_TC > 0.5).astype(np.int64)
        if overlapping
        else probabilities_TC.argmax(axis=1)
    )


def log_probability(probabilities: Reals) -> Reals:
    """Logarithm in double precision, finite: a saturated softmax gives exact zeros, taken as the
    least 32-bit number."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))


def log_loss(p_TC: Reals, labels: Ints) -> float:
    """Summed over labelled frames, and over behaviours where they overlap."""
    known = labels != UNLABELLED
    if labels.ndim == 2:
        right = np.where(labels == 1, p_TC, 1 - p_TC)[known]
    else:
        right = p_TC[known, labels[known]]
    return -float(log_probability(right).sum())


def log_odds(probabilities: Reals) -> Reals:
    """Logit in double precision, finite: a sigmoid of 1 is taken as the number below it of its own
    type."""
    nearest = np.finfo(probabilities.dtype).epsneg if probabilities.dtype.kind == "f" else 0.0
    p = np.asarray(probabilities, np.float64)
    return log_probability(p) - log_probability(np.maximum(1 - p, nearest))


def plain(value: Any) -> Any:
    """Nested values as JSON has them: numpy numbers and arrays unpacked, keys as text, what is not
    finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
