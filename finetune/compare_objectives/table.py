"""The table of recipes and networks: networks down, recipes across."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.report.figures import png
from finetune.report.tables import Cell, Point, Score, dot_plot, f1_and_map, markdown, write_csv

Result = Mapping[str, Any]
"""What :func:`finetune.compare_objectives.cell.run_cell` returned."""
TITLES = {
    "probe": "Linear probe on the frozen encoder",
    "tuned": "Encoder trained along with the head",
    "permuted": "Linear probe, labels rolled in time (what is scored when labels mean nothing)",
}
SCORES = ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map")
LEARNING = ("steps", "epochs", "seconds", "loss")


def write_table(
    out: Path, results: Sequence[Result], settings: Mapping[str, Any], *, origin: str
) -> None:
    """Writes table.md, table.csv and table.png of the cells there are so far, in any order.
    ``settings`` are the comparison's: task, videos, seeds, minutes; ``origin`` says which data it
    is."""
    write_csv(out / "table.csv", (row for one in results for row in _csv_rows(one)))
    (out / "table.md").write_text(_text(results, settings, origin), encoding="utf-8")
    title = f"{origin}, {settings['task']}, {_budget(settings)}: scores on test videos"
    (out / "table.png").write_bytes(png(dot_plot(list(_points(results)), title=title)))


def _csv_rows(result: Result) -> Iterator[dict[str, Any]]:
    for mode, scores in result["modes"].items():
        validation = scores["validation"]
        yield {
            "column": result["column"],
            "row": result["row"],
            "mode": mode,
            **{key: scores["test"][key] for key in SCORES},
            **{f"validation_{key}": validation[key] for key in ("macro_f1", "map")},
            "parameters": result["parameters"],
            **{key: result["learning"].get(key) for key in LEARNING},
        }


def _budget(settings: Mapping[str, Any]) -> str:
    number = "all" if settings["videos"] is None else settings["videos"]
    return f"{number} labelled videos a seed"


def _text(results: Sequence[Result], settings: Mapping[str, Any], origin: str) -> str:
    chance = results[0]["modes"]["probe"]["test"]["chance_map"]
    text = [
        f"Data: {origin}; task {settings['task']}; {_budget(settings)}; {settings['seeds']} "
        f"seeds; each pair learned for {settings['minutes']:g} minutes of one processor. "
        "Macro F1 / MAP on the test videos, mean ± population standard deviation over seeds; "
        f"chance MAP {Score(math.nan if chance is None else chance)}. Transductive: pairs learned "
        "from the poses (not the labels) of all videos, test videos included."
    ]
    scores = {(one["column"], one["row"]): one["modes"] for one in results}
    columns, rows = (
        list(dict.fromkeys(one[axis] for one in results if one["row"] != "-"))
        for axis in ("column", "row")
    )

    def cell(column: str, row: str, mode: str) -> Cell:
        modes = scores.get((column, row), {})
        return f1_and_map(modes[mode]["test"]) if mode in modes else None

    for mode, title in TITLES.items():
        lines = [[row, *(cell(column, row, mode) for column in columns)] for row in rows]
        lines += [
            [f"*{column}*", cell(column, row, mode)]
            for column, row in scores
            if row == "-" and mode in scores[column, row]
        ]
        text += [f"**{title}**", markdown(["encoder", *columns], lines)]
        if best := _best(results, mode):
            validation, test = (
                " / ".join(map(str, f1_and_map(best["modes"][mode][side])))
                for side in ("validation", "test")
            )
            text.append(
                f"Best on the validation videos: {best['column']} x {best['row']} "
                f"({validation} there, {test} on the test videos)."
            )
    return "\n\n".join(text) + "\n"


def _best(results: Sequence[Result], mode: str) -> Result | None:
    """By the mean of macro F1 and MAP on validation; None of permuted labels, where nothing is
    better."""
    return max(
        (one for one in results if mode in one["modes"] and mode != "permuted"),
        key=lambda one: sum(
            one["modes"][mode]["validation"][key] or 0.0 for key in ("macro_f1", "map")
        ),
        default=None,
    )


def _points(results: Sequence[Result]) -> Iterator[Point]:
    """Probe and tuned encoders; hand-made features as the last row."""
    in_order = sorted(results, key=lambda one: one["row"] == "-")
    for mode in ("probe", "tuned"):
        for one in in_order:
            if mode not in one["modes"]:
                continue
            test = one["modes"][mode]["test"]
            for metric, key, chance in (
                ("macro F1", "macro_f1", None),
                ("MAP", "map", test["chance_map"]),
            ):
                yield Point(
                    panel=TITLES[mode],
                    metric=metric,
                    row=one["column"] if one["row"] == "-" else one["row"],
                    series=one["column"],
                    score=Score.of(test, key),
                    chance=chance,
                )
