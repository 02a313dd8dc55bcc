"""Ray Data to windows: this worker's share of a store, streamed in the order it is needed, kept
where it fits.

Each read task of Ray Data reads the row groups that a worker needs next and hands them over as one
block of raw bytes; the worker cuts the windows. What the first step of an epoch needs, a row group
a lane, it reads itself: Ray Data starts while the steps after it, which need little more, are
trained. Blocks arrive in the order asked for, so a run repeats itself exactly, kept or streamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.data
import torch

from pretrain.data.ray_datasource import READ_BYTES, STAYING_READ_BYTES, GroupSource, Read
from pretrain.data.store import Chunks, Store
from pretrain.data.windows import BatchPlan, FrameBuffer, Ints, Windows, chunk_offset, group_frames

_ABSENT = -1
_Group = tuple[int, list[npt.NDArray[Any]]]  # its key, and what it holds


class FrameStream:
    """A worker's share of the frames of a store, window by window.

    Args:
        store: The store.
        lanes: How its windows are dealt.
        rank: This worker.
        workers: How many there are.
        device: Where windows are cut.
        resident_bytes: The share is kept after the first pass if it needs no more than this.
        features: Features from elsewhere to read beside the poses.
    """

    def __init__(
        self,
        store: Store,
        lanes: BatchPlan,
        *,
        rank: int = 0,
        workers: int = 1,
        device: torch.device | str = "cpu",
        resident_bytes: float = 4e9,
        features: Sequence[str] = (),
    ) -> None:
        self._store, self._lanes, self._features = store, lanes, tuple(features)
        self._share = lanes.share(rank, workers)
        self._frames = group_frames(store.chunks)
        self._begin_in_group = chunk_offset(store.chunks)[lanes.chunk] + lanes.start
        mine = (lanes.lane >= self._share.start) & (lanes.lane < self._share.stop)
        groups = np.unique(lanes.group[mine])
        self.bytes = int(self._frames[groups].sum()) * store.frame_bytes(features)
        self.resident = self.bytes <= resident_bytes
        # What is fetched and kept is a row group; while streaming, once for each lane that needs
        # it.
        self._key = (
            lanes.group if self.resident else lanes.lane * (1 + lanes.group.max()) + lanes.group
        )
        # Where in the buffer each key's frames begin.
        self._begin = np.full(int(self._key.max()) + 1, _ABSENT, np.int64)
        if self.resident:
            room, slot = int(self._frames[groups].sum()), None
        else:  # the next row group of a lane may arrive before the last is dropped
            slot = int(self._frames.max())
            room = slot * (self._share.stop - self._share.start + 1)
        extra = sum(store.feature(name)["dim"] for name in features)
        self._buffer = FrameBuffer(
            room, store.schema.shape, window=lanes.window, slot=slot, extra=extra, device=device
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Windows]:
        """This worker's rows of every step of an epoch, from ``first_step`` on."""
        grid = self._lanes.epoch(epoch)[first_step:, self._share]
        uses = _uses(grid, self._key)
        missing = np.flatnonzero(self._begin[uses.key] == _ABSENT)
        wanted = [
            (int(uses.key[place]), int(self._lanes.group[uses.window[place]])) for place in missing
        ]
        at_once = int(np.searchsorted(uses.first[missing], 0, side="right"))
        incoming = self._read(wanted[:at_once])
        arrive = np.searchsorted(uses.first[missing], np.arange(len(grid)), side="right")
        leave = np.argsort(uses.last, kind="stable")
        left = fetched = 0
        window = np.maximum(grid, 0)
        key, empty = self._key[window], grid < 0
        frames, draw = (
            np.where(empty, 0, self._lanes.frames[window]),
            self._lanes.key(window, epoch),
        )
        offset = self._begin_in_group[window]
        for step in range(len(grid)):
            for _ in range(int(arrive[step]) - fetched):
                arrived, held = next(incoming)
                self._begin[arrived] = self._buffer.put(*held)
            fetched = int(arrive[step])
            begin = np.where(empty[step], 0, self._begin[key[step]] + offset[step])
            yield self._buffer.cut(begin, frames[step], draw[step])
            if step == 0 and wanted[at_once:]:
                # Ray Data's processes take seconds to come up, in which a step is trained on what
                # is here.
                incoming = _ahead(self._fetch(wanted[at_once:]))
            while not self.resident and left < len(leave) and uses.last[leave[left]] <= step:
                done = uses.key[leave[left]]
                self._buffer.drop(int(self._begin[done]))
                self._begin[done] = _ABSENT
                left += 1

    def _read(self, wanted: list[tuple[int, int]]) -> Iterator[_Group]:
        """As :meth:`_fetch`, without Ray Data."""
        for key, group in wanted:
            yield key, self._store.read_group(group, self._features)

    def _fetch(self, wanted: list[tuple[int, int]]) -> Iterator[_Group]:
        """Row groups in the order asked for: key, and (positions, confidence, features from
        elsewhere if there are)."""
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        size = STAYING_READ_BYTES if self.resident else READ_BYTES
        reads = _read_tasks(
            self._store, [group for _, group in wanted], features=self._features, size=size
        )
        source = GroupSource(self._store.uri, self._store.fingerprint, self._features, reads, size)
        dataset = ray.data.read_datasource(source, override_num_blocks=len(reads))
        names = iter(wanted)
        for table in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=2
        ):
            held = self._store.decode_all(table, self._features)
            end = 0
            for frames in np.add.reduceat(
                table["frames"].to_numpy(),
                np.flatnonzero(np.diff(table["order"].to_numpy(), prepend=-1)),
            ):
                key, _ = next(names)
                begin, end = end, end + int(frames)
                yield key, [values[begin:end] for values in held]
        assert next(names, None) is None, "Ray Data returned fewer row groups than were asked for"


def _ahead(groups: Iterator[_Group]) -> Iterator[_Group]:
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
    last: Ints
    window: Ints
    """A window of it."""


def _uses(grid: Ints, key_of: Ints) -> _Uses:
    windows = grid.ravel()
    step = np.repeat(np.arange(len(grid)), grid.shape[1])
    held = windows >= 0
    windows, step = windows[held], step[held]
    keys, first, inverse = np.unique(key_of[windows], return_index=True, return_inverse=True)
    last = np.zeros(len(keys), np.int64)
    np.maximum.at(last, inverse, step)
    order = np.argsort(first, kind="stable")
    return _Uses(keys[order], step[first[order]], last[order], windows[first[order]])


def _read_tasks(
    store: Store, groups: list[int], *, features: Sequence[str], size: int
) -> list[Read]:
    """Cuts a list of row groups into read tasks of about ``size`` bytes, one block each."""
    chunks: Chunks = store.chunks
    first = np.searchsorted(chunks.group_id, groups)
    part, within = chunks.part[first], chunks.group[first]
    task = np.cumsum(group_frames(chunks)[groups] * store.frame_bytes(features)) // size
    reads: list[Read] = []
    for number in np.unique(task):
        places = np.flatnonzero(task == number)
        reads.append([(int(part[p]), [int(within[p])], [int(p)]) for p in places])
    return reads
