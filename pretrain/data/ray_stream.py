"""Ray Data to windows: this worker's share of a store, streamed in the order it is needed, kept in
memory where it fits.

Each read task of Ray Data reads the row groups that a worker needs next and returns them as one
block of raw bytes; the worker cuts the windows. What the first step of an epoch needs, a row group
a lane, it reads itself: Ray Data starts while the steps after it, which need little more, are
trained. Blocks arrive in the order asked for, so a run repeats itself exactly, kept or streamed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.data
import torch

from pretrain.data.ray_datasource import READ_BYTES, RESIDENT_READ_BYTES, GroupSource, Read
from pretrain.data.store import Chunks, Store
from pretrain.data.windows import BatchPlan, FrameBuffer, Ints, Windows, chunk_offset, group_frames

log = logging.getLogger(__name__)

_READERS = 2
"""Read tasks of a worker at a time."""
_Group = tuple[int, list[npt.NDArray[Any]]]  # its key, and its frames


class FrameStream:
    """A worker's share of the frames of a store, window by window.

    Args:
        plan: Which windows its batches are made of.
        device: Where windows are cut.
        resident_bytes: The share is kept after the first pass if it needs no more than this.
        features: External features to read with the poses.
    """

    def __init__(
        self,
        store: Store,
        plan: BatchPlan,
        *,
        rank: int = 0,
        workers: int = 1,
        device: torch.device | str = "cpu",
        resident_bytes: float = 4e9,
        features: Sequence[str] = (),
    ) -> None:
        self._store, self._plan, self._features = store, plan, tuple(features)
        self._lanes = plan.lanes_of(rank, workers)
        self._frames = group_frames(store.chunks)
        self._chunk_offset = chunk_offset(store.chunks)
        groups = np.unique(plan.tiles(plan.windows_of(self._lanes)).group)
        self.bytes = int(self._frames[groups].sum()) * store.frame_bytes(features)
        free = _free_bytes(torch.device(device))
        self.resident = self.bytes <= min(resident_bytes, free)
        if free < self.bytes <= resident_bytes:
            log.warning(
                "the frames of a worker need %.1f GB, the GPU has room for %.1f: they stream",
                self.bytes / 1e9,
                free / 1e9,
            )
        # Where in the buffer the frames of each key begin that is there.
        self._begin: dict[int, int] = {}
        if self.resident:
            capacity, slot = int(self._frames[groups].sum()), None
        else:  # the next row group of a lane may arrive before the last is dropped
            slot = int(self._frames.max())
            capacity = slot * (self._lanes.stop - self._lanes.start + 1)
        extra = sum(store.feature(name)["dim"] for name in features)
        self._buffer = FrameBuffer(
            capacity, store.schema.shape, window=plan.window, slot=slot, extra=extra, device=device
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Windows]:
        """This worker's rows of every step of an epoch, from ``first_step`` on."""
        grid = self._plan.epoch(epoch, self._lanes)[first_step:]
        window, empty = np.maximum(grid, 0), grid < 0
        tiles = self._plan.tiles(window)
        # A key is a row group in memory; while streaming, one for each lane that needs it.
        groups = len(self._frames)
        key = tiles.group if self.resident else tiles.lane * groups + tiles.group
        uses = _uses(grid, key)
        missing = np.flatnonzero([one not in self._begin for one in uses.key.tolist()])
        # key, row group
        needed = [(one, one % groups) for one in uses.key[missing].tolist()]
        # How many of them must have arrived by each step.
        arrived_by = np.searchsorted(uses.first[missing], np.arange(len(grid)), side="right")
        for_first_step = int(arrived_by[0]) if len(grid) else 0
        incoming = self._read(needed[:for_first_step])
        by_last_use = np.argsort(uses.last, kind="stable")
        arrived = dropped = 0
        offset = self._chunk_offset[tiles.chunk] + tiles.start
        frames = np.where(empty, 0, tiles.frames)
        seeds = self._plan.key(window, epoch)
        batch_keys = self._plan.batch_key(epoch, first_step + np.arange(len(grid))).tolist()
        # what `_begin` says of each key, as an array: a look-up a window would take longer
        keys, number = np.unique(key, return_inverse=True)
        begins = np.array([self._begin.get(one, 0) for one in keys.tolist()], np.int64)
        for step in range(len(grid)):
            for _ in range(int(arrived_by[step]) - arrived):
                group_key, values = next(incoming)
                begins[np.searchsorted(keys, group_key)] = self._begin[group_key] = (
                    self._buffer.put(*values)
                )
            arrived = int(arrived_by[step])
            begin = np.where(empty[step], 0, begins[number[step]] + offset[step])
            yield self._buffer.cut(begin, frames[step], seeds[step], batch_key=batch_keys[step])
            if step == 0 and needed[for_first_step:]:
                # Ray Data's processes take seconds to come up, in which a step is trained on what
                # is here.
                incoming = _prefetch(self._fetch(needed[for_first_step:]))
            while (
                not self.resident
                and dropped < len(by_last_use)
                and uses.last[by_last_use[dropped]] <= step
            ):
                self._buffer.drop(self._begin.pop(int(uses.key[by_last_use[dropped]])))
                dropped += 1

    def _read(self, groups: list[tuple[int, int]]) -> Iterator[_Group]:
        """As :meth:`_fetch`, without Ray Data."""
        for key, group in groups:
            yield key, self._store.read_group(group, self._features)

    def _fetch(self, groups: list[tuple[int, int]]) -> Iterator[_Group]:
        """Row groups in the order asked for: key, and (positions, confidence, external features if
        there are any)."""
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        size = RESIDENT_READ_BYTES if self.resident else READ_BYTES
        reads = _read_tasks(
            self._store, [group for _, group in groups], features=self._features, size=size
        )
        source = GroupSource(self._store, self._features, reads, size)
        dataset = ray.data.read_datasource(
            source, override_num_blocks=len(reads), num_cpus=_free_cpu(), concurrency=_READERS
        )
        keys = iter(key for key, _ in groups)
        for table in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=2
        ):
            arrays = self._store.decode_all(table, self._features)
            end = 0
            for frames in np.add.reduceat(
                table["frames"].to_numpy(),
                np.flatnonzero(np.diff(table["order"].to_numpy(), prepend=-1)),
            ):
                begin, end = end, end + int(frames)
                yield next(keys), [values[begin:end] for values in arrays]
        assert next(keys, None) is None, "Ray Data returned fewer row groups than were asked for"


