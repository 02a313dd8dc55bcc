"""Label budgets in minutes: short stretches of many videos, as a person would label them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.problems import Labelled, Problem, permuted
from finetune.labels.refine import is_parent
from finetune.metrics.bouts import bouts
from pretrain.errors import BadInput

CLIP_S = 17.0
Clips = dict[str, list[list[int]]]
"""Video to [first, end) of each clip."""
_MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0}


def parse_minutes(text: str) -> float:
    """Minutes of a budget such as ``10min``, ``90s`` or ``1.5h``.

    Raises:
        BadInput: If it is none.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(s|min|h)", text.strip())
    if match is None or not float(match[1]) > 0:
        raise BadInput(f"--budget {text!r}: give labelled time above 0, such as 10min, 90s or 1.5h")
    return float(match[1]) * _MINUTES[match[2]]


def draw_clips(
    labels: Labelled,
    rng: np.random.Generator,
    *,
    fps: float,
    seconds: float = CLIP_S,
    frames: int | None = None,
) -> Clips:
    """Clips from one video after the other, until a budget is spent; clips never overlap. A smaller
    budget is part of a larger one under the same ``rng``.

    Args:
        labels: Of the videos that may be drawn from.
        rng: Draws the order of the videos and the clips.
        fps: Frames a second.
        seconds: Of a clip; the last is cut to what is left of the budget, and where a labelled
            stretch is shorter it is a clip.
        frames: The budget; None: the labelled frames of a video, in the median.
    """
    length = max(1, round(seconds * fps))
    budget = frames
    if budget is None:
        budget = round(float(np.median([looked_at(y).sum() for y in labels.values()])))
    clips: Clips = {}
    waiting = []
    runs = {
        name: bouts(np.where(looked_at(labels[name]), 0, UNLABELLED))[:, :2].tolist()
        for name in sorted(labels)
    }
    if sum(stop - start for of_video in runs.values() for start, stop in of_video) <= budget:
        return {name: of_video for name, of_video in runs.items() if of_video}
    for name, of_video in runs.items():
        pieces = []
        for start, stop in of_video:
            offset = int(rng.integers((stop - start) % length + 1)) if stop - start > length else 0
            for first in range(start + offset, stop, length):
                if first + length <= stop or stop - start < length:
                    pieces.append([first, min(first + length, stop)])
        waiting.append((name, [pieces[i] for i in rng.permutation(len(pieces))]))
    order = [waiting[i] for i in rng.permutation(len(waiting))]
    for turn in range(max((len(pieces) for _, pieces in order), default=0)):
        for name, pieces in order:
            if budget > 0 and turn < len(pieces):
                first, end = pieces[turn]
                clips.setdefault(name, []).append([first, min(end, first + budget)])
                budget -= min(end - first, budget)
    return {name: sorted(spans) for name, spans in sorted(clips.items())}


def within_clips(labels: Labelled, clips: Mapping[str, Sequence[Sequence[int]]]) -> Labelled:
    """The labels of the videos that have clips, UNLABELLED outside them."""
    cut = {}
    for video, spans in clips.items():
        cut[video] = np.full_like(labels[video], UNLABELLED)
        for first, end in spans:
            cut[video][first:end] = labels[video][first:end]
    return cut


def draw_minutes(
    problems: Sequence[Problem], *, minutes: float, fps: float, seed: int, permute: bool = False
) -> list[Problem]:
    """A label budget in minutes: of each problem so many, as clips spread over its training videos.
    Where it has fewer, all are taken. A parent has the clips of its children.

    Args:
        problems: With all their videos.
        minutes: How many.
        fps: Frames a second.
        seed: Of the draw; problems with the same labelled frames get the same clips.
        permute: Whether the labels lose their meaning, see :func:`permuted`.
    """
    drawn = []
    for problem in problems:
        # before clips are cut: rolled within a clip, most labels would still be true
        whole = permuted(problem, seed=seed) if permute else problem
        clips = draw_clips(
            problem.train,
            np.random.default_rng([seed, 6]),
            fps=fps,
            frames=round(minutes * 60 * fps),
        )
        drawn.append(replace(whole, train=within_clips(whole.train, clips)))
    return [
        _parent(problem, whole, drawn) if is_parent(problems, problem) else problem
        for problem, whole in zip(drawn, problems, strict=True)
    ]


def _parent(drawn: Problem, whole: Problem, others: Sequence[Problem]) -> Problem:
    """A parent with its labels of the frames that its children have labels of."""
    train: dict[str, npt.NDArray[np.int8]] = {}
    for child in others:
        if child.refines and child.refines[0] == whole.name:
            for video in child.train.keys() & whole.train.keys():
                labels = train.setdefault(video, np.full_like(whole.train[video], UNLABELLED))
                shown = looked_at(child.train[video])
                labels[shown] = whole.train[video][shown]
    if not any(looked_at(labels).any() for labels in train.values()):
        raise BadInput(f"--budget: {whole.name} is labelled in none of the clips drawn")
    return replace(drawn, train=train)


def labelled_minutes(labels: Labelled, fps: float) -> float:
    """Minutes that carry labels, to a hundredth."""
    return round(sum(int(looked_at(y).sum()) for y in labels.values()) / fps / 60, 2)
