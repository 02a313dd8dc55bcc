"""The four ideas that make it fast, one by one: each with and without, everything else alike.

    python benchmarks/ideas.py

1. Ship frames, not windows: Ray Data hands over chunks that are cut into batches here, or windows
   that it cut itself.
2. Embed each frame once: a video in overlapping stretches, or one window a frame.
3. Data that fits stays: the stream with its frames kept, or read anew every epoch.
4. Device-side work in batch: views and features of all windows of a batch in one operation each, or
   window by window.

With and without take turns. Recordings are random walks in a temporary folder (TMPDIR).
docs/design.md, section 1, says why.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import embed
import measure
import numpy as np
import ray.data
import torch
from beside import beside_one_worker
from steps import learner_of, recipe_of
from walks import Resident, write_store

from pretrain.data.ray_stream import FrameStream
from pretrain.data.store import CONFIDENCE_STEPS, Store
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import BatchPlan
from pretrain.errors import exit_status

READ_BYTES = 24 * 2**20


def frames_or_windows(report: measure.Report, store: Store, args: argparse.Namespace) -> None:
    """Idea 1."""
    reads = _reads(store)
    uri, window, batch = store.uri, args.window, args.batch
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False

    def read(table: Any) -> Any:
        part, groups = reads[int(table["id"][0].as_py())]
        return Store(uri).read_groups(part, groups).select(["position", "confidence", "frames"])

    def cut(table: Any) -> dict[str, Any]:
        there = Store(uri)
        position, confidence = there.decode(read(table))
        windows = len(position) // window
        return {
            "position": position[: windows * window].reshape(windows, window, -1),
            "confidence": confidence[: windows * window].reshape(windows, window, -1),
        }

    def handed_over(work: Callable[[Any], Any]) -> Any:
        return ray.data.range(len(reads), override_num_blocks=len(reads)).map_batches(
            work, batch_size=None, batch_format="pyarrow"
        )

    def chunks() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for table in handed_over(read).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=2
        ):
            position, confidence = store.decode(table)
            for first in range(0, len(position) - window * batch + 1, window * batch):
                rows = slice(first, first + window * batch)
                steps = torch.tensor(confidence[rows].reshape(batch, window, -1))
                yield (
                    torch.tensor(position[rows].reshape(batch, window, -1)),
                    steps.float().mul_(1 / CONFIDENCE_STEPS),
                )

    def windows() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for made in handed_over(cut).iter_torch_batches(batch_size=batch, prefetch_batches=2):
            yield made["position"], made["confidence"].float().mul_(1 / CONFIDENCE_STEPS)

    found = {"chunks shipped": 0, "windows shipped": 0}

    def drained(
        name: str, batches: Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]
    ) -> Callable[[], None]:
        def work() -> None:
            found[name] = sum(len(position) * window for position, _ in batches())

        return work

    works = {
        "chunks shipped": drained("chunks shipped", chunks),
        "windows shipped": drained("windows shipped", windows),
    }
    spent = measure.take_turns(works, turns=args.turns)
    for name, seconds in spent.items():
        report.add(f"1 {name}", measure.rates(found[name] / 1e6, seconds), "million frames/s")
    each = {name: [s / found[name] for s in seconds] for name, seconds in spent.items()}
    report.add(
        "1 chunks against windows that share no frame",
        measure.ratios(each["windows shipped"], each["chunks shipped"]),
        "x",
    )
    report.add("1 bytes shipped for a frame, a window of every frame against chunks", window, "x")


def _reads(store: Store) -> list[tuple[int, list[int]]]:
    """Row groups that one read task takes, about READ_BYTES of one part."""
    chunks = store.chunks
    reads: list[tuple[int, list[int]]] = []
    size = 0
    for group in np.unique(chunks.group_id):
        first = int(np.searchsorted(chunks.group_id, group))
        part, within = int(chunks.part[first]), int(chunks.group[first])
        if not reads or reads[-1][0] != part or size > READ_BYTES:
            reads.append((part, []))
            size = 0
        reads[-1][1].append(within)
        size += (
            int(chunks.frames[chunks.group_id == group].sum())
            * int(np.prod(store.schema.shape))
            * 4
        )
    return reads


def stays_or_streams(report: measure.Report, store: Store, args: argparse.Namespace) -> None:
    """Idea 3."""
    lanes = BatchPlan.deal(store.chunks, window=args.window, batch=args.batch, seed=0)
    epochs = {"stays": 0, "streams": 0}

    def drained(name: str, stream: FrameStream) -> Callable[[], None]:
        def work() -> None:
            for _ in stream.epoch(epochs[name]):
                pass
            epochs[name] += 1

        return work

    works = {
        "stays": drained("stays", FrameStream(store, lanes, resident_bytes=1e15)),
        "streams": drained("streams", FrameStream(store, lanes, resident_bytes=0)),
    }
    spent = measure.take_turns(works, turns=args.turns)
    for name, seconds in spent.items():
        report.add(f"3 {name}", measure.rates(store.frames / 1e6, seconds), "million frames/s")
    report.add("3 stays against streams", measure.ratios(spent["streams"], spent["stays"]), "x")


def batch_or_window(report: measure.Report, args: argparse.Namespace) -> None:
    """Idea 4."""
    learner = learner_of(recipe_of(args.recipe, {}))
    features, schema = learner.embedder.features, learner.embedder.features.schema
    whole = Resident(8_192 * 2, window=args.window, batch=args.batch)
    single = Resident(8_192 * 2, window=args.window, batch=1)

    def prepare(held: Resident, step: int) -> None:
        windows = held.windows(step)
        features(learner.augment(windows.pose, schema, WindowRNG(windows.key_B), view="0"))

    def one_by_one() -> None:
        for step in range(args.batch):
            prepare(single, step)

    works = {"in batch": lambda: prepare(whole, 0), "window by window": one_by_one}
    spent = measure.take_turns(works, turns=args.turns)
    for name, seconds in spent.items():
        report.add(
            f"4 cutting, views and features {name}",
            measure.rates(args.batch * args.window / 1e3, seconds),
            "thousand frames/s",
        )
    report.add(
        "4 in batch against window by window",
        measure.ratios(spent["window by window"], spent["in batch"]),
        "x",
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=3)
    parser.add_argument(
        "--frames", type=int, default=1_000_000, help="frames of the store (%(default)s)"
    )
    parser.add_argument("--window", type=int, default=128, help="frames of a window (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="windows of a batch (%(default)s)")
    parser.add_argument(
        "--recipe", default="contrastive", help="whose encoder, views and features (%(default)s)"
    )
    parser.add_argument(
        "--video-frames",
        type=int,
        default=20_000,
        help="frames of the video that is embedded (%(default)s)",
    )
    parser.add_argument(
        "--loop-frames",
        type=int,
        default=256,
        help="of them embedded one window a frame (%(default)s)",
    )
    args = measure.parse(parser, words)
    report = measure.Report(
        "ideas", "the four ideas, each with and without", measure.settings_of(args)
    )
    with tempfile.TemporaryDirectory() as temporary:
        store = write_store(Path(temporary) / "store", args.frames)
        with beside_one_worker():
            frames_or_windows(report, store, args)
            video = {"frames": args.video_frames, "loop_frames": args.loop_frames}
            embed.compare(report, argparse.Namespace(**(vars(args) | video)), mark="2 ")
            stays_or_streams(report, store, args)
    batch_or_window(report, args)
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
