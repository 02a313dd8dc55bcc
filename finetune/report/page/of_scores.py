"""The page of a run of finetune: scores beside their controls, and what they are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.fit.fit import Probabilities, score_problems
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import ELSEWHERE, Problem
from finetune.metrics.frame_metrics import Scores
from finetune.report.controls import find_controls
from finetune.report.page import figures
from finetune.report.page.errors import boundary_errors, predicted_bouts
from finetune.report.page.of_explanation import explanation_sections
from finetune.report.page.section import Section
from finetune.report.predictions import read_predictions
from finetune.report.scores_text import extended_lines
from finetune.report.tables import Cell, Point, Score, dot_plot, f1_and_map
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.errors import BadInput

NEAR_S = 0.5
"""Seconds from a transition within which an error is one of its time rather than of its kind."""
MOST_PROBLEMS, MOST_VIDEOS, STRIPS = 8, 60, 3


def score_sections(out: Path) -> list[Section]:
    """What ``result.json``, the predictions and the store say."""
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    files = sorted((out / "predictions").glob("seed-*.parquet"))
    problems, probabilities, _ = read_predictions(files[0])
    first = files[0].stem
    about = json.loads((out / "model" / first / "encoder.json").read_text(encoding="utf-8"))
    schema = Schema.from_dict(about["schema"])
    sections = [_scores(out, result), _videos(files)]
    for problem, p in list(zip(problems, probabilities, strict=True))[:MOST_PROBLEMS]:
        if any((labels != UNLABELLED).any() for labels in problem.test.values()):
            sections += _problem(problem, p, schema, result, first)
    if len(problems) > MOST_PROBLEMS:
        sections[-1].lines.append(f"{len(problems) - MOST_PROBLEMS} more problems are not shown")
    return sections + explanation_sections(out, schema)


def _scores(out: Path, result: Mapping[str, Any]) -> Section:
    section = Section(
        title=f"Scores {'of a cross-validation' if result['folds'] else 'on test videos'}",
        lines=list(result["notes"]),
    )
    section.lines += extended_lines(result)
    rows = {f"this run ({result['encoder']['kind']})": result, **find_controls(out, result)}
    points = [
        Point(panel="", metric=metric, row=name, series="run", score=score, chance=chance)
        for name, one in rows.items()
        for metric, score, chance in zip(
            ("macro F1", "MAP"), f1_and_map(one), (None, one["chance_map"]), strict=True
        )
    ]
    section.table(
        ["", "macro F1", "MAP", "chance MAP"],
        [[name, *f1_and_map(one), one["chance_map"]] for name, one in rows.items()],
    )
    if len(rows) == 1:
        section.lines.append(
            "No control is in the same folder: --encoder none, --encoder handmade and --set "
            "permute_labels=true, with the same task, data and label budget, appear here."
        )
    section.figure(dot_plot(points, title=""), "this run and its controls")
    section.table(
        ["class", "F1", "AP", "precision", "recall", "chance AP", "frames"],
        [
            [
                name,
                *(Score.of(one, key) for key in ("f1", "ap", "precision", "recall")),
                one["prevalence"],
                f"{one['frames']:,.0f}",
            ]
            for name, one in result["per_class"].items()
        ],
    )
    overlaps = list((result["bouts"] or {}).get("macro_f1") or {})
    section.table(
        [
            "bouts",
            "labelled",
            "predicted",
            *(f"F1 at overlap {o}" for o in overlaps),
            "onset (frames)",
        ],
        [
            [
                name,
                f"{one['true_bouts']:,.0f}",
                f"{one['predicted_bouts']:,.0f}",
                *(one["f1"][o] for o in overlaps),
                one["onset_mean_abs_frames"],
            ]
            for name, one in ((result["bouts"] or {}).get("per_class") or {}).items()
        ],
    )
    return section


def _videos(files: Sequence[Path]) -> Section:
    """Scores of each video, over seeds."""
    values: dict[tuple[str, str], list[Scores]] = {}
    for file in files:
        problems, probabilities, _ = read_predictions(file)
        for problem, p in zip(problems, probabilities, strict=True):
            for name, labels in problem.test.items():
                if (labels != UNLABELLED).any():
                    scored = score_problems([problem], [p], [{name: labels}])
                    values.setdefault((problem.name, name), []).append(scored)
    section = Section(title="Each video")
    several = len({problem for problem, _ in values}) > 1
    rows: list[list[Cell]] = [
        [
            f"{problem}: {name}" if several else name,
            *(_spread([getattr(one, key) for one in scores]) for key in ("macro_f1", "map")),
            scores[0].chance_map,
            f"{scores[0].frames:,}",
        ]
        for (problem, name), scores in values.items()
    ]
    rows.sort(key=lambda row: row[1].mean if isinstance(row[1], Score) else 0.0)
    section.lines.append("The worst first. A class that a video does not show is left out of it.")
    section.table(["video", "macro F1", "MAP", "chance MAP", "frames"], rows[:MOST_VIDEOS])
    if len(rows) > MOST_VIDEOS:
        section.lines.append(f"{len(rows) - MOST_VIDEOS} better ones are not shown.")
    return section


def _spread(values: Sequence[float]) -> Score:
    known = [value for value in values if not np.isnan(value)]
    return Score(float(np.mean(known)), float(np.std(known))) if known else Score(float("nan"))


def _problem(
    problem: Problem, p: Probabilities, schema: Schema, result: Mapping[str, Any], seed: str
) -> list[Section]:
    section = Section(title=f"{problem.name}, {seed}")
    scores = score_problems([problem], [p], [problem.test])
    caption = "test frames of the network alone, before calibration and smoothing"
    section.figure(figures.problem_figure(problem, p, scores), caption)
    near = boundary_errors(problem, p, near=max(1, round(NEAR_S * schema.fps)))
    if near["errors"]:
        section.lines.append(
            f"{near['share']:.0%} of the wrong frames lie within {NEAR_S:g} s of a labelled "
            f"transition, where {near['frames_share']:.0%} of all labelled frames lie: "
            f"{near['near_rate']:.1%} of the frames there are wrong, {near['far_rate']:.1%} of the "
            "others."
        )
    return [section, *_strips(problem, p, schema, result)]


def _strips(
    problem: Problem, p: Probabilities, schema: Schema, result: Mapping[str, Any]
) -> list[Section]:
    every = sorted(predicted_bouts(problem, p, least=3), key=lambda bout: -bout.sure)
    chosen = {
        "most confident, and right": [bout for bout in every if bout.right >= 0.5],
        "most confident, and wrong": [bout for bout in every if bout.right < 0.5],
        "most uncertain": every[::-1],
    }
    section = Section(title=f"{problem.name}: bouts")
    for title, of_kind in chosen.items():
        strips = []
        for bout in of_kind[:STRIPS]:
            data = result["test_data"] if bout.video.endswith(ELSEWHERE) else result["data"]
            try:
                video = Store(data).read_video(bout.video.removesuffix(ELSEWHERE), features=())
            except (BadInput, OSError) as error:
                section.lines.append(f"No skeletons: {error}")
                return [section]
            seconds = (bout.stop - bout.start) / schema.fps
            strips.append(
                figures.Strip(
                    title=f"{bout.video}, {bout.start / schema.fps:.1f} s, {seconds:.1f} s long: "
                    f"{bout.behaviour}, p = {bout.sure:.2f}; labelled so in {bout.right:.0%} of it",
                    position_TMKX=video.position_TMKX[bout.start : bout.stop],
                )
            )
        if strips:
            section.figure(figures.strips_figure(strips, schema), title)
    return [section] if section.figures else []
