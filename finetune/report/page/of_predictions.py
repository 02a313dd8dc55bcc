"""The page of predictions: time budgets, ethograms, what follows what."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from finetune.labels.problems import Problem
from finetune.report.page import figures
from finetune.report.page.section import Section
from finetune.report.tables import Cell
from pretrain.readers.label_formats._text import cell_text

MOST_VIDEOS = 60


def prediction_sections(out: Path) -> list[Section]:
    """A section for each problem, of ``summary.csv`` and ``bouts.csv``."""
    about = json.loads((out / "predict.json").read_text(encoding="utf-8"))
    summary, events = (_rows(out / f"{name}.csv") for name in ("summary", "bouts"))
    sections = []
    for name, one in about["problems"].items():
        classes = tuple(one["classes"])
        overlapping = bool(one.get("overlapping"))
        problem = Problem(
            name=name,
            task=one["task"],
            classes=classes,
            annotator=one["annotator"],
            overlapping=overlapping,
            train={},
            test={},
        )
        section = Section(title=name, lines=[f"model: {about['model']}"])
        of_problem = [row for row in summary if row["problem"] == name]
        videos = list(dict.fromkeys(row["video"] for row in of_problem))
        section.table(
            ["behaviour", "minutes", "share of labelled time", "bouts", "mean bout (s)"],
            [_budget(c, [r for r in of_problem if r["behaviour"] == c]) for c in classes],
        )
        share = {(row["video"], row["behaviour"]): float(row["share"]) for row in of_problem}
        shown = videos[:MOST_VIDEOS]
        if not overlapping:
            share_VC = np.array([[share[video, c] for c in classes] for video in shown])
            section.figure(figures.budget_figure(share_VC, shown, problem), "time budget")
        by_video: dict[str, list[tuple[float, float, str]]] = {video: [] for video in videos}
        for row in events:
            if row["problem"] == name:
                bout = float(row["start_s"]), float(row["stop_s"]), row["behaviour"]
                by_video[row["video"]].append(bout)
        of_shown = {video: by_video[video] for video in shown}
        section.figure(figures.ethogram_rows(of_shown, problem), "ethogram")
        pairs = Counter(
            (a[2], b[2]) for of_video in by_video.values() for a, b in pairwise(of_video)
        )
        count_CC = np.array([[pairs[a, b] for b in classes] for a in classes])
        caption = "what follows what: share of the bouts of one behaviour that the other follows"
        section.figure(figures.transition_figure(count_CC, problem), caption)
        if len(videos) > len(shown):
            section.lines.append(f"Pictures show {len(shown)} of {len(videos)} videos.")
        sections.append(section)
    return sections


def _budget(behaviour: str, rows: Sequence[Mapping[str, str]]) -> list[Cell]:
    seconds, count = (sum(float(row[key]) for row in rows) for key in ("seconds", "bouts"))
    labelled = sum(float(row["video_s"]) - float(row["unlabelled_s"]) for row in rows)
    share = seconds / labelled if labelled else None
    mean = seconds / count if count else None
    return [behaviour, f"{seconds / 60:.1f}", share, f"{count:,.0f}", mean]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: cell_text(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
