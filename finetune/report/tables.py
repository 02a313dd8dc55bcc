"""Tables of scores as Markdown, plain text, CSV and a picture."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.report.figures import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Score:
    """A mean over seeds with its population standard deviation, ``0.512 ± 0.010``."""

    mean: float
    """NaN where there is none."""
    std: float | None = None

    @classmethod
    def of(cls, scores: Mapping[str, Any], key: str) -> Score:
        """``key`` and ``key_std`` of scores as they stand in ``result.json``."""
        mean, std = scores[key], scores[f"{key}_std"]
        return cls(math.nan if mean is None else mean, std)

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        return f"{self.mean:.3f}" + ("" if self.std is None else f" ± {self.std:.3f}")


Cell = str | float | Score | tuple[Score, ...] | None
"""Text; a number; a score; several scores, joined by a slash; or nothing."""


def f1_and_map(scores: Mapping[str, Any]) -> tuple[Score, Score]:
    """The cell ``macro F1 / MAP`` of scores as they stand in ``result.json``."""
    return Score.of(scores, "macro_f1"), Score.of(scores, "map")


def markdown(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A Markdown table; short rows are filled up with empty cells."""
    lines = [list(header), ["---"] * len(header)]
    for row in rows:
        cells = [cell_text(cell).replace("|", r"\|") for cell in row]
        lines.append(cells + [""] * (len(header) - len(cells)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table for a terminal: the first column flush left, the others flush right."""
    lines = [list(header), *([*map(cell_text, row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def csv_text(text: str) -> str:
    """A name as a cell that no spreadsheet takes for a formula: behind an apostrophe, which label
    readers take off again."""
    return f"'{text}" if re.match(r"'*[=+\-@\t\r]", text) else text


def write_csv(
    path: Path, rows: Iterable[Mapping[str, Any]], header: Sequence[str] | None = None
) -> None:
    """Writes a CSV file with the keys of the rows, the same in all, as its header; numbers in full
    precision, None as an empty cell. Rows may be none where the header is given."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header or list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: csv_text(v) if isinstance(v, str) else v for k, v in row.items()})


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score in a picture."""

    panel: str
    """Title of the panel that it is in: panels lie one below the other."""
    metric: str
    """What the score is, the horizontal axis of its panel: metrics lie side by side."""
    row: str
    series: str
    """Gives colour and marker, and an entry of the legend."""
    score: Score
    chance: float | None = None
    """Score of a random scorer, a grey bar."""


def dot_plot(points: Sequence[Point], *, title: str) -> Figure:
    """Scores as dots with standard deviations as bars: a row of panels a table, a column a metric.

    Args:
        points: In the order in which panels, metrics, rows and series are to appear.
        title: Of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels, metrics, series = (
        list(dict.fromkeys(getattr(point, key) for point in points))
        for key in ("panel", "metric", "series")
    )
    rows: dict[str, dict[str, list[str]]] = {panel: {} for panel in panels}
    for point in points:
        shown = rows[point.panel].setdefault(point.row, [])
        if point.series not in shown:
            shown.append(point.series)
    styles: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
        for n, name in enumerate(series)
    }
    most = max(len(shown) for panel in panels for shown in rows[panel].values())
    inches = [0.4 + len(rows[panel]) * max(0.3, 0.11 * most) for panel in panels]
    figure = Figure(figsize=(11, 1.2 + sum(inches)), layout="constrained")
    grid = figure.subplots(
        len(panels),
        len(metrics),
        squeeze=False,
        sharex="col",
        sharey="row",
        height_ratios=inches,
    )
    for point in points:
        axes = grid[panels.index(point.panel), metrics.index(point.metric)]
        shown = rows[point.panel][point.row]
        y = list(rows[point.panel]).index(point.row)
        # Series of a row lie one below the other.
        offset = (shown.index(point.series) - (len(shown) - 1) / 2) * 0.7 / most
        if point.chance is not None:
            axes.plot(point.chance, y, "|", color="gray", markersize=12)
        axes.errorbar(
            point.score.mean,
            y + offset,
            xerr=point.score.std or 0.0,
            linestyle="none",
            capsize=2,
            markersize=5,
            **styles[point.series],
        )
    for axes, metric in zip(grid[-1], metrics, strict=True):
        axes.set_xlabel(f"{metric} (mean ± standard deviation over seeds)", fontsize=9)
    for line, panel in zip(grid, panels, strict=True):
        line[0].set_title(panel, loc="left", fontsize=10)
        line[0].set_yticks(range(len(rows[panel])), list(rows[panel]), fontsize=8)
        line[0].set_ylim(len(rows[panel]) - 0.5, -0.5)
        for axes in line:
            axes.grid(axis="x", alpha=0.3)
            axes.tick_params(axis="x", labelsize=8)
    handles = [Line2D([], [], linestyle="none", label=name, **styles[name]) for name in series]
    if any(point.chance is not None for point in points):
        handles.append(Line2D([], [], linestyle="none", marker="|", color="gray", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def cell_text(cell: Cell) -> str:
    """A cell as text: three decimals of a number, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        return " / ".join(map(str, cell))
    return str(Score(cell)) if isinstance(cell, float) else str(cell)
