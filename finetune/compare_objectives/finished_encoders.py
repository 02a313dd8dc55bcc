"""Finished encoders: each is tuned as ``ethoray finetune`` does it, on every task and label
budget."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import finetune.run
from finetune.compare_objectives.cell import HAND_MADE, RANDOM_WEIGHTS
from finetune.fit.open_encoder import HANDMADE, RANDOM, seen_in_words
from finetune.report.figures import png
from finetune.report.tables import Cell, Point, Score, dot_plot, f1_and_map, markdown, write_csv
from pretrain.cluster.join import cluster
from pretrain.config import Scale
from pretrain.errors import BadInput
from pretrain.runs import paths
from pretrain.runs.folder import is_whole

log = logging.getLogger(__name__)

SCORES = ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map")


def compare_encoders(
    encoders: Sequence[str],
    *,
    tasks: Sequence[str],
    budgets: Sequence[str],
    settings: Mapping[str, Sequence[str]],
    words: Sequence[str],
    scale: Scale,
    out: Path,
) -> None:
    """Tunes every encoder; writes the table after each.

    Args:
        encoders: Pretraining runs or encoder folders, ``none``, ``handmade``.
        tasks: Label sets.
        budgets: Labelled videos, ``3`` or ``all``.
        settings: Mode (frozen, trained, permuted) to ``KEY=VALUE`` for ``ethoray finetune --set``.
        words: Further words of its command line.
        scale: Where the runs compute.
        out: Gets the table and the folder of every run; one that is whole is not computed again.
    """
    names = _short_names(encoders)
    rows = []
    with cluster(scale, cpus_wanted=1, gpus_wanted=scale.gpus_per_trial if scale.gpu else 0):
        for task, videos, encoder, mode in itertools.product(tasks, budgets, names, settings):
            if encoder == HANDMADE and mode == "trained":
                continue
            folder = out / f"{task}-{videos}-{names[encoder]}-{mode}"
            if not is_whole(folder):
                log.info("\n== %s, %s labelled videos, %s, %s", task, videos, names[encoder], mode)
                changes = [word for pair in settings[mode] for word in ("--set", pair)]
                _tune(encoder, task, videos, [*words, *changes], folder)
            result = _read(folder, encoder)
            kinds = {RANDOM: RANDOM_WEIGHTS, HANDMADE: HAND_MADE}
            untrained = 0.0 if encoder in kinds else None
            rows.append(
                {
                    "task": task,
                    "videos": videos,
                    "encoder": kinds.get(encoder, names[encoder]),
                    "mode": mode,
                    **{key: result[key] for key in SCORES},
                    "encoder_saw_test": result.get("encoder_saw_test", untrained),
                    "folder": folder.name,
                }
            )
            write_table(out, rows)


def _short_names(encoders: Sequence[str]) -> dict[str, str]:
    """Encoder to as much of the end of its path as tells it from the others."""
    parts = {encoder: [part.strip("/:") for part in Path(encoder).parts] for encoder in encoders}
    names: dict[str, str] = {}
    for length in range(1, max(map(len, parts.values())) + 1):
        names = {encoder: "-".join(part[-length:]) for encoder, part in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _tune(encoder: str, task: str, videos: str, words: Sequence[str], folder: Path) -> None:
    words = ["--encoder", encoder, "--task", task, "--out", str(folder), *words]
    words += ["--videos", videos] if videos != "all" else []
    words += ["--resume"] if (folder / "run.json").is_file() else []
    finetune.run.main(words)


def _read(folder: Path, encoder: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    address = result["encoder"].get("folder", encoder)
    if encoder not in (RANDOM, HANDMADE) and address != paths.absolute_address(encoder):
        raise BadInput(f"{folder} holds the encoder {address}, not {encoder}: choose another --out")
    return result


def write_table(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``table.csv`` (a line for each row: task, videos, encoder, mode, the scores, folder of
    the run), ``table.md`` and ``table.png``: encoders down, tasks and label budgets across."""
    write_csv(out / "table.csv", rows)
    budgets = {
        (row["task"], row["videos"]): f"{row['task']}, {row['videos']} "
        + ("video" if row["videos"] == "1" else "videos")
        for row in rows
    }
    cells: dict[tuple[str, str], dict[tuple[str, str], Cell]] = {}
    chance: dict[tuple[str, str], Cell] = {}
    for row in rows:
        budget = row["task"], row["videos"]
        cells.setdefault((row["encoder"], row["mode"]), {})[budget] = f1_and_map(row)
        chance[budget] = Score(math.nan), Score(row["chance_map"])
    lines = [
        [*name, *(by_budget.get(budget) for budget in budgets)]
        for name, by_budget in [*cells.items(), (("chance", ""), chance)]
    ]
    table = markdown(["encoder", "", *budgets.values()], lines)
    sentences = {
        f"{row['encoder']}, {row['task']}: {sentence}"
        for row in rows
        if (sentence := seen_in_words(row["encoder_saw_test"]))
    }
    text = "\n\n".join([table, *sorted(sentences)])
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    points = [
        Point(
            panel=budgets[row["task"], row["videos"]],
            metric=metric,
            row=row["encoder"],
            series=row["mode"],
            score=Score.of(row, key),
            chance=row["chance_map"] if key == "map" else None,
        )
        for row in rows
        for metric, key in (("macro F1", "macro_f1"), ("MAP", "map"))
    ]
    title = "Encoders on few labels: scores on test videos"
    (out / "table.png").write_bytes(png(dot_plot(points, title=title)))
