"""Runs the cells of a comparison with Ray and keeps their results, a file for each cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.compare_objectives.cell import Cell, ProbeProtocol, run_cell
from finetune.fit.frames import Frames
from finetune.search.ray_jobs import run_jobs
from pretrain.config import Scale
from pretrain.data.store import Store
from pretrain.redact import write_json


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    poses: Frames,
    protocol: ProbeProtocol,
    scale: Scale,
    *,
    out: Path,
    seconds: float,
    on_result: Callable[[dict[str, Any]], object],
) -> None:
    """Runs those cells that have no file in the folder ``out`` yet, each pretrained for so many
    seconds; ``on_result`` gets the result of every cell in ``out``, also of cells of earlier
    comparisons.

    Raises:
        BadInput: If a cell does not fit the data.
    """
    folder = out / "cells"
    folder.mkdir(exist_ok=True)
    for file in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        on_result(json.loads(file.read_text(encoding="utf-8")))
    for cell, result in run_jobs(
        run_cell,
        [cell for cell in cells if not (folder / f"{cell.name}.json").is_file()],
        lambda cell: {"cell": cell},
        shared={"store": store, "poses": poses, "protocol": protocol, "seconds": seconds},
        scale=scale,
        description="cells",
        unit="cell",
        name=lambda cell: f"{cell.column} x {cell.row}",
    ):
        partial = folder / f"{cell.name}.partial"
        write_json(partial, result)
        partial.replace(folder / f"{cell.name}.json")
        on_result(result)
