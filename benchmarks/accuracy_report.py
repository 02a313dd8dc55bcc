"""The table of `accuracy.py` from the files of its cells: Markdown, CSV, a picture, JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import accuracy_protocol as protocol
import accuracy_split
import measure
import numpy as np

from finetune.fit.fit import Probabilities
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import plain
from finetune.labels.problems import Problem
from finetune.postprocess.decision_rules.prior_correction import rule_of_labels
from finetune.report.page.errors import predicted_bouts
from finetune.report.page.figures import Strip, strips_figure
from finetune.report.tables import Cell, Point, Score, dot_plot, markdown, write_csv
from pretrain.data.schema import Schema
from pretrain.redact import write_json

FAILING = "failing_bouts.png"
DRAWN = 3
_METRICS = {"macro_f1": "macro F1", "map": "MAP"}


def write_report(
    out: Path,
    cells: Sequence[accuracy_split.Cell],
    problems: Sequence[Problem],
    poses: Frames,
    schema: Schema,
    split: accuracy_split.Split,
    machine: Mapping[str, Any],
) -> list[Path]:
    """Writes table.md, table.csv, table.png and result.json, and a picture of bouts where the first
    row fails.

    Args:
        out: Folder with the files of all ``cells``.
        cells: Of the table, in the order of its rows within a budget.
        problems: With all labelled videos in ``train``.
        poses: Of these videos.
        schema: Their skeleton.
        split: That the cells were fitted on.
        machine: As :func:`measure.describe_machine` gives it.
    """
    results = {
        cell: json.loads((out / "cells" / f"{cell.name}.json").read_text(encoding="utf-8"))
        for cell in cells
    }
    step = max(1, round(poses.fps / protocol.HZ))
    lines = summaries(out, results, problems, step)
    budgets = list(dict.fromkeys(line["budget"] for line in lines))
    names = list(dict.fromkeys(line["row"] for line in lines))
    by_cell = {(line["row"], line["budget"]): line for line in lines}

    header = ["macro F1 / MAP", *(_budget_name(budget, split) for budget in budgets)]
    table = [[name, *(_scores(by_cell.get((name, b))) for b in budgets)] for name in names]
    gains = [
        [name, *(_gain(results, name, names[0], b) for b in budgets)]
        for name in names[1:]
        if name != "chance"
    ]
    sooner = [
        [name, *_sooner(out, results, name, budgets, problems, split, step)] for name in names
    ]
    errors = list(where_it_fails(out, results, names[0], problems, poses, schema, step))
    seconds = sum(result["core_seconds"] for result in results.values())
    sections = [
        markdown(header, table),
        f"MAP minus that of `{names[0]}` on the same labels, mean ± standard deviation over draws "
        "(over folds for all):",
        markdown(["", *header[1:]], gains),
        "Macro F1 where behaviours of which few bouts are labelled are decided for sooner (what is "
        "done where nothing can be judged, docs/heads.md), and by how much it is above that of the "
        "first table, mean ± standard deviation over draws:",
        markdown(["", *header[1:]], [row for row in sooner if any(row[1:])]),
        *errors,
        f"`{measure.command()}`; {len(results)} fits, {seconds / 60:.0f} core-minutes. "
        f"{measure.machine_line(machine)}.",
        f"Split {accuracy_split.digest(split)}: "
        + "; ".join(f"fold {n}: {', '.join(fold)}" for n, fold in enumerate(split["folds"])),
    ]
    (out / "table.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    write_csv(out / "table.csv", lines)
    points = [
        Point(
            panel=_budget_name(line["budget"], split),
            metric=text,
            row=line["row"],
            series="this split",
            score=Score(line[key], line[f"{key}_std"]),
            chance=line["chance"],
        )
        for line in lines
        for key, text in _METRICS.items()
        if line["row"] != "chance" and line[key] is not None
    ]
    dot_plot(points, title="Held-out videos, labelled frames at 5 Hz").savefig(
        out / "table.png", dpi=120
    )
    whole = {"command": measure.command(), "machine": dict(machine), "split": split, "rows": lines}
    write_json(out / "result.json", plain(whole))
    written = ("table.md", "table.csv", "table.png", "result.json", FAILING)
    return [out / name for name in written if (out / name).exists()]


def summaries(
    out: Path,
    results: Mapping[accuracy_split.Cell, Mapping[str, Any]],
    problems: Sequence[Problem],
    step: int,
) -> list[dict[str, Any]]:
    """A line for each row and budget: the mean over draws; of all videos, scores of the pooled
    folds. Then chance: what one who guesses by the classes' frequencies reaches."""
    groups: dict[tuple[str, str], list[accuracy_split.Cell]] = {}
    for cell in results:
        groups.setdefault((cell.row.name, cell.budget), []).append(cell)
    lines = []
    for (row, budget), own in groups.items():
        if budget == accuracy_split.ALL:
            tested = [replace(problem, test=problem.train) for problem in problems]
            decided = pooled(out, own, problems, "=") if row.endswith("postprocessed") else ()
            scores = protocol.score_at(tested, pooled(out, own, problems), step, decided).to_dict()
            each, spread = [scores], False
        else:
            each, spread = [results[cell]["scores"] for cell in own], len(own) > 1
        line: dict[str, Any] = {"row": row, "budget": budget, "fits": len(own)}
        for key in _METRICS:
            values = _known(each, key)
            line[key] = float(np.mean(values)) if values else None
            line[f"{key}_std"] = float(np.std(values)) if spread and values else None
        chance = _known(each, "chance_map")
        line["chance"] = float(np.mean(chance)) if chance else None
        line["core_seconds_a_fit"] = float(np.mean([results[c]["core_seconds"] for c in own]))
        lines.append(line)
    first = lines[0]["row"]
    for line in [line for line in lines if line["row"] == first]:
        nothing = {"fits": 0, "macro_f1_std": None, "map_std": None, "core_seconds_a_fit": 0.0}
        scores = {"row": "chance", "macro_f1": line["chance"], "map": line["chance"]}
        lines.append({**line, **nothing, **scores})
    return lines


