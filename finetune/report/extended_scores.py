"""What ``result.json`` says besides frame scores by the protocol: bouts and their onsets,
calibration, scores after postprocessing, agreement of annotators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.fit.fit import Probabilities
from finetune.fit.frames import Frames, recordings
from finetune.labels.frame_labels import decide, looked_at, plain
from finetune.labels.problems import Labelled, Problem
from finetune.metrics.bouts import BoutScores, score_bouts
from finetune.metrics.calibration_error import expected_calibration_error
from finetune.metrics.frame_metrics import Scores, mean_over_problems, over_seeds, score
from finetune.postprocess.learn import LearnedPostprocessing
from finetune.postprocess.postprocessing import Postprocessing
from finetune.report.annotator_agreement import (
    agreement_between_annotators,
    agreement_with_annotators,
)
from finetune.report.predictions import Decisions

Steps = Mapping[str, Postprocessing]
"""By video."""


def extended_scores(
    budgets: Mapping[int, Sequence[Problem]],
    probabilities: Mapping[int, Sequence[Probabilities]],
    learned: Mapping[Any, Sequence[LearnedPostprocessing]],
    frames: Frames,
    *,
    fps: float,
    steps: Mapping[int, Sequence[Steps]] | None = None,
) -> tuple[dict[str, Any], dict[int, list[Decisions]]]:
    """Scores on the test videos, means over seeds and problems.

    Args:
        budgets: For each seed the problems, with their test labels.
        probabilities: For each seed and problem, the raw scores of the network.
        learned: For each seed (or seed and fold) and problem the postprocessing; empty where there
            is none.
        frames: Of the test videos; they tell which videos are of one recording.
        fps: Frames per second.
        steps: For each seed and problem the postprocessing of each video; None: that of the seed.

    Returns:
        Entries of ``result.json``: ``bouts``, ``calibration_error``, ``after`` (scores after
        postprocessing, None without), ``annotators`` (None where no two labelled one video) and
        ``notes``; and for each seed the decisions after postprocessing.
    """
    first = next(iter(budgets))
    raw = {
        seed: [
            plain_decisions(problem, p)
            for problem, p in zip(budgets[seed], probabilities[seed], strict=True)
        ]
        for seed in budgets
    }
    decided: dict[int, list[Decisions]] = {}
    after = None
    if steps is None:
        steps = {
            seed: [
                dict.fromkeys(problem.test, one.postprocessing)
                for problem, one in zip(budgets[seed], each, strict=True)
            ]
            for seed, each in learned.items()
        }
    if steps:
        after, decided = _scores_after(budgets, probabilities, steps, learned, fps=fps)
    scores = {
        "bouts": mean_of(bout_scores(budgets[seed], raw[seed], fps=fps) for seed in budgets),
        "calibration_error": _mean(
            calibration_error(budgets[seed], probabilities[seed]) for seed in budgets
        ),
        "after": after,
        "annotators": None,
        "notes": list(
            dict.fromkeys(note for each in learned.values() for one in each for note in one.notes)
        ),
    }
    pairs = agreement_between_annotators(budgets[first], recordings(frames))
    if pairs:
        ours = agreement_with_annotators(budgets[first], raw[first])
        scores["annotators"] = {
            "pairs": pairs,
            "ours": ours,
            **{key: _mean(pair[key] for pair in pairs) for key in ("macro_f1", "kappa")},
            **{f"ours_{key}": _mean(one[key] for one in ours) for key in ("macro_f1", "kappa")},
        }
    return scores, decided


def _scores_after(
    budgets: Mapping[int, Sequence[Problem]],
    probabilities: Mapping[int, Sequence[Probabilities]],
    steps: Mapping[int, Sequence[Steps]],
    learned: Mapping[Any, Sequence[LearnedPostprocessing]],
    *,
    fps: float,
) -> tuple[dict[str, Any], dict[int, list[Decisions]]]:
    """Scores and decisions after postprocessing."""
    decided: dict[int, list[Decisions]] = {}
    scored: dict[int, list[Probabilities]] = {}
    for seed in budgets:
        pairs = list(zip(steps[seed], probabilities[seed], strict=True))
        decided[seed] = [{v: of[v].decide(p) for v, p in by.items()} for of, by in pairs]
        scored[seed] = [{v: of[v].scores(p) for v, p in by.items()} for of, by in pairs]
    seed_scores = over_seeds(
        {seed: score_decisions(budgets[seed], scored[seed], decided[seed]) for seed in budgets}
    )
    values = seed_scores.to_dict()
    scores = {
        "macro_f1": seed_scores.macro_f1,
        "macro_f1_std": seed_scores.macro_f1_std,
        "map": seed_scores.map,
        "map_std": seed_scores.map_std,
        "per_class": values["per_class"],
        "per_seed": values["per_seed"],
        "problems": {
            name: {key: part[key] for key in ("macro_f1", "macro_f1_std", "map", "map_std")}
            for name, part in values["problems"].items()
        },
        "bouts": mean_of(bout_scores(budgets[seed], decided[seed], fps=fps) for seed in budgets),
        "calibration_error": _mean(
            calibration_error(budgets[seed], probabilities[seed], steps[seed]) for seed in budgets
        ),
        "learned": {
            fit: {
                problem.name: one.to_dict()
                for problem, one in zip(next(iter(budgets.values())), each, strict=True)
                if problem.test
            }
            for fit, each in learned.items()
        },
    }
    return scores, decided


def extended_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of :func:`extended_scores` that runs are compared by, flat."""
    after, bouts = result.get("after") or {}, result.get("bouts") or {}
    values = {
        f"bout_f1/{overlap}": value for overlap, value in (bouts.get("macro_f1") or {}).items()
    }
    values |= {
        "onset_mean_abs_frames": bouts.get("onset_mean_abs_frames"),
        "calibration_error": result.get("calibration_error"),
    }
    values |= {
        f"after/{key}": after.get(key)
        for key in ("macro_f1", "macro_f1_std", "map", "map_std", "calibration_error")
    }
    values |= {
        f"after/bout_f1/{overlap}": value
        for overlap, value in ((after.get("bouts") or {}).get("macro_f1") or {}).items()
    }
    return {key: value for key, value in values.items() if value is not None}


