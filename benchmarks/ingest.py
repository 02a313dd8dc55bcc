"""Reading CalMS21's official JSON into a store, beside ``json.load``: MB/s, frames/s and peak memory.

    python benchmarks/ingest.py                          0.6 million frames
    python benchmarks/ingest.py --frames 600000 6000000  what each frame costs as the file grows
    python benchmarks/ingest.py --zipped --json out.json

The recordings are two random walks with the digits, groups and part sizes of the release, written into a temporary folder that
is removed. Every measurement is a process of its own; the two ways of reading take turns (A B A B), since other
work on the machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import BadInput, exit_status
from pretrain.pose.annotations import Labels, write_labels
from pretrain.pose.calms21 import find_sources, read, total_bytes, write_official
from pretrain.pose.official.counts import CLASSES, CLASSIC
from pretrain.pose.schema import CALMS21, Video
from pretrain.pose.store_writer import StoreWriter

SEQUENCE_FRAMES = 20_000
LABELLED_SHARE = 0.1
BYTES_PER_FRAME = 1100  # text and store


def recordings(frames: int) -> Iterator[tuple[Video, list[Labels]]]:
    random = np.random.default_rng(0)
    steps = random.normal(scale=2, size=(SEQUENCE_FRAMES, 2, 7, 2))
    walk = np.clip(np.cumsum(steps, axis=0) + np.array([512, 285]), 0, 1023)
    confidence = random.uniform(0.3, 1, (SEQUENCE_FRAMES, 2, 7)).astype(np.float32)
    labelled = int(frames * LABELLED_SHARE)
    for first in range(0, frames, SEQUENCE_FRAMES):
        count = min(SEQUENCE_FRAMES, frames - first)
        shift = random.uniform(0, 1, (1, 2, 7, 2))
        task = "task1/train" if first < labelled else "unlabeled_videos"
        video = Video(name=f"{task}/mouse{first // SEQUENCE_FRAMES:05d}", position_TMKX=(walk + shift)[:count].astype(np.float32),
                      confidence_TMK=confidence[:count])  # fmt: skip
        held = Labels(video=video.name, task=CLASSIC, classes=CLASSES, annotator="0", frames=random.integers(0, 4, count).astype(np.int8))
        yield video, [held] if first < labelled else []


def whole_road(folder: Path, out: Path) -> dict[str, float]:
    sources, labels, frames = find_sources(folder), [], 0
    with StoreWriter(out, CALMS21, origin="benchmark") as writer:
        for video, held in read(sources):
            writer.add(video)
            labels += held
            frames += len(video.position_TMKX)
        write_labels(writer, labels)
    return {"bytes": total_bytes(sources), "frames": frames}


def reading_alone(folder: Path, out: Path) -> dict[str, float]:
    sources = find_sources(folder)
    return {"frames": sum(len(video.position_TMKX) for video, _ in read(sources)), "bytes": total_bytes(sources)}


def json_load(folder: Path, out: Path) -> dict[str, float]:
    """One part, whole, and its arrays made: what a script with ``json`` does."""
    path = folder / "unlabeled_videos/calms21_unlabeled_videos_part1.json"
    frames = 0
    with path.open() as file:
        for sequences in json.load(file).values():
            for sequence in sequences.values():
                position, score = np.array(sequence["keypoints"], np.float32), np.array(sequence["scores"], np.float32)
                assert len(position) == len(score)
                frames += len(position)
    return {"bytes": path.stat().st_size, "frames": frames}


WAYS = {"to the store": whole_road, "reading alone": reading_alone, "json.load, one part": json_load}


def measured(way: str, folder: Path, out: Path) -> dict[str, float]:
    """Runs one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--out", str(out)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    shutil.rmtree(out, ignore_errors=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def run_way(way: str, folder: Path, out: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    found = WAYS[way](folder, out)
    found |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    unit = 1 if sys.platform == "darwin" else 1024
    found |= {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, "imports_mib": before * unit / 2**20}
    print(json.dumps(found))


def report(frames: int, found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    print(f"\n{frames:,} frames, {found['to the store'][0]['bytes'] / 1e9:.2f} GB of JSON (best of runs; a core's second is CPU time)")
    print(f"{'':22}{'MB/s':>8}{'MB/core-s':>11}{'frames/s':>12}{'us/frame':>10}{'peak MiB':>10}{'spread':>9}")
    for way, runs in found.items():
        best, fastest = min(r["seconds"] for r in runs), min(r["cpu_seconds"] for r in runs)
        size, count, peak = runs[0]["bytes"], runs[0]["frames"], max(r["peak_mib"] for r in runs)
        spread = max(r["seconds"] for r in runs) / best
        row = {"way": way, "frames": count, "mb_per_s": size / 1e6 / best, "mb_per_core_s": size / 1e6 / fastest,
               "frames_per_s": count / best, "us_per_frame": best / count * 1e6, "peak_mib": peak,
               "spread": spread, "runs": runs}  # fmt: skip
        rows.append(row)
        print(f"{way:22}{row['mb_per_s']:8.0f}{row['mb_per_core_s']:11.0f}{row['frames_per_s']:12,.0f}{row['us_per_frame']:10.2f}"
              f"{peak:10.0f}{spread:8.2f}x")  # fmt: skip
    return rows


def compare(sizes: list[int], repeats: int, zipped: bool, out: str | None) -> None:
    results = []
    for frames in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            top = Path(temporary)
            needed, free = frames * BYTES_PER_FRAME * (1 + zipped), shutil.disk_usage(top).free
            if needed > free:
                raise BadInput(f"--frames {frames:,} needs {needed / 1e9:.0f} GB in {top.parent}, {free / 1e9:.0f} are free: set TMPDIR")
            started = time.perf_counter()
            write_official(top / "official", recordings(frames), zipped=zipped)
            seconds = time.perf_counter() - started
            ways = [way for way in WAYS if not (zipped and way.startswith("json.load"))]
            found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(repeats):
                for way in ways:
                    found[way].append(measured(way, top / "official", top / "store"))
            rows = report(frames, found)
            print(f"{'writing it':22}{rows[0]['runs'][0]['bytes'] / 1e6 / seconds:8.0f}{'':11}{frames / seconds:12,.0f}")
            results.append({"frames": frames, "zipped": zipped, "written_frames_per_s": frames / seconds, "ways": rows})
    print(json.dumps(results) if out is None else f"written to {out}")
    if out is not None:
        Path(out).write_text(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[600_000], metavar="N")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--zipped", action="store_true", help="read the archives in place")
    parser.add_argument("--json", metavar="FILE", help="write the figures there instead of printing them")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        run_way(given.way, given.folder, given.out)
    else:
        compare(given.frames, given.repeats, given.zipped, given.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
