"""``scores.txt``: what a run says of its scores in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from finetune.metrics.frame_metrics import SeedScores
from finetune.postprocess.learn import NO_STEPS
from finetune.report.tables import Cell, Score, plain_text


def scores_text(scores: SeedScores, result: Mapping[str, Any]) -> str:
    """The table of classes, below it what :func:`extended_lines` says, and the notes that tell how
    to read the numbers."""
    notes = [f"note: {note}" for note in result.get("notes") or ()]
    return "\n".join([class_table(scores), *extended_lines(result), *notes]) + "\n"


def class_table(scores: SeedScores) -> str:
    """F1 and average precision of each class, and their means; the chance level next to them."""
    rows: list[list[Cell]] = [
        [
            name,
            Score.of(values, "f1"),
            Score.of(values, "ap"),
            values["prevalence"],
            f"{values['frames']:,.0f}",
        ]
        for name, values in scores.per_class.items()
    ]
    f1, mean_ap = (
        Score(scores.macro_f1, scores.macro_f1_std),
        Score(scores.map, scores.map_std),
    )
    rows.append(["macro F1 / MAP", f1, mean_ap, scores.chance_map, None])
    return plain_text(["", "F1", "AP", "chance AP", "frames"], rows)


def extended_lines(result: Mapping[str, Any]) -> list[str]:
    """Bouts, calibration, postprocessing and annotators, a line each; none where nothing is
    known."""
    lines = []
    after = result.get("after") or {}
    raw, smoothed = result.get("bouts") or {}, after.get("bouts") or {}
    for title, bouts in (
        ("bouts", raw),
        ("bouts after postprocessing", smoothed if smoothed != raw else {}),
    ):
        if f1 := bouts.get("macro_f1"):
            overlaps = ", ".join(
                f"{_number(value)} at overlap {overlap}" for overlap, value in f1.items()
            )
            onset = _number(bouts.get("onset_mean_abs_frames"), digits=1)
            lines.append(f"{title}: F1 {overlaps}; onset off by {onset} frames")
    if (error := result.get("calibration_error")) is not None:
        line = f"calibration error {_number(error)}"
        if (calibrated := after.get("calibration_error")) not in (None, error):
            line += f"; after calibration {_number(calibrated)}"
        lines.append(line)
    if after:
        lines.append(_postprocessing_line(after))
    annotators = result.get("annotators") or {}
    if annotators.get("pairs"):
        lines.append(
            f"annotators among each other: macro F1 {_number(annotators['macro_f1'])}, kappa "
            f"{_number(annotators['kappa'])}; "
            f"the model with each: {_number(annotators['ours_macro_f1'])}, "
            f"{_number(annotators['ours_kappa'])}"
        )
    return lines


def _postprocessing_line(after: Mapping[str, Any]) -> str:
    """What is done after the network, and what it comes to."""
    learned = [one for problems in after["learned"].values() for one in problems.values()]
    names = Counter(one["name"] for one in learned)
    if set(names) == {NO_STEPS}:
        return (
            "postprocessing: none, for none helped on held-out training videos, or there were too "
            "few to judge"
        )
    total = names.total()
    chosen = "; ".join(
        name if number == total else f"{name} ({number} of {total})"
        for name, number in names.most_common()
    )
    scores = f"macro F1 {Score.of(after, 'macro_f1')}"
    if after.get("map") is not None:
        scores += f", MAP {Score.of(after, 'map')}"
    judged = (
        "chosen on held-out training videos"
        if any(one["scores"] for one in learned)
        else ("not judged")
    )
    return f"after postprocessing ({judged}: {chosen}): {scores}"


def _number(value: float | None, *, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
