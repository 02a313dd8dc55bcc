"""Ray Data to batches of cut windows, beside a memory-mapped loop: streaming, and once the frames
stay in the worker.

    python benchmarks/stream.py                         3 million frames
    python benchmarks/stream.py --frames 6000000 --turns 5 --json out.json

Streaming is compared with a DataLoader of one process that gathers the same windows from a
memory-mapped file; frames that stay, with the same loop in this process. All deliver positions and
confidence as float32. Epochs take turns (A B A B …). Then the default recipe trains on either, and
the time its loop waits for the next batch (cutting included) is taken. Ray gets all cores but one,
as beside one worker of a run. Recordings are random walks, made in a temporary folder (TMPDIR) that
is removed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import measure
from beside import beside_one_worker
from mapped import LoaderProcess, MappedWindows, batches_of, windows_of, write_arrays
from memory import Memory
from steps import learner_of, recipe_of
from walks import write_store

from pretrain.data.ray_stream import FrameStream
from pretrain.data.store import Store
from pretrain.data.windows import BatchPlan
from pretrain.errors import BadInput, exit_status
from pretrain.train.step import OptimiserStep

FRAME_BYTES = 126  # on disk, in the store and again in the mapped files


class Pass(NamedTuple):
    """One epoch, or a part of it."""

    first_s: float
    seconds: float
    windows: int


def drain(batches: Iterator[Any], count: Callable[[Any], int]) -> Pass:
    """Takes all batches as fast as they come."""
    begin, first, windows = time.perf_counter(), 0.0, 0
    for batch in batches:
        first = first or time.perf_counter() - begin
        windows += count(batch)
    return Pass(first, time.perf_counter() - begin, windows)


class Way:
    """One way to get the batches of an epoch; every call takes the next epoch."""

    def __init__(
        self, lanes: BatchPlan, epoch: Callable[[int], Iterator[Any]], count: Callable[[Any], int]
    ) -> None:
        self._lanes, self._epoch, self._count = lanes, epoch, count
        self.passes: list[Pass] = []

    def __call__(self) -> None:
        """Drains an epoch."""
        found = drain(self._epoch(len(self.passes)), self._count)
        assert found.windows == len(self._lanes), (
            f"{found.windows} windows of {len(self._lanes)} arrived"
        )
        self.passes.append(found)


def compare(report: measure.Report, store: Store, folder: Path, args: argparse.Namespace) -> None:
    """The loops without training."""
    lanes = BatchPlan.from_chunks(store.chunks, window=args.window, batch=args.batch, seed=0)
    begin = windows_of(store, lanes)
    mapped = MappedWindows(folder, begin, window=args.window)
    positions = MappedWindows(folder, begin, window=args.window, confidence=False)
    loader = LoaderProcess(mapped)
    streams: dict[str, FrameStream] = {}

    def rows(batch: Any) -> int:
        return len(batch[0])

    def frames_held(name: str, limit: float) -> Way:
        """A stream and its first epoch, which fetches; its memory."""
        with Memory() as memory:
            streams[name] = FrameStream(store, lanes, resident_bytes=limit)
            way = Way(lanes, streams[name].epoch, lambda windows: int(windows.valid_BT[:, 0].sum()))
            way()
        report.add(
            f"{name}: peak memory this process gained in epoch 1",
            memory.own_mib - memory.before_mib,
            "MiB",
        )
        report.add(f"{name}: peak memory, all processes", memory.all_mib, "MiB")
        report.add(f"{name}: first batch of epoch 1", way.passes[0].first_s, "s")
        return way

    ways = {
        "streaming": frames_held("streaming", 0),
        "loader process": Way(lanes, lambda epoch: loader.epoch(batches_of(lanes, epoch)), rows),
        "staying": frames_held("staying", 1e15),
        "mapped loop": Way(
            lanes, lambda epoch: map(mapped.__getitems__, batches_of(lanes, epoch)), rows
        ),
        "mapped loop, positions alone": Way(
            lanes, lambda epoch: map(positions.__getitems__, batches_of(lanes, epoch)), rows
        ),
    }
    poses = store.frames * FRAME_BYTES / 2**20
    report.note(
        f"the poses are {poses:,.0f} MiB; memory of all processes holds Ray, its object store and "
        "its readers"
    )
    spent = measure.take_turns(ways, turns=args.turns)
    frames = store.frames / 1e6
    for name, seconds in spent.items():
        report.add(f"{name}: an epoch", measure.rates(frames, seconds), "million frames/s")
    report.add(
        "streaming against a loader process",
        measure.ratios(spent["loader process"], spent["streaming"]),
        "x",
        at_least=0.7,
    )
    report.add(
        "staying against the mapped loop",
        measure.ratios(spent["mapped loop"], spent["staying"]),
        "x",
        at_least=0.8,
    )
    report.add(
        "streaming: first batch of later epochs",
        [p.first_s for p in ways["streaming"].passes[1:]],
        "s",
        at_most=3,
    )
    report.add(
        "staying: first batch of later epochs",
        [p.first_s for p in ways["staying"].passes[1:]],
        "s",
        at_most=3,
    )
    train(report, lanes, streams, args)


def train(
    report: measure.Report,
    lanes: BatchPlan,
    streams: dict[str, FrameStream],
    args: argparse.Namespace,
) -> None:
    """The last ``--steps`` steps of epochs, trained; how long the loop waits."""
    recipe = recipe_of(args.recipe, {"window": args.window, "batch": args.batch})
    optimiser_step = OptimiserStep(learner_of(recipe), recipe.optimiser)
    steps = min(args.steps, lanes.steps)
    waits: dict[str, list[list[float]]] = {name: [] for name in streams}
    spent: dict[str, list[float]] = {name: [] for name in streams}
    for turn in range(2):
        for name, stream in streams.items():
            batches, waited = stream.epoch(100 + turn, lanes.steps - steps), []
            begin = time.perf_counter()
            while True:
                asked = time.perf_counter()
                windows = next(batches, None)
                waited.append(time.perf_counter() - asked)
                if windows is None:
                    break
                optimiser_step(windows)
            spent[name].append(time.perf_counter() - begin)
            waits[name].append(waited)
    for name in streams:
        after = [
            100 * sum(w[1:]) / (total - w[0])
            for w, total in zip(waits[name], spent[name], strict=True)
        ]
        whole = [
            100
            * (w[0] + sum(w[1:]) / steps * lanes.steps)
            / (w[0] + (total - w[0]) / steps * lanes.steps)
            for w, total in zip(waits[name], spent[name], strict=True)
        ]
        report.add(
            f"{name}: training waits for data, first batch apart", after, "% of its time", at_most=2
        )
        report.add(
            f"{name}: the same for a whole epoch, calculated from it",
            whole,
            "% of its time",
            at_most=2,
        )
    rate = [steps * args.batch * args.window / total / 1e3 for total in spent["staying"]]
    report.add("staying: training", rate, "thousand frames/s")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=3)
    parser.add_argument(
        "--frames", type=int, default=3_000_000, help="frames of the store (%(default)s)"
    )
    parser.add_argument("--window", type=int, default=128, help="frames of a window (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="windows of a batch (%(default)s)")
    parser.add_argument("--recipe", default="contrastive", help="what is trained (%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=20, help="training steps of an epoch (%(default)s)"
    )
    args = measure.parse(parser, words)
    report = measure.Report(
        "stream",
        "Ray Data to batches of cut windows, beside a memory-mapped loop",
        measure.settings_of(args),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        needed, free = 2 * args.frames * FRAME_BYTES, shutil.disk_usage(folder).free
        if needed > free:
            raise BadInput(
                f"--frames {args.frames:,} needs {needed / 1e9:.1f} GB in {folder.parent}, "
                f"{free / 1e9:.1f} are free: set TMPDIR"
            )
        store = write_store(folder / "store", args.frames)
        write_arrays(store, folder)
        with beside_one_worker():
            compare(report, store, folder, args)
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
