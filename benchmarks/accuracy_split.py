"""What the fits of `accuracy.py` may see and are scored on: folds, budgets of labels, draws.

The split is drawn once, for all rows, before anything is fitted: whole recordings make the folds,
and every draw of a budget names the frames whose labels a fit may see.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.active_learning.plan import choose_clips, draw_pool
from finetune.fit.frames import Frames
from finetune.labels.clips import CLIP_S, draw_clips, within_clips
from finetune.labels.frame_labels import looked_at
from finetune.labels.hold_out import Recordings
from finetune.labels.problems import Labelled, Problem, permuted
from finetune.labels.refine import is_parent
from pretrain.errors import BadInput, refuse

ALL, CLIPS, PLANNED, VIDEOS = "all", "clips", "planned", "videos"
STRETCH_GAP_S = 5.0

Split = dict[str, Any]
"""``folds``: lists of videos. ``draws``: budget to draws, each with its ``fold`` (the test videos)
and ``labelled``: problem to video to [first, end) of the frames whose labels may be used."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    inputs: tuple[str, ...]
    """Embeddings that are joined; see :func:`joined`."""
    head: str = "stack"
    permuted: bool = False
    without: str = ""
    """The ingredient that is left out, of :data:`accuracy_ablation.ABLATIONS`."""
    postprocessed: bool = False
    """Whether calibration, decision rule and smoother follow, learned on the training videos."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fit: a row, a budget and a draw."""

    row: Row
    budget: str
    draw: int

    @property
    def name(self) -> str:
        """Of its files."""
        words = f"{self.row.name} {self.budget} {self.draw}"
        return "".join(c if c.isalnum() else "-" for c in words)


def grouped_folds(videos: Sequence[str], recording: Recordings, *, folds: int) -> list[list[str]]:
    """Deals recordings to folds, longest list of videos last: no recording is in two.

    Raises:
        BadInput: If there are fewer recordings than folds.
    """
    of: dict[str, list[str]] = {}
    for video in sorted(videos):
        of.setdefault(recording(video), []).append(video)
    if len(of) < folds:
        raise BadInput(
            f"--folds {folds}: the label set has {len(of)} labelled recordings; give at most as "
            "many folds, and at least 2, or cut recordings with --stretches"
        )
    order = np.random.default_rng([0, 5]).permutation(len(of))
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for position, index in enumerate(order):
        dealt[position % folds] += list(of.values())[index]
    return [sorted(fold) for fold in dealt]


def cut_into_stretches(
    frames: Frames, problems: Sequence[Problem], stretches: int
) -> tuple[Frames, list[Problem]]:
    """Cuts every recording into equal stretches, ``STRETCH_GAP_S`` apart, each with a name of its
    own: for recordings that are fewer than folds.

    Args:
        frames: Poses of the labelled videos.
        problems: With all labelled videos in ``train``.
        stretches: Of each recording; 1 leaves everything as it is.

    Raises:
        BadInput: If a recording is too short for that.
    """
    if stretches == 1:
        return frames, list(problems)
    gap = round(STRETCH_GAP_S * frames.fps)
    parts: dict[str, dict[str, tuple[int, int]]] = {}
    for video in frames.spans:
        edges = np.linspace(0, frames.length(video) + gap, stretches + 1).astype(int)
        parts[video] = {
            f"{video}, {number} of {stretches}": (int(first), int(end) - gap)
            for number, (first, end) in enumerate(itertools.pairwise(edges), 1)
        }
    refuse(
        (
            f"{video} has {frames.length(video)} frames: {stretches} stretches would be shorter "
            f"than the {STRETCH_GAP_S:g} s between them"
            for video, of in parts.items()
            if min(end - first for first, end in of.values()) < gap
        ),
        about="--stretches",
    )
    cut = [
        replace(
            problem,
            train={
                name: labels[first:end]
                for video, labels in problem.train.items()
                for name, (first, end) in parts[video].items()
                if looked_at(labels[first:end]).any()
            },
        )
        for problem in problems
    ]
    spans = {
        name: (frames.spans[video][0] + first, frames.spans[video][0] + end)
        for video, of in parts.items()
        for name, (first, end) in of.items()
        if any(name in problem.train for problem in cut)
    }
    return replace(frames, spans=spans), cut