def _free_cpu() -> int:
    """CPUs that a read task reserves: one if one is free. Where the workers have reserved all there
    are, Ray Data would wait for one for ever, without a word; tasks that reserve none are read
    slower (0.6 times), since Ray keeps no processes for them."""
    return int(ray.available_resources().get("CPU", 0) >= 1)


def _free_bytes(device: torch.device) -> float:
    """Memory of a GPU that frames may fill: half of what is free, since the model and its steps
    come after them. A CPU's is the scale's to know."""
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else float("inf")


def _prefetch(groups: Iterator[_Group]) -> Iterator[_Group]:
    """The same groups, the first of which a thread begins to get at once."""
    first = ThreadPoolExecutor(1).submit(next, groups)

    def rest() -> Iterator[_Group]:
        yield first.result()
        yield from groups

    return rest()


@dataclass(frozen=True)
class _Uses:
    """When each key is used in an epoch, by first use."""

    key: Ints
    first: Ints
    """Step."""
    last: Ints
    """Step."""


def _uses(grid: Ints, key: Ints) -> _Uses:
    step = np.repeat(np.arange(len(grid)), grid.shape[1])
    present = grid.ravel() >= 0
    step = step[present]
    keys, first, inverse = np.unique(key.ravel()[present], return_index=True, return_inverse=True)
    last = np.zeros(len(keys), np.int64)
    np.maximum.at(last, inverse, step)
    order = np.argsort(first, kind="stable")
    return _Uses(keys[order], step[first[order]], last[order])


def _read_tasks(
    store: Store, groups: list[int], *, features: Sequence[str], size: int
) -> list[Read]:
    """Cuts a list of row groups into read tasks of about ``size`` bytes, one block each."""
    chunks: Chunks = store.chunks
    first = np.searchsorted(chunks.group_id, groups)
    part, within = chunks.part[first], chunks.group[first]
    task = np.cumsum(group_frames(chunks)[groups] * store.frame_bytes(features)) // size
    return [
        [(int(part[i]), int(within[i]), int(i)) for i in np.flatnonzero(task == number)]
        for number in np.unique(task)
    ]
