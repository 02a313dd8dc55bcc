"""What a run leaves: predictions anyone can score again, tables, pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.fit import Probabilities
from finetune.frames import UNLABELLED
from finetune.labels import Problem
from finetune.metrics import Scores, SeedScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ETHOGRAM_FRAMES = 5400


def write_predictions(folder: Path, problems: Sequence[Problem], probabilities: Sequence[Probabilities], *, seed: int) -> list[Path]:
    """Writes every test frame's label and probabilities: one file for each problem, ``predictions/seed-42-PROBLEM.parquet``.

    Columns: video, frame, task, annotator, label (name of the class, empty where unlabelled; overlapping behaviours joined
    by ``+``), and ``p_<class>`` for each class. A task with one problem writes ``predictions/seed-42.parquet``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for problem, found in zip(problems, probabilities, strict=True):
        tables = []
        for video in sorted(found):
            p_TC, labels = found[video], problem.test[video]
            columns: dict[str, Any] = {
                "video": pa.array([video] * len(labels)).dictionary_encode(),
                "frame": pa.array(np.arange(len(labels), dtype=np.int32)),
                "task": pa.array([problem.task] * len(labels)).dictionary_encode(),
                "annotator": pa.array([problem.annotator] * len(labels)).dictionary_encode(),
                "label": pa.array(_names(problem, labels)).dictionary_encode(),
            }
            columns |= {f"p_{name}": pa.array(p_TC[:, c].astype(np.float32)) for c, name in enumerate(problem.classes)}
            tables.append(pa.table(columns))
        plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in problem.name)
        path = folder / (f"seed-{seed}.parquet" if len(problems) == 1 else f"seed-{seed}-{plain}.parquet")
        pq.write_table(pa.concat_tables(tables).unify_dictionaries(), path, compression="zstd")
        written.append(path)
    return written


def _names(problem: Problem, labels: npt.NDArray[np.int8]) -> list[str]:
    if problem.overlapping:
        return ["+".join(name for c, name in enumerate(problem.classes) if row[c] == 1) for row in labels]
    names = [*problem.classes, ""]  # UNLABELLED is -1: the last
    assert UNLABELLED == -1
    return [names[label] for label in labels]


def table(scores: SeedScores) -> str:
    """Scores per class as text, chance beside every average precision."""
    lines = [f"{'':24} {'F1':>15} {'AP':>15} {'chance AP':>10} {'frames':>9}"]
    for name, held in scores.per_class.items():
        scored = f"{_pm(held['f1'], held['f1_std'])} {_pm(held['ap'], held['ap_std'])}"
        lines.append(f"{name:24} {scored} {held['prevalence']:>10.3f} {held['frames']:>9,.0f}")
    lines.append(
        f"{'macro F1 / MAP':24} {_pm(scores.macro_f1, scores.macro_f1_std)} {_pm(scores.map, scores.map_std)} {scores.chance_map:>10.3f}"
    )
    return "\n".join(lines)


def _pm(value: float, spread: float) -> str:
    return f"{'-':>15}" if np.isnan(value) else f"{value:>7.3f} ± {spread:<5.3f}"


def confusion_figure(scores: Scores) -> Figure:
    """Confusion matrix, rows = truth, shares of each row; one panel a problem where problems differ."""
    from matplotlib.figure import Figure

    panels = {"": scores} if scores.confusion is not None else dict(scores.problems)
    panels = {name: held for name, held in panels.items() if held.confusion is not None and held.confusion.ndim == 2}
    columns = min(4, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    for place, (name, held) in enumerate(panels.items()):
        assert held.confusion is not None
        axes = figure.add_subplot(rows, columns, place + 1)
        share = held.confusion / np.maximum(held.confusion.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(share):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.55 else "black", fontsize=8)
        axes.set_xticks(range(len(held.classes)), held.classes, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(held.classes)), held.classes, fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        axes.set_title(name, fontsize=9)
    return figure


def ethogram_figure(problem: Problem, found: Probabilities, *, fps: float) -> Figure:
    """Labelled and predicted behaviour of one test video over time, with the probabilities below."""
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
        axes[c].fill_between(seconds, 0.5, 1.0, where=truth, color="tab:green", step="mid", linewidth=0)
        axes[c].fill_between(seconds, 0.0, 0.5, where=chosen, color="tab:orange", step="mid", linewidth=0)
        axes[c].plot(seconds, p_TC[:, c], color="black", linewidth=0.5)
        axes[c].set_ylim(0, 1)
        axes[c].set_yticks([])
        axes[c].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0].set_title(f"{video}: labelled (green, above), predicted (orange, below), probability (line)", fontsize=9)
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