def _known(scores: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """A score of those folds that have one: a fold of a short recording may show no behaviour."""
    return [one[key] for one in scores if one[key] is not None]


def _sooner(
    out: Path,
    results: Mapping[accuracy_split.Cell, Mapping[str, Any]],
    row: str,
    budgets: Sequence[str],
    problems: Sequence[Problem],
    split: accuracy_split.Split,
    step: int,
) -> Iterator[Cell]:
    """Macro F1 of a row without postprocessing under :func:`rule_of_labels`, by budget."""
    for budget in budgets:
        cells = [c for c in results if (c.row.name, c.budget) == (row, budget)]
        scores: list[tuple[float, float]] = []
        predicted: list[list[Probabilities]] = []
        decided: list[list[protocol.Decisions]] = []
        for cell in cells if not row.endswith("postprocessed") else ():
            own = accuracy_split.problems_of(problems, split, cell)
            predicted.append(pooled(out, [cell], problems))
            rules = [rule_of_labels(problem) for problem in own]
            decided.append(
                [
                    {v: (rule.decide(p) if rule else p.argmax(1)) for v, p in one.items()}
                    for rule, one in zip(rules, predicted[-1], strict=True)
                ]
            )
        if budget == accuracy_split.ALL:
            predicted, decided = ([_union(one)] if one else [] for one in (predicted, decided))
        tested = [replace(problem, test=problem.train) for problem in problems]
        for p, labels in zip(predicted, decided, strict=True):
            plainly, sooner = (
                protocol.score_at(tested, p, step, one).macro_f1 for one in ((), labels)
            )
            if not math.isnan(plainly):
                scores.append((sooner, sooner - plainly))
        spread = [np.std(one) if len(scores) > 1 else None for one in zip(*scores, strict=True)]
        if not scores:
            yield None
            continue
        mean, gain = (float(np.mean(one)) for one in zip(*scores, strict=True))
        more = f"{gain:+.3f}" if spread[1] is None else f"{gain:+.3f} ± {spread[1]:.3f}"
        yield f"{Score(mean, spread[0])} ({more})"


def _union(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The videos of all folds, problem by problem."""
    return [
        {video: values for one in each for video, values in one.items()}
        for each in zip(*parts, strict=True)
    ]


def pooled(
    out: Path, cells: Sequence[accuracy_split.Cell], problems: Sequence[Problem], mark: str = ":"
) -> list[Probabilities]:
    """Probabilities at 5 Hz of every problem's test videos of some cells, by video; with the mark
    ``=`` labels."""
    each: list[dict[str, Any]] = [{} for _ in problems]
    for cell in cells:
        with np.load(out / "cells" / f"{cell.name}.npz") as arrays:
            for key in arrays:
                number, own, video = re.split("([:=])", key, maxsplit=1)
                if own != mark:
                    continue
                assert video not in each[int(number)], f"{video} was tested twice"
                kind = np.float32 if mark == ":" else np.int8
                each[int(number)][video] = arrays[key].astype(kind)
    return list(each)


def where_it_fails(
    out: Path,
    results: Mapping[accuracy_split.Cell, Mapping[str, Any]],
    row: str,
    problems: Sequence[Problem],
    poses: Frames,
    schema: Schema,
    step: int,
) -> Iterator[str]:
    """Sections on the errors of a row that learned from all videos: per class, and by kind of
    frame where classes exclude each other."""
    own = [cell for cell in results if (cell.row.name, cell.budget) == (row, accuracy_split.ALL)]
    if not own:
        return
    predicted = pooled(out, own, problems)

    def unseen(video: str) -> Any:
        first, end = poses.spans[video]
        return np.isnan(poses.arrays["position"][first:end]).any(-1).all(-1).any(-1)

    for problem, probabilities in zip(problems, predicted, strict=True):
        if not probabilities:
            continue  # a parent, which is not scored
        tested = replace(problem, test=problem.train)
        scores = protocol.score_at([tested], [probabilities], step)
        yield f"Where `{row}`, all videos, fails ({problem.name}):"
        kinds = ("f1", "ap", "precision", "recall", "prevalence")
        per_class = [
            [name, *(Score(getattr(one, kind)) for kind in kinds)]
            for name, one in scores.per_class.items()
        ]
        header = ["class", *kinds]
        if scores.confusion is not None and not problem.overlapping:
            share = scores.confusion / scores.confusion.sum(1, keepdims=True).clip(min=1)
            header += [f"called {name}" for name in problem.classes]
            for line, called in zip(per_class, share.tolist(), strict=True):
                line += [Score(one) for one in called]
        yield markdown(header, per_class)
        if not problem.overlapping:
            table = protocol.failures(
                problem, probabilities, fps=poses.fps, step=step, unseen=unseen
            )
            yield markdown(list(table[0]), [list(line.values()) for line in table])
            if draw_failing_bouts(out / FAILING, problem, probabilities, poses, schema, step):
                yield f"Bouts it is surest of, and that were labelled otherwise: {FAILING}."


def draw_failing_bouts(
    file: Path,
    problem: Problem,
    predicted: Probabilities,
    poses: Frames,
    schema: Schema,
    step: int,
) -> bool:
    """Draws the bouts, one a video, that are predicted with most confidence and labelled otherwise;
    whether there are any."""
    read = replace(problem, test={v: problem.train[v][::step] for v in predicted})
    wrong = [bout for bout in predicted_bouts(read, predicted, least=3) if bout.right < 0.5]
    of_video = {bout.video: bout for bout in sorted(wrong, key=lambda bout: bout.sure)}
    chosen = sorted(of_video.values(), key=lambda bout: -bout.sure)[:DRAWN]
    strips = []
    for bout in chosen:
        frames = slice(bout.start * step, bout.stop * step)
        shown = problem.train[bout.video][frames]
        labelled = problem.classes[int(np.bincount(shown[shown >= 0]).argmax())]
        first, last = (frame / poses.fps for frame in (frames.start, frames.stop))
        strips.append(
            Strip(
                title=f"{bout.video}, {first:.1f} to {last:.1f} s: called {bout.behaviour} "
                f"(p = {bout.sure:.2f}), labelled {labelled}",
                position_TMKX=poses.video(bout.video)["position"].numpy()[frames],
            )
        )
    if strips:
        strips_figure(strips, schema).savefig(file, dpi=110)
    return bool(strips)


def _budget_name(budget: str, split: accuracy_split.Split) -> str:
    if budget == accuracy_split.ALL:
        return "all, folds pooled"
    number, kind = accuracy_split.parse_budget(budget)
    videos = f"{number} video" + ("s" if number > 1 else "")
    minutes = "one video's minutes" if number == 1 else f"{number} videos' minutes"
    names = {
        accuracy_split.CLIPS: f"{minutes} as clips",
        accuracy_split.PLANNED: f"{minutes} as chosen clips",
    }
    return names.get(kind, videos)


def _scores(line: Mapping[str, Any] | None) -> Cell:
    if line is None:
        return None
    return tuple(
        Score(math.nan if line[key] is None else line[key], line[f"{key}_std"]) for key in _METRICS
    )


def _gain(
    results: Mapping[accuracy_split.Cell, Mapping[str, Any]], row: str, other: str, budget: str
) -> Cell:
    """By how much the MAP of a row exceeds that of another, draw by draw."""
    each = {
        (cell.row.name, cell.draw): result["scores"]["map"]
        for cell, result in results.items()
        if cell.budget == budget
    }
    pairs = [(each[row, draw], each[other, draw]) for name, draw in each if name == row]
    gains = [a - b for a, b in pairs if a is not None and b is not None]
    if not gains:
        return None
    return f"{np.mean(gains):+.3f} ± {np.std(gains):.3f}"
