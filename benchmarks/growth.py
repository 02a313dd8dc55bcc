"""What a frame costs as the recordings grow: time, memory, and how long a run takes to start.

    python benchmarks/growth.py                                              0.6 and 6 million
    frames
    python benchmarks/growth.py --frames 600000 6000000 60000000             needs 8 GB on disk and,
    where the frames stay, in memory

Every measurement is a process of its own: two epochs of a stream, read anew each time or staying in
the process. Memory of the process is what it gained on its imports; memory of all processes holds
Ray, its readers and its object store. Starting is the time from `python pretrain/run.py …` to its
first training step. Recordings are random walks, one recording over and over, in a temporary folder
(TMPDIR) that is removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
from memory import Memory
from walks import write_store

from pretrain.errors import BadInput, exit_status

FRAME_BYTES = 126
START_LIMIT_S = 300
ROOT = Path(__file__).parent.parent


def two_epochs(uri: str, *, stays: bool, window: int, batch: int) -> dict[str, float]:
    """Streams a store twice; the work of a measuring process."""
    from beside import beside_one_worker

    from pretrain.data.ray_stream import FrameStream
    from pretrain.data.store import Store
    from pretrain.data.windows import BatchPlan

    found: dict[str, float] = {}
    with beside_one_worker(), Memory() as memory:
        begin = time.perf_counter()
        store = Store(uri)
        lanes = BatchPlan.from_chunks(store.chunks, window=window, batch=batch, seed=0)
        stream = FrameStream(store, lanes, resident_bytes=1e15 if stays else 0)
        for epoch in range(2):
            if epoch:
                begin = time.perf_counter()
            first = 0.0
            for _ in stream.epoch(epoch):
                first = first or time.perf_counter() - begin
            found |= {f"first_{epoch}": first, f"seconds_{epoch}": time.perf_counter() - begin}
    return found | {"own_mib": memory.own_mib - memory.before_mib, "all_mib": memory.all_mib}


def in_a_process(uri: Path, *, stays: bool, args: argparse.Namespace) -> dict[str, float]:
    """Measures in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--measure",
        str(uri),
        "--window",
        str(args.window),
        "--batch",
        str(args.batch),
    ]
    answer = subprocess.run(
        command + (["--stays"] if stays else []), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RuntimeError(f"measuring failed: {answer.stderr[-1000:]}")
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def start(uri: Path, folder: Path) -> float:
    """Seconds from the command to its first training step; the run is then interrupted."""
    command = [
        sys.executable,
        "-u",
        str(ROOT / "pretrain/run.py"),
        "--data",
        str(uri),
        "--out",
        str(folder / "run"),
    ]
    begin = time.perf_counter()
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )
    assert run.stdout is not None
    said = []
    try:
        for line in run.stdout:
            said.append(line)
            if line.startswith("step "):
                return time.perf_counter() - begin
            if time.perf_counter() - begin > START_LIMIT_S:
                break
    finally:
        run.send_signal(signal.SIGINT)
        try:
            run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            run.kill()
        shutil.rmtree(folder / "run", ignore_errors=True)
    raise RuntimeError(f"the run never came to its first step: {''.join(said)[-1000:]}")


