"""The table of a grid: encoders down, objectives across, as Markdown, CSV and a picture."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.report.figures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = Mapping[str, Any]
TITLES = {
    "probe": "Linear probe on the frozen encoder",
    "tuned": "Encoder trained along with the head",
    "permuted": "Linear probe, labels rolled in time (chance of the whole road)",
}
COLUMNS = (
    "column",
    "row",
    "mode",
    "macro_f1",
    "macro_f1_std",
    "map",
    "map_std",
    "validation_macro_f1",
    "validation_map",
    "chance_map",
    "parameters",
    "steps",
    "epochs",
    "seconds",
    "loss",
)


def write_table(
    out: Path, found: Sequence[Result], asked: Mapping[str, Any], *, origin: str
) -> None:
    """Writes table.md, table.csv and table.png of the cells there are so far.

    Args:
        out: Folder.
        found: What ``grid_cell.work`` returned, in any order.
        asked: Settings of the grid, for the reader.
        origin: Which data it is.
    """
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(line for result in found for line in _lines(result))
    (out / "table.md").write_text(_markdown(found, asked, origin), encoding="utf-8")
    (out / "table.png").write_bytes(png(_figure(found)))


def _lines(result: Result) -> list[dict[str, Any]]:
    learning = {key: result["learning"].get(key) for key in ("steps", "epochs", "seconds", "loss")}
    same = {
        "column": result["column"],
        "row": result["row"],
        "parameters": result["parameters"],
        **learning,
    }
    return [
        {
            **same,
            "mode": mode,
            **{
                key: sides["test"][key]
                for key in ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map")
            },
            **{f"validation_{key}": sides["validation"][key] for key in ("macro_f1", "map")},
        }
        for mode, sides in result["modes"].items()
    ]


def _markdown(found: Sequence[Result], asked: Mapping[str, Any], origin: str) -> str:
    budget = "all" if asked["videos"] is None else asked["videos"]
    chance = next(iter(found[0]["modes"].values()))["test"]["chance_map"]
    lines = [
        f"Data: {origin}; task {asked['task']}; {budget} labelled videos a seed; {asked['seeds']} "
        "seeds; each pair learned for "
        f"{asked['minutes']:g} minutes of one processor. Macro F1 / MAP on the test videos, mean ± "
        "population standard deviation "
        f"over seeds; chance MAP {chance:.3f}.",
        "",
    ]
    apart = [result for result in found if result["row"] == "-"]
    columns, rows = _axes(found)
    for mode, title in TITLES.items():
        lines += [
            f"**{title}**",
            "",
            "| encoder | " + " | ".join(columns) + " |",
            "|---" * (1 + len(columns)) + "|",
        ]
        for row in rows:
            cells = [_cell(found, column, row, mode) for column in columns]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines += [
            f"| *{result['column']}* | {_pm(result['modes'][mode]['test'])} |"
            + " |" * (len(columns) - 1)
            for result in apart
            if mode in result["modes"]
        ]
        if best := _best(found, mode):
            there, here = (_pm(best["modes"][mode][side]) for side in ("validation", "test"))
            lines += [
                "",
                f"Best on the validation videos: {best['column']} x {best['row']} ({there} there, "
                f"{here} on the test videos).",
            ]
        lines.append("")
    return "\n".join(lines)


def _axes(found: Sequence[Result]) -> tuple[list[str], list[str]]:
    inside = [result for result in found if result["row"] != "-"]
    return list(dict.fromkeys(r["column"] for r in inside)), list(
        dict.fromkeys(r["row"] for r in inside)
    )


def _one(found: Sequence[Result], column: str, row: str, mode: str) -> Mapping[str, Any] | None:
    held = next((r for r in found if (r["column"], r["row"]) == (column, row)), None)
    return None if held is None or mode not in held["modes"] else held["modes"][mode]["test"]


def _cell(found: Sequence[Result], column: str, row: str, mode: str) -> str:
    held = _one(found, column, row, mode)
    return "" if held is None else _pm(held)


def _pm(held: Mapping[str, Any]) -> str:
    return (
        f"{held['macro_f1']:.3f} ± {held['macro_f1_std']:.3f} / {held['map']:.3f} ± "
        f"{held['map_std']:.3f}"
    )


def _best(found: Sequence[Result], mode: str) -> Result | None:
    """By the mean of macro F1 and MAP on validation; not for permuted labels, where nothing is
    better."""
    inside = [result for result in found if mode in result["modes"] and mode != "permuted"]
    return max(
        inside,
        key=lambda r: sum(r["modes"][mode]["validation"][key] for key in ("macro_f1", "map")),
        default=None,
    )


def _figure(found: Sequence[Result]) -> Figure:
    """MAP on test as numbers on colours, a panel a mode; colours are centred on hand-made features
    where they are there."""
    from matplotlib.figure import Figure

    columns, rows = _axes(found)
    figure = Figure(
        figsize=(3 + 1.1 * len(columns) * 2, 1.6 + 0.42 * max(1, len(rows))), layout="constrained"
    )
    by_hand = next((r["modes"]["probe"]["test"]["map"] for r in found if r["row"] == "-"), None)
    for place, mode in enumerate(("probe", "tuned")):
        axes = figure.add_subplot(1, 2, place + 1)
        grid = np.full((len(rows), len(columns)), np.nan)
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            held = _one(found, column, row, mode)
            grid[i, j] = np.nan if held is None else held["map"]
            if held is not None:
                axes.text(j, i, f"{held['map']:.3f}", ha="center", va="center", fontsize=8)
        known = grid[np.isfinite(grid)]
        middle = (
            by_hand if by_hand is not None else (float(np.median(known)) if len(known) else 0.0)
        )
        reach = max(0.01, float(np.abs(known - middle).max())) if len(known) else 0.01
        axes.imshow(
            grid, cmap="RdBu", vmin=middle - reach, vmax=middle + reach, aspect="auto", alpha=0.7
        )
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.set_title(f"{TITLES[mode]}: MAP", fontsize=9)
    if by_hand is not None:
        figure.suptitle(
            f"white: {by_hand:.3f}, a linear head on hand-made features; blue: better", fontsize=9
        )
    return figure
