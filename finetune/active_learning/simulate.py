"""Active learning simulated on labels that exist: do the suggested segments teach more than as many
random ones?

One video is labelled at the beginning; then, round by round, segments of other training videos are,
suggested by a query rule or chosen at random, the random ones of the same number and lengths.
Scores are on training videos that are never offered. Test videos are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune.active_learning.query_rules import AbstractQueryRule
from finetune.active_learning.segments import Segment, labelled_embeddings, split_into_segments
from finetune.fit.fit import Model, fit, score_problems
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED, Ints, decide, looked_at
from finetune.labels.hold_out import hold_out
from finetune.labels.problems import Labelled, Problem
from finetune.report.tables import Cell, Score, plain_text
from finetune.settings import Tuning
from pretrain.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUGGESTED, RANDOM = "suggested", "random"
SCORED_SHARE = 0.3
"""Share of the training videos that scores are on."""
Spans = Sequence[tuple[str, int, int]]
"""Video, first frame, frame after the last."""


def simulate(
    frames: Frames,
    problem: Problem,
    tuning: Tuning,
    rule: AbstractQueryRule,
    *,
    rounds: int,
    number: int,
    seeds: Sequence[int],
    shortest: int,
    longest: int,
    on_progress: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Scores of both ways after every round: rows of seed, way, round, segments, frames (labelled
    so far), macro_f1, map.

    Heads are fitted on embeddings of the training videos, whose labels are revealed bit by bit,
    ``number`` segments a round; test labels are not used. A seed draws the scored videos, the first
    video, the weights and the random segments. ``on_progress`` is called after every fit.

    Raises:
        BadInput: If there are fewer than three labelled training videos.
    """
    if len(problem.train) < 3:
        raise BadInput(
            "--simulate needs three labelled training videos or more (to begin with, to offer, to "
            f"score on); {problem.name} has {len(problem.train)}"
        )
    rows = []
    for seed in seeds:
        ((offered, scored),) = hold_out([problem], share=SCORED_SHARE, seed=seed)
        first = _first_video(offered, seed=seed)
        known = {
            way: {
                name: labels.copy() if name == first else np.full_like(labels, UNLABELLED)
                for name, labels in offered.train.items()
            }
            for way in (SUGGESTED, RANDOM)
        }
        rng = np.random.default_rng([seed, 6])
        model: Model | None = None
        for turn in range(rounds + 1):
            if turn:
                assert model is not None
                segments, labelled_ND = _segments(
                    frames, offered, known[SUGGESTED], model, shortest=shortest, longest=longest
                )
                chosen = rule.choose(segments, number=number, labelled_ND=labelled_ND)
                suggested = [(one.video, one.start, one.stop) for one in chosen]
                _reveal(known[SUGGESTED], offered.train, suggested)
                at_random = _random(known[RANDOM], offered.train, suggested, rng)
                _reveal(known[RANDOM], offered.train, at_random)
            for way in (RANDOM, SUGGESTED) if turn else (SUGGESTED,):
                model = _fitted(frames, offered, known[way], tuning, seed=seed)
                scores = score_problems(
                    [problem], model.predict(frames, [problem], [scored]), [scored]
                )
                row = {
                    "seed": seed,
                    "round": turn,
                    "segments": turn * number,
                    "frames": sum(int(looked_at(labels).sum()) for labels in known[way].values()),
                    "macro_f1": scores.macro_f1,
                    "map": scores.map,
                }
                rows += [row | {"way": each} for each in ((way,) if turn else (SUGGESTED, RANDOM))]
                on_progress()
    return rows


def fits_of(*, rounds: int, seeds: int) -> int:
    """How many fits :func:`simulate` makes."""
    return seeds * (1 + 2 * rounds)


def _first_video(problem: Problem, *, seed: int) -> str:
    """Drawn among the videos that show the most classes: with one class nothing can be fitted."""
    shown = {
        name: len(np.unique(labels[looked_at(labels)], axis=0))
        for name, labels in problem.train.items()
    }
    rich = sorted(name for name, count in shown.items() if count == max(shown.values()))
    return rich[int(np.random.default_rng([seed, 5]).integers(len(rich)))]


def _reveal(known: dict[str, npt.NDArray[np.int8]], truth: Labelled, spans: Spans) -> None:
    for video, start, stop in spans:
        known[video][start:stop] = truth[video][start:stop]


