"""Learns what comes after the network, on predictions for held-out videos: auto-context,
calibration, decision rule and smoother of a problem.

Which of them are used, if any, is chosen by cross-fitting: every candidate is fitted on the other
folds of the held-out videos and decides on this one, so that no frame scores steps that were fitted
on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from finetune.labels.frame_labels import (
    ByVideo,
    Ints,
    Reals,
    decide,
    log_loss,
    looked_at,
    plain,
)
from finetune.labels.problems import Problem
from finetune.metrics.bouts import score_bouts
from finetune.metrics.frame_metrics import frame_f1, score
from finetune.postprocess import decision_rules, smoothers
from finetune.postprocess.auto_context import (
    LEAST_VIDEOS,
    AutoContext,
    context_harms,
    with_context,
)
from finetune.postprocess.calibrations import AbstractCalibration, calibrations
from finetune.postprocess.decision_rules.prior_correction import (
    BY_BOUTS,
    LEAST_POWER,
    PriorCorrection,
    mean_probabilities,
    rule_of_labels,
)
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.one_standard_error import BOUT_OVERLAP, within_one_standard_error
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers import bout_lengths

FEW_VIDEOS = 4
RULE_FRAMES = 60_000
SCORED_FRAMES = 60_000
"""Neighbouring frames repeat each other: more of them cost time and change nothing."""
LEAST_GAIN = 0.005
"""Of a score: less, though certain, is no reason for a further step."""
LEAST_BOUTS = 30
"""Of the scored classes: with a handful any gain may be chance, in every fold alike."""
NO_STEPS = "as it is"
AND = " + "


@dataclass(frozen=True, kw_only=True)
class LearnedPostprocessing:
    """The steps that did best on held-out videos, and how they did."""

    postprocessing: Postprocessing
    name: str
    """Of the steps that were chosen; ``as it is`` where none did better."""
    scores: Mapping[str, Mapping[str, float]]
    """``macro_f1``, ``bout_f1`` and ``map`` of every candidate, on folds that it was not fitted
    on."""
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


def choose_steps(
    problem: Problem, held_out: HeldOutPredictions, *, timid: bool = False
) -> LearnedPostprocessing:
    """Fits every candidate, scores it on folds it was not fitted on, and takes none that does not
    help there.

    What there is to improve on is no step; of a ``timid`` head, where some behaviour has few bouts,
    :meth:`PriorCorrection.by_bouts`, which follows from the number of labels alone, and, from
    ``LEAST_VIDEOS`` labelled videos on, :class:`AutoContext`, unless it harms. First the decision
    rules compete, then every smoother after what there is to improve on and after the best of them.
    Of the candidates whose macro F1 (frames) is within a standard error of the best one's and on no
    fold below the one to improve on, the one with the best mean of bout F1 and MAP is taken, of
    those as good the simplest; and none where it gains no more than a standard error, or than
    ``LEAST_GAIN``, in either F1.
    With one labelled video nothing could be judged on frames that it was not fitted on, so nothing
    is fitted; with fewer than ``LEAST_BOUTS`` bouts no more than a calibration is.
    """
    labelled = [name for name, labels in held_out.labels.items() if looked_at(labels).any()]
    frames = sum(int(looked_at(labels).sum()) for labels in held_out.labels.values())
    learned = partial(LearnedPostprocessing, videos=len(labelled), frames=frames)
    if len(labelled) < 2:
        unjudged = Postprocessing(
            decision_rule=rule_of_labels(problem) if timid else None,
            overlapping=problem.overlapping,
        )
        return learned(
            postprocessing=unjudged,
            name=BY_BOUTS if unjudged.decision_rule else NO_STEPS,
            scores={},
            notes=(nothing_to_judge_on(problem, timid=timid),) if problem.train else (),
        )
    held_out = held_out.only(labelled)
    folds = list(held_out.folds())
    bouts = sum(
        len(lengths)
        for name, lengths in bout_lengths(held_out.labels, problem.classes).items()
        if name != problem.rest
    )
    if bouts < LEAST_BOUTS:
        few = (
            f"{problem.name}: the labelled training videos have {bouts} bouts, too few to judge "
            f"decision rules and smoothing on ({LEAST_BOUTS} are needed): {_unjudged(timid)}"
        )
        kind = best_calibration(problem, held_out)
        rules = _decision_rules(problem, held_out, kind, timid)
        name = _start(rules)
        return learned(postprocessing=rules[name], name=name, scores={}, notes=(few,))
    parts, context, before = [held_out, *(others for others, _ in folds)], None, held_out
    many = timid and len(labelled) >= LEAST_VIDEOS
    if many and not context_harms(held_out, around := with_context(held_out)):
        context, held_out = AutoContext.fit(held_out), around
        parts = [around, *map(with_context, parts[1:])]
        folds = [(others, around.only(list(inside.labels))) for others, inside in folds]
    kind = best_calibration(problem, held_out)
    fitted, *on_others = [_decision_rules(problem, part, kind, timid) for part in parts]
    stride = -(-frames // SCORED_FRAMES)
    decisions, scored = _decide(folds, fitted, on_others, stride=stride)
    f1 = {name: _macro_f1(problem, held_out, decided) for name, decided in decisions.items()}
    start = _start(fitted)
    best_rule = max((name for name in fitted if name != NO_STEPS), key=lambda name: f1[name])
    more, *more_on_others = [
        _smoothers(
            problem,
            part,
            {name: rules[name] for name in (start, best_rule) if name in rules},
            videos=len(labelled),
        )
        for part, rules in zip(parts, [fitted, *on_others], strict=True)
    ]
    both = [rules | later for rules, later in zip(on_others, more_on_others, strict=True)]
    more_decisions, more_scored = _decide(folds, more, both, stride=stride)
    fitted, decisions, scored = fitted | more, decisions | more_decisions, scored | more_scored
    # The simplest first: no step, rules, smoothers, both.
    scores = {
        name: _scores(problem, held_out, decisions[name])
        | {"map": _mean_ap(problem, held_out, scored[name], stride=stride)}
        for name in fitted
    }
    best = _best(problem, [inside.labels for _, inside in folds], decisions, scores, start)
    steps = replace(fitted[best], context=context)
    if context is not None:
        plainly = {
            v: decide(probabilities_TC=p, overlapping=problem.overlapping)
            for v, p in before.probabilities.items()
        }
        raw = {v: p[::stride] for v, p in before.probabilities.items()}
        scores = {
            NO_STEPS: _scores(problem, before, plainly)
            | {"map": _mean_ap(problem, before, raw, stride=stride)}
        } | {_after_context(name): one for name, one in scores.items()}
        best = _after_context(best)
    few = (
        f"{problem.name}: the postprocessing was learned on {len(labelled)} videos; use "
        f"{FEW_VIDEOS} or more"
    )
    notes = (few,) if len(labelled) < FEW_VIDEOS else ()
    return learned(postprocessing=steps, name=best, scores=scores, notes=notes)


def _after_context(name: str) -> str:
    return AutoContext.kind if name == NO_STEPS else f"{AutoContext.kind}{AND}{name}"


def nothing_to_judge_on(problem: Problem, *, timid: bool) -> str:
    """What is said where there are no two videos to learn from and to judge on."""
    return (
        f"{problem.name}: no two labelled training videos were held out, one to learn calibration, "
        f"decision rule and smoothing on and one to judge them on: {_unjudged(timid)}"
    )


def _unjudged(timid: bool) -> str:
    if not timid:
        return "none is used, labels and probabilities are the network's own"
    return (
        "none was fitted; behaviours of which few bouts are labelled are decided for a little "
        "sooner, probabilities are the head's own"
    )


def _start(rules: Mapping[str, object]) -> str:
    """What the others must improve on."""
    return BY_BOUTS if BY_BOUTS in rules else NO_STEPS


def _best(
    problem: Problem,
    folds: Sequence[ByVideo],
    decisions: Mapping[str, ByVideo],
    scores: Mapping[str, Mapping[str, float]],
    start: str,
) -> str:
    named = _named(problem)
    labels = {name: values for fold in folds for name, values in fold.items()}
    as_good = within_one_standard_error(labels=labels, decisions=decisions, **named)
    f1 = {
        name: [frame_f1(labels=fold, predicted=decisions[name], **named) for fold in folds]
        for name in {start, *as_good}
    }
    eligible = [
        name
        for name in as_good
        if not any(ours < plain for ours, plain in zip(f1[name], f1[start], strict=True))
    ] or [start]
    means = {name: (scores[name]["bout_f1"] + scores[name]["map"]) / 2 for name in eligible}
    merit = {name: -1.0 if math.isnan(mean) else mean for name, mean in means.items()}
    best = next(name for name in eligible if merit[name] >= max(merit.values()) - LEAST_GAIN)
    both = {name: decisions[name] for name in (start, best)}
    kinds: tuple[tuple[Literal["frames", "bouts"], str], ...] = (
        ("frames", "macro_f1"),
        ("bouts", "bout_f1"),
    )
    helps = any(
        scores[best][key] >= scores[start][key] + LEAST_GAIN
        and within_one_standard_error(labels=labels, decisions=both, of=of, **named) == [best]
        for of, key in kinds
    )
    return best if helps else start


def best_calibration(
    problem: Problem, held_out: HeldOutPredictions
) -> type[AbstractCalibration] | None:
    """The calibration with the least log loss on folds it was not fitted on; None where that of the
    network's own probabilities is no greater."""

    def loss(kind: type[AbstractCalibration] | None) -> float:
        total = 0.0
        for others, inside in held_out.folds():
            p, labels = inside.pooled()
            if kind is not None:
                seen, truth = others.pooled()
                step = kind.fit(probabilities_TC=seen, labels=truth, classes=problem.classes)
                p = step.apply(p)
            total += log_loss(p, labels)
        return total

    return min((None, *calibrations()), key=loss)


