"""Pictures of a run: confusion matrix and ethogram."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetune.fit.fit import Probabilities
from finetune.labels.frame_labels import UNLABELLED, decide
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ETHOGRAM_FRAMES = 5400
# Told apart by colour-blind readers too (Okabe & Ito 2008).
BLUE, ORANGE = "#0072B2", "#E69F00"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
REST_COLOUR = "#BBBBBB"
MARKERS = "oDs^vPX*"


def confusion_figure(scores: Scores) -> Figure:
    """Confusion matrix, rows = truth, shares of each row; one panel a problem where problems
    differ."""
    from matplotlib.figure import Figure

    panels = {"": scores} if scores.confusion is not None else dict(scores.problems)
    panels = {
        name: part
        for name, part in panels.items()
        if part.confusion is not None and part.confusion.ndim == 2
    }
    columns = min(4, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    for number, (name, part) in enumerate(panels.items(), 1):
        assert part.confusion is not None
        axes = figure.add_subplot(rows, columns, number)
        share = part.confusion / np.maximum(part.confusion.sum(1, keepdims=True), 1)
        draw_matrix(axes, share, part.classes, title=name)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
    return figure


def colours_of(problem: Problem) -> dict[str, str]:
    """The colour of each class, the same in every figure; grey for the rest class."""
    shown = [name for name in problem.classes if name != problem.rest]
    colours = {name: COLOURS[c % len(COLOURS)] for c, name in enumerate(shown)}
    return {name: colours.get(name, REST_COLOUR) for name in problem.classes}


def draw_matrix(
    axes: Axes,
    values: npt.NDArray[np.float64],
    names: Sequence[str],
    *,
    title: str,
    colours: str = "Blues",
    lowest: float = 0.0,
    counts: npt.NDArray[np.int64] | None = None,
) -> None:
    """Numbers on colours, from ``lowest`` to 1; ``names`` label rows and columns; ``counts`` stand
    below the numbers."""
    axes.imshow(values, cmap=colours, vmin=lowest, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 else "black"
        text = f"{value:.2f}" + ("" if counts is None else f"\n{counts[i, j]:,}")
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, fontsize=9)


def ethogram_figure(problem: Problem, probabilities: Probabilities, *, fps: float) -> Figure:
    """Labelled and predicted behaviour of one test video over time, with the probabilities as a
    line.

    The video is the one that shows most classes, of equals the longest; of it the first minutes.
    """
    from matplotlib.figure import Figure

    video = max(probabilities, key=lambda name: (*_variety(problem.test[name]), name))
    labels, p_TC = (side[video][:ETHOGRAM_FRAMES] for side in (problem.test, probabilities))
    predicted = decide(probabilities_TC=p_TC, overlapping=problem.overlapping)
    seconds = np.arange(len(labels)) / fps
    figure = Figure(figsize=(11, 1.2 + 0.55 * len(problem.classes)), layout="constrained")
    panels = figure.subplots(len(problem.classes), 1, sharex=True, squeeze=False)[:, 0]
    for c, (axes, name) in enumerate(zip(panels, problem.classes, strict=True)):
        for frames, low, colour in ((labels, 0.5, BLUE), (predicted, 0.0, ORANGE)):
            shown = frames[:, c] == 1 if problem.overlapping else frames == c
            axes.fill_between(
                seconds, low, low + 0.5, where=shown, color=colour, step="mid", linewidth=0
            )
        axes.plot(seconds, p_TC[:, c], color="black", linewidth=0.5)
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    panels[0].set_title(
        f"{video}: labelled (blue, above), predicted (orange, below), probability (line)",
        fontsize=9,
    )
    panels[-1].set_xlabel("time (s)")
    return figure


def _variety(labels: npt.NDArray[np.int8]) -> tuple[int, int]:
    """How many classes are shown, and in how many frames."""
    rows = labels if labels.ndim == 1 else labels.max(1)
    values, counts = np.unique(rows[rows != UNLABELLED], return_counts=True)
    return len(values), int(counts.sum())


def png(figure: Figure, *, dpi: int = 130) -> bytes:
    """A figure as a PNG file's bytes."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=dpi)
    return sink.getvalue()
