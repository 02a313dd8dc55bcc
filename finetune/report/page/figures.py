"""Figures of the report: a classifier's curves, bouts as skeletons, and what animals did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from finetune.fit.fit import Probabilities
from finetune.labels.frame_labels import UNLABELLED, Reals
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import Scores
from finetune.report.figures import COLOURS, colours_of, draw_matrix
from pretrain.data.schema import Float, Schema

BINS = 10
CURVE_POINTS = 400
STRIP_FRAMES = 6


def problem_figure(problem: Problem, probabilities: Probabilities, scores: Scores) -> Figure:
    """Confusion with counts (of exclusive classes), precision against recall with the chance level
    dotted, and how often what is said with a probability is so. Frames of all test videos."""
    figure = Figure(figsize=(12.5, 4), layout="constrained")
    matrix, curves, reliability = figure.subplots(1, 3)
    if scores.confusion is not None and scores.confusion.ndim == 2:
        share = scores.confusion / np.maximum(scores.confusion.sum(1, keepdims=True), 1)
        draw_matrix(matrix, share, problem.classes, title="confusion", counts=scores.confusion)
        matrix.set(xlabel="predicted", ylabel="labelled")
    else:
        matrix.axis("off")
    names, colours = sorted(probabilities), colours_of(problem)
    labels = np.concatenate([problem.test[name] for name in names])
    p_TC = np.concatenate([probabilities[name] for name in names])
    edges = np.linspace(0, 1, BINS + 1)
    for c, name in enumerate(problem.classes):
        column = labels[:, c] if problem.overlapping else labels
        known = column != UNLABELLED
        shown, p = column[known] == (1 if problem.overlapping else c), p_TC[known, c]
        if shown.any():
            precision, recall, _ = precision_recall_curve(shown, p)
            kept = np.linspace(0, len(recall) - 1, min(CURVE_POINTS, len(recall))).astype(int)
            curves.plot(recall[kept], precision[kept], color=colours[name], label=name)
            curves.axhline(shown.mean(), color=colours[name], linestyle=":", linewidth=1)
        which = np.clip(np.digitize(p, edges) - 1, 0, BINS - 1)
        count = np.bincount(which, minlength=BINS)
        filled = count > 0
        predicted, observed = (
            np.bincount(which, values, BINS)[filled] / count[filled] for values in (p, shown)
        )
        reliability.plot(predicted, observed, ".-", color=colours[name], label=name)
    reliability.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    curves.set(xlabel="recall", ylabel="precision", title="precision and recall (dotted: chance)")
    reliability.set(xlabel="predicted probability", ylabel="share of frames", title="reliability")
    for axes in (curves, reliability):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    reliability.legend(fontsize=8)
    return figure


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A bout to draw."""

    title: str
    position_TMKX: Float
    """Of its frames (px); NaN = missing."""


def strips_figure(strips: Sequence[Strip], schema: Schema) -> Figure:
    """Each bout as a row of skeletons from its first frame to its last, an animal a colour, from
    above as the camera sees it."""
    size = (1.8 * STRIP_FRAMES, 1.95 * len(strips))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(strips), squeeze=False)[:, 0]
    at = {name: k for k, name in enumerate(schema.keypoints)}
    bones = [(at[a], at[b]) for a, b in schema.edges]
    for axes, strip in zip(grid, strips, strict=True):
        frames = np.linspace(0, len(strip.position_TMKX) - 1, STRIP_FRAMES).astype(int)
        pose_SMKX = strip.position_TMKX[frames][..., :2]
        points = pose_SMKX.reshape(-1, 2)
        points = points[np.isfinite(points).all(1)]
        low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(2), np.ones(2))
        side = float((high - low).max()) + 20
        # one drawing for all frames, from left to right: many small axes take seconds
        corner_S2 = np.stack([np.arange(STRIP_FRAMES) * side, np.zeros(STRIP_FRAMES)], 1)
        drawn_SMKX = pose_SMKX - (low + high) / 2 + side / 2 + corner_S2[:, None, None]
        for m in range(drawn_SMKX.shape[1]):
            colour = COLOURS[m % len(COLOURS)]
            lines = drawn_SMKX[:, m][:, bones].reshape(-1, 2, 2)
            axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=1.5))
            axes.plot(*drawn_SMKX[:, m].reshape(-1, 2).T, ".", color=colour, markersize=3)
        for edge in corner_S2[1:, 0]:
            axes.axvline(edge, color="black", linewidth=0.8)
        axes.set(xlim=(0, STRIP_FRAMES * side), ylim=(side, 0), xticks=[], yticks=[])
        axes.set_aspect("equal")
        axes.set_title(strip.title, fontsize=9, loc="left")
    return figure


