"""Labels that behave like behaviour: steps that look at neighbouring frames, learned on validation
labels.

Every smoother is a frozen dataclass whose ``apply`` takes the (T, C) probabilities of one whole
video to labels and smoothed probabilities; nothing crosses from one video to the next. They serve
decisions (F1, bouts). Average precision stays that of the raw scores of the network.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from scipy.ndimage import convolve1d, median_filter

from finetune.labels.frame_labels import (
    ByVideo,
    Ints,
    Reals,
    Smoothed,
    decide,
    examine_video,
    examine_videos,
    plain,
    rest_class,
)
from finetune.metrics.bouts import bouts
from finetune.postprocess.viterbi import Viterbi
from pretrain.errors import BadInput, refuse


class Smoother(Protocol):
    """What this file's steps have in common."""

    def apply(self, probabilities_TC: Reals) -> Smoothed:
        """Smooths one video."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""


@dataclass(frozen=True, kw_only=True)
class Unsmoothed:
    """Each frame for itself: the candidate that the others must beat."""

    overlapping: bool = False

    def apply(self, probabilities_TC: Reals) -> Smoothed:
        """The plain decision of one video."""
        examine_video(probabilities_TC=probabilities_TC)
        return Smoothed(
            decide(probabilities_TC=probabilities_TC, overlapping=self.overlapping),
            probabilities_TC,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"smoother": type(self).__name__, **plain(asdict(self))}


@dataclass(frozen=True, kw_only=True)
class Moving:
    """Mean or median over a window centred on each frame.

    At the ends of a video the mean is over the frames that exist, and the median repeats the last
    one. Medians of exclusive classes are scaled to sum to one.
    """

    frames: int
    """Width of the window: odd."""
    kind: Literal["mean", "median"] = "mean"
    overlapping: bool = False

    def __post_init__(self) -> None:
        problems = (
            []
            if self.frames >= 1 and self.frames % 2
            else [f"frames is {self.frames}; allowed: 1, 3, 5…"]
        )
        if self.kind not in ("mean", "median"):
            problems.append(f"kind is {self.kind!r}; allowed: mean, median")
        refuse(problems, about="the moving window")

    @classmethod
    def fit(
        cls,
        *,
        probabilities: ByVideo,
        labels: ByVideo,
        classes: Sequence[str],
        rest: str | None = None,
        share: float = 0.5,
        kind: Literal["mean", "median"] = "mean",
    ) -> Self:
        """A window of ``share`` of the median bout of the counted class with the shortest; 1 frame
        where there is no bout.

        Raises:
            BadInput: If videos or shapes disagree, no frame is labelled or ``share`` is not above
                0.
        """
        examine_videos(labels=labels, classes=classes, probabilities=probabilities)
        refuse(
            [] if share > 0 else [f"share is {share}; it must be above 0"],
            about="the moving window",
        )
        left_out = rest_class(classes=classes, rest=rest)
        lengths = [
            held
            for name, held in _bout_lengths(labels, classes).items()
            if name != left_out and len(held)
        ]
        shortest = min((float(np.median(held)) for held in lengths), default=0.0)
        return cls(
            frames=2 * int(share * shortest / 2) + 1, kind=kind, overlapping=_overlapping(labels)
        )

    def apply(self, probabilities_TC: Reals) -> Smoothed:
        """Smooths the probabilities of one video and decides from them."""
        examine_video(probabilities_TC=probabilities_TC)
        p = np.asarray(probabilities_TC, np.float64)
        if len(p) and self.frames > 1:
            if self.kind == "mean":
                ones = np.ones(self.frames)
                there = convolve1d(np.ones(len(p)), ones, mode="constant")
                p = convolve1d(p, ones, axis=0, mode="constant") / there[:, None]
            else:
                median = np.stack(
                    [median_filter(column, self.frames, mode="nearest") for column in p.T], axis=1
                )
                total = median.sum(axis=1, keepdims=True)
                p = (
                    median
                    if self.overlapping
                    else np.where(total > 0, median / np.where(total > 0, total, 1), p)
                )
        return Smoothed(decide(probabilities_TC=p, overlapping=self.overlapping), p)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"smoother": type(self).__name__, **plain(asdict(self))}


@dataclass(frozen=True, kw_only=True)
class MinimumBout:
    """Dissolves bouts that are too short for their class, the shortest first, into the neighbour
    the network likes better there.

    Of overlapping behaviours short bouts are taken out; gaps stay.
    """

    frames: tuple[int, ...]
    """For each class the shortest bout that stays; 1 keeps all."""
    overlapping: bool = False

    @classmethod
    def fit(
        cls,
        *,
        probabilities: ByVideo,
        labels: ByVideo,
        classes: Sequence[str],
        quantile: float = 0.05,
    ) -> Self:
        """Takes this quantile of the bout lengths of each class in the labels, rounded down; 1
        where a class has no bout.

        Raises:
            BadInput: If videos or shapes disagree, no frame is labelled or ``quantile`` is not
                within 0…1.
        """
        examine_videos(labels=labels, classes=classes, probabilities=probabilities)
        refuse(
            [] if 0 <= quantile <= 1 else [f"quantile is {quantile}; it must lie within 0…1"],
            about="the minimum bout",
        )
        lengths = _bout_lengths(labels, classes).values()
        return cls(
            frames=tuple(int(np.quantile(held, quantile)) if len(held) else 1 for held in lengths),
            overlapping=_overlapping(labels),
        )

    def apply(self, probabilities_TC: Reals) -> Smoothed:
        """Decides frame by frame, then dissolves; the probabilities come back as they are."""
        examine_video(probabilities_TC=probabilities_TC, n_classes=len(self.frames))
        labels = decide(probabilities_TC=probabilities_TC, overlapping=self.overlapping)
        p = np.asarray(probabilities_TC, np.float64)
        if not self.overlapping:
            return Smoothed(_dissolve(labels, p, self.frames), probabilities_TC)
        columns = [
            _dissolve(labels[:, c], np.stack([1 - p[:, c], p[:, c]], axis=1), (1, shortest))
            for c, shortest in enumerate(self.frames)
        ]
        return Smoothed(np.stack(columns, axis=1), probabilities_TC)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"smoother": type(self).__name__, **plain(asdict(self))}


_SMOOTHERS: dict[str, type[Any]] = {
    one.__name__: one for one in (Unsmoothed, Moving, MinimumBout, Viterbi)
}


def from_dict(values: Mapping[str, Any]) -> Smoother:
    """The smoother that ``to_dict`` described.

    Raises:
        BadInput: If it is no description of a smoother.
    """
    try:
        smoother: Smoother = _SMOOTHERS[values["smoother"]](
            **{key: _frozen(held) for key, held in values.items() if key != "smoother"}
        )
    except (KeyError, TypeError) as error:
        raise BadInput(f"no smoother: {dict(values)}; allowed: {', '.join(_SMOOTHERS)}") from error
    return smoother


def candidates(
    *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], rest: str | None = None
) -> dict[str, Smoother]:
    """The smoothers worth trying, fitted on validation, simplest first; by a name that says what
    each is."""
    found: dict[str, Smoother] = {"unsmoothed": Unsmoothed(overlapping=_overlapping(labels))}
    kinds: tuple[Literal["mean", "median"], ...] = ("mean", "median")
    for kind in kinds:
        for share in (0.1, 0.25, 0.5, 1.0):
            window = Moving.fit(
                probabilities=probabilities,
                labels=labels,
                classes=classes,
                rest=rest,
                share=share,
                kind=kind,
            )
            if window.frames > 1:
                found[f"{kind} over {share:g} of the shortest bouts"] = window
    for quantile in (0.02, 0.05, 0.1):
        found[f"minimum bout, quantile {quantile:g}"] = MinimumBout.fit(
            probabilities=probabilities, labels=labels, classes=classes, quantile=quantile
        )
    exclusive = not _overlapping(labels)
    for weight in () if exclusive and len(classes) < 2 else (1.0, 0.3, 0.1, 0.03):
        found[f"viterbi, weight {weight:g}"] = Viterbi.fit(
            probabilities=probabilities, labels=labels, classes=classes, weight=weight
        )
    return found


def _overlapping(labels: ByVideo) -> bool:
    return any(held.ndim == 2 for held in labels.values())


def _bout_lengths(labels: ByVideo, classes: Sequence[str]) -> dict[str, Ints]:
    found = np.concatenate([bouts(held) for held in labels.values()])
    return {name: (found[:, 1] - found[:, 0])[found[:, 2] == c] for c, name in enumerate(classes)}


def _dissolve(labels: Ints, p_TC: Reals, shortest: Sequence[int]) -> Ints:
    runs = bouts(labels)
    start, stop, kind = (column.tolist() for column in runs.T) if len(runs) else ([], [], [])
    before, after = list(range(-1, len(runs) - 1)), [*range(1, len(runs)), -1]
    support = np.concatenate([np.zeros((1, p_TC.shape[1])), np.cumsum(p_TC, axis=0)])
    waiting = [
        (stop[i] - start[i], i) for i in range(len(runs)) if stop[i] - start[i] < shortest[kind[i]]
    ]
    heapq.heapify(waiting)
    gone = [False] * len(runs)
    while waiting:
        i = heapq.heappop(waiting)[1]
        sides = [j for j in (before[i], after[i]) if j >= 0]
        if gone[i] or not sides:
            continue
        gain = support[stop[i]] - support[start[i]]
        kind[i] = kind[max(sides, key=lambda j: gain[kind[j]])]
        for j in sides:  # the run swallows every neighbour of its new class
            if kind[j] == kind[i]:
                gone[j] = True
                start[i], stop[i] = min(start[i], start[j]), max(stop[i], stop[j])
                before[i], after[i] = (
                    (before[j], after[i]) if j == before[i] else (before[i], after[j])
                )
        for j, ahead in ((before[i], True), (after[i], False)):
            if j >= 0:
                (after if ahead else before)[j] = i
        if stop[i] - start[i] < shortest[kind[i]]:
            heapq.heappush(waiting, (stop[i] - start[i], i))
    result = labels.copy()
    for i in range(len(runs)):
        if not gone[i]:
            result[start[i] : stop[i]] = kind[i]
    return result


def _frozen(value: Any) -> Any:
    return tuple(_frozen(held) for held in value) if isinstance(value, list) else value