def grow(
    report: measure.Report, frames: int, folder: Path, args: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    """One size; returns what each process measured."""
    poses_mib = frames * FRAME_BYTES / 2**20
    store = folder / "store"
    written = measure.seconds(lambda: write_store(store, frames))
    found: dict[str, list[dict[str, float]]] = {"streaming": [], "staying": []}
    for _ in range(args.turns):
        for name, runs in found.items():
            runs.append(in_a_process(store, stays=name == "staying", args=args))
    size = f"{frames / 1e6:g} million"
    for name, runs in found.items():
        report.add(
            f"{size}, {name}: epoch 1",
            [run["seconds_0"] / frames * 1e6 for run in runs],
            "us/frame",
        )
        report.add(
            f"{size}, {name}: epoch 2",
            [run["seconds_1"] / frames * 1e6 for run in runs],
            "us/frame",
        )
        report.add(
            f"{size}, {name}: first batch of epoch 2",
            [run["first_1"] for run in runs],
            "s",
            at_most=3,
        )
        report.add(
            f"{size}, {name}: memory gained by the process", [run["own_mib"] for run in runs], "MiB"
        )
        report.add(
            f"{size}, {name}: memory of all processes", [run["all_mib"] for run in runs], "MiB"
        )
    report.add(
        f"{size}, staying: memory gained / poses",
        [run["own_mib"] / poses_mib for run in found["staying"]],
        "x",
    )
    if args.start:
        report.add(
            f"{size}: a run starts training after",
            [start(store, folder) for _ in range(args.turns)],
            "s",
            at_most=15,
        )
    report.add(f"{size}: writing the store", written / frames * 1e6, "us/frame")
    return found


def compare(
    report: measure.Report, found: Mapping[int, Mapping[str, list[dict[str, float]]]]
) -> None:
    """The largest against the smallest. What every process needs, however few its frames, is in
    neither difference."""
    least, most = min(found), max(found)
    sizes = f"from {least / 1e6:g} to {most / 1e6:g} million"
    for name in ("streaming", "staying"):
        small, large = found[least][name], found[most][name]
        cost = [
            (b["seconds_1"] / most) / (a["seconds_1"] / least)
            for a, b in zip(small, large, strict=True)
        ]
        report.add(f"{name}: time of a frame in epoch 2, {sizes}", cost, "x", at_most=1.2)
        grown = [b["own_mib"] - a["own_mib"] for a, b in zip(small, large, strict=True)]
        if name == "streaming":
            report.add(f"{name}: memory of the process grows, {sizes}", grown, "MiB")
        else:
            poses_mib = (most - least) * FRAME_BYTES / 2**20
            report.add(
                f"{name}: memory of the process grows / poses grow, {sizes}",
                [g / poses_mib for g in grown],
                "x",
                at_most=1.3,
            )
    both = [
        (a["all_mib"], b["all_mib"])
        for a, b in zip(found[least]["streaming"], found[most]["streaming"], strict=True)
    ]
    report.add(
        f"streaming: memory of all processes grows, {sizes}", [b - a for a, b in both], "MiB"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark, or one measurement of it."""
    parser = measure.new_parser(__doc__, turns=1)
    parser.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[600_000, 6_000_000],
        metavar="N",
        help="sizes (%(default)s)",
    )
    parser.add_argument("--window", type=int, default=128, help="frames of a window (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="windows of a batch (%(default)s)")
    parser.add_argument(
        "--no-start",
        dest="start",
        action="store_false",
        help="do not measure how long a run takes to start",
    )
    parser.add_argument("--measure", metavar="STORE", help=argparse.SUPPRESS)
    parser.add_argument("--stays", action="store_true", help=argparse.SUPPRESS)
    args = measure.parse(parser, words)
    if args.measure:
        print(
            json.dumps(
                two_epochs(args.measure, stays=args.stays, window=args.window, batch=args.batch)
            )
        )
        return
    if min(args.frames) < 1:
        raise BadInput("--frames must be at least 1")
    report = measure.Report(
        "growth", "time and memory of a frame as the recordings grow", measure.settings_of(args)
    )
    found: dict[int, dict[str, list[dict[str, float]]]] = {}
    for frames in sorted(args.frames):
        with tempfile.TemporaryDirectory() as temporary:
            folder, needed = Path(temporary), frames * FRAME_BYTES * 1.1
            free = shutil.disk_usage(folder).free
            if needed > free:
                raise BadInput(
                    f"--frames {frames:,} needs {needed / 1e9:.0f} GB in {folder.parent}, "
                    f"{free / 1e9:.0f} are free: set TMPDIR"
                )
            found[frames] = grow(report, frames, folder, args)
    if len(found) > 1:
        compare(report, found)
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
