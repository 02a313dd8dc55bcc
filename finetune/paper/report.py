"""The table of a reproduction: our scores and the paper's, as Markdown, CSV and a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.report.figures import png
from finetune.report.tables import Cell, Point, Score, dot_plot, markdown, write_csv

Line = Mapping[str, Any]
"""A line of table.csv."""
TASK_NAMES = {
    "classic_classification": "Task 1",
    "annotation_style_transfer": "Task 2",
    "new_behaviors": "Task 3",
}


def compare_with(
    ours: float, ours_std: float, published: Sequence[float | None] | None
) -> dict[str, float | None]:
    """The published score (mean and standard deviation, each None where it was not published) and
    the difference of our mean over seeds, also in standard deviations of the difference between two
    runs of one seed each."""
    mean, std = published or (None, None)
    if mean is None or math.isnan(ours):
        names = ("published", "published_std", "difference", "difference_in_std")
        return dict.fromkeys(names)
    difference = ours - mean
    both = math.hypot(ours_std, std or 0.0)
    return {
        "published": mean,
        "published_std": std,
        "difference": difference,
        "difference_in_std": difference / both if both > 0 else None,
    }


def lines_of(
    name: str, result: Mapping[str, Any], published: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Every score of a finished row: two lines for each task (F1, then average precision), then two
    for each of its problems or classes; beside them its entry of published.yaml, which may be
    empty."""
    for task, scores in result["tasks"].items():
        paper = published.get(task, {})
        where = {"row": name, "title": result["title"], "task": task}
        run = {
            "seeds": len(scores["per_seed"]),
            "epochs_share": result.get("epochs_share"),
            "source": published.get("source", ""),
            "folder": result["folder"],
        }
        parts = {"": (scores, paper)}
        kind, papers = ("problems", "problems") if scores["problems"] else ("per_class", "classes")
        parts |= {
            part: (values, paper.get(papers, {}).get(part)) for part, values in scores[kind].items()
        }
        for part, (values, theirs) in parts.items():
            for line in _two_lines(values, theirs or {}):
                yield {**where, "part": part, **line, **run}


def _two_lines(scores: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """F1 and average precision of a task, a problem or a class."""
    metrics = (
        {"macro F1": ("macro_f1", "f1", None), "MAP": ("map", "map", "chance_map")}
        if "macro_f1" in scores
        else {"F1": ("f1", "f1", None), "AP": ("ap", "ap", "prevalence")}
    )
    for metric, (key, paper_key, chance) in metrics.items():
        ours = Score.of(scores, key)
        yield {
            "score": metric,
            "ours": ours.mean,
            "ours_std": ours.std,
            "chance": scores[chance] if chance else None,
            **compare_with(ours.mean, ours.std or 0.0, published.get(paper_key)),
        }


@dataclass(frozen=True, kw_only=True)
class TableNotes:
    """What a reader must know before the scores."""

    data: str
    """What it was run on."""
    left_out: Mapping[str, str]
    """Row to the reason why it was not run."""
    changed: Sequence[str]
    """Settings that are not those published."""


def write_table(
    out: Path, lines: Sequence[Line], notes: TableNotes, *, picture: bool = True
) -> None:
    """Writes ``table.csv`` (every score), ``table.md`` and, with ``picture``, ``table.png`` from
    the :func:`lines_of` all rows."""
    write_csv(out / "table.csv", lines)
    (out / "table.md").write_text(table_text(lines, notes), encoding="utf-8")
    if picture:
        warning = " NOT COMPARABLE with the paper." if "NOT COMPARABLE" in notes.data else ""
        title = f"CalMS21 reproduction, scores on test videos.{warning}"
        (out / "table.png").write_bytes(png(dot_plot(_points(lines), title=title)))


def table_text(lines: Sequence[Line], notes: TableNotes) -> str:
    """The tables for a person, as Markdown: for each score ours, the paper's and the
    difference."""
    seeds = sorted({line["seeds"] for line in lines})
    shares = sorted({line["epochs_share"] for line in lines if line["epochs_share"] is not None})
    text = [f"Data: {notes.data}", f"Seeds: {', '.join(map(str, seeds))}."]
    if any(share != 1.0 for share in shares):
        text.append(
            f"SHORTENED: {', '.join(f'{share:.3g}' for share in shares)} of the published epochs; "
            "scores are not those of whole runs."
        )
    if notes.changed:
        text.append(f"CHANGED from the published settings: {', '.join(notes.changed)}.")
    text.append(
        "F1 and MAP leave out `other`; test frames are pooled; mean ± population standard "
        "deviation over seeds. *s*: the difference in "
        "units of √(s² + s²) of the two standard deviations (of ours alone where the paper's is "
        "not known). Chance: random scores."
    )
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    scores = {  # F1 first, then AP
        (task, row, part): tuple(group)
        for (task, row, part), group in itertools.groupby(
            lines, key=lambda line: (line["task"], line["row"], line["part"])
        )
    }
    for task in tasks:
        rows: list[list[Cell]] = []
        for (of, _, part), (f1, ap) in scores.items():
            if of == task and not part:
                share = None if f1["epochs_share"] is None else f"{f1['epochs_share']:.3g}"
                rows.append([f1["title"], share, *_cells(f1), *_cells(ap), _chance(ap)])
        header = ["", "epochs", "F1", "paper", "s", "MAP", "paper", "s", "chance"]
        text += [f"## {TASK_NAMES.get(task, task)}", markdown(header, rows)]
    for task in tasks:
        rows = [
            [f1["title"], part, *_cells(f1), *_cells(ap), _chance(ap)]
            for (of, _, part), (f1, ap) in scores.items()
            if of == task and part
        ]
        header = ["", "", "F1", "paper", "s", "AP", "paper", "s", "chance"]
        text += [f"## {TASK_NAMES.get(task, task)}, one by one", markdown(header, rows)]
    if notes.left_out:
        reasons = "\n".join(f"- {name}: {why}" for name, why in notes.left_out.items())
        text += ["## Not run", reasons]
    return "\n\n".join(text) + "\n"


def _cells(line: Line) -> list[Cell]:
    distance = line["difference_in_std"]
    return [
        Score(line["ours"], line["ours_std"]),
        _published(line),
        None if distance is None else f"{distance:+.1f}",
    ]


def _chance(line: Line) -> Cell:
    return "-" if line["chance"] is None else float(line["chance"])


def _published(line: Line) -> Score | None:
    return None if line["published"] is None else Score(line["published"], line["published_std"])


def _points(lines: Sequence[Line]) -> list[Point]:
    points = []
    for line in lines:
        if line["part"]:
            continue
        series = {"ours": Score(line["ours"], line["ours_std"]), "published": _published(line)}
        points += [
            Point(
                panel=TASK_NAMES.get(line["task"], str(line["task"])),
                metric=line["score"],
                row=line["title"],
                series=name,
                score=score,
                chance=line["chance"],
            )
            for name, score in series.items()
            if score is not None
        ]
    return points
