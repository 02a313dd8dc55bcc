"""Learns calibration, thresholds and smoother of a problem, on predictions for held-out videos.

Which of them are used is chosen by cross-fitting: every candidate is fitted on the other folds of
the held-out videos and decides on this one, so that no frame scores steps that were fitted on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetune.labels.frame_labels import (
    UNLABELLED,
    ByVideo,
    Ints,
    Reals,
    log_probability,
    looked_at,
    plain,
)
from finetune.labels.problems import Problem
from finetune.metrics.bouts import score_bouts
from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.calibrations import AbstractCalibration, calibrations
from finetune.postprocess.one_standard_error import within_one_standard_error
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers import candidates
from finetune.postprocess.thresholds import Thresholds

FEW_VIDEOS = 4
BOUT_OVERLAP = 0.25
THRESHOLD_FRAMES = 60_000
"""Neighbouring frames repeat each other: more of them cost time and change nothing."""
NO_STEPS = "as it is"
THRESHOLDS = "thresholds"


@dataclass(frozen=True, kw_only=True)
class HeldOutPredictions:
    """Predictions for training videos by networks that were not fitted on them."""

    probabilities: ByVideo
    """Video to (T, C)."""
    labels: ByVideo
    """UNLABELLED in frames that a network was fitted on."""
    fold: Mapping[str, int]
    """Video to the fold it was held out with."""

    def only(self, videos: list[str]) -> HeldOutPredictions:
        """The same of some videos."""
        return HeldOutPredictions(
            probabilities={name: self.probabilities[name] for name in videos},
            labels={name: self.labels[name] for name in videos},
            fold={name: self.fold[name] for name in videos},
        )

    def folds(self) -> Iterator[tuple[HeldOutPredictions, HeldOutPredictions]]:
        """All folds but one, and that one; of a single fold twice the whole."""
        for fold in sorted({self.fold[name] for name in self.labels}):
            inside = [name for name in self.labels if self.fold[name] == fold]
            others = [name for name in self.labels if self.fold[name] != fold]
            yield (self.only(others), self.only(inside)) if others else (self, self)

    @property
    def any_labelled(self) -> bool:
        """Whether a frame of it is labelled."""
        return any(looked_at(labels).any() for labels in self.labels.values())

    def pooled(self) -> tuple[Reals, Ints]:
        """Probabilities and labels of all frames."""
        p, labels = (
            np.concatenate([values[name] for name in self.labels])
            for values in (self.probabilities, self.labels)
        )
        return p, labels


@dataclass(frozen=True, kw_only=True)
class LearnedPostprocessing:
    """The steps that did best on held-out videos, and how they did."""

    postprocessing: Postprocessing
    name: str
    """Of the steps that were chosen; ``as it is`` where none did better."""
    scores: Mapping[str, Mapping[str, float]]
    """``macro_f1`` and ``bout_f1`` of every candidate; of decisions on folds that it was not fitted
    on, unless a note says otherwise."""
    videos: int
    frames: int
    """Held-out labelled frames."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "steps": self.postprocessing.to_dict(),
            "scores": plain(self.scores),
            "videos": self.videos,
            "frames": self.frames,
            "notes": list(self.notes),
        }


def choose_steps(problem: Problem, held_out: HeldOutPredictions) -> LearnedPostprocessing:
    """Fits every candidate, and scores it on folds it was not fitted on.

    Of those whose macro F1 (frames) is within a standard error of the best one's and not below that
    of no steps at all, the one with the best bout F1 is taken; of equals the simplest. With a
    single fold the candidates are scored on the frames they were fitted on, and a note says so.
    """
    frames = sum(int(looked_at(labels).sum()) for labels in held_out.labels.values())
    neutral = Postprocessing(overlapping=problem.overlapping)
    if not frames:
        note = f"{problem.name}: no held-out frame is labelled, so there is no postprocessing"
        return LearnedPostprocessing(
            postprocessing=neutral,
            name=NO_STEPS,
            scores={},
            videos=len(held_out.labels),
            frames=0,
            notes=(note,),
        )
    calibration = best_calibration(problem, held_out)
    fitted = _candidates(problem, held_out, calibration)
    decisions: dict[str, dict[str, Ints]] = {name: {} for name in fitted}
    for others, inside in held_out.folds():
        on_others = fitted
        if others is not held_out:
            on_others = _candidates(problem, others, calibration) if others.any_labelled else {}
        for video, p in inside.probabilities.items():
            thresholded: dict[Thresholds | None, Reals] = {}
            for name, on_all in fitted.items():
                # Where the others have no such candidate (their bouts are too short for that
                # window), the same without a smoother stands in.
                plainer = THRESHOLDS if on_all.thresholds is not None else NO_STEPS
                steps = on_others.get(name) or on_others.get(plainer) or neutral
                if steps.thresholds not in thresholded:
                    thresholded[steps.thresholds] = steps.thresholded(p)
                decisions[name][video] = steps.smoothed(thresholded[steps.thresholds])
    scores = {name: _scores(problem, held_out, decisions[name]) for name in fitted}
    as_good = within_one_standard_error(
        labels=held_out.labels,
        decisions=decisions,
        classes=problem.classes,
        rest=problem.rest or "",
    )
    eligible = [
        name for name in as_good if not scores[name]["macro_f1"] < scores[NO_STEPS]["macro_f1"]
    ] or [NO_STEPS]
    bout_f1 = {name: scores[name]["bout_f1"] for name in eligible}
    best = max(eligible, key=lambda n: -math.inf if math.isnan(bout_f1[n]) else bout_f1[n])
    return LearnedPostprocessing(
        postprocessing=fitted[best],
        name=best,
        scores=scores,
        videos=len(held_out.labels),
        frames=frames,
        notes=tuple(_notes(problem, held_out)),
    )