def _decision_rules(
    problem: Problem,
    held_out: HeldOutPredictions,
    kind: type[AbstractCalibration] | None,
    timid: bool,
) -> dict[str, Postprocessing]:
    """No rule, and every rule; the calibration is common to all. :meth:`PriorCorrection.by_bouts`
    is for a ``timid`` head, where some class has few bouts."""
    p, truth = held_out.pooled()
    classes = problem.classes
    calibration = None
    if kind is not None:
        calibration = kind.fit(probabilities_TC=p, labels=truth, classes=classes)
    known = np.flatnonzero(looked_at(truth))
    some = known[:: -(-len(known) // RULE_FRAMES)]
    none = Postprocessing(calibration=calibration, overlapping=problem.overlapping)
    p, truth = none.calibrated(p[some]), truth[some]
    offered = decision_rules.candidates(probabilities_TC=p, labels=truth, **_named(problem))
    if timid:
        prior = mean_probabilities(probabilities_TC=p, labels=truth)
        sooner = PriorCorrection.by_bouts(prior=prior, labels=held_out.labels)
        if np.max(sooner.power) > LEAST_POWER:
            offered = {BY_BOUTS: sooner, **offered}
    return {NO_STEPS: none} | {
        name: replace(none, decision_rule=rule) for name, rule in offered.items()
    }


def _smoothers(
    problem: Problem,
    held_out: HeldOutPredictions,
    rules: Mapping[str, Postprocessing],
    *,
    videos: int,
) -> dict[str, Postprocessing]:
    """Every smoother for which so many labelled videos are enough, after each of the rules."""
    combined: dict[str, Postprocessing] = {}
    for rule, unsmoothed in rules.items():
        adjusted = {name: unsmoothed.adjusted(p) for name, p in held_out.probabilities.items()}
        offered = smoothers.candidates(
            probabilities=adjusted, labels=held_out.labels, videos=videos, **_named(problem)
        )
        for name, smoother in offered.items():
            named = name if rule == NO_STEPS else f"{rule}{AND}{name}"
            combined[named] = replace(unsmoothed, smoother=smoother)
    return combined


def _decide(
    folds: Sequence[tuple[HeldOutPredictions, HeldOutPredictions]],
    fitted: Mapping[str, Postprocessing],
    on_others: Sequence[Mapping[str, Postprocessing]],
    *,
    stride: int,
) -> tuple[dict[str, dict[str, Ints]], dict[str, dict[str, Reals]]]:
    """Decisions of every candidate on each fold, as it was fitted on the others, and its scores of
    every so many frames.

    Where the others have no such candidate (their bouts are too short for that window), the same
    without a smoother stands in.
    """
    decisions: dict[str, dict[str, Ints]] = {name: {} for name in fitted}
    scored: dict[str, dict[str, Reals]] = {name: {} for name in fitted}
    for (_, inside), by_name in zip(folds, on_others, strict=True):
        for video, p in inside.probabilities.items():
            adjusted: dict[Any, Reals] = {}
            for name in fitted:
                plainer = name.rpartition(AND)[0] or NO_STEPS
                steps = by_name.get(name) or by_name[plainer]
                if steps.decision_rule not in adjusted:
                    adjusted[steps.decision_rule] = steps.adjusted(p)
                given, smoothed = adjusted[steps.decision_rule], None
                if steps.smoother is not None:
                    smoothed = steps.smoother.scores(given)
                if smoothed is None:
                    decisions[name][video] = steps.smoothed(given)
                    scored[name][video] = steps.calibrated(p[::stride])
                else:
                    decisions[name][video] = decide(
                        probabilities_TC=smoothed, overlapping=steps.overlapping
                    )
                    scored[name][video] = smoothed[::stride].copy()
    return decisions, scored


def _named(problem: Problem) -> dict[str, Any]:
    return {"classes": problem.classes, "rest": problem.rest or ""}


def _scores(problem: Problem, held_out: HeldOutPredictions, decisions: ByVideo) -> dict[str, float]:
    bout_scores = score_bouts(
        labels=held_out.labels,
        predicted=decisions,
        fps=1.0,  # scales only rates, which are not used here
        overlaps=(BOUT_OVERLAP,),
        **_named(problem),
    )
    macro_f1 = _macro_f1(problem, held_out, decisions)
    return {"macro_f1": macro_f1, "bout_f1": bout_scores.macro_f1[f"{BOUT_OVERLAP:g}"]}


def _macro_f1(problem: Problem, held_out: HeldOutPredictions, decisions: ByVideo) -> float:
    return frame_f1(labels=held_out.labels, predicted=decisions, **_named(problem))


def _mean_ap(
    problem: Problem, held_out: HeldOutPredictions, scored: ByVideo, *, stride: int
) -> float:
    labels = np.concatenate([values[::stride] for values in held_out.labels.values()])
    if not looked_at(labels).any():
        return math.nan
    return score(
        probabilities_TC=np.concatenate([scored[name] for name in held_out.labels]),
        labels=labels,
        **_named(problem),
    ).map
