"""Deals the pieces of a reproduction out to Ray and gathers what comes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from tqdm import tqdm

from finetune.paper.rows import RowFolder
from finetune.paper.work import Piece, PieceResult, Work, do, gather
from pretrain.config import Scale, plain
from pretrain.data.store import Store
from pretrain.errors import BadInput

log = logging.getLogger(__name__)


def deal(
    works: Mapping[str, Work],
    store: Store,
    scale: Scale,
    *,
    out: Path,
    seeds: Sequence[int],
    moments_of: Sequence[str],
    finished: Callable[[dict[str, Any]], object],
) -> None:
    """Deals out what is not done yet, as many pieces at a time as the scale has trials, and puts
    down what comes back.

    Args:
        works: Rows by name; a row that starts from another stands behind it.
        store: Of the frames.
        scale: Pieces at a time, and their GPUs.
        out: Folder of the reproduction; what is there is not done again.
        seeds: Of every row.
        moments_of: Videos whose mean and spread standardise features from elsewhere.
        finished: Called with the result of every row, those that were there included.

    Raises:
        BadInput: If a piece does not fit the data.
    """
    folders = {name: RowFolder(out, name) for name in works}
    labelled = {
        name: list(dict.fromkeys(p.task for p in work.problems)) for name, work in works.items()
    }
    for name in works:
        if result := folders[name].result:
            log.info("%s is there already", name)
            finished(result)
    done_before = {name for name in works if folders[name].result}
    waiting = [
        piece
        for name, work in works.items()
        if name not in done_before
        for seed in seeds
        for part in range(work.parts)
        if not folders[name].has(piece := Piece(name, seed, part), labelled[name])
    ]
    counter = ray.remote(num_cpus=0)(_Counter).remote()
    remote = ray.remote(
        num_cpus=1, num_gpus=scale.gpus_per_trial if scale.gpu else 0, max_retries=1
    )(_piece)
    frames, held = (
        _Frames(works, store, moments_of),
        {name: ray.put(work) for name, work in works.items()},
    )
    steps = sum(works[piece.row].steps(piece.part, frames.of) for piece in waiting)
    log.info(
        "%d networks to train, about %s steps (labelling counted), %d at a time",
        len(waiting),
        f"{steps:,}",
        scale.concurrent_trials,
    )
    running: dict[Any, Piece] = {}

    def finish(name: str) -> None:
        whole = [folders[name].finish_seed(works[name], labelled[name], seed) for seed in seeds]
        about = {
            "epochs_share": works[name].epochs_share,
            "row_settings": plain(works[name].row),
            "data": store.uri,
            "fingerprint": store.fingerprint,
        }
        if all(whole) and (
            result := folders[name].finish(works[name], labelled[name], seeds, about)
        ):
            finished(result)

    for name in works:
        if name not in done_before:
            finish(name)
    with tqdm(total=steps, desc="training", unit="step", unit_scale=True) as bar:
        while waiting or running:
            frames.drop_all_but({piece.row for piece in (*waiting, *running.values())})
            while len(running) < scale.concurrent_trials:
                ready = next((piece for piece in waiting if _ready(piece, works, folders)), None)
                if ready is None:
                    break
                waiting.remove(ready)
                start = works[ready.row].row.start
                weights = folders[start].weights(ready.seed) if start else None
                running[
                    remote.remote(held[ready.row], ready, frames.put(ready.row), weights, counter)
                ] = ready
            if not running:
                row = waiting[0].row
                raise BadInput(
                    f"{row} starts from {works[row].row.start}, whose weights are gone: remove "
                    f"{out}/rows/{works[row].row.start}"
                )
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            bar.update(min(ray.get(counter.count.remote()), steps) - bar.n)
            bar.set_postfix_str(
                ", ".join(dict.fromkeys(piece.row for piece in running.values())), refresh=False
            )
            for reference in done:
                piece = running.pop(reference)
                folders[piece.row].keep(piece, _got(reference))
                finish(piece.row)


def _got(reference: Any) -> PieceResult:
    try:
        done: PieceResult = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, BadInput):
            raise error.cause from error
        raise
    return done


def _ready(piece: Piece, works: Mapping[str, Work], folders: Mapping[str, RowFolder]) -> bool:
    start = works[piece.row].row.start
    return not start or folders[start].weights(piece.seed) is not None


def _piece(work: Work, piece: Piece, frames: Any, start: Any, counter: Any) -> PieceResult:
    """In a process of its own."""
    waiting, last = 0.0, time.monotonic()

    def on_progress(steps: float) -> None:
        nonlocal waiting, last
        waiting += steps
        if time.monotonic() - last > 1.0:
            counter.add.remote(waiting)
            waiting, last = 0.0, time.monotonic()

    done = do(work, piece, frames, start, on_progress)
    counter.add.remote(waiting)
    return done


class _Counter:
    """Steps of all processes together."""

    def __init__(self) -> None:
        self._steps = 0.0

    def add(self, steps: float) -> None:
        self._steps += steps

    def count(self) -> int:
        return round(self._steps)


class _Frames:
    """Frames of the rows that are at work, once a machine; rows that read the same share them."""

    def __init__(self, works: Mapping[str, Work], store: Store, moments_of: Sequence[str]) -> None:
        self._works, self._store, self._moments_of = works, store, moments_of
        self._held: dict[tuple[Any, ...], Any] = {}

    def of(self, video: str) -> int:
        return int(self._store.videos[self._store.video_index(video)]["frames"])

    def _key(self, name: str) -> tuple[Any, ...]:
        row = self._works[name].row
        return (*row.tasks, row.features, row.joint, row.transductive)

    def put(self, name: str) -> Any:
        key = self._key(name)
        if key not in self._held:
            with tqdm(desc=f"reading {name}", unit="frame", unit_scale=True) as bar:
                self._held[key] = ray.put(
                    gather(
                        self._works[name],
                        self._store,
                        moments_of=self._moments_of,
                        on_progress=bar.update,
                    )
                )
        return self._held[key]

    def drop_all_but(self, names: set[str]) -> None:
        wanted = {self._key(name) for name in names}
        self._held = {key: held for key, held in self._held.items() if key in wanted}