def best_calibration(problem: Problem, held_out: HeldOutPredictions) -> type[AbstractCalibration]:
    """The calibration with the least log loss on folds it was not fitted on; of equals the first by
    name."""
    kinds = calibrations()
    if len(kinds) == 1:
        return kinds[0]

    def loss(kind: type[AbstractCalibration]) -> float:
        total = 0.0
        for others, inside in held_out.folds():
            if others.any_labelled:
                p, labels = others.pooled()
                step = kind.fit(probabilities_TC=p, labels=labels, classes=problem.classes)
                p, labels = inside.pooled()
                total += _log_loss(step.apply(p), labels)
        return total

    return min(kinds, key=loss)


def _log_loss(p_TC: Reals, labels: Ints) -> float:
    """Summed over labelled frames, and over behaviours where they overlap."""
    known = labels != UNLABELLED
    if labels.ndim == 2:
        right = np.where(labels == 1, p_TC, 1 - p_TC)[known]
    else:
        right = p_TC[known, labels[known]]
    return -float(log_probability(right).sum())


def _candidates(
    problem: Problem, held_out: HeldOutPredictions, calibration: type[AbstractCalibration]
) -> dict[str, Postprocessing]:
    """Every combination of thresholds (or none) and smoother (or none), simplest first; the
    calibration is common to all."""
    p, truth = held_out.pooled()
    classes, rest = problem.classes, problem.rest or ""
    calibrated = calibration.fit(probabilities_TC=p, labels=truth, classes=classes)
    known = np.flatnonzero(looked_at(truth))
    some = known[:: -(-len(known) // THRESHOLD_FRAMES)]
    tuned = Thresholds.fit(
        probabilities_TC=calibrated.apply(p[some]), labels=truth[some], classes=classes, rest=rest
    )
    combined: dict[str, Postprocessing] = {}
    for thresholds in (None, tuned):
        unsmoothed = Postprocessing(
            calibration=calibrated, thresholds=thresholds, overlapping=problem.overlapping
        )
        combined[NO_STEPS if thresholds is None else THRESHOLDS] = unsmoothed
        offered = candidates(
            probabilities={
                name: unsmoothed.thresholded(p) for name, p in held_out.probabilities.items()
            },
            labels=held_out.labels,
            classes=classes,
            rest=rest,
        )
        for name, smoother in offered.items():
            named = name if thresholds is None else f"{THRESHOLDS} + {name}"
            combined[named] = replace(unsmoothed, smoother=smoother)
    return combined


def _scores(problem: Problem, held_out: HeldOutPredictions, decisions: ByVideo) -> dict[str, float]:
    rest = problem.rest or ""
    bout_scores = score_bouts(
        labels=held_out.labels,
        predicted=decisions,
        classes=problem.classes,
        fps=1.0,  # scales only rates, which are not used here
        rest=rest,
        overlaps=(BOUT_OVERLAP,),
    )
    macro_f1 = frame_f1(
        labels=held_out.labels, predicted=decisions, classes=problem.classes, rest=rest
    )
    return {"macro_f1": macro_f1, "bout_f1": bout_scores.macro_f1[f"{BOUT_OVERLAP:g}"]}


def _notes(problem: Problem, held_out: HeldOutPredictions) -> Iterator[str]:
    """What a reader of the scores should know."""
    if len({held_out.fold[name] for name in held_out.labels}) == 1:
        yield (
            f"{problem.name}: there is one fold, so the postprocessing is scored on the frames it "
            "was fitted on"
        )
    videos = len(held_out.labels)
    if videos < FEW_VIDEOS:
        yield (
            f"{problem.name}: the postprocessing was learned on {videos} "
            f"video{'s' * (videos > 1)}; use {FEW_VIDEOS} or more"
        )
