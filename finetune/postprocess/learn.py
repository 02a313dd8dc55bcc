"""What comes after the network: temperature, thresholds and a smoother for one problem, learned on
predictions for held-out videos.

    probabilities ── temperature ──▶ calibrated ── thresholds ──▶ moved ── smoother ──▶ labels

Calibrated probabilities are what a reader is shown; thresholds and smoother serve the decision
alone. Which of them are used is chosen by cross-fitting: every candidate is fitted on the other
parts of the held-out videos and decides on this one, so that no frame judges what was fitted on it.
Average precision is that of the raw scores.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from finetune.labels.frame_labels import ByVideo, Ints, Reals, decide, looked_at, plain
from finetune.labels.problems import Problem
from finetune.metrics.bouts import score_bouts
from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.calibrate import Temperature
from finetune.postprocess.calibrate import from_dict as step_from_dict
from finetune.postprocess.one_standard_error import not_worse
from finetune.postprocess.smooth import Smoother, Unsmoothed, candidates
from finetune.postprocess.smooth import from_dict as smoother_from_dict
from finetune.postprocess.thresholds import Thresholds
from pretrain.errors import BadInput

FEW_VIDEOS = 4
BOUT_OVERLAP = 0.25
THRESHOLD_FRAMES = (
    60_000  # neighbouring frames tell the same story: more of them cost time and move nothing
)
AS_IT_IS = "as it is"


@dataclass(frozen=True, kw_only=True)
class Postprocessing:
    """The steps of one problem; those that are None are left out."""

    temperature: Temperature | None = None
    thresholds: Thresholds | None = None
    smoother: Smoother | None = None
    overlapping: bool = False

    def calibrated(self, probabilities_TC: Reals) -> Reals:
        """Probabilities of one video that mean what they say."""
        return (
            probabilities_TC
            if self.temperature is None
            else self.temperature.apply(probabilities_TC)
        )

    def moved(self, probabilities_TC: Reals) -> Reals:
        """Probabilities whose plain decision is the tuned one, before any smoothing."""
        calm = self.calibrated(probabilities_TC)
        return calm if self.thresholds is None else self.thresholds.apply(calm)

    def decide(self, probabilities_TC: Reals) -> Ints:
        """(T,) classes of one whole video, or (T, C) of 0 and 1."""
        return self.smoothed(self.moved(probabilities_TC))

    def smoothed(self, moved_TC: Reals) -> Ints:
        """The last step alone, for probabilities that :meth:`moved` gave."""
        if self.smoother is None:
            return decide(probabilities_TC=moved_TC, overlapping=self.overlapping)
        return self.smoother.apply(moved_TC).labels

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        steps = {
            "temperature": self.temperature,
            "thresholds": self.thresholds,
            "smoother": self.smoother,
        }
        return {name: None if step is None else step.to_dict() for name, step in steps.items()} | {
            "overlapping": self.overlapping
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            BadInput: If it is no such description.
        """
        try:
            held = {name: values[name] for name in ("temperature", "thresholds", "smoother")}
            overlapping = bool(values["overlapping"])
        except (KeyError, TypeError) as error:
            raise BadInput(f"no description of what comes after a network: {error!r}") from error
        temperature, thresholds = (
            None if held[name] is None else step_from_dict(held[name])
            for name in ("temperature", "thresholds")
        )
        if not (
            isinstance(temperature, Temperature | None)
            and isinstance(thresholds, Thresholds | None)
        ):
            raise BadInput(
                "no description of what comes after a network: temperature and thresholds are "
                "exchanged"
            )
        smoother = None if held["smoother"] is None else smoother_from_dict(held["smoother"])
        return cls(
            temperature=temperature,
            thresholds=thresholds,
            smoother=smoother,
            overlapping=overlapping,
        )


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Predictions for training videos by networks that were not fitted on them."""

    probabilities: ByVideo
    """Video to (T, C)."""
    labels: ByVideo
    """UNLABELLED in frames that a network was fitted on."""
    part: Mapping[str, int]
    """Video to the part it was held out with."""

    def only(self, videos: list[str]) -> HeldOut:
        """The same of some videos."""
        return HeldOut(
            probabilities={name: self.probabilities[name] for name in videos},
            labels={name: self.labels[name] for name in videos},
            part={name: self.part[name] for name in videos},
        )

    @property
    def known(self) -> bool:
        """Whether a frame of it is labelled."""
        return any(looked_at(held).any() for held in self.labels.values())


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The steps that did best on held-out videos, and what is to be said of them."""

    after: Postprocessing
    name: str
    """Of the steps that were chosen; ``as it is`` where none did better."""
    scores: Mapping[str, Mapping[str, float]]
    """``macro_f1`` and ``bout_f1`` of every candidate; of decisions on parts that it was not fitted
    on, unless a note says otherwise."""
    videos: int
    frames: int
    """Held-out labelled frames."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "steps": self.after.to_dict(),
            "scores": plain(self.scores),
            "videos": self.videos,
            "frames": self.frames,
            "notes": list(self.notes),
        }


def learn(problem: Problem, held: HeldOut) -> Learned:
    """Fits every candidate, and judges it on parts it was not fitted on.

    Of those whose macro F1 (frames) is within a standard error of the best one's and not below that
    of no steps at all, the one with the best bout F1 is taken; of equals the simplest. With one
    part alone the candidates are judged on the frames they were fitted on, and a note says so.
    """
    parts = sorted({held.part[name] for name in held.labels})
    frames = sum(int(looked_at(labels).sum()) for labels in held.labels.values())
    neutral = Postprocessing(overlapping=problem.overlapping)
    if not held.known:
        note = f"{problem.name}: no held-out frame is labelled, so nothing comes after the network"
        return Learned(
            after=neutral,
            name=AS_IT_IS,
            scores={},
            videos=len(held.labels),
            frames=0,
            notes=(note,),
        )
    decided: dict[str, dict[str, Ints]] = defaultdict(dict)
    notes = []
    if len(parts) > 1:
        for part in parts:
            others = held.only([name for name in held.labels if held.part[name] != part])
            made = _candidates(problem, others) if others.known else {AS_IT_IS: neutral}
            for video in (name for name in held.labels if held.part[name] == part):
                _decide_all(made, video, held.probabilities[video], decided)
    else:
        notes.append(
            f"{problem.name}: one part was held out, so the steps after the network are judged on "
            "the frames they were fitted on"
        )
    every = _candidates(problem, held)
    if len(parts) == 1:
        for video in held.labels:
            _decide_all(every, video, held.probabilities[video], decided)
    if len(held.labels) < FEW_VIDEOS:
        few = f"{len(held.labels)} video" + "s" * (len(held.labels) > 1)
        notes.append(
            f"{problem.name}: what comes after the network was learned on {few}; {FEW_VIDEOS} or "
            "more are wanted"
        )
    chosen: dict[str, dict[str, Ints]] = {}
    for name in every:
        # Where a part has no such candidate (its bouts are too short for that window), the same
        # without a smoother stands in.
        plainer = (
            "thresholds"
            if every[name].thresholds is not None and "thresholds" in decided
            else AS_IT_IS
        )
        chosen[name] = {
            video: decided[name].get(video, decided[plainer].get(video, decided[AS_IT_IS][video]))
            for video in held.labels
        }
    scores = {name: _scores(problem, held, decisions) for name, decisions in chosen.items()}
    near = not_worse(
        labels=held.labels, decided=chosen, classes=problem.classes, rest=problem.rest or ""
    )
    eligible = [
        name for name in near if not scores[name]["macro_f1"] < scores[AS_IT_IS]["macro_f1"]
    ] or [AS_IT_IS]
    best = max(
        eligible,
        key=lambda name: (
            -math.inf if math.isnan(scores[name]["bout_f1"]) else scores[name]["bout_f1"]
        ),
    )
    return Learned(
        after=every[best],
        name=best,
        scores=scores,
        videos=len(held.labels),
        frames=frames,
        notes=tuple(notes),
    )


def _scores(problem: Problem, held: HeldOut, decided: ByVideo) -> dict[str, float]:
    rest = problem.rest or ""
    # Frames per second scale rates alone, which are not used here.
    counted = score_bouts(
        labels=held.labels,
        predicted=decided,
        classes=problem.classes,
        fps=1.0,
        rest=rest,
        overlaps=(BOUT_OVERLAP,),
    )
    frames = frame_f1(labels=held.labels, predicted=decided, classes=problem.classes, rest=rest)
    return {"macro_f1": frames, "bout_f1": counted.macro_f1[f"{BOUT_OVERLAP:g}"]}


def _decide_all(
    made: Mapping[str, Postprocessing],
    video: str,
    probabilities_TC: Reals,
    decided: dict[str, dict[str, Ints]],
) -> None:
    moved: dict[bool, Reals] = {}
    for name, after in made.items():
        tuned = after.thresholds is not None
        if tuned not in moved:
            moved[tuned] = after.moved(probabilities_TC)
        decided[name][video] = after.smoothed(moved[tuned])


def _candidates(problem: Problem, held: HeldOut) -> dict[str, Postprocessing]:
    """Every combination of thresholds (or none) and smoother (or none), simplest first; the
    temperature is common to all."""
    p, truth = (
        np.concatenate([part[name] for name in held.labels])
        for part in (held.probabilities, held.labels)
    )
    rest = problem.rest or ""
    temperature = Temperature.fit(probabilities_TC=p, labels=truth)
    known = np.flatnonzero(looked_at(truth))
    some = known[:: -(-len(known) // THRESHOLD_FRAMES)]
    tuned = Thresholds.fit(
        probabilities_TC=temperature.apply(p[some]),
        labels=truth[some],
        classes=problem.classes,
        rest=rest,
    )
    found: dict[str, Postprocessing] = {}
    for thresholds in (None, tuned):
        start = Postprocessing(
            temperature=temperature, thresholds=thresholds, overlapping=problem.overlapping
        )
        moved = {name: start.moved(held.probabilities[name]) for name in held.labels}
        offered = candidates(
            probabilities=moved, labels=held.labels, classes=problem.classes, rest=rest
        )
        for name, smoother in offered.items():
            words = ["thresholds"] * (thresholds is not None) + [name] * (
                not isinstance(smoother, Unsmoothed)
            )
            found[" + ".join(words) or AS_IT_IS] = Postprocessing(
                temperature=temperature,
                thresholds=thresholds,
                overlapping=problem.overlapping,
                smoother=None if isinstance(smoother, Unsmoothed) else smoother,
            )
    return found
