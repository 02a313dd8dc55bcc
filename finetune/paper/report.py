"""The table of a reproduction: ours beside the paper's, as Markdown, CSV and a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.report.figures import png

COLUMNS = (
    "row",
    "title",
    "task",
    "part",
    "score",
    "ours",
    "ours_std",
    "chance",
    "published",
    "published_std",
    "difference",
    "difference_in_std",
    "seeds",
    "epochs_share",
    "source",
    "folder",
)
Line = Mapping[str, Any]
"""A figure: ``COLUMNS`` to values."""
SCORES = {"macro F1": ("macro_f1", "f1"), "MAP": ("map", "map")}
TASK_NAMES = {
    "classic_classification": "Task 1",
    "annotation_style_transfer": "Task 2",
    "new_behaviors": "Task 3",
}


def compare_with(
    ours: float, ours_std: float, published: Sequence[float | None] | None
) -> dict[str, float | None]:
    """The published figure and the difference, also in standard deviations of the difference
    between two runs of one seed each.

    Args:
        ours: Mean over seeds.
        ours_std: Population standard deviation over seeds.
        published: Mean and standard deviation, which may not have been published (None, then ours
            stands alone).
    """
    if published is None or published[0] is None or math.isnan(ours):
        return {
            "published": None,
            "published_std": None,
            "difference": None,
            "difference_in_std": None,
        }
    mean, spread = published[0], published[1]
    both = math.hypot(ours_std, spread or 0.0)
    difference = ours - mean
    return {
        "published": mean,
        "published_std": spread,
        "difference": difference,
        "difference_in_std": difference / both if both > 0 else None,
    }


def lines_of(
    name: str, result: Mapping[str, Any], published: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Every figure of a finished row: a line for each task and score, then for its classes or
    problems.

    Args:
        name: Of the row.
        result: Its result.json.
        published: Its entry of published.yaml; empty where there is none.
    """
    for task, held in result["tasks"].items():
        beside = published.get(task, {})
        same = {
            "row": name,
            "title": result["title"],
            "task": task,
            "seeds": len(held["per_seed"]),
            "epochs_share": result.get("epochs_share"),
            "source": published.get("source", ""),
            "folder": result["folder"],
        }
        for score, (mine, theirs) in SCORES.items():
            chance = held["chance_map"] if mine == "map" else None
            yield _line(same, "", score, held, mine, chance, beside.get(theirs))
        for part, found in held["problems"].items():
            for score, (mine, theirs) in SCORES.items():
                chance = found["chance_map"] if mine == "map" else None
                yield _line(
                    same,
                    part,
                    score,
                    found,
                    mine,
                    chance,
                    beside.get("problems", {}).get(part, {}).get(theirs),
                )
        if not held["problems"]:
            for part, found in held["per_class"].items():
                for score, mine in (("F1", "f1"), ("AP", "ap")):
                    chance = found["prevalence"] if mine == "ap" else None
                    yield _line(
                        same,
                        part,
                        score,
                        found,
                        mine,
                        chance,
                        beside.get("classes", {}).get(part, {}).get(mine),
                    )


