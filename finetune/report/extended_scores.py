"""Scores that count more than frames: bouts and their onsets, calibration; for the network alone
and for what comes after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.fit.fit import Probabilities
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import Ints, decide, looked_at, plain
from finetune.labels.problems import Labelled, Problem
from finetune.metrics.bouts import BoutScores, score_bouts
from finetune.metrics.calibration_error import expected_calibration_error
from finetune.metrics.frame_metrics import Scores, mean_over_problems, over_seeds, score
from finetune.postprocess.learn import LearnedPostprocessing
from finetune.postprocess.postprocessing import Postprocessing
from finetune.report.annotator_agreement import between_annotators, same_recordings, with_annotators
from finetune.report.predictions import Decisions


def beyond(
    budgets: Mapping[int, Sequence[Problem]],
    found: Mapping[int, Sequence[Probabilities]],
    learned: Mapping[int, Sequence[LearnedPostprocessing]],
    material: Frames,
    *,
    fps: float,
) -> tuple[dict[str, Any], dict[int, list[Decisions]]]:
    """What ``result.json`` says beyond the protocol, and for each seed what was decided after the
    network.

    Args:
        budgets: For each seed the problems, with their test labels.
        found: For each seed the raw scores on test, for each problem.
        learned: For each seed what comes after the network, for each problem; empty where nothing
            does.
        material: Tells which videos are of one recording.
        fps: Frames per second.

    Returns:
        ``bouts``, ``calibration_error``, ``after`` (None without), ``annotators`` (None where no
        two labelled a video) and ``notes``; and the decisions.
    """
    first = next(iter(budgets))
    raw = {
        seed: [
            plain_decisions(problem, p)
            for problem, p in zip(budgets[seed], found[seed], strict=True)
        ]
        for seed in budgets
    }
    told: dict[str, Any] = {
        "bouts": mean_of(bout_numbers(budgets[seed], raw[seed], fps=fps) for seed in budgets),
        "calibration_error": _mean(
            calibration_error(budgets[seed], found[seed]) for seed in budgets
        ),
        "after": None,
        "annotators": None,
        "notes": [],
    }
    decided: dict[int, list[Decisions]] = {}
    if learned:
        afters = {seed: [one.postprocessing for one in learned[seed]] for seed in budgets}
        decided = {
            seed: [
                after_decisions(after, p)
                for after, p in zip(afters[seed], found[seed], strict=True)
            ]
            for seed in budgets
        }
        scores = over_seeds(
            {seed: score_decisions(budgets[seed], found[seed], decided[seed]) for seed in budgets}
        )
        kept = scores.to_dict()
        told["after"] = {
            "macro_f1": scores.macro_f1,
            "macro_f1_std": scores.macro_f1_std,
            "per_class": kept["per_class"],
            "per_seed": kept["per_seed"],
            "problems": {
                name: {key: held[key] for key in ("macro_f1", "macro_f1_std")}
                for name, held in kept["problems"].items()
            },
            "bouts": mean_of(
                bout_numbers(budgets[seed], decided[seed], fps=fps) for seed in budgets
            ),
            "calibration_error": _mean(
                calibration_error(budgets[seed], found[seed], afters[seed]) for seed in budgets
            ),
            "learned": {
                seed: {
                    problem.name: one.to_dict()
                    for problem, one in zip(budgets[seed], learned[seed], strict=True)
                }
                for seed in budgets
            },
        }
        told["notes"] = list(
            dict.fromkeys(note for ones in learned.values() for one in ones for note in one.notes)
        )
    pairs = between_annotators(budgets[first], same_recordings(material))
    if pairs:
        ours = with_annotators(budgets[first], raw[first])
        told["annotators"] = {
            "pairs": pairs,
            "ours": ours,
            **{key: _mean(pair[key] for pair in pairs) for key in ("macro_f1", "kappa")},
            **{f"ours_{key}": _mean(one[key] for one in ours) for key in ("macro_f1", "kappa")},
        }
    return told, decided


def beyond_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of it that are worth comparing between runs."""
    after, bouts = result.get("after") or {}, result.get("bouts") or {}
    found = {
        f"bout_f1/{overlap}": value for overlap, value in (bouts.get("macro_f1") or {}).items()
    }
    found |= {
        "onset_mean_abs_frames": bouts.get("onset_mean_abs_frames"),
        "calibration_error": result.get("calibration_error"),
    }
    found |= {
        f"after/{key}": after.get(key) for key in ("macro_f1", "macro_f1_std", "calibration_error")
    }
    found |= {
        f"after/bout_f1/{overlap}": value
        for overlap, value in ((after.get("bouts") or {}).get("macro_f1") or {}).items()
    }
    return {key: value for key, value in found.items() if value is not None}


