"""Runs the pieces of a reproduction with Ray and keeps their results."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from tqdm import tqdm

from finetune.paper.pieces import Piece, PieceResult, ResolvedRow, read_frames, run_piece
from finetune.paper.row_folder import RowFolder
from finetune.search.ray_jobs import run_jobs
from pretrain.config import Scale, plain
from pretrain.data.store import Store
from pretrain.errors import refuse

log = logging.getLogger(__name__)


def run_rows(
    rows: Mapping[str, ResolvedRow],
    store: Store,
    scale: Scale,
    *,
    out: Path,
    seeds: Sequence[int],
    moments_from: Sequence[str],
    on_result: Callable[[dict[str, Any]], object],
) -> None:
    """Runs the pieces that have no file in the folder ``out`` yet, as many at a time as the scale
    has trials. A row that starts from another comes after it. ``on_result`` gets the result of
    every row, those that were in ``out`` included.

    Raises:
        BadInput: If a piece does not fit the data, or weights to start from are gone.
    """
    folders = {name: RowFolder(out, name) for name in rows}
    changed = [
        f"{folder.path} was made with other settings of the row: remove it, or choose another --out"
        for name, folder in folders.items()
        if folder.result
        and folder.result["row_settings"] != json.loads(json.dumps(plain(rows[name].row)))
    ]
    refuse(changed, about=str(out))

    def finish(name: str) -> None:
        about = {
            "epochs_share": rows[name].epochs_share,
            "row_settings": plain(rows[name].row),
            "data": store.address,
            "fingerprint": store.fingerprint,
        }
        if row_result := folders[name].finish(rows[name], seeds, about):
            on_result(row_result)

    for name, folder in folders.items():
        if row_result := folder.result:
            log.info("%s is there already", name)
            on_result(row_result)
        else:
            finish(name)
    pieces = [
        piece
        for name, row in rows.items()
        if not folders[name].result
        for seed in seeds
        for part in range(row.parts)
        if not folders[name].has(piece := Piece(name, seed, part), row.tasks)
    ]
    remaining = set(pieces)

    def start_of(piece: Piece) -> Piece | None:
        start = rows[piece.row].row.start
        return Piece(start, piece.seed, 0) if start else None

    gone = {
        f"{piece.row} starts from {start.row}: remove {folders[start.row].path}"
        for piece in pieces
        if (start := start_of(piece))
        and start not in remaining
        and folders[start.row].weights(start.seed) is None
    }
    refuse(sorted(gone), about="weights that rows start from are gone")

    def start_weights(piece: Piece) -> Any:
        start = start_of(piece)
        return folders[start.row].weights(start.seed) if start else None

    shared_rows = {name: ray.put(row) for name, row in rows.items()}
    frames = _SharedFrames(rows, store, moments_from)
    counter = ray.remote(num_cpus=0)(_Counter).remote()
    steps = sum(rows[piece.row].steps(piece.part, frames.frames_in) for piece in pieces)
    about = f"{len(pieces)} networks to train, about {steps:,} steps (labelling counted)"
    log.info("%s, %d at a time", about, scale.concurrent_trials)
    for piece, result in run_jobs(
        _run_piece,
        pieces,
        lambda piece: {
            "row": shared_rows[piece.row],
            "piece": piece,
            "frames": frames.put(piece.row),
            "start": start_weights(piece),
            "counter": counter,
        },
        shared={},
        scale=scale,
        description="training",
        unit="step",
        name=lambda piece: piece.row,
        ready=lambda piece: start_of(piece) not in remaining,
        steps=steps,
        steps_so_far=lambda: int(ray.get(counter.count.remote())),
    ):
        folders[piece.row].keep(piece, result)
        finish(piece.row)
        remaining.discard(piece)
        frames.drop_all_but({piece.row for piece in remaining})


def _run_piece(
    row: ResolvedRow, piece: Piece, frames: Any, start: Any, counter: Any
) -> PieceResult:
    """In a process of its own; reports its steps once a second."""
    unsent, last = 0.0, time.monotonic()

    def on_progress(steps: float) -> None:
        nonlocal unsent, last
        unsent += steps
        if time.monotonic() - last > 1.0:
            counter.add.remote(unsent)
            unsent, last = 0.0, time.monotonic()

    result = run_piece(row, piece, frames, start, on_progress)
    counter.add.remote(unsent)
    return result


class _Counter:
    """Steps of all processes together."""

    def __init__(self) -> None:
        self._steps = 0.0

    def add(self, steps: float) -> None:
        self._steps += steps

    def count(self) -> int:
        return round(self._steps)


class _SharedFrames:
    """Frames of the rows that are being run, once a machine; rows that read the same share them."""

    def __init__(
        self, rows: Mapping[str, ResolvedRow], store: Store, moments_from: Sequence[str]
    ) -> None:
        self._rows, self._store, self._moments_from = rows, store, moments_from
        self._references: dict[tuple[Any, ...], Any] = {}

    def frames_in(self, video: str) -> int:
        return int(self._store.videos[self._store.video_index(video)]["frames"])

    def _key(self, name: str) -> tuple[Any, ...]:
        row = self._rows[name].row
        return (*row.tasks, row.features, row.joint, row.transductive)

    def put(self, name: str) -> Any:
        key = self._key(name)
        if key not in self._references:
            with tqdm(desc=f"reading {name}", unit="frame", unit_scale=True) as bar:
                frames = read_frames(
                    self._rows[name],
                    self._store,
                    moments_from=self._moments_from,
                    on_progress=bar.update,
                )
            self._references[key] = ray.put(frames)
        return self._references[key]

    def drop_all_but(self, names: Iterable[str]) -> None:
        keys = {self._key(name) for name in names}
        self._references = {key: ref for key, ref in self._references.items() if key in keys}