def _line(
    same: Mapping[str, Any],
    part: str,
    score: str,
    found: Mapping[str, Any],
    key: str,
    chance: float | None,
    published: Any,
) -> dict[str, Any]:
    ours, spread = (
        math.nan if found[name] is None else found[name] for name in (key, f"{key}_std")
    )
    return {
        **same,
        "part": part,
        "score": score,
        "ours": ours,
        "ours_std": spread,
        "chance": chance,
        **compare_with(ours, spread, published),
    }


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a reader must know before the figures."""

    data: str
    """What it was run on."""
    left_out: Mapping[str, str]
    """Row to the reason why it was not run."""
    changed: Sequence[str]
    """Settings that are not those published."""


def write_table(out: Path, lines: Sequence[Line], said: Said, *, picture: bool = True) -> None:
    """Writes ``table.csv`` (every figure), ``table.md`` and, with ``picture``, ``table.png`` from
    the :func:`lines_of` all rows."""
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(
            {
                key: f"{value:.6g}" if isinstance(value, float) else value
                for key, value in line.items()
            }
            for line in lines
        )
    (out / "table.md").write_text(markdown(lines, said), encoding="utf-8")
    if picture:
        (out / "table.png").write_bytes(png(_picture(lines, said)))


def markdown(lines: Sequence[Line], said: Said) -> str:
    """The tables for a person: mean ± population standard deviation over seeds, ours, the paper's,
    the difference."""
    seeds = sorted({line["seeds"] for line in lines})
    shares = sorted({line["epochs_share"] for line in lines if line["epochs_share"] is not None})
    text = [f"Data: {said.data}", "", f"Seeds: {', '.join(map(str, seeds))}.", ""]
    if any(share != 1.0 for share in shares):
        text += [
            f"SHORTENED: {', '.join(f'{share:.3g}' for share in shares)} of the published epochs; "
            "scores are not those of whole runs.",
            "",
        ]
    if said.changed:
        text += [f"CHANGED from the published settings: {', '.join(said.changed)}.", ""]
    text += [
        "F1 and MAP leave out `other`; test frames are pooled; mean ± population standard "
        "deviation over seeds. *s*: the difference in "
        "units of √(s² + s²) of the two standard deviations (of ours alone where the paper's is "
        "not known). Chance: random scores.",
        "",
    ]
    for task in dict.fromkeys(line["task"] for line in lines):
        text += [
            f"## {TASK_NAMES.get(task, task)}",
            "",
            "| | epochs | F1 | paper | s | MAP | paper | s | chance |",
            "|---" * 9 + "|",
        ]
        for row in dict.fromkeys(line["row"] for line in lines if line["task"] == task):
            f1, ap = (
                line
                for line in lines
                if (line["row"], line["task"], line["part"]) == (row, task, "")
            )
            share = "" if f1["epochs_share"] is None else f"{f1['epochs_share']:.3g}"
            text.append(
                f"| {f1['title']} | {share} | {_cells(f1)} | {_cells(ap)} | "
                f"{_number(ap['chance'])} |"
            )
        text.append("")
    for task in dict.fromkeys(line["task"] for line in lines):
        text += [
            f"## {TASK_NAMES.get(task, task)}, one by one",
            "",
            "| | | F1 | paper | s | AP | paper | s | chance |",
            "|---" * 9 + "|",
        ]
        chosen = [line for line in lines if line["task"] == task and line["part"]]
        for row, part in dict.fromkeys((line["row"], line["part"]) for line in chosen):
            f1, ap = (line for line in chosen if (line["row"], line["part"]) == (row, part))
            text.append(
                f"| {f1['title']} | {part} | {_cells(f1)} | {_cells(ap)} | {_number(ap['chance'])} "
                "|"
            )
        text.append("")
    if said.left_out:
        text += ["## Not run", "", *(f"- {name}: {why}" for name, why in said.left_out.items()), ""]
    return "\n".join(text)


def _cells(line: Line) -> str:
    paper = "" if line["published"] is None else _pm(line["published"], line["published_std"])
    distance = "" if line["difference_in_std"] is None else f"{line['difference_in_std']:+.1f}"
    return f"{_pm(line['ours'], line['ours_std'])} | {paper} | {distance}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _pm(value: float, spread: float | None) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _picture(lines: Sequence[Line], said: Said) -> Any:
    from matplotlib.figure import Figure

    main = [line for line in lines if not line["part"]]
    places = list(dict.fromkeys((line["row"], line["task"]) for line in main))
    figure = Figure(figsize=(11, 1.8 + 0.32 * len(places)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {
        (
            line["row"],
            line["task"],
        ): f"{TASK_NAMES.get(line['task'], line['task'])}: {line['title']}"
        for line in main
    }
    for axes, score in zip(panels, SCORES, strict=True):
        chosen = {(line["row"], line["task"]): line for line in main if line["score"] == score}
        for y, key in enumerate(places):
            line = chosen[key]
            axes.errorbar(
                line["ours"],
                y,
                xerr=line["ours_std"],
                fmt="o",
                color="tab:blue",
                capsize=3,
                label="ours" if y == 0 else None,
            )
            if line["published"] is not None:
                axes.errorbar(
                    line["published"],
                    y,
                    xerr=line["published_std"] or 0,
                    fmt="D",
                    color="tab:orange",
                    fillstyle="none",
                    capsize=3,
                )
            if line["chance"] is not None:
                axes.plot(line["chance"], y, "|", color="gray", markersize=10)
        axes.set_xlim(0, 1)
        axes.set_xlabel(score)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(places)), [titles[key] for key in places], fontsize=8)
    panels[0].invert_yaxis()
    warning = " NOT COMPARABLE." if "NOT COMPARABLE" in said.data else ""
    figure.suptitle(f"ours: blue; published: orange; chance: grey bar.{warning}", fontsize=9)
    return figure
