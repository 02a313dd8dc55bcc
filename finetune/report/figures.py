"""What a run shows: tables and pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune.fit.fit import Probabilities
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import Scores, SeedScores
from finetune.report.predictions import write_predictions as write_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ETHOGRAM_FRAMES = 5400


def table(scores: SeedScores) -> str:
    """Scores per class as text, chance beside every average precision."""
    lines = [f"{'':24} {'F1':>15} {'AP':>15} {'chance AP':>10} {'frames':>9}"]
    for name, held in scores.per_class.items():
        scored = f"{_pm(held['f1'], held['f1_std'])} {_pm(held['ap'], held['ap_std'])}"
        lines.append(f"{name:24} {scored} {held['prevalence']:>10.3f} {held['frames']:>9,.0f}")
    lines.append(
        f"{'macro F1 / MAP':24} {_pm(scores.macro_f1, scores.macro_f1_std)} "
        f"{_pm(scores.map, scores.map_std)} {scores.chance_map:>10.3f}"
    )
    return "\n".join(lines)


def more_lines(result: Mapping[str, Any]) -> str:
    """Bouts, calibration, what comes after the network, and annotators, in a line each; empty where
    there is nothing to say."""
    lines = []
    after = result.get("after") or {}
    for title, held in (
        ("bouts", result.get("bouts") or {}),
        ("bouts after smoothing", after.get("bouts") or {}),
    ):
        if f1 := held.get("macro_f1"):
            overlaps = ", ".join(
                f"{_number(value)} at overlap {overlap}" for overlap, value in f1.items()
            )
            lines.append(
                f"{title}: F1 {overlaps}; onset off by "
                f"{_number(held.get('onset_mean_abs_frames'), 1)} frames"
            )
    if (error := result.get("calibration_error")) is not None:
        told = (
            f"; after temperature {_number(after['calibration_error'])}"
            if after.get("calibration_error") is not None
            else ""
        )
        lines.append(f"calibration error {_number(error)}{told}")
    if after:
        lines.append(
            "after the network (learned on held-out training videos): macro F1 "
            f"{after['macro_f1']:.3f} ± {after['macro_f1_std']:.3f}"
        )
    annotators = result.get("annotators") or {}
    if annotators.get("pairs"):
        lines.append(
            f"annotators among each other: macro F1 {_number(annotators['macro_f1'])}, kappa "
            f"{_number(annotators['kappa'])}; "
            f"we with each: {_number(annotators['ours_macro_f1'])}, "
            f"{_number(annotators['ours_kappa'])}"
        )
    return "\n".join(lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _pm(value: float, spread: float) -> str:
    return f"{'-':>15}" if np.isnan(value) else f"{value:>7.3f} ± {spread:<5.3f}"


def confusion_figure(scores: Scores) -> Figure:
    """Confusion matrix, rows = truth, shares of each row; one panel a problem where problems
    differ."""
    from matplotlib.figure import Figure

    panels = {"": scores} if scores.confusion is not None else dict(scores.problems)
    panels = {
        name: held
        for name, held in panels.items()
        if held.confusion is not None and held.confusion.ndim == 2
    }
    columns = min(4, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    for place, (name, held) in enumerate(panels.items()):
        assert held.confusion is not None
        axes = figure.add_subplot(rows, columns, place + 1)
        share = held.confusion / np.maximum(held.confusion.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(share):
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value > 0.55 else "black",
                fontsize=8,
            )
        axes.set_xticks(range(len(held.classes)), held.classes, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(held.classes)), held.classes, fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        axes.set_title(name, fontsize=9)
    return figure


def ethogram_figure(problem: Problem, found: Probabilities, *, fps: float) -> Figure:
    """Labelled and predicted behaviour of one test video over time, with the probabilities
    below."""
    from matplotlib.figure import Figure

    video = max(found, key=lambda name: (_known(problem.test[name]), name))
    labels, p_TC = problem.test[video][:ETHOGRAM_FRAMES], found[video][:ETHOGRAM_FRAMES]
    seconds = np.arange(len(labels)) / fps
    figure = Figure(figsize=(11, 1.2 + 0.55 * len(problem.classes)), layout="constrained")
    axes = figure.subplots(len(problem.classes), 1, sharex=True, squeeze=False)[:, 0]
    decided = p_TC.argmax(1)
    for c, name in enumerate(problem.classes):
        truth = labels[:, c] == 1 if problem.overlapping else labels == c
        chosen = p_TC[:, c] > 0.5 if problem.overlapping else decided == c
        axes[c].fill_between(
            seconds, 0.5, 1.0, where=truth, color="tab:green", step="mid", linewidth=0
        )
        axes[c].fill_between(
            seconds, 0.0, 0.5, where=chosen, color="tab:orange", step="mid", linewidth=0
        )
        axes[c].plot(seconds, p_TC[:, c], color="black", linewidth=0.5)
        axes[c].set_ylim(0, 1)
        axes[c].set_yticks([])
        axes[c].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0].set_title(
        f"{video}: labelled (green, above), predicted (orange, below), probability (line)",
        fontsize=9,
    )
    axes[-1].set_xlabel("seconds")
    return figure


def _known(labels: npt.NDArray[np.int8]) -> int:
    rows = labels if labels.ndim == 1 else labels.max(1)
    values, counts = np.unique(rows[rows != UNLABELLED], return_counts=True)
    return len(values) * 10**7 + int(counts.sum())


def png(figure: Figure) -> bytes:
    """A figure as a PNG file's bytes."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=130)
    return sink.getvalue()