def plain_decisions(problem: Problem, found: Probabilities) -> Decisions:
    """The protocol's decision for each video."""
    return {
        video: decide(probabilities_TC=p, overlapping=problem.overlapping)
        for video, p in found.items()
    }


def after_decisions(after: Postprocessing, found: Probabilities) -> Decisions:
    """What is decided after the network for each video."""
    return {video: after.decide(p) for video, p in found.items()}


def score_decisions(
    problems: Sequence[Problem], found: Sequence[Probabilities], decided: Sequence[Decisions]
) -> Scores:
    """Frame scores of decisions on test, pooled over videos, then the mean over problems; average
    precision is of the raw scores."""
    each = {}
    for problem, p, chosen in zip(problems, found, decided, strict=True):
        names = sorted(problem.test)
        if not names:
            continue
        each[problem.name] = score(
            probabilities_TC=np.concatenate([p[name] for name in names]),
            labels=np.concatenate([problem.test[name] for name in names]),
            classes=problem.classes,
            rest=problem.rest or "",
            predicted=np.concatenate([chosen[name] for name in names]),
        )
    return next(iter(each.values())) if len(each) == 1 else mean_over_problems(each)


def bout_numbers(
    problems: Sequence[Problem], decided: Sequence[Decisions], *, fps: float
) -> dict[str, Any]:
    """Bout scores on test, the mean over problems that have a labelled frame."""
    each = []
    for problem, chosen in zip(problems, decided, strict=True):
        if not _labelled(problem.test):
            continue
        scores = score_bouts(
            labels=problem.test,
            predicted=_by_name(chosen, problem.test),
            classes=problem.classes,
            fps=fps,
            rest=problem.rest or "",
        )
        each.append(_numbers(scores))
    return mean_of(each)


def _numbers(scores: BoutScores) -> dict[str, Any]:
    held = [scores.per_class[name] for name in scores.counted]
    found = {
        key: [value for one in held if not np.isnan(value := getattr(one, key))]
        for key in ("onset_mean_abs_frames", "offset_mean_abs_frames")
    }
    means = {key: float(np.mean(values)) if values else None for key, values in found.items()}
    return {
        "macro_f1": plain(scores.macro_f1),
        **means,
        "per_class": plain(scores.to_dict()["per_class"]),
    }


def calibration_error(
    problems: Sequence[Problem],
    found: Sequence[Probabilities],
    afters: Sequence[Postprocessing] | None = None,
) -> float | None:
    """Expected calibration error on test, the mean over problems; of the raw scores, or after the
    temperature of each problem."""
    errors = []
    for p, problem in enumerate(problems):
        if not _labelled(problem.test):
            continue
        names = sorted(problem.test)
        scores = [
            found[p][name] if afters is None else afters[p].calibrated(found[p][name])
            for name in names
        ]
        labels = np.concatenate([problem.test[name] for name in names])
        errors.append(
            expected_calibration_error(probabilities_TC=np.concatenate(scores), labels=labels)
        )
    return float(np.mean(errors)) if errors else None


def mean_of(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Number by number the mean over nested mappings, of those that have it; None where none
    has."""
    held = list(parts)
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in held for key in part):
        values = [part[key] for part in held if part.get(key) is not None]
        if values and isinstance(values[0], Mapping):
            found[key] = mean_of(values)
        else:
            found[key] = float(np.mean(values)) if values else None
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _labelled(labels: Labelled) -> bool:
    return any(looked_at(held).any() for held in labels.values())


def _by_name(chosen: Decisions, labels: Labelled) -> dict[str, Ints]:
    return {name: chosen[name] for name in labels}