def _fitted(
    frames: Frames, problem: Problem, known: Labelled, tuning: Tuning, *, seed: int
) -> Model:
    seen = {name: labels for name, labels in known.items() if looked_at(labels).any()}
    ((_, _, model),) = fit(
        frames,
        [replace(problem, train=seen, test={})],
        tuning,
        embedder=None,
        seed=seed,
        stops=[tuning.steps],
    )
    return model


def _segments(
    frames: Frames, problem: Problem, known: Labelled, model: Model, *, shortest: int, longest: int
) -> tuple[list[Segment], npt.NDArray[np.float32]]:
    """All that may be suggested, and the (N, D) embeddings of what is labelled."""
    (predicted,) = model.predict(frames, [problem], [problem.train])
    segments, centres = [], []
    for name, labels in known.items():
        z_TD = frames.video(name)["z"].numpy()
        segments += split_into_segments(
            name,
            problem,
            decide(probabilities_TC=predicted[name], overlapping=problem.overlapping),
            predicted[name],
            z_TD,
            shortest=shortest,
            longest=longest,
            unlabelled_T=_can_be_revealed(labels, problem.train[name]),
        )
        centres.append(labelled_embeddings(labels, z_TD))
    return segments, np.concatenate(centres)


def _can_be_revealed(known: Ints, truth: Ints) -> npt.NDArray[np.bool_]:
    """(T,): not labelled so far, and somebody knows the label."""
    return ~looked_at(known) & looked_at(truth)


def _random(
    known: Labelled, truth: Labelled, like: Spans, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """Spans of the lengths of others, somewhere in what is not labelled yet; where no such span is
    free as a whole, one that is free in part."""
    free = {name: _can_be_revealed(labels, truth[name]) for name, labels in known.items()}
    names = sorted(free)
    spans: list[tuple[str, int, int]] = []
    for length in (stop - start for _, start, stop in like):
        best: tuple[int, str, int] = (-1, names[0], 0)
        for _ in range(50):
            share = np.array([free[name].sum() for name in names], float)
            if not share.sum():
                return spans
            name = names[int(rng.choice(len(names), p=share / share.sum()))]
            start = int(rng.integers(max(1, len(free[name]) - length + 1)))
            gain = int(free[name][start : start + length].sum())
            best = max(best, (gain, name, start))
            if gain == length:
                break
        _, name, start = best
        free[name][start : start + length] = False
        spans.append((name, start, min(start + length, len(free[name]))))
    return spans


def curve_table(rows: Sequence[dict[str, Any]], *, fps: float) -> str:
    """Means and population standard deviations over seeds, a line for each round."""
    table: list[list[Cell]] = []
    for turn in sorted({row["round"] for row in rows}):
        of_turn = [row for row in rows if row["round"] == turn]
        minutes = np.mean([row["frames"] for row in of_turn]) / fps / 60
        line: list[Cell] = [str(of_turn[0]["segments"]), f"{minutes:.1f}"]
        for key in ("macro_f1", "map"):
            for way in (SUGGESTED, RANDOM):
                values = np.array([row[key] for row in of_turn if row["way"] == way], float)
                line.append(Score(float(np.nanmean(values)), float(np.nanstd(values))))
        table.append(line)
    header = ["segments", "minutes", "macro F1: suggested", "random", "MAP: suggested", "random"]
    return plain_text(header, table)


def curve_figure(rows: Sequence[dict[str, Any]], *, title: str, fps: float) -> Figure:
    """Macro F1 and MAP over labelled minutes, both ways; the band is a standard deviation over
    seeds to either side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    turns = sorted({row["round"] for row in rows})
    panels = figure.subplots(1, 2)
    for axes, (key, name) in zip(panels, (("macro_f1", "macro F1"), ("map", "MAP")), strict=True):
        for way, colour in ((SUGGESTED, "tab:blue"), (RANDOM, "tab:gray")):
            by_turn = [
                [row for row in rows if row["round"] == turn and row["way"] == way]
                for turn in turns
            ]
            minutes = [np.mean([row["frames"] for row in some]) / fps / 60 for some in by_turn]
            mean, spread = (
                np.array([over_seeds([row[key] for row in some]) for some in by_turn])
                for over_seeds in (np.nanmean, np.nanstd)
            )
            axes.plot(minutes, mean, color=colour, marker="o", label=way)
            axes.fill_between(
                minutes, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0
            )
        axes.set_xlabel("labelled minutes")
        axes.set_ylabel(f"{name} on held-out training videos")
        axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure
