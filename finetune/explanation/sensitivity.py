"""What probabilities depend on, for a classifier of any kind: something of what it reads is
changed, and one looks how much they change with it.

Feature groups and animals are permuted (Breiman 2001): they take the values of another time of the
same stretch, so that they stay real and lose their relation to all the rest. For keypoints and
time, points are hidden for half a second (Zeiler & Fergus 2014), again and again, and changes are
kept apart by how long before or after a frame that was. Models take missing points as they come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from finetune.explanation.stretches import Stretch, shown_of
from finetune.inference.model import LoadedModel, Prediction
from finetune.labels.frame_labels import UNLABELLED, Reals
from pretrain.encoders import Embedder
from pretrain.transforms.feature_names import feature_names
from pretrain.transforms.interaction import GROUPS

HIDDEN_S, REACH_S = 0.5, 8.0
EVERYTHING = "all points"

Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Something that a classifier reads."""

    kind: str
    """``feature group`` or ``animal``."""
    name: str
    change: Callable[[Arrays], Arrays] = lambda arrays: arrays
    columns: Sequence[int] = ()
    """Of the features."""


@dataclass(kw_only=True)
class Sensitivity:
    """How much the probabilities of one problem depend on what. R rows, C classes, L lags."""

    rows: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    change_RC: list[Reals] = field(default_factory=list)
    """Mean absolute change of the probability of a class, over the frames that show it."""
    ap_lost_RC: list[Reals] = field(default_factory=list)
    """Average precision lost, of the labelled frames; NaN where none shows the class."""
    points: list[str] = field(default_factory=list)
    lag_s: Reals = field(default_factory=lambda: np.empty(0))
    """Seconds from a frame to the middle of what was hidden; negative: before it."""
    change_PCL: list[Reals] = field(default_factory=list)
    """As ``change_RC``, when a point (P) was hidden so long before or after."""


def parts_of(embedder: Embedder) -> list[Part]:
    """What there is to change."""
    features, schema = embedder.features, embedder.features.schema
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(feature_names(features)):
        groups.setdefault(_group(name), []).append(column)
    parts = [
        Part("feature group", name, columns=columns)
        for name, columns in groups.items()
        if not name.startswith("external")
    ]
    begin = 0
    for name, dim in embedder.external.items():
        columns = slice(begin, begin := begin + dim)
        parts.append(Part("feature group", f"external: {name}", _extra_permuted(columns)))
    if len(schema.animals) > 1:
        parts += [
            Part("animal", animal, _animal_permuted(m)) for m, animal in enumerate(schema.animals)
        ]
    return parts


def _group(name: str) -> str:
    """The group of a feature; of ``interaction`` and its like, which hold much, the quantity."""
    group, _, quantity = name.partition(": ")
    if group == "external":
        return name.rsplit(" ", 1)[0]
    if group not in GROUPS:
        return group
    quantity = quantity.partition(", ")[0]
    if quantity.endswith("seen") or quantity in ("confidence", "unseen for", "exchanged"):
        return "tracking"
    if "'s change" in quantity:
        return "distance's change"
    kind = re.match(r"speed|length|distance|headings|velocities", quantity)
    return kind[0] if kind else quantity


def _extra_permuted(columns: slice) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        extra = arrays["extra"].clone()
        extra[:, columns] = _another_time(extra[:, columns])
        return {**arrays, "extra": extra}

    return change


def _animal_permuted(m: int) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        position, confidence = arrays["position"].clone(), arrays["confidence"].clone()
        position[:, m] = _another_time(position[:, m])
        confidence[:, m] = _another_time(confidence[:, m])
        return {**arrays, "position": position, "confidence": confidence}

    return change


