"""Time budgets and pictures of labelled videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.inference.writers import Ethogram
from finetune.metrics.bouts import bouts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = (
    "video",
    "problem",
    "behaviour",
    "video_s",
    "seconds",
    "share",
    "bouts",
    "bouts_per_min",
    "mean_bout_s",
    "median_bout_s",
)


def summary(held: Ethogram) -> list[dict[str, Any]]:
    """Time, bouts and their lengths for each class of one video; lengths are None without a
    bout."""
    found, rows = bouts(held.labels), []
    seconds = len(held.labels) / held.fps
    for c, name in enumerate(held.problem.classes):
        lengths = (found[:, 1] - found[:, 0])[found[:, 2] == c] / held.fps
        rows.append(
            {
                "video": held.video,
                "problem": held.problem.name,
                "behaviour": name,
                "video_s": round(seconds, 3),
                "seconds": round(float(lengths.sum()), 3),
                "share": round(float(lengths.sum() / seconds), 5),
                "bouts": len(lengths),
                "bouts_per_min": round(len(lengths) / seconds * 60, 3),
                "mean_bout_s": round(float(lengths.mean()), 3) if len(lengths) else None,
                "median_bout_s": round(float(np.median(lengths)), 3) if len(lengths) else None,
            }
        )
    return rows


def summary_table(rows: list[dict[str, Any]]) -> str:
    """All videos together, a line a behaviour."""
    lines = [f"{'':24} {'minutes':>9} {'share':>7} {'bouts':>7} {'mean bout':>10}"]
    for problem, name in dict.fromkeys((row["problem"], row["behaviour"]) for row in rows):
        mine = [row for row in rows if (row["problem"], row["behaviour"]) == (problem, name)]
        seconds, count = sum(row["seconds"] for row in mine), sum(row["bouts"] for row in mine)
        whole = sum(row["video_s"] for row in mine)
        several = len({row["problem"] for row in rows}) > 1
        called = f"{problem}: {name}" if several and name != problem else name
        share = seconds / whole if whole else 0.0
        mean = f"{seconds / count:>8.2f} s" if count else f"{'-':>10}"
        lines.append(f"{called:24} {seconds / 60:>9.1f} {share:>7.3f} {count:>7,} {mean}")
    return "\n".join(lines)


def picture(held: Ethogram) -> Figure:
    """Bouts of each behaviour over the whole video, and the probabilities under them."""
    from matplotlib.figure import Figure

    classes = [
        (c, name) for c, name in enumerate(held.problem.classes) if name != held.problem.rest
    ]
    figure = Figure(figsize=(11, 1.2 + 0.5 * len(classes)), layout="constrained")
    axes = figure.subplots(len(classes), 1, sharex=True, squeeze=False)[:, 0]
    found = bouts(held.labels)
    seconds = np.arange(len(held.labels)) / held.fps
    step = max(1, len(seconds) // 5000)  # finer than a screen shows nothing
    for row, (c, name) in zip(axes, classes, strict=True):
        mine = found[found[:, 2] == c]
        row.broken_barh(
            [(start / held.fps, (stop - start) / held.fps) for start, stop, _ in mine],
            (0, 1),
            color=f"C{c % 10}",
        )
        row.plot(seconds[::step], held.probabilities_TC[::step, c], color="black", linewidth=0.4)
        row.set_ylim(0, 1)
        row.set_yticks([])
        row.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0].set_title(f"{held.video}: predicted bouts (bars) and probability (line)", fontsize=9)
    axes[-1].set_xlim(0, len(held.labels) / held.fps)
    axes[-1].set_xlabel("seconds")
    return figure
