"""Deals the cells of a grid out to Ray and keeps what comes back, a file a cell."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from tqdm import tqdm

from finetune.compare_objectives.cell import Cell, ProbeProtocol, run_cell
from finetune.fit.frames import Frames
from pretrain.config import Scale
from pretrain.data.store import Store
from pretrain.errors import BadInput

log = logging.getLogger(__name__)


def deal(
    cells: Sequence[Cell],
    store: Store,
    poses: Frames,
    judges: ProbeProtocol,
    scale: Scale,
    *,
    out: Path,
    seconds: float,
    finished: Callable[[dict[str, Any]], object],
) -> None:
    """Works through the cells, as many at a time as the scale has trials.

    Args:
        cells: Those whose file is in ``out`` are not computed again; other files there are results
            too.
        store: Where they learn from.
        poses: Frames of the labelled videos; one copy a machine.
        judges: The heads.
        scale: Cells at a time, and their GPUs.
        out: Folder of the grid.
        seconds: Of learning.
        finished: Called with the result of every cell, those that were there included.
    """
    folder = out / "cells"
    folder.mkdir(exist_ok=True)
    for file in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        finished(json.loads(file.read_text(encoding="utf-8")))
    waiting = [cell for cell in cells if not (folder / f"{cell.name}.json").is_file()]
    remote = ray.remote(
        num_cpus=1, num_gpus=scale.gpus_per_trial if scale.gpu else 0, max_retries=scale.retries
    )(run_cell)
    held, heads = ray.put(poses), ray.put(judges)
    running: dict[Any, Cell] = {}
    with tqdm(total=len(waiting), desc="cells", unit="cell") as bar:
        while waiting or running:
            while waiting and len(running) < scale.concurrent_trials:
                cell = waiting.pop(0)
                running[remote.remote(cell, store, held, heads, seconds=seconds)] = cell
            bar.set_postfix_str(
                ", ".join(f"{cell.column} x {cell.row}" for cell in running.values())
            )
            (ready,), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, BadInput):
                    raise error.cause from error
                raise
            making = folder / f"{cell.name}.making"
            making.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            making.replace(folder / f"{cell.name}.json")
            finished(result)
            bar.update()