def _another_time(values_T: Tensor, axis: int = 0) -> Tensor:
    return values_T.roll(values_T.shape[axis] // 2, axis)


@contextmanager
def _columns_permuted(embedder: Embedder, columns: Sequence[int]) -> Iterator[None]:
    """Within, columns of the features are those of another time."""

    def change(module: object, inputs: object, x_BTF: Tensor) -> Tensor:
        x_BTF = x_BTF.clone()
        x_BTF[..., list(columns)] = _another_time(x_BTF[..., list(columns)], 1)
        return x_BTF

    hook = embedder.features.register_forward_hook(change)
    try:
        yield
    finally:
        hook.remove()


def sensitivities(
    model: LoadedModel,
    stretches: Sequence[Stretch],
    base: Sequence[Sequence[Prediction]],
    *,
    on_progress: Callable[[], object] = lambda: None,
) -> list[Sensitivity]:
    """Of each problem of a model of one network.

    Args:
        model: The model.
        stretches: Where it is looked.
        base: What it predicts there, of each stretch in each problem.
        on_progress: Called as often as :func:`passes_of` says.
    """
    (network,) = model.models
    embedder = network.embedder
    assert embedder is not None, "a saved model has its encoder"
    fps = model.schema.fps
    half, hidden = round(REACH_S / HIDDEN_S), max(1, round(HIDDEN_S * fps))
    lag_s = np.arange(-half, half + 1) * hidden / fps
    found = [Sensitivity(lag_s=lag_s) for _ in model.problems]
    shown = [
        [
            shown_of(problem, labels, prediction.labels)
            for problem, labels, prediction in zip(
                model.problems, stretch.labels, predictions, strict=True
            )
        ]
        for stretch, predictions in zip(stretches, base, strict=True)
    ]

    def predicted(change: Callable[[Arrays], Arrays]) -> list[list[Reals]]:
        """Of each stretch and problem."""
        return [
            [one.probabilities_TC for one in model.predict(change(stretch.arrays))]
            for stretch in stretches
        ]

    for part in parts_of(embedder):
        with _columns_permuted(embedder, part.columns):
            changed = predicted(part.change)
        for p, one in enumerate(found):
            before_NC, after_NC, shown_NC, labels = (
                np.concatenate(x)
                for x in (
                    [b[p].probabilities_TC for b in base],
                    [c[p] for c in changed],
                    [s[p] for s in shown],
                    [stretch.labels[p] for stretch in stretches],
                )
            )
            one.rows.append(part.name)
            one.kinds.append(part.kind)
            one.change_RC.append(_mean_where(np.abs(after_NC - before_NC), shown_NC))
            one.ap_lost_RC.append(_ap(labels, before_NC) - _ap(labels, after_NC))
        on_progress()
    for name, points in _points(embedder).items():
        sums = [np.zeros((2, len(lag_s), len(q.classes))) for q in model.problems]
        for s, after in enumerate(predicted(_hidden(points, hidden, len(lag_s)))):
            lag_T = len(lag_s) - 1 - (np.arange(len(stretches[s])) // hidden) % len(lag_s)
            for p, after_TC in enumerate(after):
                change_TC = np.abs(after_TC - base[s][p].probabilities_TC)
                counts = shown[s][p] & np.isfinite(change_TC)
                np.add.at(sums[p][0], lag_T, np.where(counts, change_TC, 0))
                np.add.at(sums[p][1], lag_T, counts)
        for one, (total_LC, count_LC) in zip(found, sums, strict=True):
            one.points.append(name)
            mean_LC = np.where(count_LC > 0, total_LC / np.maximum(count_LC, 1), np.nan)
            one.change_PCL.append(mean_LC.T)
        on_progress()
    return found


def passes_of(model: LoadedModel) -> int:
    """How often :func:`sensitivities` calls ``on_progress``."""
    embedder = model.models[0].embedder
    assert embedder is not None
    return len(parts_of(embedder)) + len(_points(embedder))


def _points(embedder: Embedder) -> dict[str, list[tuple[int, int]]]:
    """All points together, and each: name to animal and keypoint."""
    schema = embedder.features.schema
    each = {
        f"{animal} {keypoint}" if len(schema.animals) > 1 else keypoint: [(m, k)]
        for m, animal in enumerate(schema.animals)
        for k, keypoint in enumerate(schema.keypoints)
    }
    return {EVERYTHING: [point for points in each.values() for point in points], **each}


def _hidden(
    points: Sequence[tuple[int, int]], hidden: int, period: int
) -> Callable[[Arrays], Arrays]:
    """Hides points for ``hidden`` frames of every ``period`` times as many."""

    def change(arrays: Arrays) -> Arrays:
        position, confidence = arrays["position"].clone(), arrays["confidence"].clone()
        inside = (torch.arange(len(position)) // hidden) % period == period // 2
        for m, k in points:
            position[inside, m, k], confidence[inside, m, k] = torch.nan, 0.0
        return {**arrays, "position": position, "confidence": confidence}

    return change


def _mean_where(values_NC: Reals, shown_NC: Reals) -> Reals:
    shown_NC = shown_NC & np.isfinite(values_NC)
    count_C = shown_NC.sum(0)
    total_C = np.where(shown_NC, values_NC, 0).sum(0)
    return np.where(count_C > 0, total_C / np.maximum(count_C, 1), np.nan)


def _ap(labels: Reals, p_NC: Reals) -> Reals:
    """(C,): average precision of the labelled frames."""
    scores = []
    for c in range(p_NC.shape[1]):
        column = labels[:, c] if labels.ndim == 2 else labels
        known = (column != UNLABELLED) & np.isfinite(p_NC[:, c])
        positive = column[known] == (1 if labels.ndim == 2 else c)
        some = positive.any() and not positive.all()
        scores.append(average_precision_score(positive, p_NC[known, c]) if some else np.nan)
    return np.array(scores)
