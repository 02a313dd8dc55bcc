"""The part of the page that shows what a classifier looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from finetune.labels.frame_labels import Reals
from finetune.labels.problems import Problem
from finetune.report.figures import colours_of
from finetune.report.page.figures import Strip, strips_figure
from finetune.report.page.section import Section
from pretrain.data.schema import Schema

FOLDER = "explanation"
_SHOWN = 0.99  # share of what gradients find that the picture of them spans


def explanation_sections(out: Path, schema: Schema) -> list[Section]:
    """A section for each problem of ``ethoray explain``; none where it was not run."""
    sections = []
    for path in sorted((out / FOLDER).glob("*.npz")):
        with np.load(path) as arrays:
            sections.append(_section(dict(arrays), schema))
    return sections


def _section(found: Mapping[str, Any], schema: Schema) -> Section:
    classes = tuple(map(str, found["classes"]))
    problem = Problem(
        name=str(found["problem"]),
        task="",
        classes=classes,
        annotator="",
        overlapping=False,
        train={},
        test={},
    )
    section = Section(title=f"{problem.name}: what it looked at", lines=list(found["notes"]))
    section.figure(
        _dependence(found, classes),
        "mean change of a behaviour's probability, over the frames that show it, when a feature "
        "group or an animal takes the values of another time",
    )
    section.figure(
        _over_time(found, problem),
        "mean change of the probability when all points are hidden for half a second",
    )
    section.figure(
        _maps(
            found["change_PCL"][1:].swapaxes(0, 1), found["point_P"][1:], found["lag_s"], classes
        ),
        "mean change of the probability when a point is hidden for half a second",
    )
    if "saliency_CLMK" in found:
        values_CLMK, lag_s = found["saliency_CLMK"], found["saliency_lag_s"]
        by_distance_L = np.nan_to_num(values_CLMK).sum((0, 2, 3))
        order = np.argsort(np.abs(lag_s), kind="stable")
        share = np.cumsum(by_distance_L[order]) / max(by_distance_L.sum(), 1e-12)
        last = abs(lag_s[order[min(int(np.searchsorted(share, _SHOWN)), len(order) - 1)]])
        near = np.abs(lag_s) <= last + 1e-9
        values_CPL = values_CLMK[:, near].reshape(len(classes), near.sum(), -1).swapaxes(1, 2)
        section.figure(
            _maps(values_CPL, found["point_P"][1:], lag_s[near], classes),
            "integrated gradients: what each point at each time brings to the probability",
        )
    section.table(
        ["average precision lost", *classes],
        [
            [f"{kind} {row}", *map(float, lost_C)]
            for kind, row, lost_C in zip(
                found["kind_R"], found["row_R"], found["ap_lost_RC"], strict=True
            )
        ],
    )
    for c, name in enumerate(classes):
        if strips := _strips(found, c, schema.fps):
            section.figure(strips_figure(strips, schema), f"what excites {name} most")
    return section


def _dependence(found: Mapping[str, Any], classes: Sequence[str]) -> Figure:
    """Feature groups and animals, on one scale of colours."""
    values = found["change_RC"]
    figure = Figure(
        figsize=(4 + 1.1 * len(classes), 1.5 + 0.27 * len(values)), layout="constrained"
    )
    axes = figure.subplots()
    top = max(float(np.nanmax(values, initial=0)), 1e-6)
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 0.6 * top else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(values)), found["row_R"], fontsize=8)
    axes.set_title("what it depends on", fontsize=9)
    figure.colorbar(image, ax=axes, label="change of probability", shrink=0.8)
    return figure


def _over_time(found: Mapping[str, Any], problem: Problem) -> Figure:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for c, (name, colour) in enumerate(colours_of(problem).items()):
        axes.plot(found["lag_s"], found["change_PCL"][0, c], color=colour, label=name)
    axes.axvline(0, color="black", linestyle=":", linewidth=1)
    axes.set(xlabel="hidden so long before (-) or after the frame (s)", ylim=(0, None))
    axes.set(ylabel="change of probability", title="how far it looks")
    axes.legend(fontsize=8)
    return figure


def _maps(values_CPL: Reals, points: Sequence[str], lag_s: Reals, classes: Sequence[str]) -> Figure:
    """Points over time, a panel a class, each with its own scale."""
    columns = min(2, len(classes))
    rows = -(-len(classes) // columns)
    size = (6 * columns, rows * (1.2 + 0.17 * len(points)))
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    half = (lag_s[1] - lag_s[0]) / 2 if len(lag_s) > 1 else 0.5
    extent = (lag_s[0] - half, lag_s[-1] + half, len(points) - 0.5, -0.5)
    for axes, name, values_PL in zip(panels, classes, values_CPL, strict=False):
        if not np.isfinite(values_PL).any():
            axes.text(0.5, 0.5, f"{name}: not in these stretches", ha="center", va="center")
            axes.axis("off")
            continue
        image = axes.imshow(values_PL, cmap="Blues", vmin=0, aspect="auto", extent=extent)
        axes.set_yticks(range(len(points)), points, fontsize=7)
        axes.set(xlabel="time from the frame (s)")
        axes.set_title(name, fontsize=9)
        figure.colorbar(image, ax=axes)
    for axes in panels[len(classes) :]:
        axes.axis("off")
    return figure


def _strips(found: Mapping[str, Any], c: int, fps: float) -> list[Strip]:
    strips = [
        Strip(title=f"{video}, {first / fps:.1f} s: p = {p:.2f}", position_TMKX=position)
        for video, first, p, position in zip(
            found["clip_video_CN"][c],
            found["clip_first_frame_CN"][c],
            found["clip_p_CN"][c],
            found["clip_position_CNTMKX"][c],
            strict=True,
        )
        if video
    ]
    if strips and "ascended_p_C" in found:
        title = (
            f"gradient ascent, from the first in the range of real poses (p = "
            f"{found['ascent_start_p_C'][c]:.2f}): p = {found['ascended_p_C'][c]:.2f}"
        )
        strips.append(Strip(title=title, position_TMKX=found["ascended_position_CTMKX"][c]))
    return strips
