"""The picture of ``ethoray prepare check``: missing points, jumps, class balance and bout lengths
on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_MAX_TASKS = 6
_SIDES = (("train", "#33658a"), ("test", "#f6ae2d"))
_COLOURS = ("#33658a", "#c8553d", "#758e4f", "#8e6c8a", "#55828b", "#d4a373")


def draw(facts: dict[str, Any], file: Path) -> None:
    """Draws what ``check.describe`` says of an undamaged store.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If its ending names no format of pictures.
    """
    # Without pyplot: no window system is asked for and no setting of the process is changed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(facts["labels"].items())[:_MAX_TASKS]
    figure = Figure(figsize=(11, 3.4 + 3.0 * len(tasks)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(tasks), 2, squeeze=False)
    _by_keypoint(axes[0, 0], facts["missing_by_keypoint"], "missing points (%)")
    _by_keypoint(axes[0, 1], facts["jumps"]["by_keypoint"], f"jumps (%): {facts['jumps']['rule']}")
    for row, (name, task) in enumerate(tasks, start=1):
        _balance(axes[row, 0], name, task)
        _bouts(axes[row, 1], task)
    swaps = f", suspected swaps in {facts['swaps']['frames']:,} frames"
    swaps = swaps if len(facts["animals"]) > 1 else ""
    figure.suptitle(
        f"{facts['origin'][:110]}\n{facts['frames']:,} frames, {facts['hours']:.2f} hours, "
        f"{facts['videos']} videos, "
        f"fingerprint {facts['fingerprint']}{swaps}",
        fontsize=10,
    )
    figure.savefig(file, dpi=110)


def _by_keypoint(axis: Any, shares: dict[str, dict[str, float]], title: str) -> None:
    width = 0.8 / len(shares)
    for m, (animal, points) in enumerate(shares.items()):
        at = np.arange(len(points)) + (m - (len(shares) - 1) / 2) * width
        height = [100 * share for share in points.values()]
        axis.bar(at, height, width, label=animal, color=_COLOURS[m % len(_COLOURS)])
    names = list(next(iter(shares.values())))
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axis.set_title(title, fontsize=9)
    if len(shares) > 1:
        axis.legend(fontsize=8)


def _balance(axis: Any, name: str, task: dict[str, Any]) -> None:
    classes = list(task["frames"])
    for row, (side, colour) in enumerate(_SIDES):
        total = max(1, sum(task["frames"][label][side] for label in classes))
        shares = [100 * task["frames"][label][side] / total for label in classes]
        at, label = (
            np.arange(len(classes)) + (row - 0.5) * 0.4,
            f"{side}: {task['videos'][side]} videos",
        )
        axis.barh(at, shares, 0.4, label=label, color=colour)
    axis.set_yticks(range(len(classes)), classes, fontsize=8)
    axis.invert_yaxis()
    axis.set_title(f"{name}: share of labelled frames (%)", fontsize=9)
    axis.legend(fontsize=8)


def _bouts(axis: Any, task: dict[str, Any]) -> None:
    """Quartiles as a bar, the median as a line, the ends as whiskers, on a logarithmic scale of
    seconds."""
    classes = list(task["bouts"])
    for row, label in enumerate(classes):
        seconds = task["bouts"][label]["seconds"]
        if seconds:
            ends, median = [seconds["shortest"], seconds["longest"]], [seconds["median"]] * 2
            left = seconds["lower_quartile"]
            width = seconds["upper_quartile"] - left
            axis.plot(ends, [row, row], color="0.6", linewidth=1, zorder=1)
            axis.barh(row, width, 0.5, left=left, color="#8bb0c9", zorder=2)
            sides = [row - 0.25, row + 0.25]
            axis.plot(median, sides, color="#1d3a4f", linewidth=2, zorder=3)
    axis.set_xscale("log")
    names = [f"{label} ({task['bouts'][label]['count']:,})" for label in classes]
    axis.set_yticks(range(len(classes)), names, fontsize=8)
    axis.set_ylim(len(classes) - 0.4, -0.6)
    axis.set_title("bouts: seconds", fontsize=9)
