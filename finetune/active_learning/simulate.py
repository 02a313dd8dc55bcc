"""Active learning tried out on labels that exist: would the suggested stretches have taught more
than as many random ones?

One labelled training video to begin with; then, round by round, stretches of other training videos
are labelled, chosen by :mod:`finetune.active_learning.acquisition` or at random, the random ones of
the same number and lengths. Scores are on training videos that are never offered. Test videos are
not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune.active_learning.acquisition import cut, labelled_embeddings, rank
from finetune.fit.fit import Model, fit, score_problems
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED, Ints, decide, looked_at
from finetune.labels.problems import Labelled, Problem, hold_out
from finetune.report.tables import Cell, Score, plain_text
from finetune.settings import Tuning
from pretrain.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUGGESTED, RANDOM = "suggested", "random"
HELD_OUT = 0.3
Spans = Sequence[tuple[str, int, int]]


def simulate(
    material: Frames,
    problem: Problem,
    tuning: Tuning,
    *,
    rounds: int,
    number: int,
    seeds: Sequence[int],
    shortest: int,
    longest: int,
    on_progress: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Scores of both ways after every round: rows of seed, way, round, stretches, frames (labelled
    so far), macro_f1, map.

    Args:
        material: Embeddings of the training videos.
        problem: Its training labels are revealed bit by bit; its test labels are not used.
        tuning: How heads are fitted.
        rounds: Rounds of labelling.
        number: Stretches a round.
        seeds: Of the held-out videos, the first video, the weights and the random stretches.
        shortest: Frames, see :func:`finetune.active_learning.acquisition.cut`.
        longest: Frames, likewise.
        on_progress: Called after every fit.

    Raises:
        BadInput: If there are fewer than three labelled training videos.
    """
    if len(problem.train) < 3:
        raise BadInput(
            "--simulate wants three labelled training videos or more (to begin with, to offer, to "
            "score on); "
            f"{problem.name} has {len(problem.train)}"
        )
    rows = []
    for seed in seeds:
        offered, scored = hold_out(problem, share=HELD_OUT, seed=seed)
        begun = _first_video(offered, seed=seed)
        known = {
            way: {
                name: _revealed(labels, [(0, len(labels))] if name == begun else [])
                for name, labels in offered.train.items()
            }
            for way in (SUGGESTED, RANDOM)
        }
        draw = np.random.default_rng([seed, 6])
        model: Model | None = None
        for turn in range(rounds + 1):
            if turn:
                assert model is not None
                wanted = _suggested(
                    material,
                    offered,
                    known[SUGGESTED],
                    model,
                    number=number,
                    shortest=shortest,
                    longest=longest,
                )
                _reveal(known[SUGGESTED], offered.train, wanted)
                _reveal(
                    known[RANDOM],
                    offered.train,
                    _random(known[RANDOM], offered.train, wanted, draw),
                )
            for way in (RANDOM, SUGGESTED) if turn else (SUGGESTED,):
                model = _fitted(material, offered, known[way], tuning, seed=seed)
                scores = score_problems(
                    [problem], model.predict(material, [problem], [scored]), [scored]
                )
                frames = sum(int(looked_at(labels).sum()) for labels in known[way].values())
                row = {
                    "seed": seed,
                    "round": turn,
                    "stretches": turn * number,
                    "frames": frames,
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


def _revealed(labels: Ints, spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.int8]:
    shown = np.full_like(labels, UNLABELLED, dtype=np.int8)
    for start, stop in spans:
        shown[start:stop] = labels[start:stop]
    return shown


def _reveal(known: dict[str, npt.NDArray[np.int8]], truth: Labelled, spans: Spans) -> None:
    for video, start, stop in spans:
        known[video][start:stop] = truth[video][start:stop]


def _fitted(
    material: Frames, problem: Problem, known: Labelled, tuning: Tuning, *, seed: int
) -> Model:
    seen = {name: labels for name, labels in known.items() if looked_at(labels).any()}
    ((_, _, model),) = fit(
        material,
        [replace(problem, train=seen, test={})],
        tuning,
        embedder=None,
        seed=seed,
        stops=[tuning.steps],
    )
    return model


def _suggested(
    material: Frames,
    problem: Problem,
    known: Labelled,
    model: Model,
    *,
    number: int,
    shortest: int,
    longest: int,
) -> list[tuple[str, int, int]]:
    found = model.predict(material, [problem], [problem.train])[0]
    stretches, centres = [], []
    for name, labels in known.items():
        first, end = material.place[name]
        z_TD = material.arrays["z"][first:end]
        # Frames whose label nobody knows cannot be revealed.
        free = ~looked_at(labels) & looked_at(problem.train[name])
        decided = decide(probabilities_TC=found[name], overlapping=problem.overlapping)
        stretches += cut(
            name,
            problem,
            decided,
            found[name],
            z_TD,
            shortest=shortest,
            longest=longest,
            free_T=free,
        )
        centres.append(labelled_embeddings(labels, z_TD))
    return [
        (held.video, held.start, held.stop)
        for held in rank(stretches, number=number, labelled_ND=np.concatenate(centres))
    ]


def _random(
    known: Labelled, truth: Labelled, like: Spans, draw: np.random.Generator
) -> list[tuple[str, int, int]]:
    """Stretches of the lengths of others, at random places that are not labelled yet; where none is
    free, one that is free in part."""
    free = {name: ~looked_at(labels) & looked_at(truth[name]) for name, labels in known.items()}
    names = sorted(free)
    found: list[tuple[str, int, int]] = []
    for length in (stop - start for _, start, stop in like):
        best: tuple[int, str, int] = (-1, names[0], 0)
        for _ in range(50):
            share = np.array([free[name].sum() for name in names], float)
            if not share.sum():
                return found
            name = names[int(draw.choice(len(names), p=share / share.sum()))]
            start = int(draw.integers(max(1, len(free[name]) - length + 1)))
            gain = int(free[name][start : start + length].sum())
            best = max(best, (gain, name, start))
            if gain == length:
                break
        _, name, start = best
        free[name][start : start + length] = False
        found.append((name, start, min(start + length, len(free[name]))))
    return found


def curve_table(rows: Sequence[dict[str, Any]], *, fps: float) -> str:
    """Means and population standard deviations over seeds, a line a round."""
    table: list[list[Cell]] = []
    for turn in sorted({row["round"] for row in rows}):
        mine = [row for row in rows if row["round"] == turn]
        minutes = np.mean([row["frames"] for row in mine]) / fps / 60
        line: list[Cell] = [str(mine[0]["stretches"]), f"{minutes:.1f}"]
        for key in ("macro_f1", "map"):
            for way in (SUGGESTED, RANDOM):
                values = np.array([row[key] for row in mine if row["way"] == way], float)
                line.append(Score(float(np.nanmean(values)), float(np.nanstd(values))))
        table.append(line)
    header = ["stretches", "minutes", "macro F1: suggested", "random", "MAP: suggested", "random"]
    return plain_text(header, table)


def curve_figure(rows: Sequence[dict[str, Any]], *, title: str, fps: float) -> Figure:
    """Macro F1 and MAP over labelled minutes, both ways; the band is a standard deviation over
    seeds to either side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for place, (key, name) in enumerate((("macro_f1", "macro F1"), ("map", "MAP")), 1):
        axes = figure.add_subplot(1, 2, place)
        for way, colour in ((SUGGESTED, "tab:blue"), (RANDOM, "tab:gray")):
            turns = sorted({row["round"] for row in rows})
            held = [
                [row for row in rows if row["round"] == turn and row["way"] == way]
                for turn in turns
            ]
            minutes = [np.mean([row["frames"] for row in part]) / fps / 60 for part in held]
            mean, spread = (
                np.array([fold([row[key] for row in part]) for part in held])
                for fold in (np.nanmean, np.nanstd)
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