def plain_decisions(problem: Problem, probabilities: Probabilities) -> Decisions:
    """The protocol's decisions for each video."""
    return {
        video: decide(probabilities_TC=p, overlapping=problem.overlapping)
        for video, p in probabilities.items()
    }


def score_decisions(
    problems: Sequence[Problem],
    probabilities: Sequence[Probabilities],
    decided: Sequence[Decisions],
) -> Scores:
    """Frame scores of decisions on test, pooled over videos, then the mean over problems; average
    precision is that of the probabilities."""
    each = {}
    for problem, p, decisions in zip(problems, probabilities, decided, strict=True):
        names = sorted(problem.test)
        if not names:
            continue
        each[problem.name] = score(
            probabilities_TC=np.concatenate([p[name] for name in names]),
            labels=np.concatenate([problem.test[name] for name in names]),
            classes=problem.classes,
            rest=problem.rest or "",
            predicted=np.concatenate([decisions[name] for name in names]),
        )
    return next(iter(each.values())) if len(each) == 1 else mean_over_problems(each)


def bout_scores(
    problems: Sequence[Problem], decided: Sequence[Decisions], *, fps: float
) -> dict[str, Any]:
    """Bout scores on test, the mean over problems that have a labelled frame."""
    each = []
    for problem, decisions in zip(problems, decided, strict=True):
        if _labelled(problem.test):
            scores = score_bouts(
                labels=problem.test,
                predicted={name: decisions[name] for name in problem.test},
                classes=problem.classes,
                fps=fps,
                rest=problem.rest or "",
            )
            each.append(_bout_numbers(scores))
    return mean_of(each)


def _bout_numbers(scores: BoutScores) -> dict[str, Any]:
    counted = [scores.per_class[name] for name in scores.counted]
    means = {
        key: _mean(None if np.isnan(value := getattr(one, key)) else value for one in counted)
        for key in ("onset_mean_abs_frames", "offset_mean_abs_frames")
    }
    return {
        "macro_f1": plain(scores.macro_f1),
        **means,
        "per_class": plain(scores.to_dict()["per_class"]),
    }


def calibration_error(
    problems: Sequence[Problem],
    probabilities: Sequence[Probabilities],
    steps: Sequence[Steps] | None = None,
) -> float | None:
    """Expected calibration error on test, the mean over problems; of the raw scores, or after the
    temperature of each problem's postprocessing."""
    errors = []
    for p, problem in enumerate(problems):
        if not _labelled(problem.test):
            continue
        names = sorted(problem.test)
        scores = [probabilities[p][name] for name in names]
        if steps is not None:
            scores = [steps[p][name].calibrated(probabilities[p][name]) for name in names]
        labels = np.concatenate([problem.test[name] for name in names])
        errors.append(
            expected_calibration_error(probabilities_TC=np.concatenate(scores), labels=labels)
        )
    return _mean(errors)


def mean_of(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over nested mappings, number by number, over those that have it; None where none
    has."""
    parts = list(parts)
    means: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        values = [part[key] for part in parts if part.get(key) is not None]
        nested = values and isinstance(values[0], Mapping)
        means[key] = mean_of(values) if nested else _mean(values)
    return means


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _labelled(labels: Labelled) -> bool:
    return any(looked_at(frames).any() for frames in labels.values())
