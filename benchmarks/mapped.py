"""The plain way to feed a trainer, to be compared with: frames in a memory-mapped file, windows
gathered by numpy, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pretrain.data.store import CONFIDENCE_STEPS, Store
from pretrain.data.windows import BatchPlan, Ints

Batch = tuple[Tensor, ...]


def write_arrays(store: Store, folder: Path) -> None:
    """The frames of a store as two flat files that numpy maps."""
    animals, keypoints, coordinates = store.schema.shape
    points = animals * keypoints
    position = np.lib.format.open_memmap(
        folder / "position.npy", "w+", np.float32, (store.frames, points * coordinates)
    )
    confidence = np.lib.format.open_memmap(
        folder / "confidence.npy", "w+", np.uint8, (store.frames, points)
    )
    end = 0
    for part in range(len(store.parts)):
        held, steps = store.decode(store.read_groups(part))
        begin, end = end, end + len(held)
        position[begin:end], confidence[begin:end] = (
            held.reshape(len(held), -1),
            steps.reshape(len(held), -1),
        )
    assert end == store.frames, "a part was not read whole"


class MappedWindows(Dataset[Batch]):
    """Windows of the mapped files; ``__getitems__`` makes a whole batch with one gather of whole
    windows.

    Args:
        folder: Of the files.
        begin: (W,) first frame of every window.
        window: Frames of a window.
        confidence: Deliver it as well, as the stream does; else positions alone.
    """

    def __init__(self, folder: Path, begin: Ints, *, window: int, confidence: bool = True) -> None:
        self._folder, self._begin, self._window, self._confidence = (
            folder,
            begin,
            window,
            confidence,
        )
        self._open: list[npt.NDArray[Any]] | None = None  # each process maps the files itself

    def __len__(self) -> int:
        return len(self._begin)

    def __getitems__(self, windows: Sequence[int] | Ints) -> Batch:
        """A batch: positions (B, T, M*K*X) and confidence (B, T, M*K), float32."""
        if self._open is None:
            self._open = [
                _overlapping(np.load(self._folder / f"{name}.npy", mmap_mode="r"), self._window)
                for name in ("position", "confidence")
            ]
        rows = self._begin[np.asarray(windows)]
        position = torch.from_numpy(self._open[0][rows]).view(len(rows), self._window, -1)
        if not self._confidence:
            return (position,)
        steps = torch.from_numpy(self._open[1][rows]).view(len(rows), self._window, -1)
        return position, steps.to(torch.float32).mul_(1 / CONFIDENCE_STEPS)


def _overlapping(frames: npt.NDArray[Any], window: int) -> npt.NDArray[Any]:
    wide = frames.shape[1]
    shape = (len(frames) - window + 1, window * wide)
    return np.lib.stride_tricks.as_strided(
        frames, shape, (frames.strides[0], frames.strides[1]), writeable=False
    )


def windows_of(store: Store, lanes: BatchPlan) -> Ints:
    """First frame of every window of a deal, counted over the whole store. A window cut short at
    the end of a video is taken whole."""
    chunks = store.chunks
    before = np.cumsum(chunks.frames, dtype=np.int64) - chunks.frames
    tiles = lanes.tiles(np.arange(len(lanes)))
    first: Ints = np.minimum(before[tiles.chunk] + tiles.start, store.frames - lanes.window)
    return first


def batches_of(lanes: BatchPlan, epoch: int) -> list[Ints]:
    """The windows of every batch of an epoch, those that a stream delivers."""
    return [row[row >= 0] for row in lanes.epoch(epoch)]


class LoaderProcess:
    """A DataLoader with one process, which stays for all epochs.

    Args:
        windows: What it loads.
    """

    def __init__(self, windows: MappedWindows) -> None:
        self._batches: list[Ints] = []
        # Ray runs threads here, so the process cannot be a fork of this one.
        self._loader: DataLoader[Batch] = DataLoader(
            windows,
            batch_sampler=_Batches(self._batches),
            num_workers=1,
            collate_fn=whole,
            persistent_workers=True,
            multiprocessing_context="spawn",
        )

    def epoch(self, batches: Iterable[Ints]) -> Iterator[Batch]:
        """These batches."""
        self._batches[:] = batches
        yield from self._loader


class _Batches(torch.utils.data.Sampler[Any]):
    def __init__(self, batches: list[Ints]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Ints]:
        return iter(list(self._batches))

    def __len__(self) -> int:
        return len(self._batches)


def whole(batch: Any) -> Any:
    """``__getitems__`` made a batch already."""
    return batch
