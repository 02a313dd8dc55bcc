"""Tables of scores: Markdown, plain text, CSV, the picture."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from finetune.report.figures import png
from finetune.report.tables import (
    Point,
    Score,
    dot_plot,
    f1_and_map,
    markdown,
    plain_text,
    write_csv,
)

HIGH, LOW, NONE = Score(0.9, 0.0125), Score(0.1, 0.002), Score(math.nan)


def test_a_score_is_a_mean_with_its_deviation_or_a_dash() -> None:
    assert [str(score) for score in (HIGH, Score(0.5), NONE)] == ["0.900 ± 0.013", "0.500", "-"]
    result = {"macro_f1": 0.25, "macro_f1_std": 0.01, "map": None, "map_std": None}
    assert [str(score) for score in f1_and_map(result)] == ["0.250 ± 0.010", "-"]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = markdown(["encoder", "S1", "S2"], [["a|b", (HIGH, LOW), 0.25], ["c", None]]).split("\n")
    assert lines == [
        "| encoder | S1 | S2 |",
        "| --- | --- | --- |",
        r"| a\|b | 0.900 ± 0.013 / 0.100 ± 0.002 | 0.250 |",
        "| c |  |  |",
    ]


def test_plain_text_is_aligned() -> None:
    first, second, third = plain_text(["", "F1"], [["attack", HIGH], ["mount", NONE]]).split("\n")
    assert second == "attack  0.900 ± 0.013"
    assert third == "mount               -"
    assert first.endswith("F1")
    assert len(first) == len(second) == len(third)


def test_numbers_in_a_csv_file_keep_their_precision(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"a": 1 / 3, "b": None}])
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["a"]) == 1 / 3
    assert row["b"] == ""


def test_a_picture_has_a_panel_a_table_and_metric_and_a_colour_and_marker_a_series() -> None:
    points = [
        Point(panel=panel, metric=metric, row=row, series=series, score=score, chance=0.2)
        for panel in ("S1", "S2")
        for metric in ("macro F1", "MAP")
        for row in ("tcn", "conv1d")
        for series, score in (("frozen", LOW), ("trained", HIGH))
    ]
    figure = dot_plot(points, title="encoders")
    assert len(figure.axes) == 4
    assert [axes.get_xlabel()[:3] for axes in figure.axes] == ["", "", "mac", "MAP"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["tcn", "conv1d"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["frozen", "trained", "chance"]
    frozen, trained = legend.legend_handles[:2]
    assert frozen.get_color() != trained.get_color()
    assert frozen.get_marker() != trained.get_marker()
    drawn = [line for line in figure.axes[0].lines if line.get_marker() == trained.get_marker()]
    assert [line.get_xdata()[0] for line in drawn] == [0.9, 0.9]
    assert png(figure).startswith(b"\x89PNG")