def draw_split(
    problems: Sequence[Problem],
    folds: Sequence[Sequence[str]],
    *,
    budgets: Sequence[str],
    draws: int,
    fps: float,
    features: Frames | None = None,
) -> Split:
    """Which labels every fit may see. A draw of a budget belongs to one fold; ``all`` has a draw
    for each fold, with all labels of the others.

    Args:
        problems: With all labelled videos in ``train``.
        folds: As :func:`grouped_folds` gives them.
        budgets: As :func:`parse_budget` reads them.
        draws: Of each budget but ``all``.
        fps: Frames a second.
        features: For planned clips: at 5 Hz, of all labelled videos.

    Raises:
        BadInput: If a problem has labelled videos in only one fold.
    """
    refuse(
        (
            f"{problem.name}: all its labelled videos are in one fold, so that nothing is left to "
            "learn from: give other --folds, or label more videos"
            for problem in problems
            if any(set(problem.train) <= set(fold) for fold in folds)
        ),
        about="the split",
    )
    drawn: dict[str, list[dict[str, Any]]] = {}
    for budget in budgets:
        drawn[budget] = []
        number, kind = parse_budget(budget)
        for draw in range(len(folds) if budget == ALL else draws):
            fold = draw % len(folds)
            labelled = {}
            for problem in problems:
                if is_parent(problems, problem):
                    continue  # its labels are those of its children's frames
                rng = np.random.default_rng([draw, 6])  # alike for all problems
                train = {v: y for v, y in problem.train.items() if v not in folds[fold]}
                names = sorted(train)
                if kind in (CLIPS, PLANNED):
                    frames = number * median_frames(train)
                    drawing = draw_pool if kind == PLANNED else draw_clips
                    clips = drawing(train, rng, fps=fps, frames=frames)
                    if kind == PLANNED:
                        assert features is not None, "planned clips are chosen by features"
                        clips = choose_clips(
                            clips,
                            partial(mean_of, features),
                            number=round(frames / fps / CLIP_S),
                            seed=draw,
                        )
                    labelled[problem.name] = clips
                else:
                    chosen = [names[i] for i in rng.permutation(len(names))]
                    chosen = chosen if budget == ALL else chosen[:number]
                    labelled[problem.name] = {v: [[0, len(train[v])]] for v in sorted(chosen)}
            drawn[budget].append({"fold": fold, "labelled": labelled})
    return {"folds": [list(fold) for fold in folds], "draws": drawn}


def read_split(file: str, problems: Sequence[Problem], *, budgets: Sequence[str]) -> Split:
    """The folds and draws that a ``split.json`` holds, of some budgets.

    Raises:
        BadInput: If it lacks a budget, or its videos are not those that are labelled.
    """
    try:
        split = json.loads(Path(file).read_text(encoding="utf-8"))["split"]
        folds, draws = split["folds"], split["draws"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"--split {file}: this is no split.json of accuracy.py ({error})") from error
    labelled = {v for p in problems if not is_parent(problems, p) for v in p.train}
    named = [v for fold in folds for v in fold]
    refuse(
        [
            f"it has no budget {one}; it has: {', '.join(draws)}"
            for one in budgets
            if one not in draws
        ]
        + [f"{v} is labelled and in no fold" for v in sorted(labelled - set(named))]
        + [f"{v} is in a fold and not labelled" for v in sorted(set(named) - labelled)],
        about=f"--split {file}",
    )
    return {"folds": folds, "draws": {one: draws[one] for one in budgets}}


def parse_budget(budget: str) -> tuple[int, str]:
    """The number of videos and the kind of a budget.

    ``3`` is whole videos. ``clips``, ``3clips`` are as many labelled frames as one or three videos
    have in the median, in clips of 17 s spread over the videos; ``planned``, ``3planned`` the same
    in clips that the features choose (``suggest.py --plan --encoder handmade``). And ``all``.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(rf"([1-9]\d*)?({CLIPS}|{PLANNED}|{ALL})?", budget)
    if match is None or not budget or (match[2] == ALL and match[1]):
        raise ValueError(budget)
    return int(match[1] or 1), match[2] or VIDEOS


def median_frames(labels: Labelled) -> int:
    """Labelled frames of a video, in the median."""
    return round(float(np.median([looked_at(y).sum() for y in labels.values()])))


def mean_of(features: Frames, video: str, first: int, end: int) -> npt.NDArray[np.float32]:
    """(D,) mean of some frames of a video, from features at every ``stride``-th frame."""
    begin, step = features.spans[video][0], features.stride
    rows = slice(begin + first // step, begin + max(end // step, first // step + 1))
    return np.asarray(features.arrays["z"][rows].mean(0))


def digest(split: Split) -> str:
    """Names a split: what was drawn, to the frame."""
    return hashlib.sha256(json.dumps(split, sort_keys=True).encode()).hexdigest()[:16]


def problems_of(problems: Sequence[Problem], split: Split, cell: Cell) -> list[Problem]:
    """The problems of a cell: the labels it may see as ``train``, its fold's as ``test``."""
    drawn = split["draws"][cell.budget][cell.draw]
    fold = set(split["folds"][drawn["fold"]])
    cut = []
    for problem in problems:
        # before clips are cut: rolled within a clip, most labels would still be true
        labels = (permuted(problem, seed=cell.draw) if cell.row.permuted else problem).train
        if is_parent(problems, problem):
            train = {v: y for v, y in labels.items() if v not in fold}
            if cell.budget != ALL:
                child = next(
                    each for each in problems if (each.refines or ("",))[0] == problem.name
                )
                clips = drawn["labelled"][child.name]
                train = within_clips(train, {v: clips[v] for v in clips.keys() & train.keys()})
            cut.append(replace(problem, train=train, test={}))
            continue
        clips = drawn["labelled"][problem.name]
        assert not fold & clips.keys(), "a video is in training and on test"
        train = within_clips(labels, clips)
        test = {v: y for v, y in problem.train.items() if v in fold}
        cut.append(replace(problem, train=train, test=test))
    return cut