def budget_figure(share_VC: Reals, videos: Sequence[str], problem: Problem) -> Figure:
    """Share of each video's labelled time that each behaviour takes, a bar a video."""
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(videos)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(videos))
    for (name, colour), share_V in zip(colours_of(problem).items(), share_VC.T, strict=True):
        axes.barh(range(len(videos)), share_V, left=left, color=colour, label=name)
        left += share_V
    axes.set_yticks(range(len(videos)), videos, fontsize=8)
    axes.set(xlabel="share of the labelled time", ylim=(len(videos) - 0.5, -0.5))
    figure.legend(loc="outside upper center", ncols=6, fontsize=8)
    return figure


def ethogram_rows(
    events: Mapping[str, Sequence[tuple[float, float, str]]], problem: Problem
) -> Figure:
    """Bouts (start s, stop s, behaviour) of each video over time, a row a video."""
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(events)), layout="constrained")
    axes, colours = figure.subplots(), colours_of(problem)
    for row, of_video in enumerate(events.values()):
        for name, colour in colours.items():
            bars = [(start, stop - start) for start, stop, b in of_video if b == name]
            axes.broken_barh(bars, (row - 0.4, 0.8), color=colour)
    axes.set_yticks(range(len(events)), list(events), fontsize=8)
    axes.set(xlabel="time (s)", ylim=(len(events) - 0.5, -0.5))
    return figure


def transition_figure(count_CC: Any, problem: Problem) -> Figure:
    """What follows what: behaviours on a circle, an arrow as wide as the share of the bouts of one
    that the other follows; shares below a twentieth are left out. In a circle the share of bouts
    that another of the same behaviour follows. The rest class is passed over.

    Args:
        count_CC: How often a bout of the row's behaviour is followed by one of the column's.
        problem: Names them.
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes: Axes = figure.subplots()
    kept = [c for c, name in enumerate(problem.classes) if name != problem.rest]
    share = (count_CC / np.maximum(count_CC.sum(1, keepdims=True), 1))[np.ix_(kept, kept)]
    angle = np.linspace(0, 2 * np.pi, len(kept), endpoint=False) + np.pi / 2
    centre = np.stack([np.cos(angle), np.sin(angle)], 1)
    for a, b in zip(*np.nonzero((share >= 0.05) & ~np.eye(len(kept), dtype=bool)), strict=True):
        style = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.15", "shrinkA": 22}
        arrow = style | {"linewidth": 0.5 + 5 * share[a, b], "shrinkB": 22, "color": "#555555"}
        axes.annotate("", centre[b], centre[a], arrowprops=arrow | {"alpha": 0.7})
        middle = 0.62 * centre[a] + 0.38 * centre[b]
        axes.text(middle[0], middle[1], f"{share[a, b]:.0%}", fontsize=7, ha="center", va="center")
    colours = colours_of(problem)
    for n, ((x, y), c) in enumerate(zip(centre, kept, strict=True)):
        name = problem.classes[c]
        axes.plot(x, y, "o", markersize=34, color=colours[name])
        axes.text(x, y, f"{share[n, n]:.0%}", fontsize=7, ha="center", va="center", color="white")
        side = "center" if abs(x) < 0.1 else ("left" if x > 0 else "right")
        axes.text(1.22 * x, 1.28 * y, name, ha=side, va="center", fontsize=9)
    axes.set(xlim=(-2, 2), ylim=(-1.5, 1.5), aspect="equal")
    axes.axis("off")
    return figure
